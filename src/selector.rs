//! Which jobs a command means: `5`, `1-3,7`, `2-10:2`, `last`, `all`.

use std::{ops::RangeInclusive, str::FromStr};

use talka_core::limits;

/// A selection of jobs, not yet compared with the jobs that exist.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Selector {
    /// Every job.
    All,
    /// The newest job.
    Last,
    /// These.
    Ids(Vec<Ids>),
}

impl Selector {
    /// Whether the user means exactly one job.
    pub(crate) fn is_one(&self) -> bool {
        match self {
            Self::All => false,
            Self::Last => true,
            Self::Ids(ids) => matches!(&ids[..], [one] if one.is_single()),
        }
    }
}

/// One element of a list.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Ids {
    range: RangeInclusive<u64>,
    step: u64,
}

impl Ids {
    /// Whether the user named exactly this one, so that its absence is an error.
    pub(crate) fn is_single(&self) -> bool {
        self.range.start() == self.range.end()
    }

    /// The ids, ascending.
    pub(crate) fn iter(&self) -> impl Iterator<Item = u64> + use<> {
        let (mut next, end, step) = (Some(*self.range.start()), *self.range.end(), self.step);
        std::iter::from_fn(move || {
            let id = next.filter(|id| *id <= end)?;
            next = id.checked_add(step);
            Some(id)
        })
    }

    fn len(&self) -> u64 {
        (self.range.end() - self.range.start()) / self.step + 1
    }
}

/// A text selects nothing. Never worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub(crate) enum SelectorError {
    /// Not of any accepted form.
    #[error("{text:?} selects no jobs: write 5, 1-3,7, 2-10:2, last or all")]
    Form {
        /// The offending part.
        text: String,
    },
    /// More ids than are looked up one by one.
    #[error("the selection names {count} jobs, above the limit of {max}; use all")]
    TooMany {
        /// Ids named.
        count: u64,
        /// Ids allowed.
        max: u64,
    },
}

impl FromStr for Selector {
    type Err = SelectorError;

    fn from_str(text: &str) -> Result<Self, SelectorError> {
        match text.trim() {
            "all" => return Ok(Self::All),
            "last" => return Ok(Self::Last),
            _ => {}
        }
        let ids = text.split(',').map(|part| {
            parse_ids(part.trim()).ok_or_else(|| {
                let text = part.chars().take(80).collect();
                SelectorError::Form { text }
            })
        });
        let ids = ids.collect::<Result<Vec<_>, _>>()?;
        let count = ids.iter().map(Ids::len).fold(0, u64::saturating_add);
        let max = limits::SELECTED_JOBS_MAX;
        if count > max {
            return Err(SelectorError::TooMany { count, max });
        }
        Ok(Self::Ids(ids))
    }
}

fn parse_ids(text: &str) -> Option<Ids> {
    let (range, step) = match text.split_once(':') {
        Some((range, step)) => (range, parse_number(step).filter(|step| *step > 0)?),
        None => (text, 1),
    };
    let range = parse_range(range)?;
    (*range.start() > 0).then_some(Ids { range, step })
}

/// `A-B`, both included, or a single number. Underscores may group digits.
pub(crate) fn parse_range(text: &str) -> Option<RangeInclusive<u64>> {
    let (first, last) = match text.split_once('-') {
        Some((first, last)) => (parse_number(first)?, parse_number(last)?),
        None => (parse_number(text)?, parse_number(text)?),
    };
    (first <= last).then_some(first..=last)
}

/// A decimal number whose digits may be grouped by underscores.
pub(crate) fn parse_number(text: &str) -> Option<u64> {
    let text = text.trim();
    let is_number = text.starts_with(|c: char| c.is_ascii_digit());
    is_number.then(|| text.replace('_', "").parse().ok()).flatten()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn ids(text: &str) -> Vec<u64> {
        match text.parse() {
            Ok(Selector::Ids(ids)) => ids.iter().flat_map(Ids::iter).collect(),
            other => panic!("{text}: {other:?}"),
        }
    }

    #[test]
    fn selectors_read_as_in_hyperqueue() {
        assert_eq!("all".parse(), Ok(Selector::All));
        assert_eq!(" last ".parse(), Ok(Selector::Last));
        assert_eq!(ids("5"), [5]);
        assert_eq!(ids("1-3,7"), [1, 2, 3, 7]);
        assert_eq!(ids("2-10:4, 1_000"), [2, 6, 10, 1000]);
        assert_eq!(ids("18446744073709551615"), [u64::MAX]);
    }

    #[test]
    fn what_selects_nothing_is_refused() {
        for text in ["", "0", "3-1", "1-", "-1", "a", "1,,2", "1-3:0", "+5", "1-18446744073709551615"] {
            assert!(text.parse::<Selector>().is_err(), "{text}");
        }
        let error = "1-9,x".parse::<Selector>().expect_err("x");
        assert!(error.to_string().starts_with("\"x\" selects no jobs"), "{error}");
    }

    #[test]
    fn a_range_is_inclusive_or_a_single_number() {
        let check = |text: &str, range: Option<RangeInclusive<u64>>| {
            assert_eq!(parse_range(text), range, "{text}");
        };
        check("0-99", Some(0..=99));
        check("7", Some(7..=7));
        check("1_000-2_000", Some(1000..=2000));
        check("5-4", None);
        check("-", None);
        check("1-2-3", None);
        check("0x10", None);
    }
}
