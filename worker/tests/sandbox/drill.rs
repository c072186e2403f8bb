//! What native code would try that has broken out of the engine, tried from behind the walls of either child.
//!
//! Each attempt is a process of its own. It prepares what must be there before, raises the walls, and tries one
//! thing; the kernel ends it at the system call, or refuses. Those attempts that need no privileges are also made
//! without walls, and must work there: otherwise they would prove nothing.

use std::{
    ffi::CString,
    fs, io,
    net::{Ipv4Addr, TcpListener, TcpStream, UdpSocket},
    os::{
        fd::AsRawFd as _,
        unix::{
            fs::{PermissionsExt as _, symlink},
            net::{UnixDatagram, UnixListener, UnixStream},
            process::{CommandExt as _, ExitStatusExt as _},
        },
    },
    path::{Path, PathBuf},
    process::{Command, ExitCode, Stdio},
    ptr,
};

use libc::{c_int, c_long};
use talka_worker::sandbox::{child, walls::Wall};

use super::exe;

/// First argument of a process that makes one attempt.
pub(crate) const DRILL_ARG: &str = "escape-drill";

/// Exit code of an attempt that the kernel refused.
const DENIED: u8 = 10;

/// Exit code when the kernel has no system call filter.
const NO_FILTER: u8 = 11;

/// What an attempt has to do with the world.
struct Target {
    folder: PathBuf,
    tcp: u16,
    udp: u16,
}

impl Target {
    fn secret(&self) -> PathBuf {
        self.folder.join("home/.ssh/id_ed25519")
    }

    fn new_file(&self) -> PathBuf {
        self.folder.join("written")
    }

    fn socket(&self) -> PathBuf {
        self.folder.join("socket")
    }
}

/// Raises the walls.
type Raise<'a> = &'a dyn Fn();

