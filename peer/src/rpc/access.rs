//! Who may call what: one table, complete by test.

use std::collections::{BTreeSet, HashMap};

use prost::Message;
use prost_types::FileDescriptorSet;

use super::Role;

/// Who may call a method.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Access {
    /// Everybody who can connect.
    Anyone,
    /// Peers, and whoever may do more.
    Peer,
    /// Submitters and the operator.
    Submitter,
    /// The operator.
    Operator,
}

impl Access {
    /// The least role that is let in.
    pub const fn least(self) -> Role {
        match self {
            Self::Anyone => Role::Anyone,
            Self::Peer => Role::Peer,
            Self::Submitter => Role::Submitter,
            Self::Operator => Role::Operator,
        }
    }
}

/// A path and who may call it: `/package.Service/Method`, or of a web page. A path that ends in `/`
/// stands for all below it, itself included.
pub type Row = (&'static str, Access);

/// Rows of the services that every [`Server`](super::Server) offers by itself.
pub const STANDARD_ROWS: &[Row] = &[
    ("/grpc.health.v1.Health/Check", Access::Anyone),
    ("/grpc.health.v1.Health/Watch", Access::Anyone),
    ("/grpc.reflection.v1.ServerReflection/ServerReflectionInfo", Access::Anyone),
];

/// All rows. A path without one may be called by nobody.
#[derive(Debug, Clone, Default)]
pub struct AccessTable {
    exact: HashMap<&'static str, Access>,
    below: Vec<Row>,
}

impl AccessTable {
    /// The given rows and [`STANDARD_ROWS`]. Of two rows for one path the stricter counts.
    pub fn new(rows: &[Row]) -> Self {
        let mut table = Self::default();
        for (path, access) in rows.iter().chain(STANDARD_ROWS) {
            let old = table.exact.insert(path, *access);
            if let Some(old) = old.filter(|old| old.least() > access.least()) {
                table.exact.insert(path, old);
            }
            // Only web pages are listed by folder: a gRPC method has a row of its own.
            if path.len() > 1 && path.ends_with('/') {
                table.below.push((path, *access));
            }
        }
        // The longest folder decides.
        table.below.sort_by_key(|(path, _)| std::cmp::Reverse(path.len()));
        table
    }

    /// Who may call `path`; `None` is nobody.
    pub fn access(&self, path: &str) -> Option<Access> {
        let below =
            || self.below.iter().find(|(folder, _)| path.starts_with(folder)).map(|(_, access)| *access);
        self.exact.get(path).copied().or_else(below)
    }

    /// Compares the table with the services of these encoded `FileDescriptorSet`s, for a test: an RPC that
    /// somebody added must not go without a rule, and a rule must not outlive its RPC.
    pub fn compare(&self, descriptors: &[&[u8]]) -> Result<Differences, prost::DecodeError> {
        let mut methods = BTreeSet::new();
        for encoded in descriptors {
            methods.extend(method_paths(&FileDescriptorSet::decode(*encoded)?));
        }
        let standard = |path: &str| STANDARD_ROWS.iter().any(|(row, _)| *row == path);
        // The path of a method has two parts: "/package.Service/Method".
        let is_method =
            |path: &str| path.split('/').filter(|part| !part.is_empty()).count() == 2 && path.contains('.');
        let rows: BTreeSet<String> = self.exact.keys().map(|path| (*path).to_owned()).collect();
        Ok(Differences {
            methods_without_row: methods.difference(&rows).cloned().collect(),
            rows_without_method: rows
                .difference(&methods)
                .filter(|path| is_method(path) && !standard(path))
                .cloned()
                .collect(),
        })
    }
}

/// Where table and services differ; empty when they agree.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Differences {
    /// Methods that nobody may call, because they were forgotten.
    pub methods_without_row: Vec<String>,
    /// Rows for methods that do not exist.
    pub rows_without_method: Vec<String>,
}

fn method_paths(files: &FileDescriptorSet) -> Vec<String> {
    let mut paths = Vec::new();
    for file in &files.file {
        for service in &file.service {
            let dot = if file.package().is_empty() { "" } else { "." };
            let name = format!("{}{dot}{}", file.package(), service.name());
            paths.extend(service.method.iter().map(|method| format!("/{name}/{}", method.name())));
        }
    }
    paths
}

#[cfg(test)]
mod tests {
    use super::*;

    const HEALTH: &[u8] = tonic_health::pb::FILE_DESCRIPTOR_SET;
    const REFLECTION: &[u8] = tonic_reflection::pb::v1::FILE_DESCRIPTOR_SET;

    #[test]
    fn a_path_without_a_row_is_for_nobody() {
        let table = AccessTable::new(&[
            ("/talka.v1.Jobs/Submit", Access::Submitter),
            ("/", Access::Anyone),
            ("/api/", Access::Peer),
            ("/api/admin/", Access::Operator),
        ]);
        assert_eq!(table.access("/talka.v1.Jobs/Submit"), Some(Access::Submitter));
        assert_eq!(table.access("/talka.v1.Jobs/Cancel"), None);
        assert_eq!(table.access("/"), Some(Access::Anyone));
        assert_eq!(table.access("/secret"), None, "the root row is no folder");
        assert_eq!(table.access("/api/jobs/7"), Some(Access::Peer));
        assert_eq!(table.access("/api/admin/stop"), Some(Access::Operator));
        assert_eq!(table.access("/apis"), None);
        assert_eq!(table.access(""), None);
    }

    #[test]
    fn the_stricter_of_two_rows_counts() {
        let rows = [("/a.B/C", Access::Operator), ("/a.B/C", Access::Anyone)];
        assert_eq!(AccessTable::new(&rows).access("/a.B/C"), Some(Access::Operator));
    }

    #[test]
    fn standard_rows_cover_the_standard_services() -> Result<(), prost::DecodeError> {
        let differences = AccessTable::new(&[("/", Access::Anyone)]).compare(&[HEALTH, REFLECTION])?;
        assert_eq!(differences, Differences::default());
        let found: BTreeSet<_> = [HEALTH, REFLECTION]
            .iter()
            .flat_map(|set| method_paths(&FileDescriptorSet::decode(*set).expect("one")))
            .collect();
        assert_eq!(found, STANDARD_ROWS.iter().map(|(path, _)| (*path).to_owned()).collect());
        Ok(())
    }

    #[test]
    fn forgotten_methods_and_dead_rows_are_found() -> Result<(), prost::DecodeError> {
        let mut table = AccessTable::new(&[("/talka.v1.Jobs/Gone", Access::Anyone)]);
        table.exact.remove("/grpc.health.v1.Health/Watch");
        let differences = table.compare(&[HEALTH])?;
        assert_eq!(differences.methods_without_row, ["/grpc.health.v1.Health/Watch"]);
        assert_eq!(differences.rows_without_method, ["/talka.v1.Jobs/Gone"]);
        Ok(())
    }
}
