//! Blobs: bytes named by their BLAKE3 hash, verified on the way in and on the way out.
//!
//! [`BlobStore`] keeps them on disk or in memory, over `iroh-blobs`, whose types stay inside this crate. A blob lives as
//! long as a tag or a [`Hold`] names it; the rest is collected. [`BlobServer`] lets other peers fetch what [`Admit`]
//! allows them. A peer that nobody can dial makes a connection itself and [`offer`]s its store on it; who accepts such
//! connections finds them in [`ReverseProviders`].
//!
//! Nobody can write into the store from outside: the protocol's push requests stay disabled.

mod discards;
mod foreign;
mod held;
mod reverse;
mod serve;
mod store;
mod tidy;

use std::path::PathBuf;

use iroh_blobs::Hash;
use talka_core::{ids::BlobHash, quantities::Bytes};

pub(crate) use self::{
    foreign::{Nowhere, Refused},
    held::Held,
};
pub use self::{
    reverse::{REVERSE_ALPN, ReverseProviders, offer},
    serve::{Admit, AdmitAll, BlobServer, Served, Serving},
    store::{BlobStore, Hold},
};
use crate::Cause;

/// Names the protocol by which blobs are fetched.
pub const ALPN: &[u8] = iroh_blobs::ALPN;

/// The store can't do what it was asked.
#[derive(Debug, thiserror::Error)]
pub enum BlobError {
    /// The store can't be opened: another process has it open, or its files are damaged. A retry helps once the other
    /// process is gone.
    #[error("cannot open the blob store in {}: is another process using it?", path.display())]
    Open {
        /// Its directory.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// Not all of the blob is here. Fetch it.
    #[error("blob {} is not here", hash.short())]
    NotHere {
        /// Which.
        hash: BlobHash,
    },
    /// The blob is longer than the caller wants to hold. Never worth a retry.
    #[error("blob {} of {size} is longer than the {max} that may be read at once", hash.short())]
    TooLong {
        /// Which.
        hash: BlobHash,
        /// Its length.
        size: Bytes,
        /// The limit.
        max: Bytes,
    },
    /// The range does not lie in the blob. Never worth a retry.
    #[error("bytes {start} to {end} are not in blob {} of {size}", hash.short())]
    OutOfRange {
        /// Which.
        hash: BlobHash,
        /// First byte.
        start: u64,
        /// First byte that is not wanted.
        end: u64,
        /// Its length.
        size: Bytes,
    },
    /// The bytes can't be read, or are not those of the hash any more. The disk is at fault.
    #[error("blob {} cannot be read", hash.short())]
    Read {
        /// Which.
        hash: BlobHash,
        /// Why.
        source: Cause,
    },
    /// The blob is to be removed and somebody reads it. Worth a retry.
    #[error("blob {} is damaged, and can't be removed while it is in use", hash.short())]
    InUse {
        /// Which.
        hash: BlobHash,
    },
    /// New bytes can't be stored.
    #[error("cannot add to the blob store")]
    Add(#[source] Cause),
    /// A file can't be read into the store.
    #[error("cannot add {} to the blob store", path.display())]
    AddFile {
        /// The file.
        path: PathBuf,
        /// Why.
        source: Cause,
    },
    /// A blob can't be written to a file.
    #[error("cannot write blob {} to {}", hash.short(), path.display())]
    Export {
        /// Which.
        hash: BlobHash,
        /// The file.
        path: PathBuf,
        /// Why.
        source: std::io::Error,
    },
    /// What was stored can't be made durable. Nothing that rests on it may be acknowledged.
    #[error("the blob store cannot be synced to disk")]
    Sync(#[source] Cause),
    /// The store's task is gone: it was shut down, or its disk failed.
    #[error("the blob store does not answer")]
    Gone(#[source] Cause),
}

pub(crate) fn to_hash(hash: BlobHash) -> Hash {
    Hash::from_bytes(*hash.as_bytes())
}

fn from_hash(hash: Hash) -> BlobHash {
    BlobHash::new(*hash.as_bytes())
}
