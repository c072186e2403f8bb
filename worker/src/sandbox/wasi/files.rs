//! The `fd_*` functions.

use wasmtime::{Caller, Linker};

use super::{
    super::{
        host::Host,
        world::{Answer, Errno, Fault, Fd, FdStat, FileKind, OpenFlags, Stat, Whence},
    },
    Guest, MODULE,
    memory::check_vectors,
    serve,
};

const DIRENT_BYTES: usize = 24;

/// What WASI calls rights. They decide nothing here; old C libraries compute the rights of a new file
/// from those of its directory, so they are stated as what is true anyway.
pub(super) mod rights {
    pub(in super::super) const FD_READ: u64 = 1 << 1;
    pub(super) const FD_SEEK: u64 = 1 << 2;
    pub(super) const FD_TELL: u64 = 1 << 5;
    pub(in super::super) const FD_WRITE: u64 = 1 << 6;
    pub(in super::super) const FD_READDIR: u64 = 1 << 14;
    /// What changes a file: write, allocate, set its size.
    pub(super) const CHANGE: u64 = FD_WRITE | 1 << 8 | 1 << 22;
    /// Everything that begins with `path_`.
    pub(super) const PATH: u64 = 0b1_1111 << 9 | 0b11_1111 << 15 | 0b111 << 24;
    pub(super) const SOCKET: u64 = 0b11 << 28;
    pub(super) const ALL: u64 = (1 << 30) - 1;
}

