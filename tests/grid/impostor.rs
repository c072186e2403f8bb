//! A worker that speaks the protocol and keeps none of its rules: it reports on what others were given, and the same
//! again and again.

use std::time::Duration;

use talka_core::{
    coordinator::{Capacity, Report, ReportOutcome, ReportOutput},
    ids::{AttemptId, BlobHash, InputDigest, JobId, TaskId},
    outcome::{Exit, Output},
    quantities::{Bytes, Fuel},
};
use talka_peer::{
    endpoint::{EndpointConfig, PeerEndpoint},
    identity::Identity,
    rpc::Client,
    ticket::Ticket,
};
use talka_proto::{
    PROTOCOL,
    convert::assignments,
    wire::{self, coordinator_message::Message, grid_client::GridClient, worker_message},
};
use talka_worker::receipts::Signer;
use tokio::sync::{mpsc, oneshot};
use tokio_stream::wrappers::ReceiverStream;

use crate::harness::{Grid, LONG, number, sample, text, until};

/// Tasks of the job here.
const TASKS: u64 = 40;
/// How often it says everything.
const TIMES: usize = 3;

fn lie(attempt: AttemptId) -> Report {
    let output = Output { stdout: b"a lie".to_vec(), ..Output::default() };
    let outcome = ReportOutcome::Execution {
        input: InputDigest::new([7; 32]),
        exit: Exit::Ok,
        fuel: Fuel::new(1_000_000_000),
        resumed: false,
        output: ReportOutput::Inline(output.into()),
    };
    Report { attempt, outcome, wall_micros: 1 }
}

fn message(message: worker_message::Message) -> wire::WorkerMessage {
    wire::WorkerMessage { message: Some(message) }
}

/// Connects, takes a lease, and when it is told to reports on its tasks and all others, under every number, several times
/// over. Returns its key.
async fn impose(
    ticket: Ticket,
    leased: oneshot::Sender<()>,
    go: oneshot::Receiver<()>,
) -> anyhow::Result<String> {
    let identity = Identity::ephemeral();
    let endpoint = PeerEndpoint::bind(EndpointConfig::new(identity.clone()).on_loopback()).await?;
    let signer = Signer { identity: identity.clone(), coordinator: ticket.coordinator.peer };
    let client = Client::new(endpoint.clone(), &ticket);
    let mut grid = GridClient::new(client.channel());
    grid.join(wire::JoinRequest { protocol: PROTOCOL, agent: "impostor".into() }).await?;
    let (outbound, messages) = mpsc::channel(64);
    let capacity = Capacity { slots: 1, memory: Bytes::mib(1 << 10), cpus: 1, ..Capacity::default() };
    let hello = wire::Hello { capacity: Some(capacity.into()), ..wire::Hello::default() };
    outbound.send(message(worker_message::Message::Hello(hello))).await?;
    let mut inbound = grid.session(ReceiverStream::new(messages)).await?.into_inner();
    let mut bundle = None;
    let mut job = None;
    while job.is_none()
        && let Some(said) = inbound.message().await?
    {
        match said.message {
            Some(Message::Job(job)) => {
                let program = job.spec.and_then(|spec| spec.bundle).expect("a program");
                bundle = Some(BlobHash::try_from(&program.hash[..])?);
            }
            Some(Message::Lease(lease)) => {
                let (_, items) = assignments(lease)?;
                job = items.first().map(|item| item.attempt.task.job);
            }
            _ => {}
        }
    }
    let job: JobId = job.expect("a lease");
    anyhow::ensure!(leased.send(()).is_ok(), "nobody waits");
    go.await?;
    let everybody = (0..TASKS).flat_map(|index| {
        let task = TaskId { job, index };
        (1..=3).map(move |number| AttemptId { task, number })
    });
    let reports: Vec<Report> = everybody.map(lie).collect();
    let signature = signer.sign(&reports, |_| bundle);
    for _ in 0..TIMES {
        let reports = reports.iter().map(Into::into).collect();
        let reports = wire::Reports { reports, signature: signature.clone().into() };
        outbound.send(message(worker_message::Message::Reports(reports))).await?;
    }
    // What it said is taken before it is gone.
    drop(outbound);
    while let Ok(Ok(Some(_))) = tokio::time::timeout(Duration::from_secs(5), inbound.message()).await {}
    endpoint.close().await;
    Ok(identity.peer_id().to_string())
}

#[test]
fn reports_on_what_others_were_given_and_repeated_ones_count_for_nothing() {
    let mut grid = Grid::start_with(&["--reconnect-grace", "500ms"]);
    let array = format!("0-{}", TASKS - 1);
    let module = sample("primes");
    let submit = ["submit", "--quorum", "2", "--array", &array, &module, "--", "1000"];
    let job = number(&grid.json(submit), "job");
    let ticket: Ticket = grid.ticket().parse().expect("a ticket");
    let runtime = tokio::runtime::Runtime::new().expect("a runtime");
    let ((leased, has_lease), (go, told)) = (oneshot::channel(), oneshot::channel());
    let impostor = runtime.spawn(impose(ticket, leased, told));
    runtime.block_on(has_lease).expect("it gets what it wants");
    // In the middle of what others do.
    let _honest: Vec<_> = (0..2).map(|_| grid.start_worker()).collect();
    until("a first report", LONG, || (number(&grid.job(job), "attempts") > 0).then_some(()));
    go.send(()).expect("it waits");
    let peer = runtime.block_on(impostor).expect("no panic").expect("it is let do it");
    grid.talka(["job", "wait", &job.to_string()]).run().success();

    let truth = number(
        &grid.json(["submit", "--wait", "--quorum", "2", "--array", &array, &module, "--", "1000"]),
        "job",
    );
    let digests = |job| grid.results(job).iter().map(|line| text(line, "digest")).collect::<Vec<_>>();
    assert_eq!(digests(job), digests(truth));
    for row in grid.credit() {
        if row.peer == peer {
            // It voted once at most on each task that it was given, and no vote was right.
            assert!(row.amount == 0.0 && row.validated == 0, "{row:?}");
            assert!(row.invalid <= TASKS, "{row:?}");
        } else {
            assert!(row.invalid == 0 && row.amount > 0.0, "{row:?}");
        }
    }
}
