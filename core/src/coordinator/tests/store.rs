//! The tables of a store that refuse what no store should ever be asked to do.

use std::{
    collections::BTreeMap,
    ops::{Deref, DerefMut},
};

use crate::{
    coordinator::{Batch, CreditDelta, FinalOutput, FinalRow, Tables, TaskVerdict},
    ids::{AttemptId, PeerNo, TaskId},
    job::JobState,
    quantities::Credit,
    trust::Policy,
};

#[derive(Debug, Default)]
pub(super) struct Store {
    tables: Tables,
    /// Every attempt that was ever leased, and to whom.
    leased: BTreeMap<AttemptId, PeerNo>,
}

impl Deref for Store {
    type Target = Tables;

    fn deref(&self) -> &Tables {
        &self.tables
    }
}

impl DerefMut for Store {
    fn deref_mut(&mut self) -> &mut Tables {
        &mut self.tables
    }
}

impl Store {
    pub(super) fn commit(&mut self, batch: &Batch) {
        assert_eq!(self.contradiction(batch), None);
        assert_eq!(self.misuse(batch), None);
        for row in batch.leases_opened.values() {
            for item in &row.items {
                let task = TaskId { job: row.job, index: item.index };
                let before = self.leased.insert(AttemptId { task, number: item.number }, row.peer);
                assert_eq!(before, None, "no number of an attempt is used twice");
            }
        }
        self.tables.apply(batch);
        for row in &batch.finals {
            self.check_paid(row);
            let mut voters: Vec<PeerNo> = row.grants.iter().map(|grant| grant.peer).collect();
            voters.sort();
            voters.dedup();
            assert_eq!(voters.len(), row.grants.len(), "task {}: one vote per peer", row.task);
        }
        self.check();
    }

    /// A quorum agreed, unless its members promised a large output that only some of them had; and paid is
    /// who agreed.
    fn check_paid(&self, row: &FinalRow) {
        let task = row.task;
        let TaskVerdict::Agreed { fuel, .. } = row.verdict else {
            assert_eq!(row.grants, [], "task {task}: nobody agreed");
            return;
        };
        let agreed = row.grants.iter().filter(|grant| grant.agreed).count();
        let needed = match row.output {
            FinalOutput::Inline(_) => match self.jobs[&task.job].0.submission.spec.policy() {
                Policy::Quorum(quorum) => quorum.get() as usize,
                _ => 1,
            },
            FinalOutput::Blob(_) => 1,
            FinalOutput::Nothing => panic!("task {task}: what was agreed on is there"),
        };
        assert!(agreed >= needed, "task {task}: {agreed} of {needed} votes");
        for grant in &row.grants {
            // Less if one of those who agreed was interrupted and states less.
            let most = if grant.agreed { fuel.credit() } else { Credit::ZERO };
            assert!(grant.credit <= most, "task {task}: paid is the fuel of those who agreed");
            let same = row.grants.iter().filter(|other| other.agreed == grant.agreed);
            assert!(same.clone().all(|other| other.credit == grant.credit), "task {task}: the same to each");
            let attempt = AttemptId { task, number: grant.number };
            // One that is leased and reported in one batch is in no row.
            let had = self.leased.get(&attempt);
            assert!(had.is_none_or(|had| *had == grant.peer), "{attempt}: who had it is paid");
        }
    }

    /// What must hold between the tables after each commit.
    fn check(&self) {
        let mut sums = BTreeMap::<PeerNo, CreditDelta>::new();
        for grant in self.finals.values().flat_map(|row| &row.grants) {
            let sum = sums.entry(grant.peer).or_default();
            sum.credit += grant.credit;
            *(if grant.agreed { &mut sum.validated } else { &mut sum.invalid }) += 1;
        }
        let mut credit = self.credit.clone();
        // What was granted and taken back.
        credit.retain(|_, sum| *sum != CreditDelta::default());
        assert_eq!(sums, credit, "credit is the sum of the grants");
        for attempt in self.pending.keys() {
            let checked = self.provisional.contains_key(&attempt.task);
            assert!(
                checked || !self.finals.contains_key(&attempt.task),
                "{attempt} is pending and its task final"
            );
        }
        for (id, (row, shard)) in &self.jobs {
            let finals = self.finals_from(*id, 0).collect::<Vec<_>>();
            let done = finals.iter().filter(|row| row.verdict.is_done()).count() as u64;
            assert_eq!((shard.done, shard.done + shard.failed), (done, finals.len() as u64), "job {id}");
            assert_eq!(
                shard.credit,
                finals.iter().flat_map(|row| &row.grants).map(|grant| grant.credit).sum()
            );
            let provisional = finals.iter().filter(|row| self.provisional.contains_key(&row.task));
            assert_eq!(shard.provisional, provisional.count() as u64, "job {id}: provisional results");
            let complete =
                finals.len() as u64 == row.submission.spec.inputs.count() && shard.provisional == 0;
            assert_eq!(complete, row.state == JobState::Finished, "job {id} is finished when it is complete");
            if row.state == JobState::Running {
                let below = finals.iter().filter(|row| row.task.index < shard.low).count() as u64;
                assert_eq!(below, shard.low, "job {id}: every task below `low` is final");
            }
        }
    }
}
