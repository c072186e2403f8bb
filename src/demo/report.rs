//! What the demo says at its end: who did what, and what came of it.

use std::{path::Path, time::Duration};

use serde::Serialize;
use talka_core::quantities::{Bytes, Credit, Span};
use talka_proto::wire;

use super::{
    documents::Count,
    grid::Stopped,
    picture::{Depth, Picture, SIZE},
    work::Finished,
};
use crate::{
    client::{self, Client},
    format::peer_text,
    output::Out,
    view::{self, Summary},
};

/// Everything that the demo found out.
#[derive(Debug)]
pub(super) struct Report {
    jobs: [Finished; 2],
    workers: Vec<WorkerRow>,
    documents: Vec<Count>,
    wall: Duration,
}

/// What one worker did.
#[derive(Debug, Clone, Default)]
struct WorkerRow {
    peer: String,
    credit: Credit,
    validated: u64,
    invalid: u64,
    from_coordinator: u64,
    from_peers: u64,
}

/// `talka demo --json`.
#[derive(Debug, Serialize)]
struct ReportView<'a> {
    tasks: u64,
    done: u64,
    failed: u64,
    attempts: u64,
    credit_total: f64,
    bytes_from_coordinator: u64,
    bytes_from_peers: u64,
    wall_secs: f64,
    picture: &'a Path,
    /// The grid's directory, if it was kept.
    directory: Option<&'a Path>,
    processes_stopped: usize,
    processes_killed: usize,
    jobs: Vec<JobView>,
    workers: Vec<WorkerView>,
    documents: &'a [Count],
}

#[derive(Debug, Serialize)]
struct JobView {
    name: &'static str,
    #[serde(flatten)]
    summary: Summary,
}

#[derive(Debug, Serialize)]
struct WorkerView {
    peer: String,
    credit: f64,
    validated: u64,
    invalid: u64,
    bytes_from_coordinator: u64,
    bytes_from_peers: u64,
}

impl Report {
    /// Asks the coordinator who did what.
    pub(super) async fn gather(
        client: &Client,
        workers: Vec<String>,
        jobs: [Finished; 2],
        documents: Vec<Count>,
        wall: Duration,
    ) -> anyhow::Result<Self> {
        let credit = client::unary(client.ledger().credit(wire::CreditRequest { days: 0 })).await?.peers;
        let peers = client::unary(client.peers().list(wire::ListPeersRequest {})).await?.peers;
        let row = |peer: String| {
            let earned = credit.iter().find(|row| peer_text(&row.peer) == peer);
            let capacity =
                peers.iter().find(|row| peer_text(&row.peer) == peer).and_then(|row| row.capacity.as_ref());
            WorkerRow {
                credit: earned.map(|row| view::credit(&row.credit_nanos)).unwrap_or_default(),
                validated: earned.map_or(0, |row| row.validated),
                invalid: earned.map_or(0, |row| row.invalid),
                from_coordinator: capacity.map_or(0, |capacity| capacity.fetched_from_coordinator_bytes),
                from_peers: capacity.map_or(0, |capacity| capacity.fetched_from_peers_bytes),
                peer,
            }
        };
        let workers = workers.into_iter().map(row).collect();
        Ok(Self { jobs, workers, documents, wall })
    }

    /// Whether every task of both jobs is done.
    pub(super) fn is_success(&self) -> bool {
        self.jobs.iter().all(|job| view::is_success(&job.info))
    }

    fn sum(&self, count: impl Fn(&wire::JobInfo) -> u64) -> u64 {
        self.jobs.iter().map(|job| count(&job.info)).sum()
    }

    fn total(&self) -> WorkerRow {
        let mut total = WorkerRow { peer: "all".to_owned(), ..WorkerRow::default() };
        for row in &self.workers {
            total.credit += row.credit;
            total.validated += row.validated;
            total.invalid += row.invalid;
            total.from_coordinator += row.from_coordinator;
            total.from_peers += row.from_peers;
        }
        total
    }

