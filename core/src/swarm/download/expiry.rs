//! Requests that are given up.

use std::time::Duration;

use super::{Download, FAILURES_MAX, Failure, Flight, Kind, RequestNo};
use crate::{limits, quantities::Timestamp};

/// Age at which a request that waits at the source is given up for a provider that has got the piece meanwhile.
const RECONSIDERED_AGE: Duration = Duration::from_millis(100);

impl Download {
    /// Requests that are to be dropped: those that stall or crawl, which count as failed, and those that wait at the
    /// source for a piece that somebody else offers now.
    pub fn expire(&mut self, now: Timestamp) -> Vec<RequestNo> {
        let lapsed: Vec<RequestNo> = self
            .flights
            .iter()
            .filter(|(_, flight)| is_lapsed(now, flight))
            .map(|(number, _)| *number)
            .collect();
        for number in &lapsed {
            let peer = self.flights.get(number).map(|flight| flight.peer);
            // Each lapse costs a piece a long time: who begins with one has had its chance.
            if let Some(provider) = peer.and_then(|peer| self.providers.get_mut(&peer))
                && !provider.is_proved()
            {
                provider.failures = FAILURES_MAX;
            }
            self.on_failed(now, *number, Failure::Failed);
        }
        let mut dropped = lapsed;
        let waiting: Vec<RequestNo> = self
            .flights
            .iter()
            .filter(|(_, flight)| self.is_better_elsewhere(now, flight))
            .map(|(number, _)| *number)
            .collect();
        for number in &waiting {
            self.land(*number);
        }
        dropped.extend(waiting);
        dropped
    }

    fn is_better_elsewhere(&self, now: Timestamp, flight: &Flight) -> bool {
        let asked = self.providers.get(&flight.peer);
        flight.bytes == 0
            && now.since(flight.since) >= RECONSIDERED_AGE
            && !self.is_full()
            && asked.is_some_and(|provider| provider.kind == Kind::Source)
            && self.providers.values().any(|other| {
                other.kind == Kind::Peer
                    && other.proved
                    && other.is_free(now)
                    && other.has.contains(flight.piece)
            })
    }
}

fn is_lapsed(now: Timestamp, flight: &Flight) -> bool {
    let age = now.since(flight.since);
    now.since(flight.moved) > limits::PROVIDER_STALL_MAX
        || (age > limits::PROVIDER_STALL_MAX
            && flight.bytes < limits::PROVIDER_RATE_MIN.saturating_mul(age.as_secs()))
}
