//! Compiling, seen from the parent: one short-lived child per module, and a cache of what they made.

use std::{
    collections::{HashMap, VecDeque},
    io,
    path::PathBuf,
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use talka_core::{ids::BlobHash, limits, quantities::Bytes as Size};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OnceCell, Semaphore},
    time::{Instant, timeout},
};

use super::{
    child::frame::{self, FromCompiler, ToCompiler},
    job::Program,
    process::{ChildProcess, Role},
};

/// Compile processes at the same time: each may take a core and a good deal of memory.
const PROCESSES_MAX: usize = 1;

/// Wall-clock time of one compilation. Far above its CPU time, for a machine that is busy.
const WALL_MAX: Duration = Duration::from_mins(10);

/// Refused modules that are remembered, so that nobody makes this machine compile one again and again.
const REFUSALS_MAX: usize = 64;

/// Why a module was not compiled.
#[derive(Debug, Clone, thiserror::Error)]
pub enum CompileError {
    /// These bytes don't have that hash. A retry needs other bytes.
    #[error("the module is not the one that was named")]
    WrongHash,
    /// Never worth a retry.
    #[error("the module has {size}, above the limit of {max}")]
    TooLarge {
        /// Its size.
        size: Size,
        /// The limit.
        max: Size,
    },
    /// The engine says that it is not a valid module of the profile. Never worth a retry.
    #[error("the module is refused: {reason}")]
    Refused {
        /// In the words of the engine.
        reason: String,
    },
    /// It takes more than a module may. Not worth a retry on this machine.
    #[error(
        "compiling took more than {} s or {}: the module, or one of its functions, is too large",
        limits::COMPILE_CPU_MAX.as_secs(),
        Size::new(limits::COMPILE_MEMORY_BYTES_MAX)
    )]
    TooExpensive,
    /// Somebody killed the compile process, the kernel perhaps, for want of memory. Worth a retry.
    #[error("the compile process was killed; the machine may have run out of memory")]
    Killed,
    /// The compile process could not be started. Worth a retry.
    #[error("cannot start a compile process")]
    Start(#[source] Arc<io::Error>),
}

impl CompileError {
    /// Whether the next attempt would end in the same way.
    fn is_lasting(&self) -> bool {
        matches!(self, Self::Refused { .. } | Self::TooExpensive)
    }
}

type Compiled = Result<Arc<Program>, CompileError>;

/// Compiles modules.
#[derive(Debug)]
pub struct Compiler {
    exe: PathBuf,
    cache: Mutex<Cache>,
    processes: Semaphore,
}

#[derive(Debug, Default)]
struct Cache {
    /// Least recently used first.
    programs: VecDeque<Arc<Program>>,
    bytes: u64,
    refusals: VecDeque<(BlobHash, CompileError)>,
    /// What is being compiled; all who want the same wait for one.
    running: HashMap<BlobHash, Arc<OnceCell<Compiled>>>,
}

impl Compiler {
    /// A compiler with an empty cache. `exe` is the program to start; its `main` begins with
    /// [`dispatch`](super::child::dispatch).
    pub fn new(exe: PathBuf) -> Self {
        Self { exe, cache: Mutex::default(), processes: Semaphore::new(PROCESSES_MAX) }
    }

    /// Compiles a module, or finds it in the cache. What the profile forbids should have been refused
    /// before: this only asks the engine.
    pub async fn compile(&self, hash: BlobHash, wasm: Bytes) -> Result<Arc<Program>, CompileError> {
        let (size, max) = (Size::of(&wasm), Size::new(limits::MODULE_BYTES_MAX));
        if size > max {
            return Err(CompileError::TooLarge { size, max });
        }
        let cell = {
            let mut cache = self.lock();
            if let Some(known) = cache.find(hash) {
                return known;
            }
            cache.running.entry(hash).or_default().clone()
        };
        // If the one who compiles is dropped, the next one who waits takes over.
        let compiled = cell.get_or_init(|| self.compile_in_child(hash, wasm)).await.clone();
        let mut cache = self.lock();
        if cache.running.get(&hash).is_some_and(|running| Arc::ptr_eq(running, &cell)) {
            cache.running.remove(&hash);
            cache.keep(hash, &compiled);
        }
        compiled
    }

    async fn compile_in_child(&self, hash: BlobHash, wasm: Bytes) -> Compiled {
        if BlobHash::new(*blake3::hash(&wasm).as_bytes()) != hash {
            return Err(CompileError::WrongHash);
        }
        let start = |error: io::Error| CompileError::Start(Arc::new(error));
        // The semaphore is never closed.
        let _permit = self.processes.acquire().await.map_err(|error| start(io::Error::other(error)))?;
        let (mut child, _) = ChildProcess::spawn(&self.exe, Role::Compiler).await.map_err(start)?;
        let started = Instant::now();
        let answer = timeout(WALL_MAX, ask(&mut child, &wasm)).await;
        let compiled = match answer {
            Ok(Ok(Ok(compiled))) => Ok(Arc::new(Program { hash, compiled })),
            Ok(Ok(Err(reason))) => Err(CompileError::Refused { reason }),
            // The kernel kills for CPU time too, but not before that can have been used.
            Ok(Err(_)) if started.elapsed() < limits::COMPILE_CPU_MAX && child.was_killed().await => {
                Err(CompileError::Killed)
            }
            // Silence, an abort and nonsense are all the same: the module was too much for the process.
            Ok(Err(_)) | Err(_) => Err(CompileError::TooExpensive),
        };
        child.end().await;
        compiled
    }

    fn lock(&self) -> MutexGuard<'_, Cache> {
        self.cache.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(child: &mut ChildProcess, wasm: &[u8]) -> io::Result<Result<Bytes, String>> {
    let mut head = Vec::new();
    frame::encode_head(&mut head, &ToCompiler::Compile, wasm.len())?;
    child.stdin.write_all(&head).await?;
    child.stdin.write_all(wasm).await?;
    let answer = child.stdout.next::<FromCompiler>(limits::COMPILED_BYTES_MAX).await?;
    match answer.head {
        FromCompiler::Compiled => Ok(Ok(answer.body.into())),
        FromCompiler::Refused { reason } => Ok(Err(reason)),
        FromCompiler::Ready(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}

impl Cache {
    fn find(&mut self, hash: BlobHash) -> Option<Compiled> {
        if let Some(position) = self.programs.iter().position(|program| program.hash == hash) {
            let program = self.programs.remove(position)?;
            self.programs.push_back(program.clone());
            return Some(Ok(program));
        }
        let refusal = self.refusals.iter().find(|(refused, _)| *refused == hash);
        refusal.map(|(_, error)| Err(error.clone()))
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
    use super::*;

    fn program(number: u8, bytes: u64) -> Arc<Program> {
        let compiled = vec![0; usize::try_from(bytes).expect("fits")].into();
        Arc::new(Program { hash: BlobHash::new([number; 32]), compiled })
    }

    #[test]
    fn the_least_recently_used_program_makes_room() {
        let mut cache = Cache::default();
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
        let mut cache = Cache::default();
        let (lasting, passing) = (BlobHash::new([1; 32]), BlobHash::new([2; 32]));
        cache.keep(lasting, &Err(CompileError::TooExpensive));
        cache.keep(passing, &Err(CompileError::Start(Arc::new(io::Error::other("busy")))));
        assert!(matches!(cache.find(lasting), Some(Err(CompileError::TooExpensive))));
        assert!(cache.find(passing).is_none());
    }
}