/// Whether the thing was done.
type Try = fn(&Target, Raise<'_>) -> bool;

/// Name, whether it works for anybody where there are no walls, and how.
struct Attempt(&'static str, bool, Try);

/// Calls the kernel directly; true if it did what it was asked.
fn call(number: c_long, arguments: [c_long; 5]) -> bool {
    let [first, second, third, fourth, fifth] = arguments;
    // SAFETY: what is passed are numbers and addresses of values that the caller holds; the calls in this file that
    // would change memory of this process only do so within those.
    #[expect(unsafe_code, reason = "there is no safe way to make a call that nobody should make")]
    let answer = unsafe { libc::syscall(number, first, second, third, fourth, fifth) };
    answer >= 0
}

/// An address as an argument.
fn address<T>(value: &T) -> c_long {
    ptr::from_ref(value).addr().cast_signed() as c_long
}

/// A path as an argument; it is never freed.
fn path(path: &Path) -> c_long {
    let text = CString::new(path.to_string_lossy().as_bytes()).expect("no NUL");
    text.into_raw().addr().cast_signed() as c_long
}

fn parent() -> c_long {
    c_long::from(rustix::process::getppid().expect("a parent").as_raw_nonzero().get())
}

/// Room for whatever the kernel wants to read or write.
#[repr(C, align(64))]
struct Room([u64; 64]);

const NOTHING: Room = Room([0; 64]);

/// Makes a call with nothing to prepare.
macro_rules! calls {
    ($($name:literal, $free:literal: $number:ident($($argument:expr),*);)+) => {
        [$(Attempt($name, $free, |_, raise| {
            let room = NOTHING;
            let mut arguments = [0; 5];
            let given: &[c_long] = &[$(at(&room, $argument)),*];
            arguments[..given.len()].copy_from_slice(given);
            raise();
            call(libc::$number, arguments)
        })),+]
    };
}

/// What to pass.
#[derive(Clone, Copy)]
enum Argument {
    Number(c_long),
    Room,
    Parent,
    Root,
}

fn at(room: &Room, argument: Argument) -> c_long {
    match argument {
        Argument::Number(number) => number,
        Argument::Room => address(room),
        Argument::Parent => parent(),
        Argument::Root => path(Path::new("/")),
    }
}

fn n(number: impl TryInto<c_long>) -> Argument {
    Argument::Number(number.try_into().unwrap_or_default())
}

fn attempts() -> Vec<Attempt> {
    let mut all = Vec::new();
    all.extend(files());
    all.extend(descriptors());
    all.extend(network());
    all.extend(processes());
    all.extend(kernel());
    #[cfg(target_arch = "x86_64")]
    all.extend(other_tables());
    all
}

fn files() -> Vec<Attempt> {
    vec![
        Attempt("read a key of the user", true, |target, raise| {
            raise();
            fs::read(target.secret()).is_ok()
        }),
        Attempt("read the list of users", true, |_, raise| {
            raise();
            fs::read("/etc/passwd").is_ok()
        }),
        Attempt("read the environment of the first process", false, |_, raise| {
            raise();
            fs::read("/proc/1/environ").is_ok()
        }),
        Attempt("read the memory of the parent", false, |_, raise| {
            let memory = format!("/proc/{}/mem", parent());
            raise();
            fs::File::open(memory).is_ok()
        }),
        Attempt("read its own map of memory", true, |_, raise| {
            raise();
            fs::read("/proc/self/maps").is_ok()
        }),
        Attempt("look at a file", true, |target, raise| {
            raise();
            fs::metadata(target.secret()).is_ok()
        }),
        Attempt("list a folder", true, |_, raise| {
            raise();
            fs::read_dir("/").is_ok()
        }),
        Attempt("write a file", true, |target, raise| {
            raise();
            fs::write(target.new_file(), "x").is_ok()
        }),
        Attempt("write to shared memory", false, |_, raise| {
            raise();
            fs::write("/dev/shm/talka-drill", "x").is_ok()
        }),
        Attempt("make a folder", true, |target, raise| {
            raise();
            fs::create_dir(target.new_file()).is_ok()
        }),
        Attempt("make a link", true, |target, raise| {
            raise();
            symlink("/etc/passwd", target.new_file()).is_ok()
        }),
        Attempt("rename a file", true, |target, raise| {
            raise();
            fs::rename(target.secret(), target.new_file()).is_ok()
        }),
        Attempt("remove a file", true, |target, raise| {
            raise();
            fs::remove_file(target.secret()).is_ok()
        }),
        Attempt("change who may read a file", true, |target, raise| {
            raise();
            fs::set_permissions(target.secret(), fs::Permissions::from_mode(0o777)).is_ok()
        }),
        Attempt("know the working folder", true, |_, raise| {
            raise();
            std::env::current_dir().is_ok()
        }),
        Attempt("open in the newer way", true, |target, raise| {
            let (room, secret) = (NOTHING, path(&target.secret()));
            raise();
            call(libc::SYS_openat2, [c_long::from(libc::AT_FDCWD), secret, address(&room), 24, 0])
        }),
    ]
}

fn descriptors() -> Vec<Attempt> {
    let mut all = vec![
        Attempt("read a descriptor from before", true, |target, raise| {
            let file = fs::File::open(target.secret()).expect("readable");
            raise();
            io::Read::read(&mut &file, &mut [0]).is_ok()
        }),
        Attempt("write to a descriptor from before", true, |target, raise| {
            let file = fs::File::create(target.folder.join("open-before")).expect("writable");
            raise();
            io::Write::write(&mut &file, b"x").is_ok()
        }),
        Attempt("map a descriptor from before and sync it", false, |target, raise| {
            let file = fs::File::open(target.secret()).expect("readable");
            raise();
            call(libc::SYS_fsync, [c_long::from(file.as_raw_fd()), 0, 0, 0, 0])
        }),
    ];
    all.extend(calls! {
        "make a file in memory", true: SYS_memfd_create(Argument::Room, n(0));
        "make a pipe", true: SYS_pipe2(Argument::Room, n(0));
        "duplicate a descriptor", true: SYS_dup(n(1));
        "change a descriptor", true: SYS_fcntl(n(1), n(libc::F_GETFD));
        "control a descriptor", true: SYS_ioctl(n(1), n(0x5451));
        "wait for descriptors", true: SYS_epoll_create1(n(0));
        "make an event", true: SYS_eventfd2(n(0), n(0));
        "watch files", false: SYS_inotify_init1(n(0));
        "take a signal as a descriptor", false: SYS_signalfd4(n(-1), Argument::Room, n(8), n(0));
    });
    all
}

fn network() -> Vec<Attempt> {
    let mut all = vec![
        Attempt("connect by TCP", true, |target, raise| {
            raise();
            TcpStream::connect((Ipv4Addr::LOCALHOST, target.tcp)).is_ok()
        }),
        Attempt("send by UDP", true, |target, raise| {
            raise();
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0));
            socket.is_ok_and(|socket| socket.send_to(b"x", (Ipv4Addr::LOCALHOST, target.udp)).is_ok())
        }),
        Attempt("send from a socket from before", true, |target, raise| {
            let socket = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a socket");
            raise();
            socket.send_to(b"x", (Ipv4Addr::LOCALHOST, target.udp)).is_ok()
        }),
        Attempt("connect to a socket of the system", true, |target, raise| {
            raise();
            UnixStream::connect(target.socket()).is_ok()
        }),
        Attempt("listen", true, |_, raise| {
            raise();
            TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).is_ok()
        }),
        Attempt("make a pair of sockets", true, |_, raise| {
            raise();
            UnixDatagram::pair().is_ok()
        }),
    ];
    all.extend(calls! {
        "talk to the kernel's tables", false: SYS_socket(n(libc::AF_NETLINK), n(libc::SOCK_RAW), n(0));
        "send raw packets", false: SYS_socket(n(libc::AF_PACKET), n(libc::SOCK_RAW), n(0));
        "reach the host of a virtual machine", false: SYS_socket(n(libc::AF_VSOCK), n(libc::SOCK_STREAM), n(0));
        "reach the kernel's ciphers", false: SYS_socket(n(libc::AF_ALG), n(libc::SOCK_SEQPACKET), n(0));
    });
    all
}