/// Defines the functions of this file.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    type Call<'a> = Caller<'a, Host>;
    linker
        .func_wrap(MODULE, "fd_advise", |mut call: Call<'_>, fd: u32, _: u64, _: u64, advice: u32| {
            serve(&mut call, |guest| {
                guest.world.fd_fdstat(Fd(fd))?;
                if advice > 5 { Err(Errno::Inval.into()) } else { Ok(()) }
            })
        })?
        .func_wrap(MODULE, "fd_allocate", |mut call: Call<'_>, fd: u32, offset: u64, length: u64| {
            serve(&mut call, |guest| guest.world.fd_allocate(Fd(fd), offset, length))
        })?
        .func_wrap(MODULE, "fd_close", |mut call: Call<'_>, fd: u32| {
            serve(&mut call, |guest| guest.world.fd_close(Fd(fd)))
        })?
        .func_wrap(MODULE, "fd_datasync", |mut call: Call<'_>, fd: u32| {
            serve(&mut call, |guest| guest.world.fd_sync(Fd(fd)))
        })?
        .func_wrap(MODULE, "fd_fdstat_get", |mut call: Call<'_>, fd: u32, result: u32| {
            serve(&mut call, |guest| {
                let stat = guest.world.fd_fdstat(Fd(fd))?;
                guest.memory.write(result, &fdstat_record(stat))
            })
        })?
        .func_wrap(MODULE, "fd_fdstat_set_flags", |mut call: Call<'_>, fd: u32, flags: u32| {
            serve(&mut call, |guest| guest.world.fd_set_flags(Fd(fd), OpenFlags::try_from(flags)?))
        })?
        .func_wrap(MODULE, "fd_fdstat_set_rights", |mut call: Call<'_>, fd: u32, _: u64, _: u64| {
            serve(&mut call, |guest| {
                guest.world.fd_fdstat(Fd(fd))?;
                Err(Errno::Notsup.into())
            })
        })?
        .func_wrap(MODULE, "fd_filestat_get", |mut call: Call<'_>, fd: u32, result: u32| {
            serve(&mut call, |guest| {
                let stat = guest.world.fd_stat(Fd(fd))?;
                guest.memory.write(result, &filestat_record(stat))
            })
        })?
        .func_wrap(MODULE, "fd_filestat_set_size", |mut call: Call<'_>, fd: u32, size: u64| {
            serve(&mut call, |guest| guest.world.fd_set_size(Fd(fd), size))
        })?
        .func_wrap(
            MODULE,
            "fd_filestat_set_times",
            |mut call: Call<'_>, fd: u32, _accessed: u64, _modified: u64, _flags: u32| {
                serve(&mut call, |guest| guest.world.fd_stat(Fd(fd)).map(drop))
            },
        )?
        .func_wrap(
            MODULE,
            "fd_pread",
            |mut call: Call<'_>, fd: u32, vectors: u32, count: u32, offset: u64, result: u32| {
                serve(&mut call, |guest| guest.read(Fd(fd), vectors, count, Some(offset), result))
            },
        )?
        .func_wrap(MODULE, "fd_prestat_get", |mut call: Call<'_>, fd: u32, result: u32| {
            serve(&mut call, |guest| {
                guest.check_preopen(fd)?;
                guest.memory.write(result, &[0, 0, 0, 0, 1, 0, 0, 0])
            })
        })?
        .func_wrap(MODULE, "fd_prestat_dir_name", |mut call: Call<'_>, fd: u32, path: u32, length: u32| {
            serve(&mut call, |guest| {
                guest.check_preopen(fd)?;
                if length == 0 { Err(Errno::Nametoolong.into()) } else { guest.memory.write(path, b"/") }
            })
        })?
        .func_wrap(
            MODULE,
            "fd_pwrite",
            |mut call: Call<'_>, fd: u32, vectors: u32, count: u32, offset: u64, result: u32| {
                serve(&mut call, |guest| guest.write(Fd(fd), vectors, count, Some(offset), result))
            },
        )?
        .func_wrap(
            MODULE,
            "fd_read",
            |mut call: Call<'_>, fd: u32, vectors: u32, count: u32, result: u32| {
                serve(&mut call, |guest| guest.read(Fd(fd), vectors, count, None, result))
            },
        )?
        .func_wrap(
            MODULE,
            "fd_readdir",
            |mut call: Call<'_>, fd: u32, buffer: u32, length: u32, cookie: u64, result: u32| {
                serve(&mut call, |guest| guest.readdir(Fd(fd), buffer, length, cookie, result))
            },
        )?
        .func_wrap(MODULE, "fd_renumber", |mut call: Call<'_>, fd: u32, to: u32| {
            serve(&mut call, |guest| guest.world.fd_renumber(Fd(fd), Fd(to)))
        })?
        .func_wrap(
            MODULE,
            "fd_seek",
            |mut call: Call<'_>, fd: u32, offset: i64, whence: u32, result: u32| {
                serve(&mut call, |guest| {
                    let whence = match whence {
                        0 => Whence::Start,
                        1 => Whence::Current,
                        2 => Whence::End,
                        _ => return Err(Errno::Inval.into()),
                    };
                    let position = guest.world.fd_seek(Fd(fd), offset, whence)?;
                    guest.memory.write_u64(result, position)
                })
            },
        )?
        .func_wrap(MODULE, "fd_sync", |mut call: Call<'_>, fd: u32| {
            serve(&mut call, |guest| guest.world.fd_sync(Fd(fd)))
        })?
        .func_wrap(MODULE, "fd_tell", |mut call: Call<'_>, fd: u32, result: u32| {
            serve(&mut call, |guest| {
                let position = guest.world.fd_seek(Fd(fd), 0, Whence::Current)?;
                guest.memory.write_u64(result, position)
            })
        })?
        .func_wrap(
            MODULE,
            "fd_write",
            |mut call: Call<'_>, fd: u32, vectors: u32, count: u32, result: u32| {
                serve(&mut call, |guest| guest.write(Fd(fd), vectors, count, None, result))
            },
        )?;
    Ok(())
}

fn kind_number(kind: FileKind) -> u8 {
    match kind {
        FileKind::Stream => 0,
        FileKind::Directory => 3,
        FileKind::File => 4,
    }
}

fn fdstat_record(stat: FdStat) -> [u8; 24] {
    let unwritable = if stat.write { 0 } else { rights::CHANGE };
    let unreadable = if stat.read { 0 } else { rights::FD_READ | rights::FD_READDIR };
    let (own, inheriting) = match stat.kind {
        FileKind::Stream => {
            let never =
                rights::FD_SEEK | rights::FD_TELL | rights::PATH | rights::FD_READDIR | rights::SOCKET;
            (rights::ALL & !never & !unwritable & !unreadable, 0)
        }
        FileKind::File => {
            let never = rights::PATH | rights::FD_READDIR | rights::SOCKET;
            (rights::ALL & !never & !unwritable & !unreadable, 0)
        }
        FileKind::Directory => {
            let never = rights::FD_READ | rights::FD_SEEK | rights::FD_TELL | rights::CHANGE;
            (rights::ALL & !never & !rights::SOCKET, rights::ALL & !rights::SOCKET)
        }
    };
    let mut record = [0; 24];
    record[0] = kind_number(stat.kind);
    record[2..4].copy_from_slice(&stat.flags.bits().to_le_bytes());
    record[8..16].copy_from_slice(&own.to_le_bytes());
    record[16..24].copy_from_slice(&inheriting.to_le_bytes());
    record
}

