//! Quantities are types, so that fuel is never added to bytes, nor seconds to milliseconds.

use std::{
    fmt,
    iter::Sum,
    ops::{Add, AddAssign, Sub},
    str::FromStr,
    time::Duration,
};

use serde::{Deserialize, Serialize};

/// Executed operators of a program: the unit of work, of limits and of credit.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Fuel(u64);

impl Fuel {
    /// That many executed operators.
    pub const fn new(operators: u64) -> Self {
        Self(operators)
    }

    /// The number of operators.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// What that much fuel earns.
    pub const fn credit(self) -> Credit {
        Credit(self.0 as i128)
    }
}

impl fmt::Display for Fuel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl FromStr for Fuel {
    type Err = ParseQuantityError;

    /// A number with an optional `k`, `M`, `G` or `T` (powers of 1000): `500M`, `2G`, `1_000_000`.
    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        parse_scaled(text, &[("T", 1_000_000_000_000), ("G", 1_000_000_000), ("M", 1_000_000), ("k", 1000)])
            .map(Self)
            .ok_or_else(|| ParseQuantityError::new("an amount of fuel", "500M, 2G or 1_000_000", text))
    }
}

/// A number of bytes.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Bytes(u64);

impl Bytes {
    /// That many bytes.
    pub const fn new(bytes: u64) -> Self {
        Self(bytes)
    }

    /// That many KiB.
    pub const fn kib(kib: u64) -> Self {
        Self(kib << 10)
    }

    /// That many MiB.
    pub const fn mib(mib: u64) -> Self {
        Self(mib << 20)
    }

    /// The number of bytes.
    pub const fn get(self) -> u64 {
        self.0
    }

    /// The length of something in memory.
    pub const fn of(slice: &[u8]) -> Self {
        Self(slice.len() as u64)
    }
}

impl fmt::Display for Bytes {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
        let mut unit = 0;
        let mut scaled = self.0;
        let mut rest = 0;
        while scaled >= 1024 && unit + 1 < UNITS.len() {
            rest = scaled % 1024;
            scaled /= 1024;
            unit += 1;
        }
        if rest == 0 {
            write!(f, "{scaled} {}", UNITS[unit])
        } else {
            write!(f, "{scaled}.{} {}", rest * 10 / 1024, UNITS[unit])
        }
    }
}

impl Sum for Bytes {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        Self(iter.map(|bytes| bytes.0).sum())
    }
}

impl FromStr for Bytes {
    type Err = ParseQuantityError;

    /// A number with an optional unit, powers of 1024: `64KiB`, `256M`, `1GiB`, `4096`.
    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        const KIB: u64 = 1 << 10;
        const MIB: u64 = 1 << 20;
        const GIB: u64 = 1 << 30;
        parse_scaled(
            text,
            &[
                ("KiB", KIB),
                ("MiB", MIB),
                ("GiB", GIB),
                ("K", KIB),
                ("M", MIB),
                ("G", GIB),
                ("k", KIB),
                ("B", 1),
            ],
        )
        .map(Self)
        .ok_or_else(|| ParseQuantityError::new("a size", "64KiB, 256MiB or 1GiB", text))
    }
}

/// Credit, exact: one credit is 10⁹ fuel, kept as an integer number of billionths.
///
/// Signed, because a revocation is a negative grant.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Credit(i128);

impl Credit {
    /// No credit.
    pub const ZERO: Self = Self(0);

    /// From billionths of a credit.
    pub const fn from_nanos(nanos: i128) -> Self {
        Self(nanos)
    }

    /// Billionths of a credit.
    pub const fn nanos(self) -> i128 {
        self.0
    }

    /// As a floating-point number, for display and JSON only.
    #[expect(clippy::cast_precision_loss, reason = "display only")]
    pub fn as_f64(self) -> f64 {
        self.0 as f64 / 1e9
    }
}

impl Add for Credit {
    type Output = Self;
    fn add(self, other: Self) -> Self {
        Self(self.0 + other.0)
    }
}

