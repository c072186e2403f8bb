//! The only place that configures and drives the WebAssembly engine.
//!
//! Two engines, same code: the compile process has one that only compiles, the executor has one that only
//! loads what that one made. Both are set so that everything which two machines might disagree on is off.

use bytes::Bytes;
use talka_core::{
    ids::BlobHash,
    job::TaskLimits,
    limits,
    outcome::{Execution, Exit, Limit, NoResult, Trap},
    quantities::Fuel,
};
use wasmtime::{
    Config, Enabled, Engine, InstanceAllocationStrategy, InstancePre, Linker, Module, OptLevel,
    PoolingAllocationConfig, Store, Strategy, WasmFeatures,
};

use super::{
    host::{Budget, Growth, Hooks, Host, OnProgress},
    job::TaskInput,
    meter::{self, Counters},
    wasi,
    world::{Fault, Setting, Snapshot, World},
};

mod class;
#[cfg(test)]
mod tests;

pub(super) use self::class::EngineClass;

/// Memory of a finished program that is cleared by hand and kept, and not given back to the kernel, so
/// that small programs start without a page fault. Where the kernel tells which pages were touched (6.7),
/// only these count and are cleared: three times as fast for a program in Rust, with its stack of 1 MiB.
const KEEP_RESIDENT_BYTES: usize = 256 << 10;

/// Largest record that the engine keeps per instance: 50,000 functions and 10,000 globals fit.
const INSTANCE_BYTES_MAX: usize = 4 << 20;

/// Stack that a thread needs to call [`Runner::execute`]: the program's, and what host calls need below it.
pub(super) const THREAD_STACK_BYTES: usize = meter::STACK_BYTES + (2 << 20);

/// The engine refused. The text is its own, for people.
#[derive(Debug, Clone, thiserror::Error)]
pub(super) enum EngineError {
    /// The engine can't be set up on this machine.
    #[error("cannot set up the engine: {0}")]
    SetUp(String),
    /// The module is not one that the profile allows.
    #[error("{0}")]
    Module(String),
}

fn refused(error: &wasmtime::Error) -> EngineError {
    EngineError::Module(format!("{error:#}"))
}

/// The settings of both engines: a compiled module is only loaded when they are equal.
pub(super) fn config() -> Config {
    let mut config = Config::new();
    let off = [
        WasmFeatures::THREADS,
        WasmFeatures::SHARED_EVERYTHING_THREADS,
        WasmFeatures::GC,
        WasmFeatures::EXCEPTIONS,
        WasmFeatures::LEGACY_EXCEPTIONS,
        WasmFeatures::MEMORY64,
        WasmFeatures::MULTI_MEMORY,
        WasmFeatures::RELAXED_SIMD,
        WasmFeatures::TAIL_CALL,
        WasmFeatures::FUNCTION_REFERENCES,
        WasmFeatures::STACK_SWITCHING,
        WasmFeatures::CUSTOM_PAGE_SIZES,
        WasmFeatures::WIDE_ARITHMETIC,
    ];
    for feature in off {
        config.wasm_features(feature, false);
    }
    config.wasm_simd(true).wasm_bulk_memory(true).wasm_multi_value(true);
    config.strategy(Strategy::Cranelift).cranelift_opt_level(OptLevel::Speed);
    meter::configure(&mut config);
    // Nobody sees a backtrace, and taking one costs more than a small program.
    config.wasm_backtrace_max_frames(None).native_unwind_info(false).generate_address_map(false);
    // A copy of the initial data is cheaper than a mapping for the small programs that are started by
    // the thousand, and needs no file descriptor: the executor may not make any.
    config.memory_init_cow(false);
    config
}

/// What became of a module.
#[derive(Debug)]
pub(super) struct Compiled {
    /// The hash of the module as the counting pass left it.
    pub(super) transformed: BlobHash,
    /// Machine code of that.
    pub(super) code: Vec<u8>,
}

/// Makes a module count and compiles it for this machine. Slow, and memory-hungry on a hostile module: for
/// the compile process only.
pub(super) fn compile(wasm: &[u8]) -> Result<Compiled, EngineError> {
    let wasm = meter::instrument(wasm)?;
    let engine = Engine::new(&config()).map_err(|error| EngineError::SetUp(format!("{error:#}")))?;
    let code = engine.precompile_module(&wasm).map_err(|error| refused(&error))?;
    Ok(Compiled { transformed: BlobHash::new(*blake3::hash(&wasm).as_bytes()), code })
}

