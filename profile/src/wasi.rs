//! The functions of WASI preview 1: all that a program of the profile may import.
//!
//! Names and types are those of the `wasi_snapshot_preview1` witx files, lowered to core
//! WebAssembly: pointers, lengths, descriptors and flags are `i32`; sizes of files, rights and times `i64`;
//! each function but `proc_exit` returns an `i32` errno.

use std::fmt;

/// The one module that may be imported from.
pub const WASI_MODULE: &str = "wasi_snapshot_preview1";

/// The core types that occur in WASI preview 1.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum Word {
    /// 32 bits.
    I32,
    /// 64 bits.
    I64,
}

impl fmt::Display for Word {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::I32 => "i32",
            Self::I64 => "i64",
        })
    }
}

/// A function that a program may import from [`WASI_MODULE`].
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct WasiFunction {
    /// Its name.
    pub name: &'static str,
    /// Types of its parameters.
    pub params: &'static [Word],
    /// Types of its results: one errno, or nothing.
    pub results: &'static [Word],
}

/// Each function of WASI preview 1, sorted by name.
pub fn wasi_functions() -> &'static [WasiFunction] {
    FUNCTIONS
}

/// The function of that name.
pub fn wasi_function(name: &str) -> Option<&'static WasiFunction> {
    FUNCTIONS.binary_search_by_key(&name, |function| function.name).ok().map(|index| &FUNCTIONS[index])
}

macro_rules! functions {
    ($($name:ident($($param:ident)*) $(-> $result:ident)?;)+) => {
        const FUNCTIONS: &[WasiFunction] = &[$(WasiFunction {
            name: stringify!($name),
            params: &[$(Word::$param),*],
            results: &[$(Word::$result)?],
        },)+];
    };
}

functions! {
    args_get(I32 I32) -> I32;
    args_sizes_get(I32 I32) -> I32;
    clock_res_get(I32 I32) -> I32;
    clock_time_get(I32 I64 I32) -> I32;
    environ_get(I32 I32) -> I32;
    environ_sizes_get(I32 I32) -> I32;
    fd_advise(I32 I64 I64 I32) -> I32;
    fd_allocate(I32 I64 I64) -> I32;
    fd_close(I32) -> I32;
    fd_datasync(I32) -> I32;
    fd_fdstat_get(I32 I32) -> I32;
    fd_fdstat_set_flags(I32 I32) -> I32;
    fd_fdstat_set_rights(I32 I64 I64) -> I32;
    fd_filestat_get(I32 I32) -> I32;
    fd_filestat_set_size(I32 I64) -> I32;
    fd_filestat_set_times(I32 I64 I64 I32) -> I32;
    fd_pread(I32 I32 I32 I64 I32) -> I32;
    fd_prestat_dir_name(I32 I32 I32) -> I32;
    fd_prestat_get(I32 I32) -> I32;
    fd_pwrite(I32 I32 I32 I64 I32) -> I32;
    fd_read(I32 I32 I32 I32) -> I32;
    fd_readdir(I32 I32 I32 I64 I32) -> I32;
    fd_renumber(I32 I32) -> I32;
    fd_seek(I32 I64 I32 I32) -> I32;
    fd_sync(I32) -> I32;
    fd_tell(I32 I32) -> I32;
    fd_write(I32 I32 I32 I32) -> I32;
    path_create_directory(I32 I32 I32) -> I32;
    path_filestat_get(I32 I32 I32 I32 I32) -> I32;
    path_filestat_set_times(I32 I32 I32 I32 I64 I64 I32) -> I32;
    path_link(I32 I32 I32 I32 I32 I32 I32) -> I32;
    path_open(I32 I32 I32 I32 I32 I64 I64 I32 I32) -> I32;
    path_readlink(I32 I32 I32 I32 I32 I32) -> I32;
    path_remove_directory(I32 I32 I32) -> I32;
    path_rename(I32 I32 I32 I32 I32 I32) -> I32;
    path_symlink(I32 I32 I32 I32 I32) -> I32;
    path_unlink_file(I32 I32 I32) -> I32;
    poll_oneoff(I32 I32 I32 I32) -> I32;
    proc_exit(I32);
    proc_raise(I32) -> I32;
    random_get(I32 I32) -> I32;
    sched_yield() -> I32;
    sock_accept(I32 I32 I32) -> I32;
    sock_recv(I32 I32 I32 I32 I32 I32) -> I32;
    sock_send(I32 I32 I32 I32 I32) -> I32;
    sock_shutdown(I32 I32) -> I32;
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_table_is_sorted_and_whole() {
        assert_eq!(wasi_functions().len(), 46);
        assert!(wasi_functions().is_sorted_by(|a, b| a.name < b.name));
        for function in wasi_functions() {
            assert_eq!(wasi_function(function.name), Some(function));
        }
        assert_eq!(wasi_function("thread_spawn"), None);
    }
}
