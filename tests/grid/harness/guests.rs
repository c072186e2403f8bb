//! Programs for the sandbox that do what no sample task does.

use std::path::PathBuf;

use super::Grid;

/// A guest in the WebAssembly text format.
#[derive(Debug, Clone, Copy)]
pub(crate) enum Guest {
    /// Says "it broke" on standard error and exits with 3.
    ExitsWith3,
    /// Executes `unreachable`.
    Traps,
    /// Never ends.
    LoopsForever,
    /// Executes some 10⁹ instructions, which is about a second, then says "done".
    TakesASecond,
    /// The same, then writes 256 KiB, which is too much for a report.
    TakesASecondAndWritesMuch,
    /// Copies `/data/greeting` to standard output.
    PrintsTheGreeting,
    /// Imports something that the sandbox does not have.
    ImportsTheUnknown,
}

impl Guest {
    /// Writes the module into the grid's home and returns its path.
    pub(crate) fn write(self, grid: &Grid) -> PathBuf {
        let module = wat::parse_str(self.text()).expect("valid text");
        grid.file(&format!("{self:?}.wasm"), module)
    }

    fn text(self) -> String {
        let (imports, data, body) = match self {
            Self::ExitsWith3 => {
                ("", "it broke\\n", "(call $write (i32.const 2) (i32.const 9)) (call $exit (i32.const 3))")
            }
            Self::Traps => ("", "", "unreachable"),
            Self::LoopsForever => ("", "", "(loop $again (br $again))"),
            Self::TakesASecond => (
                "",
                "done\\n",
                "(local $left i64) (local.set $left (i64.const 200000000))
                 (loop $again
                   (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                   (br_if $again (i64.ne (local.get $left) (i64.const 0))))
                 (call $write (i32.const 1) (i32.const 5))",
            ),
            Self::TakesASecondAndWritesMuch => (
                "",
                "",
                "(local $left i64) (local.set $left (i64.const 200000000))
                 (loop $again
                   (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                   (br_if $again (i64.ne (local.get $left) (i64.const 0))))
                 (local.set $left (i64.const 8))
                 (loop $again
                   (call $write (i32.const 1) (i32.const 32768))
                   (local.set $left (i64.sub (local.get $left) (i64.const 1)))
                   (br_if $again (i64.ne (local.get $left) (i64.const 0))))",
            ),
            Self::PrintsTheGreeting => (
                r#"(import "wasi_snapshot_preview1" "path_open"
                     (func $open (param i32 i32 i32 i32 i32 i64 i64 i32 i32) (result i32)))
                   (import "wasi_snapshot_preview1" "fd_read"
                     (func $read (param i32 i32 i32 i32) (result i32)))"#,
                "data/greeting",
                // Descriptor 3 is the root. Right 2 is fd_read. The buffer of 1,000 bytes is at 1,000.
                "(drop (call $open (i32.const 3) (i32.const 0) (i32.const 100) (i32.const 13)
                   (i32.const 0) (i64.const 2) (i64.const 0) (i32.const 0) (i32.const 80)))
                 (i32.store (i32.const 64) (i32.const 1000))
                 (i32.store (i32.const 68) (i32.const 1000))
                 (drop (call $read (i32.load (i32.const 80)) (i32.const 64) (i32.const 1) (i32.const 68)))
                 (drop (call $fd_write (i32.const 1) (i32.const 64) (i32.const 1) (i32.const 72)))",
            ),
            Self::ImportsTheUnknown => (r#"(import "env" "open_door" (func))"#, "", ""),
        };
        // The text that is written lies at 100; vectors and results below it.
        format!(
            r#"(module
                 (import "wasi_snapshot_preview1" "fd_write"
                   (func $fd_write (param i32 i32 i32 i32) (result i32)))
                 (import "wasi_snapshot_preview1" "proc_exit" (func $exit (param i32)))
                 {imports}
                 (memory (export "memory") 1)
                 (data (i32.const 100) "{data}")
                 (func $write (param $fd i32) (param $length i32)
                   (i32.store (i32.const 0) (i32.const 100))
                   (i32.store (i32.const 4) (local.get $length))
                   (drop (call $fd_write (local.get $fd) (i32.const 0) (i32.const 1) (i32.const 8))))
                 (func (export "_start") {body}))"#
        )
    }
}
