//! Numbers, times and names as people read them.

use std::time::Duration;

use talka_core::{
    ids::PeerId,
    quantities::{Fuel, Span},
};

/// A moment in ISO 8601, UTC, with milliseconds. The calendar is Howard Hinnant's `civil_from_days`
/// (<https://howardhinnant.github.io/date_algorithms.html>).
pub(crate) fn iso8601(unix_millis: u64) -> String {
    let (secs, millis) = (unix_millis / 1000, unix_millis % 1000);
    let (days, time) = (secs / 86_400, secs % 86_400);
    let shifted = days + 719_468;
    let (era, day_of_era) = (shifted / 146_097, shifted % 146_097);
    let year_of_era = (day_of_era - day_of_era / 1460 + day_of_era / 36_524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = if month_from_march < 10 { month_from_march + 3 } else { month_from_march - 9 };
    let year = era * 400 + year_of_era + u64::from(month <= 2);
    let (hour, minute, second) = (time / 3600, time / 60 % 60, time % 60);
    format!("{year:04}-{month:02}-{day:02}T{hour:02}:{minute:02}:{second:02}.{millis:03}Z")
}

/// How long ago a moment was: `12s ago`.
pub(crate) fn ago(now_millis: u64, then_millis: u64) -> String {
    let span = Duration::from_millis(now_millis.saturating_sub(then_millis));
    format!("{} ago", Span(span))
}

/// A key or hash from the wire, for JSON.
pub(crate) fn peer_text(key: &[u8]) -> String {
    PeerId::try_from(key).map_or_else(|_| "unknown".to_owned(), |peer| peer.to_string())
}

/// A peer's key from the wire, for tables.
pub(crate) fn peer_short(key: &[u8]) -> String {
    PeerId::try_from(key).map_or_else(|_| "unknown".to_owned(), |peer| peer.short())
}

/// Fuel with its digits in groups of three.
pub(crate) fn grouped(fuel: Fuel) -> String {
    let digits = fuel.get().to_string();
    let mut out = String::with_capacity(digits.len() + digits.len() / 3);
    for (position, digit) in digits.chars().enumerate() {
        if position > 0 && (digits.len() - position).is_multiple_of(3) {
            out.push('_');
        }
        out.push(digit);
    }
    out
}

/// Seconds as a span; those that no clock can show count as none.
pub(crate) fn span(secs: f64) -> Span {
    Span(Duration::try_from_secs_f64(secs).unwrap_or_default())
}

/// Seconds between two moments in milliseconds.
pub(crate) fn secs_between(from_millis: u64, to_millis: u64) -> f64 {
    Duration::from_millis(to_millis.saturating_sub(from_millis)).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn moments_are_shown_in_iso_8601() {
        let check = |secs: u64, text: &str| assert_eq!(iso8601(secs * 1000 + 5), text);
        check(0, "1970-01-01T00:00:00.005Z");
        check(951_782_399, "2000-02-28T23:59:59.005Z");
        check(951_782_400, "2000-02-29T00:00:00.005Z");
        check(1_767_225_600, "2026-01-01T00:00:00.005Z");
        check(4_107_542_400, "2100-03-01T00:00:00.005Z");
    }

    #[test]
    fn digits_are_grouped_from_the_right() {
        let check = |fuel: u64, text: &str| assert_eq!(grouped(Fuel::new(fuel)), text);
        check(0, "0");
        check(999, "999");
        check(1000, "1_000");
        check(1_234_567, "1_234_567");
    }
}
