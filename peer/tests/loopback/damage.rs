//! Blobs that the disk has damaged while other peers follow them: they can be had again, and the others are not lost.

use std::{io::Write, path::Path};

use futures_util::StreamExt;
use talka_core::job::BlobRef;
use talka_peer::{
    blobs::{AdmitAll, BlobError, BlobStore, Serving},
    transfer::{ChunkTransport, IrohBlobs},
};

use crate::{
    exchange::{Both, First, done},
    peers::{DEADLINE, noise},
    swarm::{MIB, Told, seeded},
};

/// Flips a bit in the midst of a blob, in place, as a disk does it.
fn damage(dir: &Path, blob: BlobRef) {
    let path = dir.join("data").join(format!("{}.data", blob.hash));
    let mut bytes = std::fs::read(&path).expect("there");
    let middle = bytes.len() / 2;
    bytes[middle] ^= 1;
    let file = std::fs::File::options().write(true).open(path);
    file.and_then(|mut file| file.write_all(&bytes)).expect("written");
}

/// Discards a damaged blob while it is followed by `transport`, and fetches it again.
async fn comes_again(transport: &impl ChunkTransport, holder: &Both, dir: &Path, bytes: &bytes::Bytes) {
    let (seed, blob) = seeded(bytes).await;
    holder.store.add_bytes(bytes.clone(), "job/1/").await.expect("added");
    holder.store.sync().await.expect("durable");
    let mut news = transport.follow(&holder.provider(), blob).await.expect("followed");
    assert_eq!(news.next().await.map(|pieces| pieces.len()), Some(3));
    damage(dir, blob);
    let damaged = holder.store.read(blob.hash, u64::MAX).await;
    assert!(matches!(damaged, Err(BlobError::Read { .. })), "{damaged:?}");

    holder.store.discard(blob.hash).await.expect("removed");
    let fetch = holder.fetch(blob, Told { source: Some(seed.provider()), others: vec![] }).await;
    done(&fetch).await;
    assert_eq!(fetch.bytes_by_provider().values().sum::<u64>(), blob.size.get(), "all of it came again");
    assert_eq!(holder.store.read(blob.hash, u64::MAX).await.expect("whole"), *bytes);

    // Who followed it is told so, and may follow it again.
    let ended = async { while news.next().await.is_some() {} };
    tokio::time::timeout(DEADLINE, ended).await.expect("it was cut off");
    let mut news = transport.follow(&holder.provider(), blob).await.expect("followed again");
    assert_eq!(news.next().await.map(|pieces| pieces.len()), Some(3));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_damaged_blob_is_had_again_while_another_peer_follows_it_by_either_transport() {
    let bytes = noise(3 * MIB);
    for by_first in [true, false] {
        let dir = tempfile::tempdir().expect("a directory");
        let store = BlobStore::open(dir.path()).await.expect("opened");
        let holder = Both::of(store.clone(), Serving::default(), First::Works, AdmitAll).await;
        let other = Both::new(Serving::default(), First::Works).await;
        if by_first {
            let first = IrohBlobs::new(other.endpoint.clone(), other.store.clone(), None);
            comes_again(&first, &holder, dir.path(), &bytes).await;
        } else {
            comes_again(&other.second, &holder, dir.path(), &bytes).await;
        }
        drop(holder);
        store.shutdown().await;
    }
}
