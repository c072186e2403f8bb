//! What comes back: reports are recorded, judged, and turned into final tasks with their credit.

use std::{collections::BTreeMap, sync::Arc};

use super::{
    Coordinator, Examined, FinalOutput, FinalRow, Grant, PendingOutput, PendingReport, PendingRow,
    TaskVerdict, ToWorker,
    effects::{Effects, FetchOutput, OutputSource},
    task::{Attempt, AttemptState, Reported, Task},
    unchecked::Word,
};
use crate::{
    digest::outcome_digest,
    ids::{AttemptId, InputDigest, OutcomeDigest, PeerId, PeerNo, SessionId, TaskId},
    job::{BlobRef, JobState, TaskLimits},
    limits,
    mutants::{Mutant, is_active},
    outcome::{Exit, NoResult, Output},
    quantities::{Credit, Fuel, Timestamp},
    trust::Policy,
    validation::{Agreed, Verdict},
};

/// How one attempt ended, as its worker says.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Report {
    /// Which attempt.
    pub attempt: AttemptId,
    /// How it ended.
    pub outcome: ReportOutcome,
    /// How long it took.
    pub wall_micros: u64,
}

impl Report {
    /// Whether its output stays with the worker for now.
    pub(crate) fn is_remote(&self) -> bool {
        matches!(&self.outcome, ReportOutcome::Execution { output: ReportOutput::Remote { .. }, .. })
    }
}

/// See [`Report`].
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportOutcome {
    /// The program ended.
    Execution {
        /// What the sandbox fed to it.
        input: InputDigest,
        /// How it ended.
        exit: Exit,
        /// Executed operators.
        fuel: Fuel,
        /// Whether it went on from a checkpoint, so that its fuel is not to be compared.
        resumed: bool,
        /// What it wrote.
        output: ReportOutput,
    },
    /// The attempt says nothing about the program.
    NoResult(NoResult),
}

/// The output of a report.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ReportOutput {
    /// Small enough to come along. The digest is computed from it, never believed.
    Inline(Arc<Output>),
    /// Kept by the worker. The digest is a claim until the output is fetched.
    Remote {
        /// What to fetch.
        blob: BlobRef,
        /// What it will digest to.
        digest: OutcomeDigest,
    },
}

/// What a report leads to for its worker.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum Receipt {
    /// It is on record; a remote output has to be kept.
    Recorded,
    /// It is on record or refused for good; nothing has to be kept.
    Released,
}

/// How a task ends, but for what is counted.
struct Ending {
    verdict: TaskVerdict,
    outcome: Option<OutcomeDigest>,
    grants: Vec<Grant>,
    output: FinalOutput,
}

impl Ending {
    fn without_result(verdict: TaskVerdict) -> Self {
        Self { verdict, outcome: None, grants: vec![], output: FinalOutput::Nothing }
    }
}

impl ReportOutcome {
    /// What remains of it within the limits of a task: no sandbox reports more, so whoever does is out of order,
    /// and says nothing about the program.
    fn within(self, limits: &TaskLimits) -> Self {
        let (fuel, output) = match &self {
            Self::Execution { fuel, output, .. } => (fuel, output),
            // Whether an output can be had is not for a worker to say.
            Self::NoResult(NoResult::OutputLost) => return Self::NoResult(NoResult::Internal),
            Self::NoResult(_) => return self,
        };
        let bytes = match output {
            ReportOutput::Inline(output) => output.len(),
            ReportOutput::Remote { .. } => 0,
        };
        let bytes_max =
            limits::INLINE_OUTPUT_BYTES_MAX.min(limits.output.get() + limits::TASK_STDERR_BYTES_MAX as u64);
        if *fuel > limits.fuel || bytes > bytes_max { Self::NoResult(NoResult::Internal) } else { self }
    }
}