/// Runs compiled programs, one at a time.
pub(super) struct Runner {
    engine: Engine,
    linker: Linker<Host>,
    /// Whether the engine counts as well, which is only ever done to measure it.
    engine_counts: bool,
}

/// A compiled program, ready to be instantiated.
pub(super) struct Loaded(InstancePre<Host>);

/// The part of a task's world that its whole job shares.
#[derive(Debug, Clone, Copy)]
pub(super) struct Surroundings<'a> {
    pub(super) datasets: &'a [(String, Bytes)],
    pub(super) limits: TaskLimits,
    pub(super) seed: u64,
    pub(super) clock_secs: u64,
}

impl Runner {
    /// Sets up the engine. It reserves address space for one program of the largest memory.
    pub(super) fn new() -> Result<Self, EngineError> {
        Self::with(config(), false)
    }

    /// The same with other settings, those with which the programs were compiled. `engine_counts` says whether they make
    /// the engine count.
    pub(super) fn with(mut config: Config, engine_counts: bool) -> Result<Self, EngineError> {
        let set_up = |error: wasmtime::Error| EngineError::SetUp(format!("{error:#}"));
        let mut pool = PoolingAllocationConfig::new();
        pool.total_core_instances(1)
            .total_memories(1)
            .total_tables(limits::MODULE_TABLES_MAX)
            .max_memories_per_module(1)
            .max_tables_per_module(limits::MODULE_TABLES_MAX)
            .max_core_instance_size(INSTANCE_BYTES_MAX)
            .max_memory_size(usize::try_from(limits::TASK_MEMORY_BYTES_MAX).unwrap_or(usize::MAX))
            .table_elements(usize::try_from(limits::MODULE_TABLE_ELEMENTS_MAX).unwrap_or(usize::MAX))
            .linear_memory_keep_resident(KEEP_RESIDENT_BYTES)
            .table_keep_resident(KEEP_RESIDENT_BYTES)
            .pagemap_scan(Enabled::Auto);
        config.allocation_strategy(InstanceAllocationStrategy::Pooling(pool));
        let engine = Engine::new(&config).map_err(set_up)?;
        let mut linker = Linker::new(&engine);
        wasi::add_to_linker(&mut linker).map_err(set_up)?;
        Ok(Self { engine, linker, engine_counts })
    }

    /// Loads what [`compile`] made.
    ///
    /// The bytes must come from there: they are machine code, and are executed.
    pub(super) fn load(&self, compiled: &[u8]) -> Result<Loaded, EngineError> {
        // SAFETY: `compiled` was made by `compile` in this machine's own compile process: it reaches the
        // executor over a pipe from the parent, which takes it from nobody else, and believes what it finds
        // on its disk only under a MAC with a key of its own, checked over these very bytes. The
        // engine itself refuses bytes of another version or configuration. A compile process
        // that was taken over could forge it; then this process, behind the same walls, is what it gets.
        #[expect(unsafe_code, reason = "loading machine code is unsafe by nature")]
        let module = unsafe { Module::deserialize(&self.engine, compiled) };
        let module = module.map_err(|error| refused(&error))?;
        self.linker.instantiate_pre(&module).map(Loaded).map_err(|error| refused(&error))
    }

    /// Runs one task in a fresh instance, from its beginning.
    pub(super) fn execute(
        &self,
        program: &Loaded,
        surroundings: Surroundings<'_>,
        task: TaskInput,
        on_progress: OnProgress,
    ) -> Result<Execution, NoResult> {
        self.execute_from(None, program, surroundings, task, Hooks { on_progress, on_checkpoint: None })
    }

