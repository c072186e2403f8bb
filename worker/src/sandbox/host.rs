//! What the engine keeps for one running program.

use std::rc::Rc;

use talka_core::{limits, quantities::Fuel};
use wasmtime::{Memory, ResourceLimiter};

use super::{meter::Counters, world::World};

/// Called with each new value that a program writes to `/progress`.
pub(super) type OnProgress = Rc<dyn Fn(f64)>;

/// Called at each moment at which a program may be interrupted, with what it has used by then.
pub(super) type OnCheckpoint = Rc<dyn Fn(&World, Fuel)>;

/// Who is told while a program runs.
pub(super) struct Hooks {
    pub(super) on_progress: OnProgress,
    /// None if nobody keeps checkpoints.
    pub(super) on_checkpoint: Option<OnCheckpoint>,
}

/// Fuel of one execution.
#[derive(Debug, Clone, Copy, Default)]
pub(super) struct Budget {
    /// Used before the interruption from which it goes on.
    pub(super) before: Fuel,
    /// What it may use from here on.
    pub(super) left: Fuel,
}

impl Budget {
    pub(super) fn new(limit: Fuel, before: Fuel) -> Self {
        Self { before, left: Fuel::new(limit.get().saturating_sub(before.get())) }
    }

    /// What was used in all.
    pub(super) fn used(self, since: Fuel) -> Fuel {
        Fuel::new(self.before.get().saturating_add(since.get()))
    }
}

/// The host's side of one execution.
pub(super) struct Host {
    pub(super) world: World,
    /// The program's exported memory, once it is instantiated.
    pub(super) memory: Option<Memory>,
    /// Where it counts; there from the same moment on.
    pub(super) counters: Option<Counters>,
    pub(super) growth: Growth,
    pub(super) budget: Budget,
    pub(super) on_progress: OnProgress,
    /// None if nobody keeps checkpoints.
    pub(super) on_checkpoint: Option<OnCheckpoint>,
}

/// Decides how far memories and tables may grow: by the job's limits alone, so that a refusal is the
/// same on every machine. When the machine itself has no more, the program is stopped without a result.
#[derive(Debug)]
pub(super) struct Growth {
    memory_bytes_max: u64,
    /// The last request was above a limit. During instantiation that is the reason why it failed.
    pub(super) refused: bool,
    /// The machine could not give what the limits allow.
    pub(super) host_failed: bool,
}

impl Growth {
    pub(super) fn new(memory_bytes_max: u64) -> Self {
        Self { memory_bytes_max, refused: false, host_failed: false }
    }

    fn allow(&mut self, desired: usize, maximum: Option<usize>, limit: u64) -> bool {
        // The declared maximum is looked at here too: the engine would report going over it in the same
        // way as a failure of the machine.
        let fits = desired as u64 <= limit && maximum.is_none_or(|maximum| desired <= maximum);
        self.refused = !fits;
        fits
    }
}

impl ResourceLimiter for Growth {
    fn memory_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        let limit = self.memory_bytes_max;
        Ok(self.allow(desired, maximum, limit))
    }

    fn memory_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.host_failed = true;
        Err(error)
    }

    fn table_growing(&mut self, _: usize, desired: usize, maximum: Option<usize>) -> wasmtime::Result<bool> {
        Ok(self.allow(desired, maximum, limits::MODULE_TABLE_ELEMENTS_MAX))
    }

    fn table_grow_failed(&mut self, error: wasmtime::Error) -> wasmtime::Result<()> {
        self.host_failed = true;
        Err(error)
    }

    fn instances(&self) -> usize {
        1
    }

    fn tables(&self) -> usize {
        limits::MODULE_TABLES_MAX as usize
    }

    fn memories(&self) -> usize {
        1
    }
}
