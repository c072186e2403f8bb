//! Compiling, seen from the parent: one short-lived child per module, and two caches of what they made.
//!
//! A module is looked for in memory, then on the disk, and only then compiled. Whoever asks for one that is being
//! looked for waits for the same answer.
//!
//! | module | subject |
//! |---|---|
//! | `memory` | programs in use, and modules that are refused |
//! | `disk` | programs that outlive the process: which file holds what, and what is wrong with it |
//! | `artefact`, `key` | the form of such a file, and the key that seals it |
//! | `shelf` | a directory of files that make room for one another |

mod artefact;
mod disk;
mod key;
mod memory;
mod shelf;

use std::{
    error::Error,
    io,
    path::{Path, PathBuf},
    sync::{Arc, Mutex, MutexGuard, PoisonError},
    time::Duration,
};

use bytes::Bytes;
use talka_core::{ids::BlobHash, limits, quantities::Bytes as Size};
use tokio::{
    io::AsyncWriteExt as _,
    sync::{OnceCell, Semaphore},
    task::spawn_blocking,
    time::{Instant, timeout},
};

pub use self::disk::{CacheUsage, cache_usage};
use self::{disk::Disk, memory::Memory};

use super::{
    child::frame::{self, FromCompiler, ToCompiler},
    job::Program,
    process::{ChildProcess, Role},
};

/// Compile processes at the same time: each may take a core and a good deal of memory.
const PROCESSES_MAX: usize = 1;

/// Wall-clock time of one compilation. Far above its CPU time, for a machine that is busy.
const WALL_MAX: Duration = Duration::from_mins(10);

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
    memory: Mutex<Memory>,
    /// Where the cache on the disk is, if there is to be one.
    data_dir: Option<PathBuf>,
    /// That cache, once it was looked for. `None` when it can't be used.
    disk: OnceCell<Option<Arc<Disk>>>,
    processes: Semaphore,
}

impl Compiler {
    /// A compiler that remembers in memory only. `exe` is the program to start; its `main` begins with
    /// [`dispatch`](super::child::dispatch).
    pub fn new(exe: PathBuf) -> Self {
        let (memory, disk, processes) = (Mutex::default(), OnceCell::new(), Semaphore::new(PROCESSES_MAX));
        Self { exe, memory, data_dir: None, disk, processes }
    }

    /// A compiler that finds again what it, or another process with the same `data_dir`, has compiled before. The
    /// directory is made when it is needed; where that fails, a warning is logged, and memory has to do.
    pub fn with_cache(exe: PathBuf, data_dir: PathBuf) -> Self {
        Self { data_dir: Some(data_dir), ..Self::new(exe) }
    }

    /// The program that it starts.
    pub(super) fn exe(&self) -> &Path {
        &self.exe
    }

    /// Compiles a module, or finds what it was compiled to. The compile process refuses what the profile
    /// forbids; so nothing is found that it would refuse.
    pub async fn compile(&self, hash: BlobHash, wasm: Bytes) -> Result<Arc<Program>, CompileError> {
        let (size, max) = (Size::of(&wasm), Size::new(limits::MODULE_BYTES_MAX));
        if size > max {
            return Err(CompileError::TooLarge { size, max });
        }
        let cell = {
            let mut memory = self.lock();
            if let Some(known) = memory.find(hash) {
                return known;
            }
            memory.running(hash)
        };
        // If the one who compiles is dropped, the next one who waits takes over.
        let compiled = cell.get_or_init(|| self.find_or_compile(hash, wasm)).await.clone();
        self.lock().settle(hash, &cell, &compiled);
        compiled
    }

    /// What a module was compiled to, if that is at hand.
    pub fn known(&self, hash: BlobHash) -> Option<Arc<Program>> {
        self.lock().find(hash)?.ok()
    }

    async fn find_or_compile(&self, hash: BlobHash, wasm: Bytes) -> Compiled {
        if BlobHash::new(*blake3::hash(&wasm).as_bytes()) != hash {
            return Err(CompileError::WrongHash);
        }
        let disk = self.disk.get_or_init(|| self.open_disk()).await;
        let Some(disk) = disk else { return self.compile_in_child(hash, wasm).await };
        let reader = disk.clone();
        // A thread that panicked has found nothing.
        if let Ok(Some(program)) = spawn_blocking(move || reader.load(hash)).await {
            return Ok(Arc::new(program));
        }
        let program = self.compile_in_child(hash, wasm).await?;
        let (writer, kept) = (disk.clone(), program.clone());
        // Waited for, so that a process that ends after its only task has kept the program.
        drop(spawn_blocking(move || writer.store(&kept)).await);
        Ok(program)
    }

    async fn open_disk(&self) -> Option<Arc<Disk>> {
        let data_dir = self.data_dir.clone()?;
        match spawn_blocking(move || Disk::open(&data_dir)).await.ok()? {
            Ok(disk) => Some(Arc::new(disk)),
            Err(error) => {
                let error: &(dyn Error + 'static) = &error;
                tracing::warn!(error, "compiled modules can't be kept on the disk, only in memory");
                None
            }
        }
    }

    async fn compile_in_child(&self, hash: BlobHash, wasm: Bytes) -> Compiled {
        let start = |error: io::Error| CompileError::Start(Arc::new(error));
        // The semaphore is never closed.
        let _permit = self.processes.acquire().await.map_err(|error| start(io::Error::other(error)))?;
        let (mut child, _) = ChildProcess::spawn(&self.exe, Role::Compiler).await.map_err(start)?;
        let started = Instant::now();
        let answer = timeout(WALL_MAX, ask(&mut child, &wasm)).await;
        let compiled = match answer {
            Ok(Ok(Ok((transformed, compiled)))) => Ok(Arc::new(Program { hash, transformed, compiled })),
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

    fn lock(&self) -> MutexGuard<'_, Memory> {
        self.memory.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

async fn ask(child: &mut ChildProcess, wasm: &[u8]) -> io::Result<Result<(BlobHash, Bytes), String>> {
    let mut head = Vec::new();
    frame::encode_head(&mut head, &ToCompiler::Compile, wasm.len())?;
    child.stdin.write_all(&head).await?;
    child.stdin.write_all(wasm).await?;
    let answer = child.stdout.next::<FromCompiler>(limits::COMPILED_BYTES_MAX).await?;
    match answer.head {
        FromCompiler::Compiled { transformed } => Ok(Ok((transformed, answer.body.into()))),
        FromCompiler::Refused { reason } => Ok(Err(reason)),
        FromCompiler::Ready(_) => Err(io::ErrorKind::InvalidData.into()),
    }
}
