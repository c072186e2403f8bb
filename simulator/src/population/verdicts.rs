//! What becomes of the answers: who is believed, who is caught, and what is done again.

use std::collections::HashMap;

use rand::RngExt;
use talka_core::{
    limits,
    quantities::Credit,
    trust::{Camp, Judgement, Lesson, Policy, Record, Scene, established_min},
};

use super::{
    Replicas,
    grid::Grid,
    queue::TaskNo,
    strategy::Answer,
    volunteers::{Unchecked, Volunteer, VolunteerNo},
};

/// An attempt at an open task.
#[derive(Debug, Clone, Copy)]
struct Attempt {
    volunteer: VolunteerNo,
    run: u64,
    answer: Option<Answer>,
    lost: bool,
}

/// A task that was handed out and has no result, or whose result is looked at again.
#[derive(Debug, Default)]
struct Open {
    /// In the order in which they were handed out.
    attempts: Vec<Attempt>,
    /// Entries in a queue.
    queued: u32,
    /// It has a result, which at least one more must confirm.
    closing: bool,
    /// Only who is established may have it.
    established_only: bool,
}

impl Open {
    fn votes(&self) -> impl Iterator<Item = (VolunteerNo, Answer)> {
        self.attempts.iter().filter_map(|attempt| Some((attempt.volunteer, attempt.answer?)))
    }
}

/// A result.
#[derive(Debug, Clone, Copy)]
struct Accepted {
    answer: Answer,
    /// The group of the first who said so.
    group: u16,
}

/// Where all tasks stand.
pub(super) struct Tasks {
    open: HashMap<TaskNo, Open>,
    accepted: Vec<Option<Accepted>>,
    /// How many of them there are.
    certain_or_not: u32,
    /// Results that rest on one word.
    provisional: u64,
    given_up: u32,
}

impl Tasks {
    pub(super) fn new(tasks: u32) -> Self {
        let accepted = vec![None; tasks as usize];
        Self { open: HashMap::new(), accepted, certain_or_not: 0, provisional: 0, given_up: 0 }
    }

    /// Whether every task has a result that nobody will look at again.
    pub(super) fn all_certain(&self) -> bool {
        let all = self.certain_or_not as usize + self.given_up as usize == self.accepted.len();
        all && self.provisional == 0 && self.open.is_empty()
    }

    pub(super) fn open(&self) -> usize {
        self.open.len()
    }

    /// Results and the groups that they come from.
    pub(super) fn accepted(&self) -> impl Iterator<Item = (Answer, u16)> {
        self.accepted.iter().flatten().map(|accepted| (accepted.answer, accepted.group))
    }

    pub(super) fn begin(&mut self, task: TaskNo) {
        self.open.insert(task, Open { queued: 1, ..Open::default() });
    }

    pub(super) fn hand(&mut self, task: TaskNo, volunteer: VolunteerNo, run: u64) {
        if let Some(open) = self.open.get_mut(&task) {
            open.queued = open.queued.saturating_sub(1);
            open.attempts.push(Attempt { volunteer, run, answer: None, lost: false });
        }
    }

    /// Nobody is left who may have it.
    pub(super) fn give_up(&mut self, task: TaskNo) {
        if let Some(open) = self.open.remove(&task)
            && !open.closing
        {
            self.given_up += 1;
        }
    }

    fn attempt(&mut self, task: TaskNo, volunteer: VolunteerNo, run: u64) -> Option<&mut Attempt> {
        let mut attempts = self.open.get_mut(&task)?.attempts.iter_mut();
        attempts.find(|attempt| attempt.volunteer == volunteer && attempt.run == run)
    }

    /// Takes an answer. Returns whether anybody waits for it.
    pub(super) fn answer(&mut self, task: TaskNo, volunteer: VolunteerNo, run: u64, answer: Answer) -> bool {
        let attempt = self.attempt(task, volunteer, run);
        attempt.is_some_and(|attempt| attempt.answer.replace(answer).is_none())
    }

    /// An attempt was not heard of in time. Returns whether that matters.
    pub(super) fn lose(&mut self, task: TaskNo, volunteer: VolunteerNo, run: u64) -> bool {
        let attempt = self.attempt(task, volunteer, run).filter(|attempt| attempt.answer.is_none());
        attempt.is_some_and(|attempt| !std::mem::replace(&mut attempt.lost, true))
    }