/// Device 1, one link, all times 0.
pub(super) fn filestat_record(stat: Stat) -> [u8; 64] {
    let mut record = [0; 64];
    record[0] = 1;
    record[8..16].copy_from_slice(&stat.inode.to_le_bytes());
    record[16] = kind_number(stat.kind);
    record[24] = 1;
    record[32..40].copy_from_slice(&stat.size.to_le_bytes());
    record
}

impl Guest<'_> {
    fn check_preopen(&self, fd: u32) -> Answer<()> {
        if self.world.is_preopen(Fd(fd))? { Ok(()) } else { Err(Errno::Badf.into()) }
    }

    fn read(&mut self, fd: Fd, vectors: u32, count: u32, at: Option<u64>, result: u32) -> Answer<()> {
        check_vectors(count)?;
        self.world.spend(8 * u64::from(count));
        let mut total = 0_usize;
        for position in 0..count {
            let (pointer, length) = self.memory.vector(vectors, position)?;
            let buffer = self.memory.bytes_mut(pointer, length)?;
            let wanted = buffer.len();
            let read = match at {
                None => self.world.fd_read(fd, buffer)?,
                Some(at) => self.world.fd_pread(fd, buffer, at.saturating_add(total as u64))?,
            };
            total += read;
            if read < wanted {
                break;
            }
        }
        if count == 0 {
            self.world.fd_fdstat(fd)?;
        }
        self.memory.write_size(result, total)
    }

    fn write(&mut self, fd: Fd, vectors: u32, count: u32, at: Option<u64>, result: u32) -> Answer<()> {
        check_vectors(count)?;
        self.world.spend(8 * u64::from(count));
        let mut total = 0_usize;
        for position in 0..count {
            let (pointer, length) = self.memory.vector(vectors, position)?;
            let data = self.memory.bytes(pointer, length)?;
            let written = match at {
                None => self.world.fd_write(fd, data),
                Some(at) => self.world.fd_pwrite(fd, data, at.saturating_add(total as u64)),
            };
            match written {
                Ok(()) => total += data.len(),
                // What went through before counts, as on any Unix; the next call will get the error.
                Err(Fault::Errno(_)) if total > 0 => break,
                Err(fault) => return Err(fault),
            }
        }
        if count == 0 {
            self.world.fd_fdstat(fd)?;
        }
        self.memory.write_size(result, total)
    }

    /// Fills the buffer to its end unless the directory ends before; the last entry may be cut.
    fn readdir(&mut self, fd: Fd, buffer: u32, length: u32, cookie: u64, result: u32) -> Answer<()> {
        let entries = self.world.fd_listing(fd, cookie == 0)?;
        let target = self.memory.bytes_mut(buffer, length)?;
        let mut used = 0;
        let rest = usize::try_from(cookie).ok().and_then(|first| entries.get(first..)).unwrap_or_default();
        for (next, entry) in (cookie.saturating_add(1)..).zip(rest) {
            let mut record = [0; DIRENT_BYTES];
            record[..8].copy_from_slice(&next.to_le_bytes());
            record[8..16].copy_from_slice(&entry.inode.to_le_bytes());
            let name_bytes = u32::try_from(entry.name.len()).map_err(|_| Errno::Overflow)?;
            record[16..20].copy_from_slice(&name_bytes.to_le_bytes());
            record[20] = kind_number(entry.kind);
            for part in [&record[..], entry.name.as_bytes()] {
                let count = part.len().min(target.len() - used);
                target[used..used + count].copy_from_slice(&part[..count]);
                used += count;
            }
            if used == target.len() {
                break;
            }
        }
        self.world.spend(used as u64);
        self.memory.write_size(result, used)
    }
}
