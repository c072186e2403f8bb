//! `Ledger`: who has earned what, and what shows it.

use std::{
    collections::{BTreeMap, BTreeSet},
    pin::Pin,
};

use futures_util::Stream;
use talka_core::{
    coordinator::{Coordinator, SignedReceipts},
    ids::{BlobHash, JobId, PeerId, PeerNo, TaskId},
    ledger::{Head, TreeHash, consistency, day_of, inclusion},
    limits,
    quantities::Credit,
    signing::Receipt,
};
use talka_proto::{
    convert::{InvalidMessage, credit_bytes, id_bytes},
    wire::{self, ledger_server::Ledger},
};
use tokio::sync::mpsc;
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::Context;
use crate::{
    clock,
    log::{Leaves, Log},
    store::{Reader, StoreError},
};

/// See the [module](self).
pub(crate) struct LedgerService(pub(crate) Context);

/// Messages of entries that wait for a client which reads slowly.
const STREAM_QUEUE: usize = 4;
/// Entries in one message, some 60 bytes each.
const ENTRIES_PER_MESSAGE: u32 = 1000;

#[tonic::async_trait]
impl Ledger for LedgerService {
    async fn credit(
        &self,
        request: Request<wire::CreditRequest>,
    ) -> Result<Response<wire::CreditReply>, Status> {
        let days = request.get_ref().days;
        let now = clock::now();
        let (now_secs, today) = (now.millis() / 1000, day_of(now.millis() / 1000));
        let question = move |reader: &dyn Reader| {
            let of_days = match days {
                0 => vec![],
                days => reader.credit_days((today + 1).saturating_sub(days))?,
            };
            Ok((reader.standings()?, of_days))
        };
        let (mut standings, days) = self.0.read(question).await?;
        let days = days.into_iter().filter_map(|(no, day, credit)| {
            let place = standings.binary_search_by_key(&no, |standing| standing.no).ok()?;
            let peer = id_bytes(standings[place].id.as_bytes());
            Some(wire::DayCredit { peer, day, credit_nanos: credit_bytes(credit) })
        });
        let mut days: Vec<_> = days.collect();
        days.sort_by_key(|row| row.day);
        standings.sort_by_key(|standing| (std::cmp::Reverse(standing.total.credit), standing.id));
        let peers = standings.iter().map(|standing| {
            let (day, of_day) = standing.day;
            let today = if day == today { of_day } else { Credit::default() };
            wire::PeerCredit {
                peer: id_bytes(standing.id.as_bytes()),
                credit_nanos: credit_bytes(standing.total.credit),
                validated: u64::try_from(standing.total.validated).unwrap_or(0),
                invalid: u64::try_from(standing.total.invalid).unwrap_or(0),
                owner: standing.names.owner().into(),
                team: standing.names.team().into(),
                average: standing.average.at(now_secs),
                average_millis: standing.average.at_secs * 1000,
                today_nanos: credit_bytes(today),
                number: standing.no.get(),
            }
        });
        Ok(Response::new(wire::CreditReply { peers: peers.collect(), days, now_millis: now.millis() }))
    }

    async fn head(&self, _: Request<wire::HeadRequest>) -> Result<Response<wire::LedgerHead>, Status> {
        let log = self.0.read(|reader| reader.ledger()).await?;
        Ok(Response::new(self.sign(log.size(), log.root())))
    }

    type EntriesStream = Pin<Box<dyn Stream<Item = Result<wire::EntriesReply, Status>> + Send>>;

    async fn entries(
        &self,
        request: Request<wire::EntriesRequest>,
    ) -> Result<Response<Self::EntriesStream>, Status> {
        let wire::EntriesRequest { mut from, to } = request.into_inner();
        let context = self.0.clone();
        let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
        tokio::spawn(async move {
            while from < to {
                let limit = u32::try_from(to - from).unwrap_or(u32::MAX).min(ENTRIES_PER_MESSAGE);
                let page = context.read(move |reader| reader.ledger_entries(from, limit)).await;
                if page.as_ref().is_ok_and(Vec::is_empty) {
                    return;
                }
                from += page.as_ref().map_or(0, |page| page.len() as u64);
                let failed = page.is_err();
                let reply = page
                    .map(|page| wire::EntriesReply { entries: page.into_iter().map(Into::into).collect() });
                // Whoever went away need not be told the rest.
                if sender.send(reply).await.is_err() || failed {
                    return;
                }
            }
        });
        Ok(Response::new(Box::pin(ReceiverStream::new(receiver))))
    }

    async fn prove(
        &self,
        request: Request<wire::ProveRequest>,
    ) -> Result<Response<wire::ProveReply>, Status> {
        let wire::ProveRequest { old_size, size } = request.into_inner();
        let question = move |reader: &dyn Reader| {
            if old_size > size || size > reader.ledger()?.size() {
                return Ok(None);
            }
            consistency(&mut Log::new(reader), old_size, size).map(Some)
        };
        let path = self.0.read(question).await?;
        let path = path.ok_or_else(|| InvalidMessage::new("size", "the ledger is not that long"))?;
        Ok(Response::new(wire::ProveReply { path: hashes(&path) }))
    }