    /// Whether somebody may have a task: nobody votes twice, nor do two of one owner; and newcomers may not have what waits
    /// for somebody who is none, unless there is nobody else (`whoever`).
    pub(super) fn may_have(
        &self,
        task: TaskNo,
        volunteer: VolunteerNo,
        volunteers: &[Volunteer],
        whoever: bool,
    ) -> bool {
        let Volunteer { owner, record, .. } = &volunteers[volunteer as usize];
        self.open.get(&task).is_none_or(|open| {
            (whoever || !open.established_only || record.is_established())
                && open.attempts.iter().all(|attempt| {
                    attempt.volunteer != volunteer && volunteers[attempt.volunteer as usize].owner != *owner
                })
        })
    }

    /// All that are open, in their order.
    pub(super) fn all_open(&self) -> Vec<TaskNo> {
        let mut open: Vec<TaskNo> = self.open.keys().copied().collect();
        open.sort_unstable();
        open
    }

    /// What somebody of a group has said on a task.
    pub(super) fn said_in_group(&self, task: TaskNo, group: u16, volunteers: &[Volunteer]) -> Option<Answer> {
        let mut votes = self.open.get(&task)?.votes();
        votes.find(|(voter, _)| volunteers[*voter as usize].group == group).map(|(_, answer)| answer)
    }
}