fn processes() -> Vec<Attempt> {
    let mut all = vec![
        Attempt("start a thread", true, |_, raise| {
            raise();
            std::thread::Builder::new().spawn(|| ()).is_ok()
        }),
        Attempt("fork", true, |_, raise| {
            raise();
            // SAFETY: without a new stack and shared memory this is what `fork` does, and the new process does nothing
            // but end.
            #[expect(unsafe_code, reason = "as bare as an intruder would do it")]
            let child = unsafe { libc::syscall(libc::SYS_clone, libc::SIGCHLD, 0, 0, 0, 0) };
            if child == 0 {
                // SAFETY: ends this process, without running anything.
                #[expect(unsafe_code, reason = "nothing else is allowed in a forked process")]
                unsafe {
                    libc::_exit(0)
                }
            }
            child > 0
        }),
        Attempt("start a program", true, |_, raise| {
            raise();
            Command::new("/bin/true").status().is_ok_and(|status| status.success())
        }),
        Attempt("become a program", true, |_, raise| {
            let mut command = Command::new("/bin/true");
            raise();
            // Comes back only if it did not work.
            drop(command.exec());
            false
        }),
        Attempt("raise its limits", true, |_, raise| {
            let before = rustix::process::getrlimit(rustix::process::Resource::Nofile);
            raise();
            rustix::process::setrlimit(rustix::process::Resource::Nofile, before).is_ok()
        }),
        Attempt("call the parent", true, |_, raise| {
            let parent = rustix::process::getppid().expect("a parent");
            raise();
            rustix::process::test_kill_process(parent).is_ok()
        }),
        Attempt("read the memory of the parent in one call", false, |_, raise| {
            let (parent, own) = (parent(), NOTHING);
            let local = [address(&own), 8];
            raise();
            call(libc::SYS_process_vm_readv, [parent, address(&local), 1, address(&local), 1])
        }),
        Attempt("write to the memory of the parent", false, |_, raise| {
            let (parent, own) = (parent(), NOTHING);
            let local = [address(&own), 8];
            raise();
            call(libc::SYS_process_vm_writev, [parent, address(&local), 1, address(&local), 1])
        }),
        Attempt("run on other processors", true, |_, raise| {
            let mut room = NOTHING;
            room.0[0] = u64::MAX;
            raise();
            call(libc::SYS_sched_setaffinity, [0, 8, address(&room), 0, 0])
        }),
    ];
    all.extend(calls! {
        "call the whole group", true: SYS_kill(n(0), n(0));
        "call everybody", false: SYS_kill(n(-1), n(0));
        "call a thread of the parent", true: SYS_tgkill(Argument::Parent, Argument::Parent, n(0));
        "queue a signal", false: SYS_rt_sigqueueinfo(Argument::Parent, n(0), Argument::Room);
        "hold the parent by a descriptor", true: SYS_pidfd_open(Argument::Parent, n(0));
        "trace the parent", false: SYS_ptrace(n(libc::PTRACE_SEIZE), Argument::Parent, n(0), n(0));
        "be traced", true: SYS_ptrace(n(libc::PTRACE_TRACEME), n(0), n(0), n(0));
        "read the parent's limits", true: SYS_prlimit64(Argument::Parent, n(libc::RLIMIT_NOFILE), n(0), Argument::Room);
        "rise in priority", false: SYS_setpriority(n(0), n(0), n(0));
        "choose another scheduler", true: SYS_sched_setscheduler(n(0), n(libc::SCHED_OTHER), Argument::Room);
        "clone in the newer way", false: SYS_clone3(Argument::Room, n(64));
        "wait for others", false: SYS_wait4(n(-1), n(0), n(libc::WNOHANG), n(0));
        "outlive its parent", true: SYS_prctl(n(libc::PR_SET_PDEATHSIG), n(0));
        "be readable again", true: SYS_prctl(n(libc::PR_SET_DUMPABLE), n(1));
        "let others trace it", false: SYS_prctl(n(0x5961_6d61), n(-1));
        "leave its session", false: SYS_setsid(n(0));
        "become somebody else", false: SYS_setresuid(n(0), n(0), n(0));
        "gain capabilities", false: SYS_capset(Argument::Room, Argument::Room);
    });
    all
}