    /// Prints it in the user's mode.
    pub(super) fn print(
        &self,
        out: Out,
        picture: &Picture,
        file: &Path,
        directory: Option<&Path>,
        stopped: Stopped,
    ) -> anyhow::Result<()> {
        if out.is_json() {
            return out.json(&self.view(file, directory, stopped));
        }
        if out.is_quiet() {
            return out.line(file.display());
        }
        if out.colors_stdout() {
            out.line(format!("\n{}", picture.preview(Depth::of_terminal())))?;
        }
        self.print_workers(out)?;
        self.print_documents(out)?;
        self.print_summary(out, file, directory, stopped)
    }

    fn print_workers(&self, out: Out) -> anyhow::Result<()> {
        let names = (1..=self.workers.len()).map(|number| format!("worker {number}"));
        let names = names.chain(["all".to_owned()]);
        let total = self.total();
        let rows = names.zip(self.workers.iter().chain([&total])).map(|(name, row)| {
            [
                name,
                row.validated.to_string(),
                row.invalid.to_string(),
                format!("{:.3}", row.credit.as_f64()),
                Bytes::new(row.from_coordinator).to_string(),
                Bytes::new(row.from_peers).to_string(),
            ]
        });
        out.table(["", "validated", "invalid", "credit", "from coordinator", "from peers"], rows)
    }

    fn print_documents(&self, out: Out) -> anyhow::Result<()> {
        if self.documents.is_empty() {
            return Ok(());
        }
        let row = |count: &Count| {
            [
                count.lines.to_string(),
                count.words.to_string(),
                count.bytes.to_string(),
                count.document.clone(),
                count.top_text(),
            ]
        };
        let titles = ["lines", "words", "bytes", "document", "most frequent"];
        out.table(titles, self.documents.iter().map(row))
    }

    fn print_summary(
        &self,
        out: Out,
        file: &Path,
        directory: Option<&Path>,
        stopped: Stopped,
    ) -> anyhow::Result<()> {
        let Stopped { gracefully, killed } = stopped;
        let (tasks, done) = (self.sum(|info| info.tasks), self.sum(|info| info.done));
        let killed = if killed == 0 { String::new() } else { format!(" ({killed} had to be killed)") };
        let check = self.documents.first().map_or_else(String::new, |count| {
            format!("wc {0} (lines, words, bytes; in the source directory)", count.document)
        });
        out.fields([
            ("picture", format!("{}, {SIZE} × {SIZE} pixels", file.display())),
            ("check", check),
            ("tasks", format!("{done} of {tasks} done with {} attempts", self.sum(|info| info.attempts))),
            (
                "credit",
                format!("{} (1 credit is 10⁹ instructions that workers agreed on)", self.total().credit),
            ),
            ("time", Span(self.wall).to_string()),
            ("processes", format!("{} stopped, none left{killed}", gracefully + stopped.killed)),
            ("directory", directory.map(|dir| dir.display().to_string()).unwrap_or_default()),
        ])
    }

    fn view<'a>(&'a self, file: &'a Path, directory: Option<&'a Path>, stopped: Stopped) -> ReportView<'a> {
        let total = self.total();
        let worker = |row: &WorkerRow| WorkerView {
            peer: row.peer.clone(),
            credit: row.credit.as_f64(),
            validated: row.validated,
            invalid: row.invalid,
            bytes_from_coordinator: row.from_coordinator,
            bytes_from_peers: row.from_peers,
        };
        ReportView {
            tasks: self.sum(|info| info.tasks),
            done: self.sum(|info| info.done),
            failed: self.sum(|info| info.failed),
            attempts: self.sum(|info| info.attempts),
            credit_total: total.credit.as_f64(),
            bytes_from_coordinator: total.from_coordinator,
            bytes_from_peers: total.from_peers,
            wall_secs: self.wall.as_secs_f64(),
            picture: file,
            directory,
            processes_stopped: stopped.gracefully,
            processes_killed: stopped.killed,
            jobs: self
                .jobs
                .iter()
                .map(|job| JobView { name: job.name, summary: Summary::from(&job.info) })
                .collect(),
            workers: self.workers.iter().map(worker).collect(),
            documents: &self.documents,
        }
    }
}
