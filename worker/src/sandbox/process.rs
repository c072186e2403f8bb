//! Child processes, seen from the parent.

use std::{
    io,
    os::unix::process::ExitStatusExt as _,
    path::Path,
    process::Stdio,
    sync::{OnceLock, mpsc},
    thread,
    time::Duration,
};

use rustix::process::Signal;
use serde::de::DeserializeOwned;
use tokio::{
    io::BufReader,
    process::{Child, ChildStdin, ChildStdout, Command},
    runtime::Handle,
    sync::oneshot,
    time::timeout,
};

use super::{
    child::{
        COMPILER_ARG, EXECUTOR_ARG,
        frame::{self, FromCompiler, FromExecutor, Ready, VERSION},
    },
    control::Pid,
};

/// Time for a child to start and raise its walls: milliseconds, unless the machine is overwhelmed.
const START_TIMEOUT: Duration = Duration::from_secs(30);

/// Time between the end of a child's output and its own.
const END_TIMEOUT: Duration = Duration::from_secs(1);

/// Results of many small tasks arrive in one read.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// What a child is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Role {
    /// It runs programs.
    Executor,
    /// It compiles one module.
    Compiler,
}

/// A child process behind its walls. Dropping it kills it.
#[derive(Debug)]
pub(super) struct ChildProcess {
    child: Child,
    pub(super) pid: Pid,
    pub(super) stdin: ChildStdin,
    pub(super) stdout: Stdout,
}

/// What the child says.
#[derive(Debug)]
pub(super) struct Stdout {
    stream: BufReader<ChildStdout>,
    scratch: Vec<u8>,
}

impl Stdout {
    /// The next frame, its body no longer than the limit.
    pub(super) async fn next<T: DeserializeOwned>(
        &mut self,
        body_bytes_max: u64,
    ) -> io::Result<frame::Frame<T>> {
        frame::read_async(&mut self.stream, body_bytes_max, &mut self.scratch).await
    }
}

impl ChildProcess {
    /// Starts the program at `exe` in that role and waits until it is ready.
    pub(super) async fn spawn(exe: &Path, role: Role) -> io::Result<(Self, Ready)> {
        let mut command = Command::new(exe);
        let name = match role {
            Role::Executor => EXECUTOR_ARG,
            Role::Compiler => COMPILER_ARG,
        };
        command
            .arg(name)
            .arg(std::process::id().to_string())
            .env_clear()
            // With more than one arena, glibc opens a file when it gives memory of a thread back, and the filter
            // of system calls ends whoever opens one.
            .env("MALLOC_ARENA_MAX", "1")
            .current_dir("/")
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .kill_on_drop(true);
        let mut child = spawn_from_lasting_thread(command).await?;
        let (stdin, stdout, pid) = (child.stdin.take(), child.stdout.take(), child.id());
        let (Some(stdin), Some(stdout), Some(pid)) = (stdin, stdout, pid.and_then(Pid::new)) else {
            return Err(io::Error::other("a child came without its pipes"));
        };
        let stream = BufReader::with_capacity(READ_BUFFER_BYTES, stdout);
        let mut process = Self { child, pid, stdin, stdout: Stdout { stream, scratch: Vec::new() } };
        let ready = timeout(START_TIMEOUT, process.ready(role)).await;
        let ready = ready.map_err(|_| io::Error::from(io::ErrorKind::TimedOut))??;
        if ready.version != VERSION {
            let text = format!("the program at {} was replaced: restart", exe.display());
            return Err(io::Error::other(text));
        }
        Ok((process, ready))
    }

    async fn ready(&mut self, role: Role) -> io::Result<Ready> {
        let ready = match role {
            Role::Executor => match self.stdout.next(0).await?.head {
                FromExecutor::Ready(ready) => Some(ready),
                _ => None,
            },
            Role::Compiler => match self.stdout.next(0).await?.head {
                FromCompiler::Ready(ready) => Some(ready),
                _ => None,
            },
        };
        ready.ok_or_else(|| io::Error::new(io::ErrorKind::InvalidData, "a child did not greet"))
    }

    /// Whether the child has ended because somebody killed it.
    pub(super) async fn was_killed(&mut self) -> bool {
        let status = timeout(END_TIMEOUT, self.child.wait()).await;
        let signal = status.ok().and_then(Result::ok).and_then(|status| status.signal());
        signal == Some(Signal::KILL.as_raw())
    }

    /// Kills the child and waits until it is gone.
    pub(super) async fn end(mut self) {
        // It may be gone already.
        drop(self.child.kill().await);
    }
}

struct SpawnRequest {
    command: Command,
    runtime: Handle,
    reply: oneshot::Sender<io::Result<Child>>,
}

/// The kernel sends the parent-death signal when the *thread* that started the child ends, and threads of
/// an asynchronous runtime come and go. So one thread starts all children, and lasts as long as the process.
async fn spawn_from_lasting_thread(command: Command) -> io::Result<Child> {
    static SPAWNER: OnceLock<mpsc::Sender<SpawnRequest>> = OnceLock::new();
    let spawner = SPAWNER.get_or_init(|| {
        let (sender, requests) = mpsc::channel::<SpawnRequest>();
        // When the thread can't be started, its end of the channel is closed, and that is reported below.
        let serve = move || {
            for SpawnRequest { mut command, runtime, reply } in requests {
                let _entered = runtime.enter();
                drop(reply.send(command.spawn()));
            }
        };
        drop(thread::Builder::new().name("spawner".into()).spawn(serve));
        sender
    });
    let (reply, child) = oneshot::channel();
    let gone = |()| io::Error::other("the thread that starts children is gone");
    let request = SpawnRequest { command, runtime: Handle::current(), reply };
    spawner.send(request).map_err(|_| gone(()))?;
    child.await.map_err(|_| gone(()))?
}
