//! The coordinator, event by event. [`grid`] is the environment in which the scripts run.

mod dispatch;
mod explain;
mod grid;
mod outputs;
mod placement;
mod quota;
mod random;
mod rebalance;
mod receipts;
mod restart;
mod restored;
mod resumed;
mod shares;
mod steer;
mod store;
mod stragglers;
mod traffic;
mod trust;
mod votes;
mod workers;