fn kernel() -> Vec<Attempt> {
    let mut all = Vec::new();
    all.extend(calls! {
        "ask the kernel in rings", false: SYS_io_uring_setup(n(8), Argument::Room);
        "load a program into the kernel", false: SYS_bpf(n(0), Argument::Room, n(64));
        "answer its own page faults", false: SYS_userfaultfd(n(1));
        "watch the processor", false: SYS_perf_event_open(Argument::Room, n(0), n(-1), n(-1), n(0));
        "keep keys", false: SYS_add_key(Argument::Room, Argument::Room, n(0), n(0), n(-3));
        "look for keys", false: SYS_keyctl(n(0), n(-3), n(0));
        "mount", false: SYS_mount(Argument::Root, Argument::Root, n(0), n(libc::MS_BIND), n(0));
        "unmount", false: SYS_umount2(Argument::Room, n(0));
        "change the root", false: SYS_chroot(Argument::Root);
        "exchange the root", false: SYS_pivot_root(Argument::Root, Argument::Root);
        "make a name space", false: SYS_unshare(n(libc::CLONE_NEWUSER));
        "enter a name space", false: SYS_setns(n(0), n(0));
        "open by handle", false: SYS_open_by_handle_at(n(libc::AT_FDCWD), Argument::Room, n(0));
        "share memory", false: SYS_shmget(n(libc::IPC_PRIVATE), n(4096), n(0o600));
        "make a queue", false: SYS_mq_open(Argument::Room, n(libc::O_CREAT), n(0o600), n(0));
        "read the kernel's log", false: SYS_syslog(n(3), Argument::Room, n(64));
        "load a module into the kernel", false: SYS_finit_module(n(0), Argument::Room, n(0));
        "load another kernel", false: SYS_kexec_load(n(0), n(0), n(0), n(0));
        "switch on swap", false: SYS_swapon(Argument::Room, n(0));
        "set the time", false: SYS_settimeofday(Argument::Room, n(0));
        "set the name of the host", false: SYS_sethostname(Argument::Room, n(1));
        "know the name of the host", true: SYS_uname(Argument::Room);
        "know the state of the host", true: SYS_sysinfo(Argument::Room);
        "change its personality", true: SYS_personality(n(0xffff_ffff_i64));
        "filter its own calls", false: SYS_seccomp(n(2), n(0), Argument::Room);
        "make rules of its own", false: SYS_landlock_create_ruleset(n(0), n(0), n(1));
        "lock memory", true: SYS_mlockall(n(libc::MCL_FUTURE));
        "move its pages", false: SYS_move_pages(Argument::Parent, n(0), n(0), n(0), n(0));
        "make memory that nobody sees", false: SYS_memfd_secret(n(0));
    });
    all
}

