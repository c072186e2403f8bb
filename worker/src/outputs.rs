//! Large outputs that stay here until somebody fetched them, over restarts too.
//!
//! Each has its bytes in the blob store, under the tag `output/ATTEMPT/`, and a small file in `DATA/outputs` that says all
//! that is needed to report it again: what is reported was durable before, so a worker that dies in any line of this has
//! either the whole of it or nothing, and a coordinator that hears a report twice takes it once. Whoever released an
//! output may still fetch it as long as nobody needs its room: it is cache then.
//!
//! ```text
//! magic: 8 | coordinator: 32 | written, milliseconds since 1970: 8 | job's length: 4 | job | report | BLAKE3 of all this: 32
//! ```
//!
//! Numbers are little endian; job and report are as they go over the wire.

use std::{
    collections::HashMap,
    fs,
    io::{self, Read},
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use prost::Message as _;
use talka_core::{
    coordinator::{Report, ReportOutcome, ReportOutput},
    ids::{AttemptId, PeerId},
    job::{BlobRef, JobSpec},
    limits,
};
use talka_peer::{
    blobs::BlobError,
    files::{Existing, write_durably},
};
use talka_proto::wire;

use crate::{
    control::now_millis,
    disk::{Disk, PinError, Pinned},
    world::LargeOutput,
};

/// What the tags of all outputs begin with.
const OUTPUT_TAGS: &str = "output/";
/// The last byte is raised whenever the layout changes.
const MAGIC: [u8; 8] = *b"talkaou\x01";
const JOB_AT: usize = MAGIC.len() + 32 + 8 + 4;
/// A job and a report, each of which comes in one message.
const RECORD_BYTES_MAX: u64 = 2 * limits::MESSAGE_BYTES_MAX as u64;

/// An output can't be kept.
#[derive(Debug, thiserror::Error)]
pub(crate) enum KeepError {
    /// There is no room for it, or the store does not work.
    #[error(transparent)]
    Pin(#[from] PinError),
    /// It can't be stored.
    #[error(transparent)]
    Store(#[from] BlobError),
    /// Its record can't be written.
    #[error("the record of an output can't be written")]
    Record(#[source] io::Error),
}

impl KeepError {
    /// Whether the disk, and not the owner's quota, is in the way.
    pub(crate) fn is_of_the_disk(&self) -> bool {
        !matches!(self, Self::Pin(PinError::NoRoom(_)))
    }
}

/// An output that was kept when the worker ended.
#[derive(Debug)]
pub(crate) struct Found {
    pub(crate) spec: Arc<JobSpec>,
    pub(crate) report: Report,
}

#[derive(Debug)]
struct Kept {
    since_millis: u64,
    _pinned: Pinned,
}

/// See the [module](self).
#[derive(Debug)]
pub(crate) struct Outputs {
    dir: PathBuf,
    coordinator: PeerId,
    disk: Disk,
    kept: Mutex<HashMap<AttemptId, Kept>>,
    /// Those of other coordinators, which a later start may serve.
    _foreign: Vec<Pinned>,
}

struct Record {
    coordinator: PeerId,
    since_millis: u64,
    found: Found,
}

impl Outputs {
    /// Finds what is kept for `coordinator`. What is damaged, incomplete or too old goes.
    pub(crate) async fn open(
        dir: PathBuf,
        coordinator: PeerId,
        disk: Disk,
    ) -> Result<(Arc<Self>, Vec<Found>), KeepError> {
        let listed = dir.clone();
        let records = tokio::task::spawn_blocking(move || list(&listed)).await;
        let records = records.map_err(io::Error::other).flatten().map_err(KeepError::Record)?;
        let (mut kept, mut foreign, mut all, mut named) =
            (HashMap::new(), Vec::new(), Vec::new(), Vec::new());
        for (path, record) in records {
            let attempt = record.as_ref().map(|record| record.found.report.attempt);
            let pinned = match &record {
                Some(record) if !is_too_old(record.since_millis) => pin_found(&disk, &record.found).await?,
                _ => None,
            };
            let (Some(Record { coordinator: of, since_millis, found }), Some(attempt), Some(pinned)) =
                (record, attempt, pinned)
            else {
                drop(fs::remove_file(path));
                continue;
            };
            named.push(output_tag(attempt));
            if of == coordinator {
                kept.insert(attempt, Kept { since_millis, _pinned: pinned });
                all.push(found);
            } else {
                foreign.push(pinned);
            }
        }
        // Of a worker that died before the record was written.
        for (tag, _) in disk.blobs().tags(OUTPUT_TAGS).await? {
            if !named.iter().any(|known| tag.starts_with(known.as_str())) {
                disk.blobs().untag(&tag).await?;
            }
        }
        let this = Self { dir, coordinator, disk, kept: Mutex::new(kept), _foreign: foreign };
        Ok((Arc::new(this), all))
    }

    /// Keeps an output. When this returns, it and its report outlive this process and the machine's next start.
    pub(crate) async fn keep(
        &self,
        spec: &JobSpec,
        report: &Report,
        output: LargeOutput,
    ) -> Result<(), KeepError> {
        let Some(blob) = remote(report) else { return Ok(()) };
        let attempt = report.attempt;
        let tag = output_tag(attempt);
        let pinned = self.disk.pin(&tag, &[blob]).await?;
        let blobs = self.disk.blobs();
        blobs.add_bytes(output.encoded, &format!("{tag}0")).await?;
        blobs.sync().await?;
        let since_millis = now_millis();
        let record = encode(self.coordinator, since_millis, spec, report);
        let path = self.path(attempt);
        let written =
            tokio::task::spawn_blocking(move || write_durably(&path, &record, Existing::Replace)).await;
        written.map_err(io::Error::other).flatten().map_err(KeepError::Record)?;
        self.lock().insert(attempt, Kept { since_millis, _pinned: pinned });
        Ok(())
    }

    /// Nobody needs this output any more: its bytes are cache from here on.
    pub(crate) fn release(self: &Arc<Self>, attempt: AttemptId) {
        if self.lock().contains_key(&attempt) {
            let this = self.clone();
            tokio::task::spawn_blocking(move || {
                // The record first: without it nobody reports again what is gone.
                if let Err(error) = fs::remove_file(this.path(attempt)) {
                    tracing::debug!(%error, %attempt, "the record of an output can't be removed");
                }
                this.lock().remove(&attempt);
            });
        }
    }

    /// Attempts whose outputs were kept for as long as anybody may ask.
    pub(crate) fn too_old(&self) -> Vec<AttemptId> {
        let kept = self.lock();
        kept.iter().filter(|(_, kept)| is_too_old(kept.since_millis)).map(|(attempt, _)| *attempt).collect()
    }

    fn path(&self, attempt: AttemptId) -> PathBuf {
        let task = attempt.task;
        self.dir.join(format!("{}-{}-{}", task.job.get(), task.index, attempt.number))
    }

    fn lock(&self) -> MutexGuard<'_, HashMap<AttemptId, Kept>> {
        // Changed by whole statements, so it holds even after a panic elsewhere.
        self.kept.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

/// The tag under which a large output is kept.
fn output_tag(attempt: AttemptId) -> String {
    format!("{OUTPUT_TAGS}{attempt}/")
}

/// The blob of a report whose output stays here.
fn remote(report: &Report) -> Option<BlobRef> {
    match &report.outcome {
        ReportOutcome::Execution { output: ReportOutput::Remote { blob, .. }, .. } => Some(*blob),
        _ => None,
    }
}

fn is_too_old(since_millis: u64) -> bool {
    Duration::from_millis(now_millis().saturating_sub(since_millis)) > limits::OUTPUT_KEPT_MAX
}

/// Pins the bytes of an output, if they are here.
async fn pin_found(disk: &Disk, found: &Found) -> Result<Option<Pinned>, BlobError> {
    let Some(blob) = remote(&found.report) else { return Ok(None) };
    if disk.blobs().size(blob.hash).await? != Some(blob.size) {
        return Ok(None);
    }
    match disk.pin(&output_tag(found.report.attempt), &[blob]).await {
        Ok(pinned) => Ok(Some(pinned)),
        Err(PinError::Store(error)) => Err(error),
        Err(PinError::NoRoom(error)) => {
            tracing::warn!(%error, "an output is given up: the disk quota was lowered");
            Ok(None)
        }
    }
}

fn list(dir: &Path) -> io::Result<Vec<(PathBuf, Option<Record>)>> {
    fs::create_dir_all(dir)?;
    let mut records = Vec::new();
    for entry in fs::read_dir(dir)?.take(limits::WORKER_HELD_MAX * 2) {
        let path = entry?.path();
        let mut bytes = Vec::new();
        let read = fs::File::open(&path).and_then(|file| file.take(RECORD_BYTES_MAX).read_to_end(&mut bytes));
        let record = read.ok().and_then(|_| decode(&bytes));
        records.push((path, record));
    }
    Ok(records)
}

fn encode(coordinator: PeerId, since_millis: u64, spec: &JobSpec, report: &Report) -> Vec<u8> {
    let spec = wire::JobSpec::from(spec).encode_to_vec();
    let mut bytes = MAGIC.to_vec();
    bytes.extend_from_slice(coordinator.as_bytes());
    bytes.extend_from_slice(&since_millis.to_le_bytes());
    bytes.extend_from_slice(&u32::try_from(spec.len()).unwrap_or(u32::MAX).to_le_bytes());
    bytes.extend(spec);
    bytes.extend(wire::Report::from(report).encode_to_vec());
    let hash = blake3::hash(&bytes);
    bytes.extend_from_slice(hash.as_bytes());
    bytes
}

/// The inverse of [`encode`]; `None` for anything else.
fn decode(bytes: &[u8]) -> Option<Record> {
    let (covered, hash) = bytes.split_last_chunk::<32>()?;
    if blake3::hash(covered) != *hash || !covered.starts_with(&MAGIC) {
        return None;
    }
    let (head, rest) = covered.split_at_checked(JOB_AT)?;
    let coordinator = PeerId::try_from(head.get(8..40)?).ok()?;
    let since_millis = u64::from_le_bytes(head.get(40..48)?.try_into().ok()?);
    let length = u32::from_le_bytes(head.get(48..52)?.try_into().ok()?);
    let (spec, report) = rest.split_at_checked(usize::try_from(length).ok()?)?;
    let spec = JobSpec::try_from(wire::JobSpec::decode(spec).ok()?).ok()?;
    let report = Report::try_from(wire::Report::decode(report).ok()?).ok()?;
    let found = Found { spec: Arc::new(spec), report };
    Some(Record { coordinator, since_millis, found })
}

#[cfg(test)]
mod tests {
    use talka_core::{
        ids::{BlobHash, InputDigest, JobId, OutcomeDigest, TaskId},
        job::{Inputs, RawJobSpec, TaskLimits},
        outcome::Exit,
        quantities::{Bytes, Fuel},
    };
    use talka_peer::blobs::BlobStore;

    use super::*;

    const ME: PeerId = PeerId::new([7; 32]);

    fn attempt(index: u64) -> AttemptId {
        AttemptId { task: TaskId { job: JobId::new(3), index }, number: 1 }
    }

    fn spec() -> JobSpec {
        let raw = RawJobSpec {
            name: "outputs".into(),
            bundle: BlobRef { hash: BlobHash::new([1; 32]), size: Bytes::new(10) },
            inputs: Inputs::Array { first: 0, count: 10 },
            args: vec![],
            env: vec![],
            datasets: vec![],
            limits: TaskLimits::default(),
            quorum: 2,
            seed: 0,
            clock_secs: 0,
            priority: 0,
            on: vec![],
            error_rate: None,
        };
        raw.validate().expect("valid")
    }

    fn large(index: u64) -> (Report, LargeOutput) {
        let encoded = vec![u8::try_from(index).expect("small"); 100_000];
        let hash = BlobHash::new(*blake3::hash(&encoded).as_bytes());
        let blob = BlobRef { hash, size: Bytes::of(&encoded) };
        let output = ReportOutput::Remote { blob, digest: OutcomeDigest::new([2; 32]) };
        let (exit, fuel, input) = (Exit::Ok, Fuel::new(5), InputDigest::new([3; 32]));
        let outcome = ReportOutcome::Execution { input, exit, fuel, resumed: false, output };
        (Report { attempt: attempt(index), outcome, wall_micros: 9 }, LargeOutput { encoded: encoded.into() })
    }

    async fn open(dir: &Path, coordinator: PeerId) -> (Arc<Outputs>, Vec<Found>) {
        let blobs = BlobStore::open(&dir.join("blobs")).await.expect("opened");
        let disk = Disk::open(blobs, Bytes::mib(64)).await.expect("opened");
        Outputs::open(dir.join("outputs"), coordinator, disk).await.expect("opened")
    }

    fn reports(found: &[Found]) -> Vec<AttemptId> {
        let mut attempts: Vec<_> = found.iter().map(|found| found.report.attempt).collect();
        attempts.sort_unstable();
        attempts
    }

    #[tokio::test]
    async fn outputs_and_their_reports_outlive_their_worker_until_they_are_released() {
        let dir = tempfile::tempdir().expect("a directory");
        let (outputs, found) = open(dir.path(), ME).await;
        assert_eq!(reports(&found), []);
        for index in 0..4 {
            let (report, output) = large(index);
            outputs.keep(&spec(), &report, output).await.expect("kept");
        }
        outputs.release(attempt(1));
        while outputs.lock().contains_key(&attempt(1)) {
            tokio::task::yield_now().await;
        }
        // One file is damaged, the bytes of another are gone, and one output has no record.
        let damaged = outputs.path(attempt(2));
        let mut bytes = fs::read(&damaged).expect("there");
        bytes[60] ^= 1;
        fs::write(&damaged, bytes).expect("written");
        let blobs = outputs.disk.blobs().clone();
        blobs.add_bytes(vec![1; 100_000], "output/3/9#1/0").await.expect("added");
        // The process is killed.
        std::mem::forget(outputs);
        blobs.shutdown().await;

        let (outputs, found) = open(dir.path(), ME).await;
        assert_eq!(reports(&found), [attempt(0), attempt(3)]);
        assert_eq!(
            found.iter().find(|found| found.report.attempt == attempt(3)).expect("there").report,
            large(3).0
        );
        assert_eq!(*found[0].spec, spec());
        let tags = outputs.disk.blobs().tags(OUTPUT_TAGS).await.expect("tags");
        assert_eq!(tags.len(), 2, "{tags:?}");
        assert_eq!(fs::read_dir(dir.path().join("outputs")).expect("a directory").count(), 2);
        assert_eq!(outputs.too_old(), []);
        let blobs = outputs.disk.blobs().clone();
        std::mem::forget(outputs);
        blobs.shutdown().await;

        let (outputs, found) = open(dir.path(), PeerId::new([8; 32])).await;
        assert_eq!(reports(&found), [], "they are another coordinator's");
        outputs.disk.blobs().collect().await;
        let (report, _) = large(0);
        let blob = remote(&report).expect("a blob");
        assert!(outputs.disk.blobs().has(blob.hash).await.expect("a store"), "and stay for that");
        outputs.disk.blobs().shutdown().await;
    }

    #[test]
    fn hostile_records_are_refused() {
        let good = encode(ME, 5, &spec(), &large(1).0);
        assert!(decode(&good).is_some());
        for cut in 0..good.len() {
            assert!(decode(&good[..cut]).is_none(), "{cut} bytes");
        }
        // A sum that fits, over lengths that do not.
        let mut long = good[..good.len() - 32].to_vec();
        long[48..52].copy_from_slice(&u32::MAX.to_le_bytes());
        let hash = blake3::hash(&long);
        long.extend_from_slice(hash.as_bytes());
        assert!(decode(&long).is_none());
    }
}
