//! Arguments, environment, clocks, chance, waiting, ending; and the sockets that there are not.

use std::time::Duration;

use talka_core::outcome::Exit;
use wasmtime::{Caller, Linker};

use super::{
    super::{
        host::Host,
        meter,
        world::{Answer, ClockId, Errno, Fault, Fd, TICK_NANOS},
    },
    CALL_FUEL, Guest, MODULE,
    memory::{offset, u32_at, u64_at},
    serve,
};

/// Most subscriptions of one `poll_oneoff`: more than a program can have open files and timers.
const SUBSCRIPTIONS_MAX: u32 = 1024;
const SUBSCRIPTION_BYTES: u64 = 48;
const EVENT_BYTES: u64 = 32;

/// Defines the functions of this file.
pub(super) fn add_to_linker(linker: &mut Linker<Host>) -> wasmtime::Result<()> {
    type Call<'a> = Caller<'a, Host>;
    linker
        .func_wrap(MODULE, "args_get", |mut call: Call<'_>, pointers: u32, buffer: u32| {
            serve(&mut call, |guest| guest.args_get(pointers, buffer))
        })?
        .func_wrap(MODULE, "args_sizes_get", |mut call: Call<'_>, count: u32, size: u32| {
            serve(&mut call, |guest| {
                let sizes = sizes(guest.world.args().iter().map(String::len));
                guest.put_sizes(sizes, count, size)
            })
        })?
        .func_wrap(MODULE, "environ_get", |mut call: Call<'_>, pointers: u32, buffer: u32| {
            serve(&mut call, |guest| guest.environ_get(pointers, buffer))
        })?
        .func_wrap(MODULE, "environ_sizes_get", |mut call: Call<'_>, count: u32, size: u32| {
            serve(&mut call, |guest| {
                let lengths = guest.world.env().iter().map(|(name, value)| name.len() + 1 + value.len());
                let sizes = sizes(lengths);
                guest.put_sizes(sizes, count, size)
            })
        })?
        .func_wrap(MODULE, "clock_res_get", |mut call: Call<'_>, id: u32, result: u32| {
            serve(&mut call, |guest| {
                ClockId::try_from(id)?;
                guest.memory.write_u64(result, TICK_NANOS)
            })
        })?
        .func_wrap(MODULE, "clock_time_get", |mut call: Call<'_>, id: u32, _precision: u64, result: u32| {
            serve(&mut call, |guest| {
                let now = guest.world.clock_read(ClockId::try_from(id)?);
                guest.memory.write_u64(result, now)
            })
        })?
        .func_wrap(MODULE, "random_get", |mut call: Call<'_>, buffer: u32, length: u32| {
            serve(&mut call, |guest| {
                guest.world.random_fill(guest.memory.bytes_mut(buffer, length)?);
                Ok(())
            })
        })?
        .func_wrap(
            MODULE,
            "poll_oneoff",
            |mut call: Call<'_>, subscriptions: u32, events: u32, count: u32, result: u32| {
                serve(&mut call, |guest| guest.poll_oneoff(subscriptions, events, count, result))
            },
        )?
        .func_wrap(MODULE, "sched_yield", |mut call: Call<'_>| serve(&mut call, |_| Ok(())))?
        .func_wrap(MODULE, "proc_exit", |mut call: Call<'_>, code: u32| -> wasmtime::Result<()> {
            meter::charge(&mut call, CALL_FUEL)?;
            let exit = if code == 0 { Exit::Ok } else { Exit::Code(code) };
            Err(Fault::End(exit).into())
        })?
        .func_wrap(MODULE, "proc_raise", |mut call: Call<'_>, _signal: u32| {
            serve(&mut call, |_| Err(Errno::Notsup.into()))
        })?
        .func_wrap(MODULE, "sock_accept", |mut call: Call<'_>, fd: u32, _flags: u32, _result: u32| {
            serve(&mut call, |guest| guest.no_socket(fd))
        })?
        .func_wrap(
            MODULE,
            "sock_recv",
            |mut call: Call<'_>, fd: u32, _: u32, _: u32, _flags: u32, _result: u32, _result_flags: u32| {
                serve(&mut call, |guest| guest.no_socket(fd))
            },
        )?
        .func_wrap(
            MODULE,
            "sock_send",
            |mut call: Call<'_>, fd: u32, _: u32, _: u32, _flags: u32, _result: u32| {
                serve(&mut call, |guest| guest.no_socket(fd))
            },
        )?
        .func_wrap(MODULE, "sock_shutdown", |mut call: Call<'_>, fd: u32, _how: u32| {
            serve(&mut call, |guest| guest.no_socket(fd))
        })?;
    Ok(())
}

