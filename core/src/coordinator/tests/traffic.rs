//! What workers say that they fetched.

use super::grid::{A, B, Grid, job};
use crate::{coordinator::Fetched, ids::JobId, quantities::Bytes};

fn fetched(from_coordinator: u64, from_peers: u64) -> Fetched {
    Fetched { from_coordinator: Bytes::new(from_coordinator), from_peers: Bytes::new(from_peers) }
}

#[test]
fn what_workers_say_is_summed_up_once_and_within_reason() {
    let mut grid = Grid::with_workers(A..=B);
    let id = grid.submit(job(4).quorum(2));
    let size = grid.coordinator.job(id).expect("known").submission.spec.bundle.size.get();
    let (a, b) = (grid.worker(A).session(), grid.worker(B).session());
    let says = [
        (a, id, fetched(1, 0), fetched(1, 0)),
        (b, id, fetched(0, 2), fetched(1, 2)),
        // The sum of its life so far, and not more bytes.
        (b, id, fetched(1, 3), fetched(2, 3)),
        // It was started again.
        (b, id, fetched(0, 0), fetched(1, 0)),
        (b, JobId::new(99), fetched(5, 5), fetched(1, 0)),
        (a, id, fetched(u64::MAX, 5), fetched(4 * size, 5)),
        (b, id, fetched(u64::MAX, u64::MAX), fetched(8 * size, 5 + 4 * size)),
    ];
    for (session, job, said, sum) in says {
        grid.coordinator.on_fetched(session, job, said);
        assert_eq!(grid.coordinator.job(id).expect("known").fetched, sum, "{said:?}");
    }
    grid.worker(A).disconnects();
    grid.coordinator.on_fetched(a, id, fetched(0, 0));
    assert_eq!(grid.coordinator.job(id).expect("known").fetched, fetched(8 * size, 5 + 4 * size));
}
