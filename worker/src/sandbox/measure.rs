//! What the sandbox costs: programs of our own, run in this process as tasks are and with less than that.
//!
//! There are no walls here, and a module is compiled where it is run. So this is for modules that come with `talka`, and for
//! nothing that anybody else wrote.

use std::{io, rc::Rc, thread, time::Duration};

use bytes::Bytes;
use rustix::time::{ClockId, clock_gettime};
use talka_core::{
    job::{CLOCK_SECS_DEFAULT, TaskLimits},
    outcome::{Exit, NoResult},
};
use talka_profile::{Options, RewriteError, rewrite};
use wasmtime::Engine;

use super::{
    engine::{self, EngineError, Loaded, Runner, Surroundings, THREAD_STACK_BYTES},
    job::TaskInput,
};

/// What is done to a program before and while it runs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Variant {
    /// Nothing counts, and NaNs are what the CPU makes of them.
    Unmetered,
    /// The engine's own fuel.
    EngineFuel,
    /// The counting pass, without its rule for NaNs.
    Counted,
    /// What tasks get.
    CountedNan,
}

impl Variant {
    /// From the least to the most.
    pub const ALL: [Self; 4] = [Self::Unmetered, Self::EngineFuel, Self::Counted, Self::CountedNan];

    fn options(self) -> Options {
        match self {
            Self::Unmetered | Self::EngineFuel => Options { count: false, ..Options::default() },
            Self::Counted => Options { settle_nans: false, ..Options::default() },
            Self::CountedNan => Options::default(),
        }
    }
}

/// Why a program was not measured.
#[derive(Debug, thiserror::Error)]
pub enum MeasureError {
    /// It can't be made to count. Not worth a retry.
    #[error("the module can't be rewritten")]
    Rewrite(#[from] RewriteError),
    /// The engine refuses it, or can't be set up. Not worth a retry.
    #[error("the engine does not take it: {0}")]
    Engine(String),
    /// It ended, but not well.
    #[error("the program ended with: {0}")]
    Ended(Exit),
    /// The machine failed. Worth a retry.
    #[error("no result: {0}")]
    NoResult(NoResult),
}

impl From<EngineError> for MeasureError {
    fn from(error: EngineError) -> Self {
        Self::Engine(error.to_string())
    }
}

/// A program that is compiled and loaded.
pub struct Prepared {
    runner: Runner,
    program: Loaded,
}

/// One execution.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Run {
    /// CPU time from before the program is instantiated to its end.
    pub cpu: Duration,
    /// Its standard output.
    pub stdout: Vec<u8>,
}

impl Prepared {
    /// Compiles `wasm`, which must be a module that comes with `talka`: see above.
    pub fn new(wasm: &[u8], variant: Variant) -> Result<Self, MeasureError> {
        let module = rewrite(wasm, &variant.options())?.wasm;
        let mut config = engine::config();
        config.consume_fuel(variant == Variant::EngineFuel);
        let engine = Engine::new(&config).map_err(|error| EngineError::SetUp(format!("{error:#}")))?;
        let compiled =
            engine.precompile_module(&module).map_err(|error| EngineError::Module(format!("{error:#}")))?;
        let runner = Runner::with(config, variant == Variant::EngineFuel)?;
        let program = runner.load(&compiled)?;
        Ok(Self { runner, program })
    }

    /// Runs it in the world of a task with default limits. To be called on a thread of [`on_thread`].
    pub fn run(&self, args: &[String]) -> Result<Run, MeasureError> {
        let surroundings = Surroundings {
            datasets: &[],
            limits: TaskLimits::default(),
            seed: 0,
            clock_secs: CLOCK_SECS_DEFAULT,
        };
        let task = TaskInput { index: 0, args: args.to_vec(), env: Vec::new(), stdin: Bytes::new() };
        let (execution, cpu) =
            cpu_time(|| self.runner.execute(&self.program, surroundings, task, Rc::new(|_| ())));
        let execution = execution.map_err(MeasureError::NoResult)?;
        match execution.exit {
            Exit::Ok => Ok(Run { cpu, stdout: execution.output.stdout }),
            exit => Err(MeasureError::Ended(exit)),
        }
    }
}

/// Runs `body` on a thread with as much stack as programs need, and waits for it.
pub fn on_thread<T: Send>(body: impl FnOnce() -> T + Send) -> io::Result<T> {
    thread::scope(|scope| {
        let thread = thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn_scoped(scope, body)?;
        thread.join().map_err(|_| io::Error::other("the thread has panicked"))
    })
}

/// What `body` returns, and the CPU time that this thread has spent on it.
pub fn cpu_time<T>(body: impl FnOnce() -> T) -> (T, Duration) {
    let now = || Duration::try_from(clock_gettime(ClockId::ThreadCPUTime)).unwrap_or_default();
    let begun = now();
    let value = body();
    (value, now().saturating_sub(begun))
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Prints the bits of 0/0, which depend on the CPU unless NaNs are settled.
    const NAN: &str = r#"(module
        (import "wasi_snapshot_preview1" "fd_write" (func $write (param i32 i32 i32 i32) (result i32)))
        (memory (export "memory") 1)
        (data (i32.const 0) "\10\00\00\00\08\00\00\00")
        (func (export "_start") (local $zero f64)
            (f64.store (i32.const 16) (f64.div (local.get $zero) (local.get $zero)))
            (drop (call $write (i32.const 1) (i32.const 0) (i32.const 1) (i32.const 8)))))"#;

    #[test]
    fn each_variant_runs_and_does_what_its_name_says() {
        let wasm = wat::parse_str(NAN).expect("valid");
        for variant in Variant::ALL {
            let run = on_thread(|| Prepared::new(&wasm, variant).expect("prepared").run(&[]).expect("run"));
            let stdout = run.expect("a thread").stdout;
            let nan = f64::from_le_bytes(*stdout.as_array().expect("eight bytes"));
            assert!(nan.is_nan(), "{variant:?}");
            let settled = variant == Variant::CountedNan || cfg!(not(target_arch = "x86_64"));
            assert_eq!(nan.to_bits() == 0x7ff8_0000_0000_0000, settled, "{variant:?}");
        }
    }

    #[test]
    fn a_program_that_fails_is_not_measured() {
        let wasm =
            wat::parse_str("(module (memory (export \"memory\") 1) (func (export \"_start\") unreachable))");
        let prepared = Prepared::new(&wasm.expect("valid"), Variant::CountedNan).expect("prepared");
        let error = on_thread(|| prepared.run(&[])).expect("a thread").expect_err("trapped");
        assert!(matches!(error, MeasureError::Ended(Exit::Trap(_))), "{error}");
        assert!(matches!(Prepared::new(b"", Variant::Unmetered), Err(MeasureError::Rewrite(_))));
    }
}