/// Number of strings, and their bytes with a NUL each.
fn sizes(lengths: impl ExactSizeIterator<Item = usize>) -> (usize, usize) {
    (lengths.len(), lengths.map(|length| length + 1).sum())
}

/// One thing that a program waits for.
enum Waiting {
    Clock(Duration),
    File(Answer<u64>),
}

impl Guest<'_> {
    fn put_sizes(&mut self, (count, bytes): (usize, usize), at: u32, size_at: u32) -> Answer<()> {
        self.memory.write_size(at, count)?;
        self.memory.write_size(size_at, bytes)
    }

    fn args_get(&mut self, pointers: u32, buffer: u32) -> Answer<()> {
        let mut text = Vec::new();
        let mut starts = Vec::new();
        for arg in self.world.args() {
            starts.push(text.len() as u64);
            text.extend_from_slice(arg.as_bytes());
            text.push(0);
        }
        self.put_strings(&text, &starts, pointers, buffer)
    }

    fn environ_get(&mut self, pointers: u32, buffer: u32) -> Answer<()> {
        let mut text = Vec::new();
        let mut starts = Vec::new();
        for (name, value) in self.world.env() {
            starts.push(text.len() as u64);
            text.extend([name.as_bytes(), b"=", value.as_bytes(), b"\0"].concat());
        }
        self.put_strings(&text, &starts, pointers, buffer)
    }

    fn put_strings(&mut self, text: &[u8], starts: &[u64], pointers: u32, buffer: u32) -> Answer<()> {
        self.world.spend(text.len() as u64 + 4 * starts.len() as u64);
        self.memory.write(buffer, text)?;
        for (position, start) in (0_u64..).zip(starts) {
            self.memory.write_u32(offset(pointers, position * 4)?, offset(buffer, *start)?)?;
        }
        Ok(())
    }

    fn no_socket(&mut self, fd: u32) -> Answer<()> {
        self.world.fd_fdstat(Fd(fd))?;
        Err(Errno::Notsock.into())
    }

    /// Waiting costs no time here. When a file is waited for, it is ready at once; when only clocks are,
    /// the virtual clock jumps to the first of them.
    fn poll_oneoff(&mut self, subscriptions: u32, events: u32, count: u32, result: u32) -> Answer<()> {
        if count == 0 || count > SUBSCRIPTIONS_MAX {
            return Err(Errno::Inval.into());
        }
        self.world.spend(u64::from(count) * (SUBSCRIPTION_BYTES + EVENT_BYTES));
        self.world.clock_read(ClockId::Monotonic);
        let mut waiting = Vec::new();
        for position in 0..u64::from(count) {
            let at = offset(subscriptions, position * SUBSCRIPTION_BYTES)?;
            let record: [u8; 48] = self.memory.bytes(at, 48)?.try_into().map_err(|_| Errno::Inval)?;
            waiting.push((u64_at(&record, 0), record[8], self.subscription(&record)?));
        }
        let first = waiting.iter().map(|(_, _, what)| match what {
            Waiting::Clock(left) => *left,
            Waiting::File(_) => Duration::ZERO,
        });
        let slept = first.min().unwrap_or_default();
        self.world.sleep(slept)?;

        let mut ready = 0;
        for (user_data, kind, what) in waiting {
            let (errno, bytes) = match what {
                Waiting::Clock(left) if left > slept => continue,
                Waiting::Clock(_) => (0, 0),
                Waiting::File(Ok(bytes)) => (0, bytes),
                Waiting::File(Err(Fault::Errno(errno))) => (errno as u16, 0),
                Waiting::File(Err(end)) => return Err(end),
            };
            let mut event = [0; 32];
            event[..8].copy_from_slice(&user_data.to_le_bytes());
            event[8..10].copy_from_slice(&errno.to_le_bytes());
            event[10] = kind;
            event[16..24].copy_from_slice(&bytes.to_le_bytes());
            self.memory.write(offset(events, u64::from(ready) * EVENT_BYTES)?, &event)?;
            ready += 1;
        }
        self.memory.write_u32(result, ready)
    }

    fn subscription(&self, record: &[u8; 48]) -> Answer<Waiting> {
        const ABSOLUTE: u8 = 1;
        Ok(match record[8] {
            0 => {
                let clock = ClockId::try_from(u32_at(record, 16))?;
                let timeout = u64_at(record, 24);
                Waiting::Clock(match record[40] & ABSOLUTE {
                    0 => Duration::from_nanos(timeout),
                    _ => self.world.clock_until(clock, timeout),
                })
            }
            1 => Waiting::File(self.world.fd_readable_bytes(Fd(u32_at(record, 16)))),
            2 => Waiting::File(self.world.fd_fdstat(Fd(u32_at(record, 16))).map(|_| u64::from(u16::MAX))),
            _ => return Err(Errno::Inval.into()),
        })
    }
}
