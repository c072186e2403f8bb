//! A broken rule: a stable name for programs, a sentence for people.

use std::fmt;

/// Most problems that one check reports; a file with more is not a near miss.
const PROBLEMS_MAX: usize = 64;

macro_rules! rules {
    ($($(#[$doc:meta])* $rule:ident = $name:literal;)+) => {
        /// A rule of the profile.
        #[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
        #[non_exhaustive]
        pub enum Rule {
            $($(#[$doc])* $rule,)+
        }

        impl Rule {
            /// Every rule.
            pub const ALL: &'static [Self] = &[$(Self::$rule),+];

            /// Its stable name.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$rule => $name,)+
                }
            }
        }
    };
}

rules! {
    /// The file is no WebAssembly module.
    NotWasm = "not-wasm";
    /// The file is a component.
    Component = "component";
    /// The module breaks the rules of WebAssembly itself, or is cut short.
    Invalid = "invalid";
    /// An import that is no WASI preview 1 function, or has another signature.
    Import = "import";
    /// No `_start` of type `() -> ()`.
    StartMissing = "start-missing";
    /// No exported memory of that name.
    MemoryMissing = "memory-missing";
    /// An export with a name that belongs to the grid.
    ReservedExport = "reserved-export";
    /// Threads, atomic operators, shared memory.
    Threads = "threads";
    /// 64-bit memories or tables.
    Memory64 = "memory64";
    /// Relaxed SIMD.
    RelaxedSimd = "relaxed-simd";
    /// Exceptions, in either form.
    Exceptions = "exceptions";
    /// Garbage-collected types, `externref`, typed function references.
    Gc = "gc";
    /// More than one memory.
    MultiMemory = "multi-memory";
    /// Tail calls.
    TailCalls = "tail-calls";
    /// 128-bit arithmetic.
    WideArithmetic = "wide-arithmetic";
    /// Stack switching.
    StackSwitching = "stack-switching";
    /// Memories whose pages are not 64 KiB.
    CustomPageSizes = "custom-page-sizes";
    /// Any other proposal beyond WebAssembly 2.0.
    Proposal = "proposal";
    /// Size of the file.
    ModuleBytes = "module-bytes";
    /// Number of functions.
    Functions = "functions";
    /// Size of a function.
    BodyBytes = "body-bytes";
    /// Locals of a function.
    Locals = "locals";
    /// Number of tables.
    Tables = "tables";
    /// Initial size of a table.
    TableElements = "table-elements";
    /// Number of data segments.
    DataSegments = "data-segments";
    /// Number of globals.
    Globals = "globals";
    /// Number of types.
    Types = "types";
    /// Number of imports.
    Imports = "imports";
    /// Number of exports.
    Exports = "exports";
    /// Targets of a `br_table`.
    BranchTargets = "branch-targets";
    /// More problems than are listed.
    More = "more";
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// One thing that keeps a module from running under the profile.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Problem {
    /// The rule that is broken.
    pub rule: Rule,
    /// Cause and remedy in one sentence. Names from the module are quoted, escaped and cut.
    pub detail: String,
}

impl fmt::Display for Problem {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}: {}", self.rule, self.detail)
    }
}

/// Problems found so far, of bounded number.
#[derive(Debug, Default)]
pub(super) struct Problems {
    list: Vec<Problem>,
    more: usize,
}

impl Problems {
    pub(super) fn add(&mut self, rule: Rule, detail: impl Into<String>) {
        if self.list.len() < PROBLEMS_MAX {
            self.list.push(Problem { rule, detail: detail.into() });
        } else {
            self.more += 1;
        }
    }

    pub(super) fn has(&self, rule: Rule) -> bool {
        self.list.iter().any(|problem| problem.rule == rule)
    }

    pub(super) fn into_vec(mut self) -> Vec<Problem> {
        if self.more > 0 {
            let detail = format!("{} more problems; mend these first", self.more);
            self.list.push(Problem { rule: Rule::More, detail });
        }
        self.list
    }
}

/// A name from the module, fit for a terminal.
pub(super) fn quoted(name: &str) -> String {
    const CHARS_MAX: usize = 80;
    let mut cut: String = name.chars().take(CHARS_MAX).collect();
    if cut.len() < name.len() {
        cut.push('…');
    }
    format!("{cut:?}")
}