impl AddAssign for Credit {
    fn add_assign(&mut self, other: Self) {
        self.0 += other.0;
    }
}

impl Sum for Credit {
    fn sum<I: Iterator<Item = Self>>(iter: I) -> Self {
        iter.fold(Self::ZERO, Add::add)
    }
}

impl fmt::Display for Credit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let sign = if self.0 < 0 { "-" } else { "" };
        let nanos = self.0.unsigned_abs();
        let (whole, rest) = (nanos / 1_000_000_000, nanos % 1_000_000_000);
        if rest == 0 {
            return write!(f, "{sign}{whole}");
        }
        let rest = format!("{rest:09}");
        write!(f, "{sign}{whole}.{}", rest.trim_end_matches('0'))
    }
}

/// A share in millionths, from none to all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Ppm(u32);

impl Ppm {
    /// So many millionths; more than all are all.
    pub const fn new(millionths: u32) -> Self {
        Self(if millionths < 1_000_000 { millionths } else { 1_000_000 })
    }

    /// Millionths.
    pub const fn get(self) -> u32 {
        self.0
    }

    /// As a number from 0 to 1.
    pub fn as_fraction(self) -> f64 {
        f64::from(self.0) / 1e6
    }
}

impl fmt::Display for Ppm {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.as_fraction())
    }
}

impl FromStr for Ppm {
    type Err = ParseQuantityError;

    #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "between 0 and a million")]
    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let (number, scale) = text.trim().strip_suffix('%').map_or((text.trim(), 1e6), |part| (part, 1e4));
        let millionths = number.trim().parse::<f64>().ok().map(|number| number * scale);
        millionths
            .filter(|millionths| (0.0..=1e6).contains(millionths))
            .map(|millionths| Self(millionths.round() as u32))
            .ok_or_else(|| ParseQuantityError::new("a share", "0.001, 1e-3 or 0.1%", text))
    }
}

/// A moment: milliseconds since the Unix epoch, as the shell's clock tells it.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
pub struct Timestamp(u64);

impl Timestamp {
    /// That many milliseconds after the Unix epoch.
    pub const fn from_millis(millis: u64) -> Self {
        Self(millis)
    }

    /// Milliseconds since the Unix epoch.
    pub const fn millis(self) -> u64 {
        self.0
    }

    /// Time since `earlier`; zero when the clock went backwards.
    pub fn since(self, earlier: Self) -> Duration {
        Duration::from_millis(self.0.saturating_sub(earlier.0))
    }
}

