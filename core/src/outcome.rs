//! How an execution can end.
//!
//! A program that fails is a *result* like any other: when a quorum agrees that it fails on this input,
//! the task has failed, at once and for good. What depends on the machine and not on the program is
//! *no result*, and the task is tried elsewhere.

use std::{collections::BTreeMap, fmt};

use serde::{Deserialize, Serialize};

use crate::quantities::Fuel;

/// The end of an execution that any machine would have reached.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Execution {
    /// How the program ended.
    pub exit: Exit,
    /// What it wrote.
    pub output: Output,
    /// Executed operators.
    pub fuel: Fuel,
    /// Whether it went on from a checkpoint. Then `fuel` also counts how it found its way back.
    pub resumed: bool,
}

/// Everything that a program wrote.
#[derive(Debug, Default, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub struct Output {
    /// Standard output: the result.
    pub stdout: Vec<u8>,
    /// Files under `/out`, by name. Compared, as the standard output is.
    pub files: BTreeMap<String, Vec<u8>>,
    /// Standard error: a log for people, capped, never compared.
    pub stderr: Vec<u8>,
}

impl Output {
    /// Bytes that have to be carried, names included.
    pub fn len(&self) -> u64 {
        let files: usize = self.files.iter().map(|(name, data)| name.len() + data.len()).sum();
        (self.stdout.len() + self.stderr.len() + files) as u64
    }

    /// Whether the program wrote nothing at all.
    pub fn is_empty(&self) -> bool {
        self.len() == 0 && self.files.is_empty()
    }
}

/// How a program ended.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
pub enum Exit {
    /// `_start` returned, or the program exited with code 0.
    Ok,
    /// The program exited with this code, which is not 0.
    Code(u32),
    /// The program did what WebAssembly forbids.
    Trap(Trap),
    /// The program went over a limit of its job that every machine enforces at the same operator.
    Limit(Limit),
}

impl Exit {
    /// Whether the task is done, and not failed.
    pub fn is_ok(self) -> bool {
        self == Self::Ok
    }

    /// The word for it in JSON and tables: `ok`, `exit`, `trap` or `limit`.
    pub fn status(self) -> &'static str {
        match self {
            Self::Ok => "ok",
            Self::Code(_) => "exit",
            Self::Trap(_) => "trap",
            Self::Limit(_) => "limit",
        }
    }

    /// A stable pair of numbers for digests, rows and wires.
    pub fn to_code(self) -> (u8, u32) {
        match self {
            Self::Ok => (0, 0),
            Self::Code(code) => (1, code),
            Self::Trap(trap) => (2, trap as u32),
            Self::Limit(limit) => (3, limit as u32),
        }
    }

    /// The inverse of [`Exit::to_code`]; `None` for a pair that it never gives.
    pub fn from_code((kind, number): (u8, u32)) -> Option<Self> {
        match kind {
            0 if number == 0 => Some(Self::Ok),
            1 if number != 0 => Some(Self::Code(number)),
            2 => Trap::ALL.into_iter().find(|trap| *trap as u32 == number).map(Self::Trap),
            3 => Limit::ALL.into_iter().find(|limit| *limit as u32 == number).map(Self::Limit),
            _ => None,
        }
    }
}

impl fmt::Display for Exit {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Ok => f.write_str("ok"),
            Self::Code(code) => write!(f, "exit code {code}"),
            Self::Trap(trap) => write!(f, "trap: {trap}"),
            Self::Limit(limit) => write!(f, "limit: {limit}"),
        }
    }
}