    /// The same from a snapshot, if it is one that fits; otherwise from the beginning.
    pub(super) fn execute_from(
        &self,
        snapshot: Option<&[u8]>,
        program: &Loaded,
        surroundings: Surroundings<'_>,
        task: TaskInput,
        hooks: Hooks,
    ) -> Result<Execution, NoResult> {
        let Surroundings { datasets, limits, seed, clock_secs } = surroundings;
        let setting = Setting {
            args: task.args,
            env: task.env,
            stdin: task.stdin,
            datasets,
            seed,
            index: task.index,
            clock_secs,
            output_bytes: limits.output.get(),
        };
        let restored = snapshot.and_then(|snapshot| restored(&setting, limits.fuel, snapshot));
        let resumed = restored.is_some();
        let (world, before) = match restored {
            Some(restored) => restored,
            None => (World::new(setting).map_err(|_| NoResult::Internal)?, Fuel::default()),
        };
        let growth = Growth::new(limits.memory.get());
        let budget = Budget::new(limits.fuel, before);
        let Hooks { on_progress, on_checkpoint } = hooks;
        let host = Host { world, memory: None, counters: None, growth, budget, on_progress, on_checkpoint };
        let mut store = Store::new(&self.engine, host);
        store.limiter(|host| &mut host.growth);
        if self.engine_counts {
            store.set_fuel(u64::MAX).map_err(|_| NoResult::Internal)?;
        }
        let exit = start(&mut store, program, budget.left)?;
        let fuel = budget.used(meter::spent(&mut store, budget.left));
        Ok(Execution { exit, output: store.into_data().world.finish(), fuel, resumed })
    }
}

/// The world of a snapshot and the fuel that was used in it. `None` when it does not fit the task.
fn restored(setting: &Setting<'_>, limit: Fuel, snapshot: &[u8]) -> Option<(World, Fuel)> {
    let snapshot = Snapshot::decode(snapshot).filter(|snapshot| snapshot.fuel <= limit)?;
    let fuel = snapshot.fuel;
    let mut world = World::new(setting.clone()).ok()?;
    world.restore(snapshot).ok()?;
    Some((world, fuel))
}

/// Instantiates the program, which runs none of its code, and calls `_start`.
fn start(store: &mut Store<Host>, program: &Loaded, fuel: Fuel) -> Result<Exit, NoResult> {
    let instance = match program.0.instantiate(&mut *store) {
        Ok(instance) => instance,
        Err(error) => {
            let refused = store.data().growth.refused;
            return match classify(store, &error) {
                Err(NoResult::Internal) if refused => Ok(Exit::Limit(Limit::Memory)),
                verdict => verdict,
            };
        }
    };
    let memory = instance.get_memory(&mut *store, "memory").ok_or(NoResult::Compile)?;
    let counters = Counters::armed(store, &instance, fuel).ok_or(NoResult::Compile)?;
    let host = store.data_mut();
    (host.memory, host.counters) = (Some(memory), Some(counters));
    let entry = instance.get_typed_func::<(), ()>(&mut *store, "_start").map_err(|_| NoResult::Compile)?;
    match entry.call(&mut *store, ()) {
        Ok(()) => Ok(Exit::Ok),
        Err(error) => classify(store, &error),
    }
}

/// Tells the end of a program from the failure of the machine.
fn classify(store: &mut Store<Host>, error: &wasmtime::Error) -> Result<Exit, NoResult> {
    if store.data().growth.host_failed {
        return Err(NoResult::HostMemory);
    }
    if let Some(Fault::End(exit)) = error.downcast_ref() {
        return Ok(*exit);
    }
    let Some(trap) = error.downcast_ref::<wasmtime::Trap>() else {
        return Err(NoResult::Internal);
    };
    meter::verdict(store, *trap).unwrap_or_else(|| Ok(Exit::Trap(trap_reason(*trap))))
}

fn trap_reason(trap: wasmtime::Trap) -> Trap {
    use wasmtime::Trap as Engine;
    match trap {
        Engine::UnreachableCodeReached => Trap::Unreachable,
        Engine::MemoryOutOfBounds => Trap::MemoryOutOfBounds,
        Engine::TableOutOfBounds => Trap::TableOutOfBounds,
        Engine::IndirectCallToNull => Trap::IndirectCallToNull,
        Engine::BadSignature => Trap::BadSignature,
        Engine::IntegerOverflow => Trap::IntegerOverflow,
        Engine::IntegerDivisionByZero => Trap::DivideByZero,
        Engine::BadConversionToInteger => Trap::BadConversion,
        _ => Trap::Other,
    }
}
