//! Links as a fluid.

use talka_core::swarm::{RequestNo, UploadNo};

/// Bytes on their way from one peer to another.
#[derive(Debug)]
pub(super) struct Transfer {
    /// Who sends.
    pub(super) from: usize,
    /// Who receives.
    pub(super) to: usize,
    /// The receiver's name for it.
    pub(super) request: RequestNo,
    /// The sender's name for it.
    pub(super) upload: UploadNo,
    /// What is still to come.
    pub(super) left: f64,
    /// What came.
    pub(super) came: f64,
}

/// Moves what fits through the links in `secs`. `up` and `down` are the rates of each peer. Every transfer gets an even
/// share of its sender's uplink, cut to an even share of its receiver's downlink.
pub(super) fn flow(transfers: &mut [Transfer], up: &[f64], down: &[f64], secs: f64) {
    let mut sent = vec![0.0_f64; up.len()];
    let mut received = vec![0.0_f64; down.len()];
    for transfer in transfers.iter() {
        sent[transfer.from] += 1.0;
        received[transfer.to] += 1.0;
    }
    for transfer in transfers {
        let rate = (up[transfer.from] / sent[transfer.from]).min(down[transfer.to] / received[transfer.to]);
        let moved = (rate * secs).min(transfer.left);
        transfer.left -= moved;
        transfer.came += moved;
    }
}

#[cfg(test)]
mod tests {
    use talka_core::{
        ids::{BlobHash, PeerId},
        quantities::{Bytes, Timestamp},
        swarm::{Download, Kind, PieceNo, PieceSet, Uploads, Wanted},
    };

    use super::*;

    #[test]
    fn links_are_shared_evenly_and_never_carry_more_than_they_can() {
        let now = Timestamp::from_millis(0);
        let mut download = Download::new(Bytes::mib(4), PieceSet::none(4));
        let mut uploads = Uploads::new(4);
        let peer = PeerId::new([1; 32]);
        download.on_provider(peer, Kind::Peer);
        download.on_has(peer, [PieceNo::new(0), PieceNo::new(1)]);
        let mut transfer = |from, to| Transfer {
            from,
            to,
            request: download.next(now, &mut |_| 0).expect("a request").number,
            upload: uploads
                .on_asked(now, peer, Wanted { hash: BlobHash::new([0; 32]), piece: PieceNo::new(0) })
                .expect("room"),
            left: 100.0,
            came: 0.0,
        };
        let mut transfers = [transfer(0, 1), transfer(0, 2)];
        flow(&mut transfers, &[20.0, 0.0, 0.0], &[0.0, 100.0, 4.0], 1.0);
        assert!((transfers[0].came - 10.0).abs() < 1e-9, "half of the uplink");
        assert!((transfers[1].came - 4.0).abs() < 1e-9, "the downlink bounds it");
    }
}