/// An enum with a stable number and a sentence per variant.
macro_rules! reasons {
    ($(#[$doc:meta])* $name:ident { $($(#[$vdoc:meta])* $variant:ident = $number:literal, $text:literal;)+ }) => {
        $(#[$doc])*
        #[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, Serialize, Deserialize)]
        #[repr(u32)]
        pub enum $name {
            $($(#[$vdoc])* $variant = $number,)+
        }

        impl $name {
            /// Every variant.
            pub const ALL: [Self; [$($number),+].len()] = [$(Self::$variant),+];
        }

        impl fmt::Display for $name {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str(match self {
                    $(Self::$variant => $text,)+
                })
            }
        }
    };
}

reasons! {
    /// What WebAssembly forbids.
    Trap {
        /// The `unreachable` instruction, which is how most languages panic or abort.
        Unreachable = 1, "the program aborted (unreachable)";
        /// A load or store outside of memory.
        MemoryOutOfBounds = 2, "memory access out of bounds";
        /// A table access outside of the table.
        TableOutOfBounds = 3, "table access out of bounds";
        /// A call through an empty table element.
        IndirectCallToNull = 4, "indirect call to null";
        /// A call through a table element of another type.
        BadSignature = 5, "indirect call with a wrong signature";
        /// Integer overflow.
        IntegerOverflow = 6, "integer overflow";
        /// Division by zero.
        DivideByZero = 7, "integer division by zero";
        /// A float that fits no integer.
        BadConversion = 8, "float does not fit an integer";
        /// A host call with a pointer outside of memory.
        BadPointer = 9, "host call with a pointer out of bounds";
        /// Anything else that the engine calls a trap.
        Other = 10, "trap";
    }
}

reasons! {
    /// A limit of the job.
    Limit {
        /// `--fuel`.
        Fuel = 1, "out of fuel; raise --fuel";
        /// Standard output or `/out` above the job's output limit.
        Output = 2, "too much output; raise --output";
        /// Calls nested too deep.
        CallDepth = 3, "calls nested too deep";
        /// The program slept longer than the virtual clock allows.
        Sleep = 4, "virtual sleep above the limit";
        /// The program's initial memory or tables do not fit its limits.
        Memory = 5, "more initial memory than allowed; raise --memory";
        /// Too many or too long file names, or too many open files.
        Files = 6, "too many files";
    }
}

reasons! {
    /// Why an attempt says nothing about the program.
    NoResult {
        /// The wall-clock deadline passed.
        Deadline = 1, "the deadline passed; raise --deadline";
        /// The machine ran out of memory.
        HostMemory = 2, "the machine ran out of memory";
        /// The executor process died: the program crashed it, or somebody killed it.
        ChildDied = 3, "the process that ran the program died";
        /// The native stack overflowed.
        NativeStack = 4, "the native stack overflowed";
        /// The bundle or an input could not be fetched.
        Fetch = 5, "the bundle or its input could not be fetched";
        /// The module could not be compiled within the limits of the compile process.
        Compile = 6, "the module could not be compiled";
        /// The worker stopped.
        Stopped = 7, "the worker stopped";
        /// A fault of the worker itself.
        Internal = 8, "internal error of the worker";
        /// Its output was too large to come along, and gone or another one when it was to be fetched.
        OutputLost = 9, "its output was lost before it could be fetched";
        /// The worker has no room on its disk for what the attempt needs or wrote.
        Disk = 10, "the worker's disk had no room for it";
    }
}

impl NoResult {
    /// A stable number for rows and wires.
    pub fn to_code(self) -> u32 {
        self as u32
    }

    /// The inverse of [`NoResult::to_code`].
    pub fn from_code(code: u32) -> Option<Self> {
        Self::ALL.into_iter().find(|reason| *reason as u32 == code)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_exit_has_one_code() {
        let traps = Trap::ALL.into_iter().map(Exit::Trap);
        let limits = Limit::ALL.into_iter().map(Exit::Limit);
        for exit in traps.chain(limits).chain([Exit::Ok, Exit::Code(1), Exit::Code(u32::MAX)]) {
            assert_eq!(Exit::from_code(exit.to_code()), Some(exit));
        }
        for wrong in [(0, 1), (1, 0), (2, 0), (2, 99), (3, 0), (4, 0), (255, 0)] {
            assert_eq!(Exit::from_code(wrong), None, "{wrong:?}");
        }
    }
}
