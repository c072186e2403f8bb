//! The shell of the coordinator: events in, rounds of effects out.
//!
//! As in production, one round is at the disk while the next one gathers, and nothing of a round leaves before
//! its batch is durable. A crash drops both; the batch that was on its way may have reached the disk or not.

use std::{
    collections::{BTreeMap, BTreeSet},
    time::Duration,
};

use talka_core::{
    coordinator::{Batch, Capacity, Config, Coordinator, Effects, FetchOutput, Refusal, Report, ToWorker},
    ids::{AttemptId, JobId, PeerId, SessionId},
    job::JobState,
    mutants::{Mutant, is_active},
    quantities::Timestamp,
    swarm::Tracker,
};

use crate::{
    agenda::{Event, Life, VolunteerNo},
    blobs::Delivery,
    invariants::Step,
    network::{FromWorker, LinkNo},
    world::World,
};

/// The coordinator's own key.
pub(crate) const HUB: PeerId = PeerId::new([0xff; 32]);

/// How often deadlines are looked at.
const TICK: Duration = Duration::from_millis(200);

/// When the grid starts, by a clock that is right.
const START: Timestamp = Timestamp::from_millis(1_800_000_000_000);

/// A coordinator that runs.
pub(crate) struct Hub {
    pub(crate) life: Life,
    pub(crate) coordinator: Coordinator,
    pub(crate) tracker: Tracker,
    /// When each of the transfers ends that leave it now.
    pub(crate) serving: Vec<Duration>,
    sessions: BTreeMap<SessionId, LinkNo>,
    next_session: SessionId,
    gathering: Round,
    committing: Option<(Batch, Round)>,
    /// Running jobs whose blobs are tracked.
    tracked: BTreeSet<JobId>,
    /// Its clock, when virtual time was zero.
    clock_start: Timestamp,
}

/// What gathers until it is durable.
#[derive(Default)]
struct Round {
    fx: Effects,
    answers: Vec<Answer>,
}

/// An answer to a submitter.
enum Answer {
    Submitted(usize, Result<JobId, Refusal>),
    Cancelled(usize),
}

