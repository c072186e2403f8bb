//! What is known about modules for as long as the process lives.

use std::{
    collections::{HashMap, VecDeque},
    sync::Arc,
};

use talka_core::{ids::BlobHash, limits};
use tokio::sync::OnceCell;

use super::{super::job::Program, CompileError, Compiled};

/// Refused modules that are remembered, so that nobody makes this machine compile one again and again.
const REFUSALS_MAX: usize = 64;

/// Programs in use, modules that are refused, and what is being compiled.
#[derive(Debug, Default)]
pub(super) struct Memory {
    /// Least recently used first.
    programs: VecDeque<Arc<Program>>,
    bytes: u64,
    refusals: VecDeque<(BlobHash, CompileError)>,
    running: HashMap<BlobHash, Arc<OnceCell<Compiled>>>,
}

impl Memory {
    /// What is known about a module.
    pub(super) fn find(&mut self, hash: BlobHash) -> Option<Compiled> {
        if let Some(position) = self.programs.iter().position(|program| program.hash == hash) {
            let program = self.programs.remove(position)?;
            self.programs.push_back(program.clone());
            return Some(Ok(program));
        }
        let refusal = self.refusals.iter().find(|(refused, _)| *refused == hash);
        refusal.map(|(_, error)| Err(error.clone()))
    }

    /// The compilation of a module that nothing is known about; all who want the same wait for one.
    pub(super) fn running(&mut self, hash: BlobHash) -> Arc<OnceCell<Compiled>> {
        self.running.entry(hash).or_default().clone()
    }

    /// Keeps what a compilation has come to. Of those who waited for it, the first one to say so is heard.
    pub(super) fn settle(&mut self, hash: BlobHash, cell: &Arc<OnceCell<Compiled>>, compiled: &Compiled) {
        if self.running.get(&hash).is_some_and(|running| Arc::ptr_eq(running, cell)) {
            self.running.remove(&hash);
            self.keep(hash, compiled);
        }
    }

    fn keep(&mut self, hash: BlobHash, compiled: &Compiled) {
        match compiled {
            Ok(program) => {
                self.bytes += program.size() as u64;
                self.programs.push_back(program.clone());
                while self.bytes > limits::COMPILED_BYTES_MAX {
                    let Some(oldest) = self.programs.pop_front() else { break };
                    self.bytes -= oldest.size() as u64;
                }
            }
            Err(error) if error.is_lasting() => {
                self.refusals.push_back((hash, error.clone()));
                if self.refusals.len() > REFUSALS_MAX {
                    self.refusals.pop_front();
                }
            }
            Err(_) => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io;

    use super::*;

    fn program(number: u8, bytes: u64) -> Arc<Program> {
        let compiled = vec![0; usize::try_from(bytes).expect("fits")].into();
        let hash = BlobHash::new([number; 32]);
        Arc::new(Program { hash, transformed: hash, compiled })
    }

    #[test]
    fn the_least_recently_used_program_makes_room() {
        let mut cache = Memory::default();
        let third = limits::COMPILED_BYTES_MAX / 3;
        for number in 0..3 {
            cache.keep(BlobHash::new([number; 32]), &Ok(program(number, third)));
        }
        assert!(cache.find(BlobHash::new([0; 32])).is_some(), "used again");
        cache.keep(BlobHash::new([3; 32]), &Ok(program(3, third)));
        let kept: Vec<_> = cache.programs.iter().map(|program| program.hash.as_bytes()[0]).collect();
        assert_eq!(kept, [2, 0, 3]);
        assert!(cache.bytes <= limits::COMPILED_BYTES_MAX);
    }

    #[test]
    fn lasting_refusals_are_remembered_and_others_are_not() {
        let mut cache = Memory::default();
        let (lasting, passing) = (BlobHash::new([1; 32]), BlobHash::new([2; 32]));
        cache.keep(lasting, &Err(CompileError::TooExpensive));
        cache.keep(passing, &Err(CompileError::Start(Arc::new(io::Error::other("busy")))));
        assert!(matches!(cache.find(lasting), Some(Err(CompileError::TooExpensive))));
        assert!(cache.find(passing).is_none());
    }
}