impl Coordinator {
    /// Reports of one worker. Each is settled by a message that follows the commit.
    pub fn on_reports<R: Into<Examined>>(
        &mut self,
        now: Timestamp,
        session: SessionId,
        reports: Vec<R>,
        fx: &mut Effects,
    ) {
        let Some(peer) = self.sessions.get(&session).copied() else { return };
        self.shares.set_now(now);
        let (mut attempts, mut released) = (Vec::with_capacity(reports.len()), Vec::new());
        for report in reports {
            let report: Examined = report.into();
            let id = report.report.attempt;
            attempts.push(id);
            // What came along is nowhere else, so there is nothing to be released.
            let is_remote = report.report.is_remote();
            if self.take_report(now, peer, report, fx) == Receipt::Released && is_remote {
                released.push(id);
            }
            self.evaluate(now, id.task, fx);
            self.keep_report(id, fx);
        }
        if let Some(worker) = self.workers.get_mut(&peer) {
            worker.last_seen = now;
        }
        fx.messages.push((session, ToWorker::Settled { attempts, released }));
        self.pump(now, peer, fx);
        self.feed(now, fx);
    }

    fn take_report(&mut self, now: Timestamp, peer: PeerNo, examined: Examined, fx: &mut Effects) -> Receipt {
        let id = examined.report.attempt;
        let Some(job) = self.jobs.get_mut(&id.task.job).filter(|job| job.state == JobState::Running) else {
            return Receipt::Released;
        };
        let bundle = job.submission.spec.bundle.hash;
        let task_limits = job.submission.spec.limits;
        let Some(task) = job.open.get_mut(&id.task.index) else { return Receipt::Released };
        let known = task.inline_outcomes();
        let Some(attempt) = task
            .attempt_mut(id.number)
            .filter(|attempt| attempt.peer == peer || is_active(Mutant::CountsForeign))
        else {
            return Receipt::Released;
        };
        match &attempt.state {
            AttemptState::Leased | AttemptState::Expired => {}
            AttemptState::Gone if is_active(Mutant::CountsGivenUp) => {}
            AttemptState::Gone | AttemptState::NoResult(_) => return Receipt::Released,
            AttemptState::Reported(earlier) => {
                let remote = matches!(earlier.output, PendingOutput::Remote(_));
                return if remote { Receipt::Recorded } else { Receipt::Released };
            }
        }
        let known_outcome = examined.outcome(bundle);
        let Report { outcome, wall_micros, .. } = examined.report;
        let (state, receipt) = match outcome.within(&task_limits) {
            ReportOutcome::NoResult(reason) => (AttemptState::NoResult(reason), Receipt::Released),
            ReportOutcome::Execution { input, exit, fuel, resumed, output } => match output {
                ReportOutput::Inline(output) => {
                    let outcome =
                        known_outcome.unwrap_or_else(|| outcome_digest(bundle, input, exit, &output));
                    let output = if known.contains(&outcome) {
                        PendingOutput::Repeated
                    } else {
                        PendingOutput::Inline(output)
                    };
                    let reported = Reported { outcome, input, exit, fuel, resumed, output };
                    (AttemptState::Reported(reported.into()), Receipt::Released)
                }
                ReportOutput::Remote { blob, digest } => {
                    let output = PendingOutput::Remote(blob);
                    let reported = Reported { outcome: digest, input, exit, fuel, resumed, output };
                    (AttemptState::Reported(reported.into()), Receipt::Recorded)
                }
            },
        };
        job.shard.attempts += 1;
        self.judged = Some(id);
        self.note_time(now, peer, id, &state, wall_micros);
        self.set_state(id, state, fx);
        receipt
    }

    /// Puts the report that was just taken into the batch, unless its task is final and needs it no more.
    fn keep_report(&mut self, id: AttemptId, fx: &mut Effects) {
        if self.judged.take() != Some(id) || is_active(Mutant::ForgetsReports) {
            return;
        }
        let job = self.jobs.get_mut(&id.task.job);
        let Some(task) = job.and_then(|job| job.open.get_mut(&id.task.index)) else { return };
        let checks = task.checks;
        // What is being checked is on record as such.
        let attempt = task.attempt_mut(id.number).filter(|attempt| checks != Some(attempt.peer));
        let Some(attempt) = attempt else { return };
        let report = match &attempt.state {
            AttemptState::Reported(reported) => reported.to_row(),
            AttemptState::NoResult(reason) => PendingReport::NoResult(*reason),
            AttemptState::Leased | AttemptState::Expired | AttemptState::Gone => return,
        };
        fx.batch.pending.insert(id, PendingRow { peer: attempt.peer, report });
    }

