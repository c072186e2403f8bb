//! Which checkpoints there are, in memory.

use std::collections::HashMap;

use talka_core::{
    ids::{AttemptId, JobId},
    limits,
};

use super::Key;

/// One file.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Generation {
    /// Grows with each checkpoint of the directory, so that it also tells which is older.
    pub(super) seq: u64,
    pub(super) bytes: u64,
}

#[derive(Debug, Default)]
struct Entry {
    /// Oldest first.
    generations: Vec<Generation>,
    attempt: Option<AttemptId>,
}

#[derive(Debug, Default)]
pub(super) struct Index {
    entries: HashMap<Key, Entry>,
    attempts: HashMap<AttemptId, Key>,
    last_seq: u64,
}

impl Index {
    pub(super) fn has(&self, key: Key) -> bool {
        self.entries.get(&key).is_some_and(|entry| !entry.generations.is_empty())
    }

    pub(super) fn keys(&self) -> impl Iterator<Item = Key> {
        self.entries.keys().copied()
    }

    pub(super) fn next_seq(&mut self) -> u64 {
        self.last_seq += 1;
        self.last_seq
    }

    pub(super) fn add(&mut self, key: Key, generation: Generation) {
        let generations = &mut self.entries.entry(key).or_default().generations;
        generations.push(generation);
        generations.sort_unstable_by_key(|generation| generation.seq);
        self.last_seq = self.last_seq.max(generation.seq);
    }

    pub(super) fn newest_first(&self, key: Key) -> Vec<Generation> {
        self.entries.get(&key).map_or(vec![], |entry| entry.generations.iter().rev().copied().collect())
    }

    /// Takes out what is older than the generations that are kept.
    pub(super) fn superseded(&mut self, key: Key) -> Vec<u64> {
        let Some(entry) = self.entries.get_mut(&key) else { return vec![] };
        let count = entry.generations.len().saturating_sub(limits::CHECKPOINT_GENERATIONS);
        entry.generations.drain(..count).map(|generation| generation.seq).collect()
    }

    /// Takes out the oldest files of all until there is room for one more.
    pub(super) fn evict(&mut self, size: u64, bytes_max: u64) -> Vec<(Key, u64)> {
        let mut all: Vec<(u64, u64, Key)> = Vec::new();
        for (key, entry) in &self.entries {
            all.extend(entry.generations.iter().map(|generation| (generation.seq, generation.bytes, *key)));
        }
        let mut total: u64 = all.iter().map(|(_, bytes, _)| bytes).sum();
        if total + size <= bytes_max {
            return vec![];
        }
        all.sort_unstable();
        let mut evicted = Vec::new();
        for (seq, bytes, key) in all {
            if total + size <= bytes_max {
                break;
            }
            total -= bytes;
            self.drop_generation(key, seq);
            evicted.push((key, seq));
        }
        evicted
    }

    pub(super) fn drop_generation(&mut self, key: Key, seq: u64) {
        let Some(entry) = self.entries.get_mut(&key) else { return };
        entry.generations.retain(|generation| generation.seq != seq);
        if entry.generations.is_empty() {
            self.remove(key);
        }
    }

    pub(super) fn remove(&mut self, key: Key) -> Vec<Generation> {
        let Some(entry) = self.entries.remove(&key) else { return vec![] };
        if let Some(attempt) = entry.attempt {
            self.attempts.remove(&attempt);
        }
        entry.generations
    }

    /// Says whose a key is from here on.
    pub(super) fn claim(&mut self, key: Key, attempt: AttemptId) {
        let entry = self.entries.entry(key).or_default();
        if let Some(before) = entry.attempt.replace(attempt) {
            self.attempts.remove(&before);
        }
        self.attempts.insert(attempt, key);
    }

    pub(super) fn key_of(&self, attempt: AttemptId) -> Option<Key> {
        self.attempts.get(&attempt).copied()
    }

    pub(super) fn attempt_of(&self, key: Key) -> Option<AttemptId> {
        self.entries.get(&key)?.attempt
    }

    pub(super) fn of_job(&self, job: JobId) -> Vec<(Key, AttemptId)> {
        let of_job = self.attempts.iter().filter(|(attempt, _)| attempt.task.job == job);
        of_job.map(|(attempt, key)| (*key, *attempt)).collect()
    }
}
