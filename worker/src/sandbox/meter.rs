//! Counting: fuel, call depth and the one form of NaN, which the pass of [`talka_profile`] builds into the
//! program itself.
//!
//! The engine knows nothing of it. It compiles a module that counts in two globals; the host sets the first
//! before the program begins, takes from it for its own work, and reads both when the program has ended.

use talka_core::{
    limits,
    outcome::{Exit, Limit, NoResult},
    quantities::Fuel,
};
use talka_profile::{DEPTH_GLOBAL, FUEL_GLOBAL, Options, fuel_used, limit_hit, rewrite};
use wasmtime::{AsContextMut, Caller, Config, Global, Instance, Store, Trap, Val};

use super::{engine::EngineError, host::Host, world::Fault};

/// Native stack of a program. The call depth that the pass counts strikes before this is full.
pub(super) const STACK_BYTES: usize = limits::TASK_STACK_BYTES;

/// Sets what counting needs of an engine, when it compiles and when it loads.
pub(super) fn configure(config: &mut Config) {
    // The size of stacks that are never used here is checked against the one that is.
    config.async_stack_size(2 * STACK_BYTES).max_wasm_stack(STACK_BYTES);
    // The pass says which of its branches are hardly ever taken.
    config.wasm_branch_hinting(true);
}

/// Makes a module count, and refuses one that breaks the profile.
pub(super) fn instrument(wasm: &[u8]) -> Result<Vec<u8>, EngineError> {
    match rewrite(wasm, &Options::default()) {
        Ok(rewritten) => Ok(rewritten.wasm),
        Err(error) => Err(EngineError::Module(error.to_string())),
    }
}

/// The two globals of an instance in which it counts.
#[derive(Debug, Clone, Copy)]
pub(super) struct Counters {
    fuel: Global,
    depth: Global,
}

impl Counters {
    /// Finds them and gives the program its fuel. `None` for a module that does not come from [`instrument`].
    pub(super) fn armed(store: &mut Store<Host>, instance: &Instance, fuel: Fuel) -> Option<Self> {
        let counters = Self {
            fuel: instance.get_global(&mut *store, FUEL_GLOBAL)?,
            depth: instance.get_global(&mut *store, DEPTH_GLOBAL)?,
        };
        let fuel = i64::try_from(fuel.get()).unwrap_or(i64::MAX);
        counters.fuel.set(store, Val::I64(fuel)).ok()?;
        Some(counters)
    }
}

/// Takes fuel for what the host does for the program. The program has handed in its own count before it
/// called, so this strikes at the same call everywhere.
pub(super) fn charge(caller: &mut Caller<'_, Host>, fuel: u64) -> wasmtime::Result<()> {
    let Some(Counters { fuel: global, .. }) = caller.data().counters else {
        return Err(wasmtime::Error::msg("a program without counters runs"));
    };
    let left = global.get(&mut *caller).i64().unwrap_or(0);
    let left = left.saturating_sub(i64::try_from(fuel).unwrap_or(i64::MAX));
    global.set(&mut *caller, Val::I64(left))?;
    if left < 0 { Err(Fault::limit(Limit::Fuel).into()) } else { Ok(()) }
}

/// What the program has used of its `limit`: never more, although the stretch of code or the work of the
/// host at which the limit struck may have gone beyond it.
pub(super) fn spent(mut store: impl AsContextMut<Data = Host>, limit: Fuel) -> Fuel {
    let store = store.as_context_mut();
    // Without counters the program has not begun.
    let Some(Counters { fuel, .. }) = store.data().counters else { return Fuel::default() };
    let left = fuel.get(store).i64().unwrap_or(0);
    fuel_used(limit, left).min(limit)
}

/// What a trap means, when it is one by which counting shows.
pub(super) fn verdict(store: &mut Store<Host>, trap: Trap) -> Option<Result<Exit, NoResult>> {
    match trap {
        Trap::UnreachableCodeReached => {
            let Counters { fuel, depth } = store.data().counters?;
            let left = (fuel.get(&mut *store).i64()?, depth.get(&mut *store).i32()?);
            limit_hit(left.0, left.1).map(|limit| Ok(Exit::Limit(limit)))
        }
        Trap::StackOverflow => Some(Err(NoResult::NativeStack)),
        _ => None,
    }
}
