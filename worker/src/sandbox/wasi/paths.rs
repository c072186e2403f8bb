//! The `path_*` functions.

use wasmtime::{Caller, Linker};

use super::{
    super::{
        host::Host,
        world::{Answer, Errno, Fd, OpenFlags, OpenHow},
    },
    Guest, MODULE,
    files::{filestat_record, rights},
    serve,
};

/// Defines the functions of this file.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    type Call<'a> = Caller<'a, Host>;
    linker
        .func_wrap(MODULE, "path_create_directory", |mut call: Call<'_>, fd: u32, path: u32, length: u32| {
            serve(&mut call, |guest| {
                guest.world.path_create_directory(Fd(fd), guest.memory.bytes(path, length)?)
            })
        })?
        .func_wrap(
            MODULE,
            "path_filestat_get",
            |mut call: Call<'_>, fd: u32, _flags: u32, path: u32, length: u32, result: u32| {
                serve(&mut call, |guest| {
                    let stat = guest.world.path_stat(Fd(fd), guest.memory.bytes(path, length)?)?;
                    guest.memory.write(result, &filestat_record(stat))
                })
            },
        )?
        .func_wrap(
            MODULE,
            "path_filestat_set_times",
            |mut call: Call<'_>, fd: u32, _: u32, path: u32, length: u32, _: u64, _: u64, _: u32| {
                serve(&mut call, |guest| {
                    guest.world.path_stat(Fd(fd), guest.memory.bytes(path, length)?).map(drop)
                })
            },
        )?
        .func_wrap(
            MODULE,
            "path_link",
            |mut call: Call<'_>, fd: u32, _: u32, path: u32, length: u32, _: u32, _: u32, _: u32| {
                serve(&mut call, |guest| {
                    guest.world.path_stat(Fd(fd), guest.memory.bytes(path, length)?)?;
                    Err(Errno::Perm.into())
                })
            },
        )?
        .func_wrap(
            MODULE,
            "path_open",
            |mut call: Call<'_>,
             fd: u32,
             _lookup: u32,
             path: u32,
             length: u32,
             how: u32,
             base: u64,
             _inheriting: u64,
             flags: u32,
             result: u32| {
                serve(&mut call, |guest| {
                    let how = open_how(how, base, flags)?;
                    let opened = guest.world.path_open(Fd(fd), guest.memory.bytes(path, length)?, how)?;
                    guest.memory.write_u32(result, opened.0)
                })
            },
        )?
        .func_wrap(
            MODULE,
            "path_readlink",
            |mut call: Call<'_>, fd: u32, path: u32, length: u32, _buffer: u32, _size: u32, _result: u32| {
                serve(&mut call, |guest| guest.world.path_readlink(Fd(fd), guest.memory.bytes(path, length)?))
            },
        )?
        .func_wrap(MODULE, "path_remove_directory", |mut call: Call<'_>, fd: u32, path: u32, length: u32| {
            serve(&mut call, |guest| {
                guest.world.path_remove_directory(Fd(fd), guest.memory.bytes(path, length)?)
            })
        })?
        .func_wrap(
            MODULE,
            "path_rename",
            |mut call: Call<'_>,
             fd: u32,
             from: u32,
             from_length: u32,
             to_fd: u32,
             to: u32,
             to_length: u32| {
                serve(&mut call, |guest| guest.rename((fd, from, from_length), (to_fd, to, to_length)))
            },
        )?
        .func_wrap(
            MODULE,
            "path_symlink",
            |mut call: Call<'_>, _: u32, _: u32, fd: u32, _path: u32, _length: u32| {
                serve(&mut call, |guest| {
                    guest.world.fd_fdstat(Fd(fd))?;
                    Err(Errno::Perm.into())
                })
            },
        )?
        .func_wrap(MODULE, "path_unlink_file", |mut call: Call<'_>, fd: u32, path: u32, length: u32| {
            serve(&mut call, |guest| guest.world.path_unlink_file(Fd(fd), guest.memory.bytes(path, length)?))
        })?;
    Ok(())
}

fn open_how(how: u32, base: u64, flags: u32) -> Answer<OpenHow> {
    if how > 0b1111 {
        return Err(Errno::Inval.into());
    }
    Ok(OpenHow {
        create: how & 1 != 0,
        directory: how & 2 != 0,
        exclusive: how & 4 != 0,
        truncate: how & 8 != 0,
        read: base & (rights::FD_READ | rights::FD_READDIR) != 0,
        write: base & rights::FD_WRITE != 0,
        flags: OpenFlags::try_from(flags)?,
    })
}

impl Guest<'_> {
    fn rename(&mut self, from: (u32, u32, u32), to: (u32, u32, u32)) -> Answer<()> {
        let old = self.memory.bytes(from.1, from.2)?;
        let new = self.memory.bytes(to.1, to.2)?;
        self.world.path_rename((Fd(from.0), old), (Fd(to.0), new))
    }
}
