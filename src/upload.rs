//! Hands a job over: its blobs are offered to the coordinator, which pulls what it lacks and then accepts.

use std::path::PathBuf;

use anyhow::Context;
use indicatif::ProgressBar;
use talka_core::{
    job::{BlobRef, Inputs, JobSpec},
    limits,
    quantities::Bytes,
    signing::job_statement,
};
use talka_peer::{
    blobs::{AdmitAll, BlobServer, BlobStore, offer},
    connections::ConnectionLimits,
};
use talka_proto::wire::{self, submit_event};
use tempfile::TempDir;
use tokio_util::sync::CancellationToken;
use tonic::Status;

use crate::{
    cli::Program,
    client::Client,
    error::{Code, Failure, list},
    inputs::{MEMORY_BYTES_MAX, Packed, Spool},
    output::Out,
    progress::bytes_bar,
    watch::{Retry, ended_early},
};

/// Times that the coordinator may fail to fetch from here before the submission is given up: its connection
/// may break while ours does not.
const FETCH_FAILURES_MAX: u32 = 3;

/// A job and its blobs, ready to be submitted.
#[derive(Debug)]
pub(crate) struct Upload {
    spec: JobSpec,
    blobs: BlobStore,
    /// Where the store lies, if it is too large for memory. Goes away with this value.
    _dir: Option<TempDir>,
}

impl Upload {
    /// Puts everything that the job needs into a store of its own.
    pub(crate) async fn prepare(
        program: Program,
        module: Vec<u8>,
        packed: Option<Packed>,
    ) -> anyhow::Result<Self> {
        let index = packed.as_ref().map(|packed| packed.index.encode()).unwrap_or_default();
        let inputs = packed.as_ref().map_or(0, |packed| packed.index.total());
        let datasets = dataset_bytes(&program.datasets)?;
        let total = module.len() as u64 + index.len() as u64 + inputs + datasets;
        let (blobs, dir) = if total <= MEMORY_BYTES_MAX {
            (BlobStore::in_memory(), None)
        } else {
            let dir = TempDir::with_prefix("talka-submit-").context("cannot create a temporary directory")?;
            (BlobStore::open(dir.path()).await?, Some(dir))
        };
        let mut draft = program.draft;
        draft.bundle = blobs.add_bytes(module, "bundle").await?;
        if let Some(packed) = packed {
            let count = packed.index.count();
            let data = add(&blobs, packed.data).await?;
            let index = blobs.add_bytes(index, "index").await?;
            draft.inputs = Inputs::Packed { data, index, count };
        }
        for (name, path) in &program.datasets {
            let blob = blobs.add_file(path, &format!("data/{name}")).await?;
            let known = draft.datasets.iter_mut().find(|dataset| dataset.name == *name);
            if let Some(dataset) = known {
                dataset.blob = blob;
            }
        }
        let spec = draft.validate().map_err(|invalid| {
            Failure::new(Code::Usage, list("the job breaks a limit of the grid", &invalid.problems))
        })?;
        Ok(Self { spec, blobs, _dir: dir })
    }

    /// Submits the job. The same request is repeated when the connection breaks, so that it becomes one job
    /// and not two.
    pub(crate) async fn submit(self, client: &Client, out: Out) -> anyhow::Result<wire::JobInfo> {
        let server = BlobServer::new(&self.blobs, AdmitAll, None, ConnectionLimits::default());
        let (endpoint, to) = (client.endpoint().clone(), client.address().clone());
        let offering = offer(endpoint, to, server, CancellationToken::new());
        let number: [u8; 16] = rand::random();
        let me = client.identity();
        let statement = job_statement(client.coordinator(), me.peer_id(), number, &self.spec);
        let request = wire::SubmitRequest {
            request: number.to_vec().into(),
            spec: Some((&self.spec).into()),
            signature: me.sign(statement.as_bytes()).as_bytes().to_vec().into(),
        };
        let bar = bytes_bar(out, "sending", Some(0));
        let accepted = tokio::select! {
            accepted = until_accepted(client, out, &request, &bar) => accepted,
            // Ends only when it is told to.
            () = offering => Err(Failure::new(Code::Internal, "the offer of blobs ended")),
        };
        bar.finish_and_clear();
        self.blobs.shutdown().await;
        Ok(accepted?)
    }
}

async fn until_accepted(
    client: &Client,
    out: Out,
    request: &wire::SubmitRequest,
    bar: &ProgressBar,
) -> Result<wire::JobInfo, Failure> {
    let mut retry = Retry::new(client, out);
    let mut fetch_failures = 0;
    loop {
        let broken = match attempt(client, request, bar).await {
            Ok(info) => return Ok(info),
            Err(status) if status.code() == tonic::Code::FailedPrecondition => {
                fetch_failures += 1;
                if fetch_failures >= FETCH_FAILURES_MAX {
                    return Err(status.into());
                }
                Status::unavailable(status.message())
            }
            Err(status) => status,
        };
        retry.failed(broken).await?;
    }
}

async fn attempt(
    client: &Client,
    request: &wire::SubmitRequest,
    bar: &ProgressBar,
) -> Result<wire::JobInfo, Status> {
    let mut events = client.jobs().submit(request.clone()).await?.into_inner();
    while let Some(event) = events.message().await? {
        match event.event {
            Some(submit_event::Event::Fetching(fetching)) => {
                bar.set_length(fetching.total_bytes);
                bar.set_position(fetching.done_bytes);
            }
            Some(submit_event::Event::Accepted(info)) => return Ok(info),
            None => {}
        }
    }
    Err(ended_early())
}

async fn add(blobs: &BlobStore, data: Spool) -> anyhow::Result<BlobRef> {
    const TAG: &str = "inputs";
    Ok(match data {
        Spool::Memory(bytes) => blobs.add_bytes(bytes, TAG).await?,
        Spool::Disk(file) => blobs.add_file(file.path(), TAG).await?,
    })
}

/// All datasets together; each that can't be used is named.
fn dataset_bytes(datasets: &[(String, PathBuf)]) -> Result<u64, Failure> {
    let mut problems = Vec::new();
    let mut total = 0u64;
    for (name, path) in datasets {
        match path.metadata() {
            Ok(metadata) if metadata.is_file() => total = total.saturating_add(metadata.len()),
            Ok(_) => problems.push(format!("--data {name}={}: not a file", path.display())),
            Err(error) => problems.push(format!("--data {name}={}: {error}", path.display())),
        }
    }
    if !problems.is_empty() {
        return Err(Failure::new(Code::Io, list("some datasets can't be read", &problems)));
    }
    let max = limits::DATASETS_BYTES_MAX;
    if total > max {
        let (total, max) = (Bytes::new(total), Bytes::new(max));
        let message = format!("all --data files together have {total}, above the limit of {max}");
        return Err(Failure::new(Code::Limit, message));
    }
    Ok(total)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn datasets_that_can_not_be_used_are_all_named() {
        let dir = tempfile::tempdir().expect("a directory");
        let good = dir.path().join("good");
        std::fs::write(&good, "12345").expect("written");
        let datasets = [
            ("good".to_owned(), good),
            ("dir".to_owned(), dir.path().to_owned()),
            ("gone".to_owned(), dir.path().join("gone")),
        ];
        assert_eq!(dataset_bytes(&datasets[..1]).expect("a file"), 5);
        let error = dataset_bytes(&datasets).expect_err("two problems").to_string();
        assert!(error.contains("--data dir=") && error.contains("--data gone="), "{error}");
    }
}