/// The tables of system calls that x86-64 has for older programs.
#[cfg(target_arch = "x86_64")]
fn other_tables() -> Vec<Attempt> {
    /// The bit that says that a number is one of the x32 table.
    const X32: c_long = 0x4000_0000;
    vec![
        Attempt("call the kernel as a 32-bit program", false, |_, raise| {
            const GETPID: c_int = 20;
            raise();
            let answer: c_int;
            // SAFETY: asks for a number; no memory is touched. Registers that the entry may change are named.
            #[expect(unsafe_code, reason = "there is no other way to reach that table")]
            unsafe {
                std::arch::asm!("int 0x80", inlateout("eax") GETPID => answer, out("r8") _, out("r9") _, out("r10") _, out("r11") _);
            }
            answer > 0
        }),
        Attempt("call the kernel as an x32 program", false, |_, raise| {
            raise();
            call(libc::SYS_getpid | X32, [0; 5])
        }),
    ]
}

/// What a process does that makes an attempt.
pub(crate) fn run(mut args: impl Iterator<Item = String>) -> ExitCode {
    let mut next = || args.next().unwrap_or_default();
    let (role, name, folder) = (next(), next(), PathBuf::from(next()));
    let mut port = || next().parse().expect("a port");
    let target = Target { folder, tcp: port(), udp: port() };
    if name.is_empty() {
        let has_filter = child::lock_down(&role).is_some_and(|walls| walls.has(Wall::Seccomp));
        return if has_filter { ExitCode::SUCCESS } else { ExitCode::from(NO_FILTER) };
    }
    let attempt = attempts().into_iter().find(|attempt| attempt.0 == name).expect("a known attempt");
    let raise = || drop(child::lock_down(&role));
    if attempt.2(&target, &raise) { ExitCode::SUCCESS } else { ExitCode::from(DENIED) }
}

/// Sockets that wait for somebody who gets out, and a secret.
struct Bait {
    folder: tempfile::TempDir,
    tcp: TcpListener,
    udp: UdpSocket,
    unix: UnixListener,
}

const SECRET: &str = "a private key";

