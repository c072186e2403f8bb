//! WASI preview 1 over the [`World`](super::world::World): every function of the standard, served or
//! answered with the error that says why not.
//!
//! Each call costs [`CALL_FUEL`], and one more for each [`BYTES_PER_FUEL`] that it moves, so that a program
//! can't make the host work for nothing.

mod files;
mod memory;
mod paths;
mod process;

use wasmtime::{Caller, Linker};

use self::memory::GuestMemory;
use super::{
    host::Host,
    meter,
    world::{Answer, Fault, World},
};

/// The module name under which programs import these functions.
pub(crate) const MODULE: &str = "wasi_snapshot_preview1";

/// Fuel of a host call before it moves anything: about what it costs in time.
pub(crate) const CALL_FUEL: u64 = 200;

/// Bytes that a host call moves for one unit of fuel: as many as one operator of the program could.
pub(crate) const BYTES_PER_FUEL: u64 = 8;

/// Defines all functions.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    files::add_to_linker(linker)?;
    paths::add_to_linker(linker)?;
    process::add_to_linker(linker)
}

/// What a host call works on.
struct Guest<'a> {
    memory: GuestMemory<'a>,
    world: &'a mut World,
}

/// Charges for a call, performs it, charges for the bytes that it moved, and turns its answer into what
/// the program gets: an error number, 0 for success, or its end.
fn serve(
    caller: &mut Caller<'_, Host>,
    request: impl FnOnce(&mut Guest<'_>) -> Answer<()>,
) -> wasmtime::Result<u32> {
    meter::charge(caller, CALL_FUEL)?;
    let Some(memory) = caller.data().memory else {
        return Err(wasmtime::Error::msg("a program without memory runs"));
    };
    let (bytes, host) = memory.data_and_store_mut(&mut *caller);
    let before = host.world.progress();
    let answer = request(&mut Guest { memory: GuestMemory(bytes), world: &mut host.world });
    if let Some(progress) = host.world.progress().filter(|now| before != Some(*now)) {
        (host.on_progress)(progress);
    }
    let work = host.world.take_work();
    if work > 0 {
        meter::charge(caller, work.div_ceil(BYTES_PER_FUEL))?;
    }
    if caller.data_mut().world.take_mark() {
        offer_checkpoint(caller);
    }
    match answer {
        Ok(()) => Ok(0),
        Err(Fault::Errno(errno)) => Ok(errno as u32),
        Err(end @ Fault::End(_)) => Err(end.into()),
    }
}

/// Everything of this call is done and paid for: a program that goes on from here finds all as it is now.
fn offer_checkpoint(caller: &mut Caller<'_, Host>) {
    let host = caller.data();
    let (Some(on_checkpoint), budget) = (host.on_checkpoint.clone(), host.budget) else { return };
    let used = budget.used(meter::spent(&mut *caller, budget.left));
    on_checkpoint(&caller.data().world, used);
}