impl World<'_> {
    /// Time, as the coordinator's clock has it.
    pub(crate) fn hub_now(&self) -> Timestamp {
        let start = self.hub.as_ref().map_or(START, |hub| hub.clock_start);
        start + self.agenda.now()
    }

    pub(crate) fn hub_starts(&mut self) {
        self.lives += 1;
        let life = self.lives;
        let clock_start = self.clock();
        let mut fx = Effects::default();
        let config = Config {
            reconnect_grace: self.scenario.reconnect_grace,
            output_wait: self.scenario.output_wait,
            ..Config::default()
        };
        let snapshot = self.disk.snapshot();
        let now = clock_start + self.agenda.now();
        let coordinator = Coordinator::restore(config, now, snapshot, &mut fx);
        let jobs = coordinator.jobs(None, usize::MAX);
        self.observe(Step::Restarted(&jobs));
        let mut hub = Hub {
            life,
            coordinator,
            tracker: Tracker::default(),
            serving: Vec::new(),
            sessions: BTreeMap::new(),
            next_session: SessionId::new(1),
            gathering: Round { fx, answers: vec![] },
            committing: None,
            tracked: BTreeSet::new(),
            clock_start,
        };
        for job in jobs {
            hub.track(job.job);
        }
        self.hub = Some(hub);
        self.inspect();
        self.note(format_args!("coordinator starts, life {life}"));
        self.hand_on();
        self.agenda.after(TICK, Event::HubTicks(life));
        self.mishap(self.scenario.faults.coordinator_life, Event::HubCrashes(life));
        self.mishap(self.scenario.faults.clock_jump_every, Event::ClockJumps(life));
    }

    /// When virtual time was zero, by a clock that may be wrong.
    fn clock(&mut self) -> Timestamp {
        let error = self.scenario.faults.clock_error;
        let error = self.between(&(Duration::ZERO..=error));
        if self.happens(0.5) { START + error } else { START - error }
    }

    pub(crate) fn clock_jumps(&mut self, life: Life) {
        let clock = self.clock();
        let calm = self.is_calm();
        let Some(hub) = self.hub.as_mut().filter(|hub| hub.life == life && !calm) else { return };
        hub.clock_start = clock;
        self.note(format_args!("the coordinator's clock is set"));
        self.mishap(self.scenario.faults.clock_jump_every, Event::ClockJumps(life));
    }

    /// The core's own checks, as often as the scenario wants: they look at everything that is open.
    fn inspect(&mut self) {
        let every = self.scenario.inspect_every;
        if every > 0
            && self.report.events.is_multiple_of(every)
            && let Some(hub) = &self.hub
        {
            hub.coordinator.check_invariants();
        }
    }

    pub(crate) fn hub_crashes(&mut self, life: Life) {
        let calm = self.is_calm();
        let Some(hub) = self.hub.take_if(|hub| hub.life == life && !calm) else { return };
        self.report.coordinator_crashes += 1;
        let half_done = hub.committing.map(|(batch, _)| batch).filter(|_| self.happens(0.5));
        self.note(format_args!("coordinator crashes, batch on disk: {}", half_done.is_some()));
        if let Some(batch) = half_done {
            self.commit(&batch);
        }
        for link in 0..self.links.len() {
            if self.links[link].hub == life {
                self.break_link(link);
            }
        }
        let downtime = self.scenario.faults.downtime.clone();
        let downtime = self.between(&downtime);
        self.agenda.after(downtime, Event::HubStarts);
    }

    pub(crate) fn hub_ticks(&mut self, life: Life) {
        if self.hub.as_ref().is_some_and(|hub| hub.life == life) {
            self.agenda.after(TICK, Event::HubTicks(life));
            self.hub_event(|hub, now| hub.coordinator.on_tick(now, &mut hub.gathering.fx));
        }
    }

    /// One event of the coordinator, if it runs.
    fn hub_event<T>(&mut self, event: impl FnOnce(&mut Hub, Timestamp) -> T) -> Option<T> {
        let now = self.hub_now();
        let hub = self.hub.as_mut()?;
        let answer = event(hub, now);
        self.inspect();
        self.hand_on();
        Some(answer)
    }

    /// Passes the gathered round to the disk, or on at once if there is nothing to persist.
    fn hand_on(&mut self) {
        let Some(hub) = self.hub.as_mut().filter(|hub| hub.committing.is_none()) else { return };
        let mut round = std::mem::take(&mut hub.gathering);
        let batch = std::mem::take(&mut round.fx.batch);
        if batch.is_empty() {
            self.release(round);
        } else {
            if is_active(Mutant::AcknowledgesEarly) {
                let empty = Round { fx: Effects::default(), answers: vec![] };
                let early = std::mem::replace(&mut round, empty);
                self.release(early);
            }
            let Some(hub) = &mut self.hub else { return };
            hub.committing = Some((batch, round));
            let life = hub.life;
            let commit = self.scenario.faults.commit.clone();
            let commit = self.between(&commit);
            self.agenda.after(commit, Event::HubCommitted(life));
        }
    }

    pub(crate) fn hub_committed(&mut self, life: Life) {
        let Some(hub) = self.hub.as_mut().filter(|hub| hub.life == life) else { return };
        let Some((batch, round)) = hub.committing.take() else { return };
        self.commit(&batch);
        self.release(round);
        self.hand_on();
    }

    fn commit(&mut self, batch: &Batch) {
        self.report.commits += 1;
        self.report.attempts_leased +=
            batch.leases_opened.values().map(|lease| lease.items.len() as u64).sum::<u64>();
        self.observe(Step::Commit(batch));
        self.disk.commit(batch);
        self.moved = self.agenda.now();
        if !batch.finals.is_empty() {
            self.progress = self.progress.max(self.agenda.now());
        }
        let (finals, leases) = (batch.finals.len(), batch.leases_opened.len());
        self.note(format_args!(
            "commit of {leases} leases, {} reports, {finals} finals",
            batch.pending.len()
        ));
    }

    /// Lets out what waited for durability.
    fn release(&mut self, round: Round) {
        let Round { fx, answers } = round;
        for (session, message) in fx.messages {
            self.check_acknowledged(session, &message);
            let Some(hub) = &self.hub else { return };
            let Some(link) = hub.sessions.get(&session).copied() else { continue };
            if message == ToWorker::Replaced || !self.send_down(link, message) {
                self.close(session);
                self.break_link(link);
            }
        }
        for answer in answers {
            let latency = self.latency();
            let lost = self.goes_wrong(self.scenario.faults.loss);
            match answer {
                Answer::Submitted(submitter, Ok(job)) => {
                    self.observe(Step::TakenOn(job));
                    if !lost {
                        self.agenda.after(latency, Event::Submitted(submitter, job));
                    }
                }
                Answer::Submitted(_, Err(_)) => {}
                Answer::Cancelled(_) if lost => {}
                Answer::Cancelled(submitter) => self.agenda.after(latency, Event::Cancelled(submitter)),
            }
        }
        let Some(hub) = &mut self.hub else { return };
        for job in fx.changed {
            hub.untrack_if_ended(job);
        }
        let life = hub.life;
        for fetch in fx.fetches {
            let transfer = self.latency() + self.latency();
            self.agenda.after(transfer, Event::HubFetched(life, fetch));
        }
    }

    /// Nothing is acknowledged that is not durable.
    fn check_acknowledged(&mut self, session: SessionId, message: &ToWorker) {
        let (Some(hub), ToWorker::Settled { attempts, .. }) = (&self.hub, message) else { return };
        let Some(link) = hub.sessions.get(&session) else { return };
        let volunteer = self.links[*link].volunteer;
        let peer = self.volunteers[volunteer].id;
        // What is not on record must have been refused, and who invents its attempts may well be.
        let counts = |attempt: AttemptId| {
            let view = hub.coordinator.explain(attempt.task).ok().flatten();
            view.into_iter().flat_map(|view| view.attempts).any(|known| {
                known.number == attempt.number && known.peer == Some(peer) && known.state != "gone"
            })
        };
        let known = self.volunteers[volunteer].invents();
        let counts: Vec<(AttemptId, bool)> = attempts
            .iter()
            .map(|attempt| (*attempt, !known && !self.disk.has(*attempt) && counts(*attempt)))
            .collect();
        for (attempt, counts) in counts {
            self.observe(Step::Settled { attempt, peer, counts });
        }
    }

    pub(crate) fn hub_hears(&mut self, link: LinkNo, message: FromWorker) {
        let state = &self.links[link];
        let (volunteer, session) = (state.volunteer, state.session);
        if state.broken || self.hub.as_ref().is_none_or(|hub| hub.life != state.hub) {
            return;
        }
        match (message, session) {
            (FromWorker::Hello { capacity, holding }, None) => self.opens(link, capacity, &holding),
            (FromWorker::Capacity(capacity), Some(session)) => {
                self.hub_event(|hub, now| {
                    hub.coordinator.on_capacity(now, session, capacity, &mut hub.gathering.fx);
                });
            }
            (FromWorker::Reports(reports), Some(session)) => self.reports(volunteer, session, reports),
            (FromWorker::GivenBack(attempts), Some(session)) => {
                self.note(format_args!("worker {volunteer} gives back {}", attempts.len()));
                if self.hub.as_ref().is_some_and(|hub| hub.sessions.contains_key(&session)) {
                    let peer = self.volunteers[volunteer].id;
                    self.observe(Step::GivenBack { peer, attempts: &attempts });
                    self.report.attempts_given_back += attempts.len() as u64;
                }
                self.hub_event(|hub, now| {
                    hub.coordinator.on_given_back(now, session, &attempts, &mut hub.gathering.fx);
                });
            }
            (FromWorker::Leaving(keeping), Some(session)) => {
                self.note(format_args!("worker {volunteer} leaves, keeping {}", keeping.len()));
                if self.hub.as_ref().is_some_and(|hub| hub.sessions.contains_key(&session)) {
                    let peer = self.volunteers[volunteer].id;
                    self.observe(Step::Holding { peer, holding: &keeping });
                }
                self.hub_event(|hub, now| {
                    hub.coordinator.on_leaving(now, session, &keeping, &mut hub.gathering.fx);
                });
            }
            (message, session) => panic!("{message:?} on {session:?}"),
        }
    }

    fn opens(&mut self, link: LinkNo, capacity: Capacity, holding: &[AttemptId]) {
        let volunteer = self.links[link].volunteer;
        let peer = self.volunteers[volunteer].id;
        self.note(format_args!("worker {volunteer} opens a session, holding {}", holding.len()));
        let opened = self.hub_event(|hub, now| {
            let session = hub.next_session;
            hub.next_session = session.next();
            let fx = &mut hub.gathering.fx;
            let opened = hub.coordinator.on_session_opened(now, session, peer, capacity, holding, fx);
            opened.map(|()| {
                hub.sessions.insert(session, link);
                session
            })
        });
        match opened {
            Some(Ok(session)) => {
                self.observe(Step::Holding { peer, holding });
                self.report.sessions += 1;
                self.links[link].session = Some(session);
            }
            Some(Err(_)) | None => self.break_link(link),
        }
    }

    fn reports(&mut self, volunteer: VolunteerNo, session: SessionId, reports: Vec<Report>) {
        let first = reports.first().map(|report| report.attempt.to_string()).unwrap_or_default();
        self.note(format_args!("worker {volunteer} reports {} attempts, {first} first", reports.len()));
        let Some(hub) = self.hub.as_ref().filter(|hub| hub.sessions.contains_key(&session)) else { return };
        // The core of a replaced session is deaf already.
        let replaced = hub
            .sessions
            .iter()
            .any(|(other, link)| *other > session && self.links[*link].volunteer == volunteer);
        if !replaced {
            let attempts: Vec<AttemptId> = reports.iter().map(|report| report.attempt).collect();
            let peer = self.volunteers[volunteer].id;
            self.observe(Step::Reports { peer, attempts: &attempts });
        }
        self.hub_event(|hub, now| {
            hub.coordinator.on_reports(now, session, reports, &mut hub.gathering.fx);
        });
    }

    pub(crate) fn hub_notices(&mut self, link: LinkNo) {
        let session = self.links[link].session;
        if self.hub.as_ref().is_some_and(|hub| hub.life == self.links[link].hub)
            && let Some(session) = session
        {
            self.close(session);
        }
    }

    fn close(&mut self, session: SessionId) {
        let now = self.hub_now();
        let Some(hub) = &mut self.hub else { return };
        hub.coordinator.on_session_closed(now, session);
        if let Some(link) = hub.sessions.remove(&session) {
            let volunteer = self.links[link].volunteer;
            let elsewhere = hub.sessions.values().any(|other| self.links[*other].volunteer == volunteer);
            if !elsewhere {
                hub.tracker.peer_left(self.volunteers[volunteer].id);
            }
        }
    }

    /// The fetch of a large output ends: each source in turn is asked.
    pub(crate) fn hub_fetched(&mut self, life: Life, fetch: &FetchOutput) {
        if self.hub.as_ref().is_none_or(|hub| hub.life != life) {
            return;
        }
        let (mut bad, mut good) = (vec![], None);
        for source in &fetch.sources {
            let attempt = AttemptId { task: fetch.task, number: source.number };
            match self.delivers(source.peer, attempt, fetch.agreed.outcome) {
                Delivery::Delivered => {
                    good = Some(source.blob);
                    break;
                }
                Delivery::Bad => bad.push(source.number),
                Delivery::Away => {}
            }
        }
        let FetchOutput { task, agreed, .. } = *fetch;
        self.note(format_args!("output of {task}: {}, {} did not deliver", good.is_some(), bad.len()));
        self.hub_event(|hub, now| {
            let fx = &mut hub.gathering.fx;
            match good {
                Some(blob) => hub.coordinator.on_output_fetched(now, task, agreed, blob, &bad, fx),
                None => hub.coordinator.on_output_lost(now, task, &bad, fx),
            }
        });
    }

    /// A submission arrives; the answer leaves when it is durable.
    pub(crate) fn hub_is_asked_to_run(&mut self, submitter: usize) {
        let submission = self.submitters[submitter].submission.clone();
        self.hub_event(|hub, now| {
            let answer = hub.coordinator.on_submit(now, submission, &mut hub.gathering.fx);
            if let Ok(job) = answer {
                hub.track(job);
            }
            hub.gathering.answers.push(Answer::Submitted(submitter, answer));
        });
    }

    /// A cancellation arrives.
    pub(crate) fn hub_is_asked_to_cancel(&mut self, submitter: usize, job: JobId) {
        self.hub_event(|hub, now| {
            let answer = hub.coordinator.on_cancel(now, job, &mut hub.gathering.fx);
            assert_eq!(answer, Ok(()), "a job that was taken on can be cancelled");
            hub.gathering.answers.push(Answer::Cancelled(submitter));
        });
    }
}

impl Hub {
    fn track(&mut self, id: JobId) {
        let Ok(job) = self.coordinator.job(id) else { return };
        if job.state == JobState::Running && self.tracked.insert(id) {
            for blob in job.submission.spec.blobs() {
                self.tracker.track(blob.hash);
            }
        }
    }

    fn untrack_if_ended(&mut self, id: JobId) {
        let Ok(job) = self.coordinator.job(id) else { return };
        if job.state != JobState::Running && self.tracked.remove(&id) {
            for blob in job.submission.spec.blobs() {
                self.tracker.untrack(blob.hash);
            }
        }
    }
}
