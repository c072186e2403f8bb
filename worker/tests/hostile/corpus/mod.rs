//! The rows, by subject.

mod bytes;
mod calls;
mod compiling;
mod depth;
mod endless;
mod files;
mod memory;
mod numbers;
mod output;
mod refused;
mod tables;
mod time;

use super::row::Row;

/// Every row.
pub(crate) fn rows() -> Vec<Row> {
    [
        bytes::rows(),
        calls::rows(),
        compiling::rows(),
        depth::rows(),
        endless::rows(),
        files::rows(),
        memory::rows(),
        numbers::rows(),
        output::rows(),
        refused::rows(),
        tables::rows(),
        time::rows(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

/// The name of every row.
pub(crate) fn names() -> Vec<&'static str> {
    rows().iter().map(|row| row.name).collect()
}
