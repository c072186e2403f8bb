//! How peers carry the data: what is fetched from whom, who is served, and who is known to have what.
//!
//! | module | decides |
//! |---|---|
//! | [`pieces`] | how a blob is cut, and sets of pieces |
//! | [`download`] | the next piece, and whom to ask for it |
//! | [`uploads`] | who is served next |
//! | [`roster`] | who takes part in the exchange of a blob, as far as one peer knows |
//! | [`tracker`] | the same for the blobs of a coordinator's jobs |
//! | [`acquaintances`] | the same for whoever has or fetches blobs, with addresses |
//! | [`ways`] | by which transport a peer is asked |
//! | [`room`] | what blobs may take of a disk, and what goes when there is no room |
//! | [`bans`] | who is not spoken with any more |
//!
//! A blob is fetched piece by piece from many peers at once, and whoever has a piece serves it, so that what N peers
//! need leaves its source about once. Everything here is told what time it is and given its random numbers.

pub mod acquaintances;
pub mod bans;
pub mod download;
pub mod pieces;
pub mod room;
pub mod roster;
#[cfg(test)]
mod tests;
pub mod tracker;
pub mod uploads;
pub mod waiting;
pub mod ways;

pub use self::{
    acquaintances::{Acquaintance, Acquaintances},
    bans::Bans,
    download::{Download, Failure, Kind, Request, RequestNo},
    pieces::{PieceNo, PieceSet, Pieces},
    room::{NoRoom, Room},
    roster::Roster,
    tracker::Tracker,
    uploads::{UploadNo, Uploads, Wanted},
    waiting::Waiting,
    ways::{Way, Ways},
};

/// A source of random numbers: called with `n`, it gives one below `n`. `n` is never 0.
pub type Draw<'a> = &'a mut dyn FnMut(u32) -> u32;
