//! What is wrong with a command line, all of it at once.

use std::{fmt::Display, num::NonZeroU64, str::FromStr};

use talka_core::{limits, quantities::Bytes};

use crate::error::Failure;

/// Everything that is wrong with a command, collected before anything is said.
#[derive(Debug, Default)]
pub(crate) struct Problems(Vec<String>);

impl Problems {
    /// Notes one problem.
    pub(crate) fn add(&mut self, problem: impl Into<String>) {
        self.0.push(problem.into());
    }

    /// Notes several.
    pub(crate) fn extend(&mut self, problems: Vec<String>) {
        self.0.extend(problems);
    }

    /// The value of a flag, its default when it was not given or when it is wrong.
    pub(crate) fn parsed<T>(&mut self, flag: &str, text: Option<&str>, default: T) -> T
    where
        T: FromStr,
        T::Err: Display,
    {
        let Some(text) = text else { return default };
        text.trim().parse().unwrap_or_else(|error| {
            self.add(format!("{flag} {text}: {error}"));
            default
        })
    }

    /// The value of a flag that bounds how many bytes go over the network in a second.
    pub(crate) fn rate(&mut self, flag: &str, text: Option<&str>) -> Option<NonZeroU64> {
        let rate: Option<Bytes> = self.optional(flag, text);
        let least = Bytes::new(limits::RATE_LIMIT_MIN);
        if rate.is_some_and(|rate| rate < least) {
            self.add(format!(
                "{flag} must be at least {least} per second: others take a slower peer for a dead one"
            ));
        }
        rate.and_then(|rate| NonZeroU64::new(rate.get()))
    }

    /// The value of a flag that has no default.
    pub(crate) fn optional<T>(&mut self, flag: &str, text: Option<&str>) -> Option<T>
    where
        T: FromStr,
        T::Err: Display,
    {
        let text = text?;
        match text.trim().parse() {
            Ok(value) => Some(value),
            Err(error) => {
                self.add(format!("{flag} {text}: {error}"));
                None
            }
        }
    }

    /// Values of the form `NAME=…`.
    pub(crate) fn pairs(&mut self, flag: &str, form: &str, texts: Vec<String>) -> Vec<(String, String)> {
        let mut pairs = Vec::with_capacity(texts.len());
        for text in texts {
            match text.split_once('=') {
                Some((name, value)) if !name.is_empty() && (flag != "--data" || !value.is_empty()) => {
                    pairs.push((name.to_owned(), value.to_owned()));
                }
                _ => self.add(format!("{flag} {text}: write it as {form}")),
            }
        }
        pairs
    }

    /// `value` if nothing was wrong.
    pub(crate) fn into_result<T>(self, value: T) -> Result<T, Failure> {
        if self.0.is_empty() { Ok(value) } else { Err(Failure::usage(&self.0)) }
    }
}
