//! What an error of `SQLite` means for the store.

use rusqlite::{Error, ErrorCode};

use crate::store::{StoreError, packed::Undecodable};

impl From<Error> for StoreError {
    fn from(error: Error) -> Self {
        let code = error.sqlite_error_code();
        let what = error.to_string();
        let source = Box::new(error);
        match (code, source.as_ref()) {
            (Some(ErrorCode::DiskFull), _) => Self::Full { source },
            (Some(ErrorCode::DatabaseBusy | ErrorCode::DatabaseLocked), _) => Self::Busy,
            (Some(ErrorCode::SystemIoFailure), _) => Self::Io { source },
            (Some(ErrorCode::CannotOpen | ErrorCode::ReadOnly), _) => Self::ReadOnly { source },
            (Some(ErrorCode::DatabaseCorrupt | ErrorCode::NotADatabase), _) => {
                Self::Damaged { what: "the database file".into(), source: Some(source) }
            }
            (Some(ErrorCode::ConstraintViolation), _) | (None, Error::ToSqlConversionFailure(_)) => {
                Self::Refused { what }
            }
            (
                None,
                Error::FromSqlConversionFailure(..)
                | Error::IntegralValueOutOfRange(..)
                | Error::InvalidColumnType(..)
                | Error::QueryReturnedNoRows
                | Error::Utf8Error(..),
            ) => Self::Damaged { what: "a row".into(), source: Some(source) },
            _ => Self::Engine { source },
        }
    }
}

/// Names the row that can't be decoded.
pub(super) trait InRow<T> {
    fn in_row(self, row: impl FnOnce() -> String) -> Result<T, StoreError>;
}

impl<T> InRow<T> for Result<T, Undecodable> {
    fn in_row(self, row: impl FnOnce() -> String) -> Result<T, StoreError> {
        self.map_err(|Undecodable| StoreError::damaged(row()))
    }
}
