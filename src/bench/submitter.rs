//! Who submits what is measured: one key, one connection, one program that does nothing.

use anyhow::{Context, bail, ensure};
use talka_core::{
    ids::PeerId,
    job::{BlobRef, Inputs, JobSpec, RawJobSpec},
    limits,
    signing::job_statement,
};
use talka_peer::{
    blobs::{AdmitAll, BlobServer, BlobStore, offer},
    connections::ConnectionLimits,
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
    rpc::{AuthorizedChannel, Client},
    ticket::Ticket,
};
use talka_proto::wire::{self, jobs_client::JobsClient, submit_event};
use tokio::task::JoinHandle;
use tokio_util::sync::CancellationToken;

use super::empty::EMPTY;
use crate::view;

/// See the [module](self).
#[derive(Debug)]
pub(super) struct Submitter {
    endpoint: PeerEndpoint,
    jobs: JobsClient<AuthorizedChannel>,
    bundle: BlobRef,
    /// Holds the program for as long as it is offered.
    blobs: BlobStore,
    identity: Identity,
    coordinator: PeerId,
    stop: CancellationToken,
    offering: JoinHandle<()>,
}

impl Submitter {
    /// Connects to the coordinator of a ticket and offers the program to it.
    pub(super) async fn connect(ticket: &Ticket) -> anyhow::Result<Self> {
        let identity = Identity::ephemeral();
        let endpoint = PeerEndpoint::bind(EndpointConfig::new(identity.clone()).on_loopback()).await?;
        let coordinator = ticket.coordinator.peer;
        let blobs = BlobStore::in_memory();
        let bundle = blobs.add_bytes(EMPTY, "bundle").await?;
        let server = BlobServer::new(&blobs, AdmitAll, None, ConnectionLimits::default());
        let stop = CancellationToken::new();
        let offering = offer(endpoint.clone(), ticket.coordinator.clone(), server, stop.clone());
        let offering = tokio::spawn(offering);
        let jobs = JobsClient::new(Client::new(endpoint.clone(), ticket).channel())
            .max_decoding_message_size(limits::MESSAGE_BYTES_MAX);
        Ok(Self { endpoint, jobs, bundle, blobs, identity, coordinator, stop, offering })
    }

    /// A job of so many tasks that do nothing.
    pub(super) fn job(&self, tasks: u64, quorum: u32) -> anyhow::Result<JobSpec> {
        let raw = RawJobSpec {
            quorum,
            ..RawJobSpec::plain("bench", self.bundle, Inputs::Array { first: 0, count: tasks })
        };
        raw.validate().context("the job breaks a limit of the grid")
    }

    /// Submits a job; returns its number when it is durable.
    pub(super) async fn submit(&self, spec: &JobSpec) -> anyhow::Result<u64> {
        let number: [u8; 16] = rand::random();
        let statement = job_statement(self.coordinator, self.identity.peer_id(), number, spec);
        let request = wire::SubmitRequest {
            request: number.to_vec().into(),
            spec: Some(spec.into()),
            signature: self.identity.sign(statement.as_bytes()).as_bytes().to_vec().into(),
        };
        let mut events = self.jobs.clone().submit(request).await?.into_inner();
        while let Some(event) = events.message().await? {
            if let Some(submit_event::Event::Accepted(info)) = event.event {
                return Ok(info.job);
            }
        }
        bail!("the coordinator did not say whether it takes the job")
    }

    /// Where a job stands.
    pub(super) async fn info(&self, job: u64) -> anyhow::Result<wire::JobInfo> {
        Ok(self.jobs.clone().get(wire::JobRequest { job }).await?.into_inner())
    }

    /// Follows a job until it has ended; every task must be done.
    pub(super) async fn until_done(
        &self,
        job: u64,
        mut on_change: impl FnMut(&wire::JobInfo),
    ) -> anyhow::Result<wire::JobInfo> {
        let mut infos = self.jobs.clone().watch(wire::JobRequest { job }).await?.into_inner();
        while let Some(info) = infos.message().await? {
            on_change(&info);
            if view::is_final(&info) {
                ensure!(view::is_success(&info), "{} of {} tasks were done", info.done, info.tasks);
                return Ok(info);
            }
        }
        bail!("the coordinator stopped telling about the job")
    }

    /// Waits for the result of a job of one task.
    pub(super) async fn result(&self, job: u64) -> anyhow::Result<wire::TaskResult> {
        let request =
            wire::ResultsRequest { job, from: 0, follow: true, with_output: true, final_only: false };
        let mut results = self.jobs.clone().results(request).await?.into_inner();
        let result = results.message().await?.context("the job has no result")?;
        ensure!(view::is_done(&result), "the empty task failed: {}", result.reason);
        Ok(result)
    }

    /// Says goodbye.
    pub(super) async fn close(self) {
        self.stop.cancel();
        // Its end is all that is wanted of it.
        drop(self.offering.await);
        self.endpoint.close().await;
        self.blobs.shutdown().await;
    }
}
