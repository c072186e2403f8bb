//! Runs modules on several compilers that agree on WebAssembly and on nothing else.

use std::hash::{DefaultHasher, Hash, Hasher};

use talka_core::{limits, outcome::Limit, quantities::Fuel};
use talka_profile::{DEPTH_GLOBAL, FUEL_GLOBAL, Options, fuel_used, limit_hit, rewrite};
use wasmtime::{
    AsContextMut, Caller, Config, Engine, Error, Instance, Linker, Module, OptLevel, Store, Strategy, Trap,
    Val,
};

/// What the stand-in for a host function charges.
pub(crate) const HOST_CALL: i64 = 1000;

/// Fuel that no test uses up.
pub(crate) const PLENTY: u64 = 1 << 50;

/// A compiler, and what it makes of NaNs.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Compiler {
    /// Optimising.
    Speed,
    /// The same without optimisation.
    None,
    /// Optimising, and every NaN of an arithmetic operator is canonical.
    Canonical,
    /// Another code generator, which goes through the module once.
    Winch,
    /// An interpreter: bytecode, and float arithmetic in the host's own Rust.
    Pulley,
}

pub(crate) const COMPILERS: [Compiler; 5] =
    [Compiler::Speed, Compiler::None, Compiler::Canonical, Compiler::Winch, Compiler::Pulley];

/// How a run ended.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Exit {
    Returned,
    Code(i32),
    Limit(Limit),
    Trap(Trap),
}

/// Everything about a run that must be the same everywhere.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct End {
    pub(crate) exit: Exit,
    pub(crate) fuel: u64,
    /// Hash of the memory and of every exported global.
    pub(crate) state: u64,
}

/// An engine.
pub(crate) struct Machine {
    pub(crate) compiler: Compiler,
    engine: Engine,
    metered: bool,
}

impl Machine {
    pub(crate) fn new(compiler: Compiler) -> Self {
        Self::with(compiler, false)
    }

    /// An engine that counts fuel itself.
    pub(crate) fn metered() -> Self {
        Self::with(Compiler::Speed, true)
    }

    fn with(compiler: Compiler, metered: bool) -> Self {
        let mut config = Config::new();
        config.async_stack_size(2 * limits::TASK_STACK_BYTES).max_wasm_stack(limits::TASK_STACK_BYTES);
        config.consume_fuel(metered);
        match compiler {
            Compiler::Speed => config.wasm_branch_hinting(true),
            Compiler::None => config.cranelift_opt_level(OptLevel::None),
            Compiler::Canonical => config.cranelift_nan_canonicalization(true),
            Compiler::Winch => config.strategy(Strategy::Winch),
            Compiler::Pulley => config.target("pulley64").expect("a feature of the engine"),
        };
        // Small modules by the thousand: reserving 4 GiB for each would be most of the work.
        config.memory_reservation(1 << 20).memory_guard_size(0);
        Self { compiler, engine: Engine::new(&config).expect("an engine"), metered }
    }

    /// Compiles; `None` for what this compiler does not know.
    pub(crate) fn compile(&self, wasm: &[u8]) -> Option<Module> {
        Module::new(&self.engine, wasm).ok()
    }

    /// Rewrites a program and runs it with `fuel`.
    pub(crate) fn run_wat(&self, text: &str, fuel: u64) -> End {
        let module = self.compile(&rewritten(text)).expect(text);
        self.run(&module, fuel)
    }

    /// Runs a module. Its fuel is what it counted, or what the engine did.
    pub(crate) fn run(&self, module: &Module, fuel: u64) -> End {
        self.run_and_look(module, fuel, |_, _| ()).0
    }

    /// Runs a module and returns the first `length` bytes of its memory, too.
    pub(crate) fn run_for_bytes(&self, module: &Module, fuel: u64, length: usize) -> (End, Vec<u8>) {
        let (end, bytes) = self.run_and_look(module, fuel, |store, instance| {
            let memory = instance.get_memory(&mut *store, "memory").expect("a command");
            memory.data(&store)[..length].to_vec()
        });
        (end, bytes.expect("a program that begins"))
    }

