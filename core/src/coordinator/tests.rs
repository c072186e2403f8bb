//! The coordinator, event by event. [`grid`] is the environment in which the scripts run.

mod dispatch;
mod explain;
mod grid;
mod outputs;
mod random;
mod restart;
mod resumed;
mod store;
mod votes;
mod workers;