    /// Decides what becomes of a task after something about it changed.
    pub(super) fn evaluate(&mut self, now: Timestamp, id: TaskId, fx: &mut Effects) {
        let Some(job) = self.jobs.get_mut(&id.job).filter(|job| job.state == JobState::Running) else {
            return;
        };
        let Some(task) = job.open.get(&id.index) else { return };
        if task.collecting {
            return self.hasten_output(now, id);
        }
        fx.changed.insert(id.job);
        let verdict = self.trust.judge(job, id.index, task);
        let Some(task) = job.open.get_mut(&id.index) else { return };
        if let Verdict::Agreed(agreed) = verdict {
            if let Some(output) = task.inline_output(agreed.outcome) {
                self.accept(now, id, agreed, FinalOutput::Inline(output), fx);
            } else {
                self.collect(id, agreed, fx);
            }
            return;
        }
        let lost = task.no_results().filter(|reason| *reason == NoResult::OutputLost).count();
        let no_results = task.no_results().count() - lost;
        let latest = task.no_results().last();
        let reported = task.reported().count();
        let hopeless = no_results >= limits::NO_RESULTS_MAX as usize || lost >= limits::OUTPUTS_LOST_MAX;
        if let Some(reason) = latest.filter(|_| hopeless) {
            self.finalize(now, id, Ending::without_result(TaskVerdict::NoResult(reason)), fx);
        } else if reported >= job.votes_max() {
            // Nobody is known to be wrong, and nobody gets anything.
            self.finalize(now, id, Ending::without_result(TaskVerdict::NoAgreement), fx);
        } else {
            let requeued = job.requeue(id.index, false, &self.trust);
            if requeued {
                self.note_work(id.job);
            }
        }
    }

    pub(super) fn accept(
        &mut self,
        now: Timestamp,
        id: TaskId,
        agreed: Agreed,
        output: FinalOutput,
        fx: &mut Effects,
    ) {
        let task = self.jobs.get(&id.job).and_then(|job| job.open.get(&id.index));
        let Some(task) = task else { return };
        let Some((_, reported)) = members(task, agreed).next() else { return };
        let fuel = agreed.fuel.unwrap_or_else(|| agreed.earned(task.votes()));
        let verdict = TaskVerdict::Agreed { digest: agreed.digest(), exit: reported.exit, fuel };
        let grants = grants(task, agreed);
        let outcome = agreed.fuel.map(|_| agreed.outcome);
        self.finalize(now, id, Ending { verdict, outcome, grants, output }, fx);
    }