impl Bait {
    fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let tcp = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let udp = UdpSocket::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
        let unix = UnixListener::bind(folder.path().join("socket")).expect("a socket");
        tcp.set_nonblocking(true).expect("a setting");
        udp.set_nonblocking(true).expect("a setting");
        unix.set_nonblocking(true).expect("a setting");
        Self { folder, tcp, udp, unix }
    }

    /// Makes an attempt: how it ended.
    fn attempt(&self, role: &str, name: &str) -> End {
        let secret = self.folder.path().join("home/.ssh/id_ed25519");
        fs::create_dir_all(secret.parent().expect("a folder")).expect("a folder");
        fs::write(&secret, SECRET).expect("a secret");
        drop(fs::remove_file(self.folder.path().join("written")));
        drop(fs::remove_dir(self.folder.path().join("written")));
        let port =
            |address: io::Result<std::net::SocketAddr>| address.expect("an address").port().to_string();
        let mut command = Command::new(exe());
        command.args([DRILL_ARG, role, name]).arg(self.folder.path());
        command.args([port(self.tcp.local_addr()), port(self.udp.local_addr())]);
        let status = command.stdin(Stdio::null()).stdout(Stdio::null()).stderr(Stdio::null()).status();
        let status = status.expect("a drill");
        match (status.code(), status.signal()) {
            (Some(0), _) => End::Worked,
            (Some(code), _) if code == i32::from(DENIED) => End::Denied,
            (Some(code), _) if code == i32::from(NO_FILTER) => End::NoFilter,
            (_, Some(libc::SIGSYS)) => End::Denied,
            // Without that table in the kernel, the instruction itself is a fault.
            (_, Some(libc::SIGSEGV)) if name.contains("32-bit") => End::Denied,
            _ => End::Unclear(status.to_string()),
        }
    }

    /// What got out.
    fn caught(&self) -> Vec<&'static str> {
        let mut caught = Vec::new();
        if self.tcp.accept().is_ok() {
            caught.push("a TCP connection");
        }
        if self.udp.recv_from(&mut [0; 8]).is_ok() {
            caught.push("a datagram");
        }
        if self.unix.accept().is_ok() {
            caught.push("a connection to a socket of the system");
        }
        if self.folder.path().join("written").exists() {
            caught.push("a file");
        }
        if fs::read_to_string(self.folder.path().join("home/.ssh/id_ed25519")).ok().as_deref() != Some(SECRET)
        {
            caught.push("the secret");
        }
        if fs::read(self.folder.path().join("open-before")).is_ok_and(|bytes| !bytes.is_empty()) {
            caught.push("a write");
        }
        caught
    }
}

#[derive(Debug, PartialEq)]
enum End {
    Worked,
    Denied,
    NoFilter,
    Unclear(String),
}

/// Behind the walls of both children, nothing works.
pub(crate) fn nothing_gets_through_the_walls() {
    for role in [child::EXECUTOR_ARG, child::COMPILER_ARG] {
        let bait = Bait::new();
        match bait.attempt(role, "") {
            End::Worked => {}
            // The doctor says so.
            End::NoFilter => return,
            other => panic!("{role}: {other:?}"),
        }
        let ends: Vec<_> =
            attempts().iter().map(|attempt| (attempt.0, bait.attempt(role, attempt.0))).collect();
        let escaped: Vec<_> = ends.iter().filter(|(_, end)| *end != End::Denied).collect();
        assert!(escaped.is_empty(), "{role}: {escaped:?}");
        assert!(bait.caught().is_empty(), "{role}: {:?}", bait.caught());
        assert!(!Path::new("/dev/shm/talka-drill").exists(), "{role}");
    }
}

/// Without walls, what needs no privileges works.
pub(crate) fn without_walls_the_same_attempts_work() {
    let bait = Bait::new();
    let free = attempts().into_iter().filter(|attempt| attempt.1);
    let ends: Vec<_> = free.map(|attempt| (attempt.0, bait.attempt("", attempt.0))).collect();
    let failed: Vec<_> = ends.iter().filter(|(_, end)| *end != End::Worked).collect();
    assert!(failed.is_empty(), "{failed:?}");
}