    fn run_and_look<T>(
        &self,
        module: &Module,
        fuel: u64,
        look: impl FnOnce(&mut Store<()>, &Instance) -> T,
    ) -> (End, Option<T>) {
        let mut store = Store::new(&self.engine, ());
        let mut linker = Linker::new(&self.engine);
        let wasi = "wasi_snapshot_preview1";
        linker
            .func_wrap(wasi, "proc_exit", |code: i32| Err::<(), _>(Error::new(ProcExit(code))))
            .expect("new");
        // Stands for a host function that charges for its work.
        linker
            .func_wrap(wasi, "sched_yield", |mut caller: Caller<'_, ()>| {
                let own = caller.get_export(FUEL_GLOBAL).and_then(wasmtime::Extern::into_global);
                if let Some(fuel) = own {
                    let left = fuel.get(&mut caller).unwrap_i64();
                    fuel.set(&mut caller, Val::I64(left - HOST_CALL)).expect("a mutable i64");
                } else {
                    let left = caller.get_fuel().expect("metered");
                    caller.set_fuel(left.saturating_sub(HOST_CALL as u64)).expect("metered");
                }
                0i32
            })
            .expect("new");
        if self.metered {
            store.set_fuel(fuel).expect("metered");
        }
        let instance = match linker.instantiate(&mut store, module) {
            Ok(instance) => instance,
            Err(error) => return (End { exit: exit(&error, None), fuel: 0, state: 0 }, None),
        };
        let before = if self.metered { store.get_fuel().expect("metered") } else { fuel };
        set_fuel(&instance, &mut store, fuel);
        let start = instance.get_typed_func::<(), ()>(&mut store, "_start").expect("a command");
        let result = start.call(&mut store, ());
        let left = global(&instance, &mut store, FUEL_GLOBAL).map(|fuel| fuel.unwrap_i64());
        let depth = global(&instance, &mut store, DEPTH_GLOBAL).map(|depth| depth.unwrap_i32());
        let used = match left {
            Some(left) => fuel_used(Fuel::new(fuel), left).get(),
            None if self.metered => before - store.get_fuel().expect("metered"),
            None => 0,
        };
        let limit = left.zip(depth).and_then(|(left, depth)| limit_hit(left, depth));
        let exit = result.map_or_else(|error| exit(&error, limit), |()| Exit::Returned);
        let state = state(&instance, store.as_context_mut());
        let seen = look(&mut store, &instance);
        (End { exit, fuel: used, state }, Some(seen))
    }
}

/// The program in `text`, rewritten as the profile does it.
pub(crate) fn rewritten(text: &str) -> Vec<u8> {
    let wasm = wat::parse_str(text).expect(text);
    rewrite(&wasm, &Options::default()).unwrap_or_else(|error| panic!("{error}\n{text}")).wasm
}

#[derive(Debug, Clone, Copy)]
struct ProcExit(i32);

impl std::fmt::Display for ProcExit {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "exit {}", self.0)
    }
}

impl std::error::Error for ProcExit {}

fn exit(error: &Error, limit: Option<Limit>) -> Exit {
    match (error.downcast_ref::<Trap>(), error.downcast_ref::<ProcExit>()) {
        (Some(Trap::UnreachableCodeReached), _) if limit.is_some() => Exit::Limit(limit.expect("just seen")),
        (Some(trap), _) => Exit::Trap(*trap),
        (None, Some(ProcExit(code))) => Exit::Code(*code),
        (None, None) => panic!("{error:?}"),
    }
}

fn global(instance: &Instance, store: &mut Store<()>, name: &str) -> Option<Val> {
    Some(instance.get_global(&mut *store, name)?.get(&mut *store))
}

fn set_fuel(instance: &Instance, store: &mut Store<()>, fuel: u64) {
    if let Some(global) = instance.get_global(&mut *store, FUEL_GLOBAL) {
        assert_eq!(global.get(&mut *store).unwrap_i64(), 0, "nothing runs before the limit is set");
        global.set(store, Val::I64(fuel.cast_signed())).expect("a mutable i64");
    }
}

/// Hash of all that a program leaves behind.
fn state(instance: &Instance, mut store: impl AsContextMut) -> u64 {
    let mut hasher = DefaultHasher::new();
    let exports: Vec<_> =
        instance.exports(&mut store).map(|export| (export.name().to_owned(), export.into_extern())).collect();
    for (name, value) in exports.iter().filter(|(name, _)| !name.starts_with("talka_")) {
        if let Some(memory) = value.clone().into_memory() {
            memory.data(&store).hash(&mut hasher);
        } else if let Some(global) = value.clone().into_global() {
            let bits = match global.get(&mut store) {
                Val::I32(value) => u128::from(value.cast_unsigned()),
                Val::I64(value) => u128::from(value.cast_unsigned()),
                Val::F32(bits) => u128::from(bits),
                Val::F64(bits) => u128::from(bits),
                Val::V128(value) => value.as_u128(),
                _ => 0,
            };
            (name, bits).hash(&mut hasher);
        }
    }
    hasher.finish()
}