    /// Makes a task final: its ledger entry, the credit of those who agreed, and word to everybody else.
    fn finalize(&mut self, now: Timestamp, id: TaskId, ending: Ending, fx: &mut Effects) {
        let Ending { verdict, outcome, grants, output } = ending;
        let mut unwanted = BTreeMap::new();
        let checked = self.jobs.get(&id.job).and_then(|job| job.open.get(&id.index)?.checks);
        let was_final = checked.and_then(|peer| self.take_back(now, id, peer, fx));
        let Some(task) = self.drop_task(id, &mut unwanted, fx) else { return };
        let reports = task
            .attempts
            .iter()
            .filter(|attempt| matches!(attempt.state, AttemptState::Reported(_) | AttemptState::NoResult(_)));
        // A row that this batch replaces may be on disk, too: that of an output that was not delivered.
        let had_pending = reports.clone().any(|attempt| {
            let id = AttemptId { task: id, number: attempt.number };
            let replaced = matches!(attempt.state, AttemptState::NoResult(NoResult::OutputLost));
            replaced || (self.judged != Some(id) && !fx.batch.pending.contains_key(&id))
        });
        // What decided is in the final row, even if that is checked at once.
        self.judged = self.judged.filter(|judged| judged.task != id);
        let attempts = u32::try_from(reports.count()).unwrap_or(u32::MAX);
        self.release_outputs(id, &task, fx);
        self.send_unwanted(unwanted, fx);
        let Some(job) = self.jobs.get_mut(&id.job) else { return };
        *(if verdict.is_done() { &mut job.shard.done } else { &mut job.shard.failed }) += 1;
        job.shard.credit += grants.iter().map(|grant| grant.credit).sum();
        let policy = job.policy();
        job.shard.revoked += u64::from(was_final.is_some_and(|word| !word.is_confirmed_by(&verdict)));
        if is_active(Mutant::ReopensFinals) {
            let again = Task { last_number: task.last_number, ..Task::default() };
            job.open.insert(id.index, again);
            job.requeue(id.index, false, &self.trust);
        }
        let row = FinalRow { task: id, verdict, outcome, attempts, grants, output, had_pending };
        self.judge_workers(&task, &row, fx);
        self.draw_lessons(now, &task, &row, fx);
        let word = matches!(policy, Policy::ErrorRate { .. }).then(|| Word::sole(&task, &row)).flatten();
        fx.batch.add_final(now, row);
        if let Some((peer, word)) = word {
            self.note_word(id, peer, word, fx);
        }
        fx.changed.insert(id.job);
        self.check_the_rest(id.job, fx);
        let Some(job) = self.jobs.get(&id.job) else { return };
        fx.batch.shards.insert(id.job, job.shard());
        if job.is_complete() {
            self.end_job(now, id.job, JobState::Finished, fx);
        }
    }

    /// Tells the workers that kept an output that it is not needed any more.
    fn release_outputs(&self, id: TaskId, task: &Task, fx: &mut Effects) {
        for (attempt, reported) in task.reported() {
            if matches!(reported.output, PendingOutput::Remote(_)) {
                let session = self.workers.get(&attempt.peer).and_then(|worker| worker.session);
                let released = vec![AttemptId { task: id, number: attempt.number }];
                fx.send(session, ToWorker::Settled { attempts: vec![], released });
            }
        }
    }
}

impl Task {
    fn inline_outcomes(&self) -> Vec<OutcomeDigest> {
        let inline =
            self.reported().filter(|(_, reported)| matches!(reported.output, PendingOutput::Inline(_)));
        inline.map(|(_, reported)| reported.outcome).collect()
    }
}

/// Attempts that voted for what was agreed on.
pub(super) fn members(task: &Task, agreed: Agreed) -> impl Iterator<Item = (&Attempt, &Reported)> {
    task.reported().filter(move |(_, reported)| agreed.includes(reported.vote()))
}

/// Who voted, and what it earned, once per peer.
fn grants(task: &Task, agreed: Agreed) -> Vec<Grant> {
    let earned = agreed.earned(task.votes()).credit();
    let grant = |(attempt, reported): (&Attempt, &Reported)| {
        let agreed = agreed.includes(reported.vote());
        let claimed = reported.fuel.credit();
        let credit = match agreed {
            true if is_active(Mutant::PaysClaims) => claimed,
            true => earned,
            false => Credit::ZERO,
        };
        Grant { peer: attempt.peer, number: attempt.number, agreed, credit }
    };
    // There are many rows, and most have few votes.
    let mut grants = Vec::with_capacity(task.attempts.len());
    let counts = |grant: &Grant| grant.agreed || !is_active(Mutant::ForgetsVotes);
    grants.extend(task.reported().map(grant).filter(counts));
    grants
}

/// What has to be fetched before a task that was agreed on is final.
pub(super) fn fetch_of(names: &[PeerId], id: TaskId, task: &Task, agreed: Agreed) -> Option<FetchOutput> {
    let (_, first) = members(task, agreed).next()?;
    let sources = members(task, agreed).filter_map(|(attempt, reported)| match &reported.output {
        PendingOutput::Remote(blob) => Some(OutputSource {
            number: attempt.number,
            peer: *names.get(attempt.peer.get() as usize)?,
            blob: *blob,
        }),
        PendingOutput::Inline(_) | PendingOutput::Repeated => None,
    });
    Some(FetchOutput { task: id, sources: sources.collect(), agreed, input: first.input, exit: first.exit })
}