    async fn receipt(
        &self,
        request: Request<wire::TaskRequest>,
    ) -> Result<Response<wire::ReceiptReply>, Status> {
        let wire::TaskRequest { job, position } = request.into_inner();
        let job = self.0.resolve(job).await?;
        let task = TaskId { job, index: position };
        let progress = self.0.progress(job).await?;
        let found = self.0.read(move |reader| Found::read(reader, task)).await?;
        let found = found.ok_or_else(|| {
            Status::not_found(format!("task {task} has no entry in the ledger: it is not final"))
        })?;
        let input = self.0.inputs.range(job, position);
        let numbers: Vec<PeerNo> = found.signed.iter().map(|signed| signed.peer).collect();
        let look_up = move |coordinator: &Coordinator| -> Vec<Option<PeerId>> {
            numbers.iter().map(|no| coordinator.peer_id(*no)).collect()
        };
        let names = self.0.reactor.ask(look_up).await?;
        let bundles = self.bundles(&found.signed).await?;
        let workers = found.signed.iter().zip(names).filter_map(|(signed, name)| Some((signed, name?)));
        let workers = workers.flat_map(|(signed, peer)| worker_receipts(signed, peer, task, &bundles));
        Ok(Response::new(wire::ReceiptReply {
            head: Some(self.sign(found.size, found.root)),
            place: found.place,
            entry: found.entry.into(),
            path: hashes(&found.path),
            job: Some(self.0.info_of(&progress)),
            input_offset: input.start,
            input_length: input.end - input.start,
            workers: workers.collect(),
        }))
    }
}

/// What the store has about one final task.
struct Found {
    size: u64,
    root: TreeHash,
    place: u64,
    entry: Vec<u8>,
    path: Vec<TreeHash>,
    signed: Vec<SignedReceipts>,
}

impl Found {
    fn read(reader: &dyn Reader, task: TaskId) -> Result<Option<Self>, StoreError> {
        let Some(place) = reader.ledger_place(task)? else { return Ok(None) };
        // After the place was found, so that it is in this log.
        let log = reader.ledger()?;
        let Some(entry) = reader.ledger_entries(place, 1)?.pop() else { return Ok(None) };
        let path = inclusion(&mut Log::new(reader), place, log.size())?;
        let signed = reader.receipts(task)?.into_iter().take(limits::RECEIPTS_PER_TASK_MAX).collect();
        Ok(Some(Self { size: log.size(), root: log.root(), place, entry, path, signed }))
    }
}

/// What one worker signed about a task, each with its path to what the signature is over.
fn worker_receipts(
    signed: &SignedReceipts,
    peer: PeerId,
    task: TaskId,
    bundles: &BTreeMap<JobId, BlobHash>,
) -> Vec<wire::WorkerReceipt> {
    let leaf = |receipt: &Receipt| Some(receipt.leaf(*bundles.get(&receipt.attempt.task.job)?));
    // Without all leaves there is no path. Every job that was ever reported on is known.
    let Some(leaves) = signed.receipts.iter().map(leaf).collect::<Option<Vec<_>>>() else { return vec![] };
    let count = leaves.len() as u64;
    let mut tree = Leaves(leaves);
    let of_task = (0..count).zip(&signed.receipts).filter(|(_, receipt)| receipt.attempt.task == task);
    let receipts = of_task.map(|(place, receipt)| {
        let path = inclusion(&mut tree, place, count).unwrap_or_else(|never| match never {});
        wire::WorkerReceipt {
            peer: id_bytes(peer.as_bytes()),
            number: receipt.attempt.number,
            outcome: id_bytes(receipt.outcome.as_bytes()),
            fuel: receipt.fuel.get(),
            resumed: receipt.resumed,
            place,
            count,
            path: hashes(&path),
            signature: signed.signature.to_vec().into(),
        }
    });
    receipts.collect()
}

impl LedgerService {
    /// The bundles of all jobs that are named: a worker signs for several jobs at once.
    async fn bundles(&self, signed: &[SignedReceipts]) -> Result<BTreeMap<JobId, BlobHash>, Status> {
        let receipts = signed.iter().flat_map(|signed| &signed.receipts);
        let jobs: BTreeSet<JobId> = receipts.map(|receipt| receipt.attempt.task.job).collect();
        let question = move |coordinator: &Coordinator| -> BTreeMap<JobId, BlobHash> {
            let bundle = |job: &JobId| Some((*job, coordinator.job(*job).ok()?.submission.spec.bundle.hash));
            jobs.iter().filter_map(bundle).collect()
        };
        Ok(self.0.reactor.ask(question).await?)
    }

    fn sign(&self, size: u64, root: TreeHash) -> wire::LedgerHead {
        let identity = &self.0.identity;
        let head = Head { coordinator: identity.peer_id(), size, root, at: clock::now() };
        wire::LedgerHead {
            coordinator: id_bytes(head.coordinator.as_bytes()),
            size,
            root: id_bytes(root.as_bytes()),
            at_millis: head.at.millis(),
            signature: identity.sign(head.statement().as_bytes()).as_bytes().to_vec().into(),
        }
    }
}

fn hashes(path: &[TreeHash]) -> Vec<bytes::Bytes> {
    path.iter().map(|hash| id_bytes(hash.as_bytes())).collect()
}