impl Add<Duration> for Timestamp {
    type Output = Self;
    fn add(self, span: Duration) -> Self {
        Self(self.0.saturating_add(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

impl Sub<Duration> for Timestamp {
    type Output = Self;
    fn sub(self, span: Duration) -> Self {
        Self(self.0.saturating_sub(u64::try_from(span.as_millis()).unwrap_or(u64::MAX)))
    }
}

/// A span as people write it: `90s`, `5m`, `1h 30m`, `250ms`, or a plain number of seconds.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub struct Span(pub Duration);

impl FromStr for Span {
    type Err = ParseQuantityError;

    fn from_str(text: &str) -> Result<Self, ParseQuantityError> {
        let millis = parse_span_millis(text)
            .ok_or_else(|| ParseQuantityError::new("a duration", "90s, 5m, 1h 30m or 250ms", text))?;
        Ok(Self(Duration::from_millis(millis)))
    }
}

impl fmt::Display for Span {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let secs = self.0.as_secs();
        match (secs / 3600, secs / 60 % 60, secs % 60) {
            (0, 0, s) if s < 10 => write!(f, "{:.1}s", self.0.as_secs_f64()),
            (0, 0, s) => write!(f, "{s}s"),
            (0, m, s) => write!(f, "{m}m {s:02}s"),
            (h, m, _) => write!(f, "{h}h {m:02}m"),
        }
    }
}

fn parse_span_millis(text: &str) -> Option<u64> {
    const UNITS: [(&str, u64); 5] =
        [("ms", 1), ("s", 1000), ("m", 60_000), ("h", 3_600_000), ("d", 86_400_000)];
    if text.trim().is_empty() {
        return None;
    }
    text.split_whitespace().try_fold(0u64, |sum, part| {
        let millis = match UNITS.iter().find_map(|(unit, scale)| {
            let number = part.strip_suffix(unit)?;
            number.parse::<f64>().ok().map(|number| (number, *scale))
        }) {
            Some((number, scale)) => scale_float(number, scale)?,
            None => scale_float(part.parse().ok()?, 1000)?,
        };
        sum.checked_add(millis)
    })
}

#[expect(
    clippy::cast_precision_loss,
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "checked against the range that a duration may have"
)]
fn scale_float(number: f64, scale: u64) -> Option<u64> {
    let scaled = number * scale as f64;
    (scaled.is_finite() && (0.0..=1e15).contains(&scaled)).then_some(scaled.round() as u64)
}

fn parse_scaled(text: &str, units: &[(&str, u64)]) -> Option<u64> {
    let text = text.trim();
    let (number, scale) = units
        .iter()
        .find_map(|(unit, scale)| text.strip_suffix(unit).map(|number| (number, *scale)))
        .unwrap_or((text, 1));
    let digits = number.trim().replace('_', "");
    if !digits.starts_with(|c: char| c.is_ascii_digit()) {
        return None;
    }
    digits.parse::<u64>().ok()?.checked_mul(scale)
}

/// A text is not the quantity it was taken for. Never worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not {kind}: write it as {example}")]
pub struct ParseQuantityError {
    kind: &'static str,
    example: &'static str,
    text: String,
}

impl ParseQuantityError {
    fn new(kind: &'static str, example: &'static str, text: &str) -> Self {
        Self { kind, example, text: text.chars().take(80).collect() }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_are_read_and_shown_in_powers_of_1024() {
        let check = |text: &str, bytes: u64| {
            assert_eq!(text.parse(), Ok(Bytes::new(bytes)), "{text}");
        };
        check("4096", 4096);
        check("64KiB", 65_536);
        check("64 KiB", 65_536);
        check("256M", 256 << 20);
        check("1GiB", 1 << 30);
        check("12B", 12);
        for wrong in ["", "KiB", "-1", "1.5GiB", "99999999999GiB", "1 TB", "+1"] {
            assert!(wrong.parse::<Bytes>().is_err(), "{wrong}");
        }
        assert_eq!(Bytes::new(1536).to_string(), "1.5 KiB");
        assert_eq!(Bytes::mib(64).to_string(), "64 MiB");
        assert_eq!(Bytes::new(0).to_string(), "0 B");
    }

    #[test]
    fn fuel_is_read_in_powers_of_1000() {
        assert_eq!("2G".parse(), Ok(Fuel::new(2_000_000_000)));
        assert_eq!("1_000".parse(), Ok(Fuel::new(1000)));
        assert!("1x".parse::<Fuel>().is_err());
    }

    #[test]
    fn credit_is_exact_and_trims_zeros() {
        assert_eq!(Fuel::new(1).credit().to_string(), "0.000000001");
        assert_eq!(Fuel::new(2_500_000_000).credit().to_string(), "2.5");
        assert_eq!(Credit::from_nanos(-1_000_000_000).to_string(), "-1");
    }

    #[test]
    fn durations_are_read_as_people_write_them() {
        let check = |text: &str, millis: u64| {
            assert_eq!(text.parse(), Ok(Span(Duration::from_millis(millis))), "{text}");
        };
        check("90s", 90_000);
        check("1h 30m", 5_400_000);
        check("250ms", 250);
        check("2", 2000);
        check("0.5s", 500);
        for wrong in ["", " ", "s", "1w", "-1s", "1e300s", "nan"] {
            assert!(wrong.parse::<Span>().is_err(), "{wrong}");
        }
    }
}
