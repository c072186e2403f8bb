//! Counting: fuel, call depth and the one form of NaN, as the engine does them.
//!
//! Everything that depends on *who* counts is in this file, so that a pass over the module can take it
//! over without anybody else noticing.

use talka_core::{
    outcome::{Exit, Limit, NoResult},
    quantities::Fuel,
};
use wasmtime::{Caller, Config, Store, Trap};

use super::{host::Host, world::Fault};

/// Native stack of a program. A call depth that is counted must strike before this does.
pub(super) const STACK_BYTES: usize = 8 << 20;

/// Sets what the engine has to do for it, when it compiles and when it loads.
pub(super) fn configure(config: &mut Config) {
    // The size of stacks that are never used here is checked against the one that is.
    config.consume_fuel(true).async_stack_size(2 * STACK_BYTES).max_wasm_stack(STACK_BYTES);
    config.cranelift_nan_canonicalization(true);
}

/// Gives a program its fuel, before it is instantiated: what runs during that counts too.
pub(super) fn arm(store: &mut Store<Host>, fuel: Fuel) -> wasmtime::Result<()> {
    store.set_fuel(fuel.get())
}

/// Takes fuel for what the host does for the program.
pub(super) fn charge(caller: &mut Caller<'_, Host>, fuel: u64) -> wasmtime::Result<()> {
    if fuel == 0 {
        return Ok(());
    }
    let left = caller.get_fuel()?.checked_sub(fuel);
    caller.set_fuel(left.unwrap_or(0))?;
    left.map(drop).ok_or_else(|| Fault::limit(Limit::Fuel).into())
}

/// What the program has used of its `limit`.
pub(super) fn spent(store: &Store<Host>, limit: Fuel) -> wasmtime::Result<Fuel> {
    Ok(Fuel::new(limit.get().saturating_sub(store.get_fuel()?)))
}

/// What a trap means, when it is one by which counting shows.
pub(super) fn verdict(trap: Trap) -> Option<Result<Exit, NoResult>> {
    match trap {
        Trap::OutOfFuel => Some(Ok(Exit::Limit(Limit::Fuel))),
        Trap::StackOverflow => Some(Err(NoResult::NativeStack)),
        _ => None,
    }
}
