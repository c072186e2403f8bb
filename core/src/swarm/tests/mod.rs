//! Tests of downloads and uploads: tables, and whatever order things happen in.

mod downloads;
mod uploads;

use crate::{
    ids::PeerId,
    limits,
    quantities::{Bytes, Timestamp},
};

const START: Timestamp = Timestamp::from_millis(10_000);

fn peer(number: u8) -> PeerId {
    PeerId::new([number; 32])
}

fn mib(count: u64) -> Bytes {
    Bytes::new(count * limits::SWARM_PIECE_BYTES)
}

/// Numbers that look like chance and are the same each time.
fn dice(seed: u64) -> impl FnMut(u32) -> u32 {
    let mut state = seed | 1;
    move |below| {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        u32::try_from(state % u64::from(below)).expect("below a u32")
    }
}