impl Grid<'_> {
    /// Looks at the answers to a task: it is accepted, or handed to more.
    pub(super) fn consider(&mut self, task: TaskNo) {
        let Some(open) = self.tasks.open.get(&task) else { return };
        let closing = open.closing;
        let votes: Vec<(VolunteerNo, Answer)> = open.votes().collect();
        let under_way = open.attempts.iter().filter(|attempt| attempt.answer.is_none() && !attempt.lost);
        let under_way: Vec<VolunteerNo> = under_way.map(|attempt| attempt.volunteer).collect();
        let queued = open.queued;
        let first = votes.first().map(|(voter, _)| *voter).or(under_way.first().copied());
        let (mut camps, answers) = self.camps(&votes);
        let enough_looked = !(closing && votes.len() < 2);
        let weighs = matches!(self.policy, Policy::ErrorRate { .. });
        let at_it = votes.iter().map(|(voter, _)| voter).chain(&under_way);
        let known = at_it.filter(|who| self.volunteers[**who as usize].record.is_established()).count();
        let scene = Scene {
            draw: self.draw(task),
            unchecked: first.map_or(0, |first| self.volunteers[first as usize].unchecked.len()),
            established_elsewhere: weighs
                && self.established >= known + established_min(self.volunteers.len()),
        };
        let judgement = self.policy.judge(&camps, scene);
        if let Judgement::Accept { camp, provisional } = judgement
            && enough_looked
        {
            return self.accept(task, answers[camp], provisional);
        }
        if votes.len() > limits::ERROR_RATE_VOTES_MAX {
            return self.tasks.give_up(task);
        }
        let patient = self.setup.replicas == Replicas::OneByOne && !self.all_begun();
        if patient && !under_way.is_empty() {
            return;
        }
        // As if those who are at it agreed with whoever is ahead.
        if camps.is_empty() {
            camps.push(Camp::default());
        }
        let lead = (0..camps.len())
            .reduce(|lead, other| if camps[other].voters() > camps[lead].voters() { other } else { lead });
        for volunteer in &under_way {
            camps[lead.unwrap_or(0)].join(&self.policy, &self.volunteers[*volunteer as usize].record, true);
        }
        camps.retain(|camp| camp.voters() > 0);
        let looked = votes.len() + under_way.len();
        let more = match self.policy.judge(&camps, scene) {
            Judgement::More { attempts, .. } => attempts,
            Judgement::Accept { .. } => u32::from(closing && looked < 2),
        };
        let more = more.saturating_sub(queued);
        for _ in 0..more {
            self.again.push(task);
        }
        // Whether with one more newcomer only somebody who is none would be missing.
        if let Some(camp) = camps.get_mut(lead.unwrap_or(0)) {
            camp.join(&self.policy, &Record::default(), true);
        }
        let wanted = self.policy.judge(&camps, scene);
        if let Some(open) = self.tasks.open.get_mut(&task) {
            open.queued += more;
            open.established_only = matches!(wanted, Judgement::More { established: true, .. });
        }
    }

    /// The answers, each with those who gave it.
    fn camps(&self, votes: &[(VolunteerNo, Answer)]) -> (Vec<Camp>, Vec<Answer>) {
        let (mut camps, mut answers) = (Vec::<Camp>::new(), Vec::<Answer>::new());
        for (voter, answer) in votes {
            let place = answers.iter().position(|known| known == answer).unwrap_or_else(|| {
                answers.push(*answer);
                camps.push(Camp::default());
                answers.len() - 1
            });
            camps[place].join(&self.policy, &self.volunteers[*voter as usize].record, true);
        }
        (camps, answers)
    }

    fn accept(&mut self, task: TaskNo, answer: Answer, provisional: bool) {
        let Some(open) = self.tasks.open.remove(&task) else { return };
        let votes: Vec<(VolunteerNo, Answer)> = open.votes().collect();
        let agreeing = votes.iter().filter(|(_, said)| *said == answer);
        let first = agreeing.clone().next().map_or(0, |(first, _)| *first);
        let count = u32::try_from(agreeing.count()).unwrap_or(u32::MAX);
        let group = self.volunteers[first as usize].group;
        self.tasks.accepted[task as usize] = Some(Accepted { answer, group });
        self.tasks.certain_or_not += 1;
        self.fetch_output();
        let credit = self.credit(task);
        let first_of_all = open.attempts.first().map(|attempt| attempt.volunteer);
        for (voter, said) in &votes {
            if *said == answer {
                self.volunteers[*voter as usize].credit += credit;
            }
        }
        // Who was given up may be at something else by now.
        for attempt in open.attempts.iter().filter(|attempt| attempt.answer.is_none() && !attempt.lost) {
            self.stop(attempt.volunteer, attempt.run);
        }
        for (voter, said) in votes {
            let lesson = self.policy.lesson(said == answer, first_of_all == Some(voter), count);
            self.learn(voter, lesson, task);
        }
        if provisional {
            self.tasks.provisional += 1;
            self.volunteers[first as usize].unchecked.push(Unchecked { task, passed: false });
        }
    }

    fn learn(&mut self, voter: VolunteerNo, lesson: Lesson, task: TaskNo) {
        let known = &mut self.volunteers[voter as usize];
        self.established -= usize::from(known.record.is_established() && !known.gone);
        known.record.learn(lesson);
        self.established += usize::from(known.record.is_established() && !known.gone);
        match lesson {
            Lesson::Passed => {
                let before = known.unchecked.len();
                known.unchecked.retain_mut(|word| !std::mem::replace(&mut word.passed, true));
                self.tasks.provisional -= (before - known.unchecked.len()) as u64;
            }
            Lesson::Nothing => {}
            Lesson::Caught => {
                for Unchecked { task: revoked, .. } in std::mem::take(&mut known.unchecked) {
                    self.tasks.provisional -= 1;
                    if revoked != task {
                        self.revoke(voter, revoked);
                        self.tasks.open.insert(revoked, Open::default());
                        self.consider(revoked);
                    }
                }
            }
        }
    }

    /// Takes back a result that rests on one word, and what was paid for it.
    fn revoke(&mut self, voter: VolunteerNo, task: TaskNo) {
        self.tasks.accepted[task as usize] = None;
        self.tasks.certain_or_not -= 1;
        let credit = self.credit(task);
        let known = &mut self.volunteers[voter as usize];
        known.credit = Credit::from_nanos(known.credit.nanos() - credit.nanos());
    }

    /// Nothing is left to be handed out: each volunteer whose word something rests on has one of those tasks executed by
    /// somebody else.
    pub(super) fn look_at_what_is_left(&mut self) {
        for number in 0..self.volunteers.len() {
            let unchecked = self.volunteers[number].unchecked.len();
            if unchecked == 0 {
                continue;
            }
            let place = self.rng.random_range(0..unchecked);
            let volunteer = &mut self.volunteers[number];
            let Unchecked { task, .. } = volunteer.unchecked.swap_remove(place);
            self.tasks.provisional -= 1;
            let voter = u32::try_from(number).unwrap_or(u32::MAX);
            let Some(accepted) = self.tasks.accepted[task as usize] else { continue };
            self.revoke(voter, task);
            let attempt = Attempt { volunteer: voter, run: 0, answer: Some(accepted.answer), lost: false };
            let open = Open { attempts: vec![attempt], closing: true, ..Open::default() };
            self.tasks.open.insert(task, open);
            self.consider(task);
        }
    }
}
