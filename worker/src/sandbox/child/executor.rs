//! An executor process: jobs and tasks in, results out.
//!
//! One thread reads and executes, in the order of arrival. Results gather in an [`Outbox`] that is
//! written when there is nothing left to do, so that a batch of short tasks costs a few system calls and
//! not several per task. A second thread only sees to it that nothing waits there behind a long task.

use std::{
    collections::HashMap,
    io::{self, BufReader, Write},
    process::ExitCode,
    rc::Rc,
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, Thread},
    time::{Duration, Instant},
};

use bytes::Bytes;
use talka_core::{
    job::TaskLimits,
    limits,
    outcome::{Execution, NoResult},
};

use super::{
    super::{
        engine::{EngineError, Loaded, Runner, Surroundings, THREAD_STACK_BYTES},
        host::{Hooks, OnCheckpoint},
        job::TaskInput,
        walls::{self, Walls},
        world::World,
    },
    Stdin, Stdout,
    frame::{self, Ended, FromExecutor, Ready, ToExecutor, VERSION},
    pace::Pace,
    parent_is_alive,
};

/// Results that are written at once, whatever else there is to do.
const FLUSH_BYTES: usize = 64 << 10;
/// Longest time that a result waits behind a task that takes long.
const FLUSH_INTERVAL: Duration = Duration::from_millis(2);
/// Progress is for people: this often is plenty, and a program may write it in a tight loop.
const PROGRESS_INTERVAL: Duration = Duration::from_millis(200);
/// Tasks that arrive in one read.
const READ_BUFFER_BYTES: usize = 256 << 10;

/// Serves until the parent closes the pipe, or kills.
pub fn run_executor() -> ExitCode {
    let mut walls = walls::begin(walls::Limits::Executor);
    if !parent_is_alive() {
        return ExitCode::FAILURE;
    }
    // The engine opens the map of the process' pages if the kernel has one.
    let Ok(runner) = Runner::new() else { return ExitCode::FAILURE };
    walls::confine(&mut walls);
    let outbox = Arc::new(Outbox::default());
    let postman = thread::spawn({
        let outbox = outbox.clone();
        move || outbox.flush_now_and_then()
    });
    let postman = postman.thread().clone();
    let serve = move || serve(runner, &outbox, &postman, walls);
    let executor = thread::Builder::new().stack_size(THREAD_STACK_BYTES).spawn(serve);
    match executor.map(thread::JoinHandle::join) {
        Ok(Ok(Ok(()))) => ExitCode::SUCCESS,
        _ => ExitCode::FAILURE,
    }
}

fn serve(runner: Runner, outbox: &Arc<Outbox>, postman: &Thread, mut walls: Walls) -> io::Result<()> {
    walls::seal(&mut walls);
    outbox.put(&FromExecutor::Ready(Ready { version: VERSION.into(), walls }), &[])?;
    let mut input = BufReader::with_capacity(READ_BUFFER_BYTES, Stdin);
    let (programs, jobs, datasets) = (HashMap::new(), HashMap::new(), Vec::new());
    let mut server = Server { runner, outbox, programs, jobs, datasets, snapshot: None };
    loop {
        if !frame::is_whole(input.buffer()) {
            outbox.flush()?;
        } else if outbox.has_mail() {
            outbox.wake(postman);
        }
        let Some(frame) = frame::read(&mut input, limits::DATASETS_BYTES_MAX)? else {
            return outbox.flush();
        };
        server.handle(frame.head, frame.body)?;
    }
}

/// A program, or why it can't be run.
type Program = Rc<Result<Loaded, EngineError>>;

/// A job that is ready to run.
struct Job {
    program: Program,
    datasets: Vec<(String, Bytes)>,
    limits: TaskLimits,
    seed: u64,
    clock_secs: u64,
}

struct Server<'a> {
    runner: Runner,
    outbox: &'a Arc<Outbox>,
    programs: HashMap<u64, Program>,
    jobs: HashMap<u64, Job>,
    /// Those of the job that is being announced.
    datasets: Vec<(String, Bytes)>,
    /// What the next task is to go on from.
    snapshot: Option<Vec<u8>>,
}

/// A task, as it was asked for.
struct Request {
    job: u64,
    task: u64,
    keep: bool,
    input: TaskInput,
    snapshot: Option<Vec<u8>>,
}

impl Server<'_> {
    fn handle(&mut self, message: ToExecutor<'_>, body: Vec<u8>) -> io::Result<()> {
        match message {
            ToExecutor::Program { program } => {
                let loaded = self.runner.load(&body);
                self.programs.insert(program, Rc::new(loaded));
            }
            ToExecutor::Dataset { name } => self.datasets.push((name, body.into())),
            ToExecutor::Job { job, program, limits, seed, clock_secs } => {
                let datasets = std::mem::take(&mut self.datasets);
                // Without its program there is no job, and its tasks have no result.
                if let Some(program) = self.programs.get(&program).cloned() {
                    self.jobs.insert(job, Job { program, datasets, limits, seed, clock_secs });
                }
            }
            ToExecutor::Forget { job } => drop(self.jobs.remove(&job)),
            ToExecutor::ForgetProgram { program } => drop(self.programs.remove(&program)),
            ToExecutor::Resume => self.snapshot = Some(body),
            ToExecutor::Task { job, task, keep, input } => {
                let input = TaskInput { stdin: body.into(), ..input.into_owned() };
                let snapshot = self.snapshot.take();
                let result = self.run(Request { job, task, keep, input, snapshot });
                return self.outbox.put_result(task, result);
            }
        }
        Ok(())
    }

    fn run(&self, request: Request) -> Result<Execution, NoResult> {
        let Request { job, task, keep, input, snapshot } = request;
        let job = self.jobs.get(&job).ok_or(NoResult::Internal)?;
        let program = job.program.as_ref().as_ref().map_err(|_| NoResult::Compile)?;
        let Job { datasets, limits, seed, clock_secs, .. } = job;
        let surroundings = Surroundings { datasets, limits: *limits, seed: *seed, clock_secs: *clock_secs };
        let (outbox, last) = (self.outbox.clone(), std::cell::Cell::new(None::<Instant>));
        let on_progress = Rc::new(move |value: f64| {
            if last.get().is_some_and(|last| last.elapsed() < PROGRESS_INTERVAL) {
                return;
            }
            last.set(Some(Instant::now()));
            #[expect(clippy::cast_possible_truncation, clippy::cast_sign_loss, reason = "0 to 1")]
            let ppm = (value * 1e6) as u32;
            // A pipe that is broken will be noticed with the result.
            drop(outbox.put(&FromExecutor::Progress { task, ppm }, &[]).and_then(|()| outbox.flush()));
        });
        let on_checkpoint = keep.then(|| self.on_checkpoint(task));
        let hooks = Hooks { on_progress, on_checkpoint };
        self.runner.execute_from(snapshot.as_deref(), program, surroundings, input, hooks)
    }

    fn on_checkpoint(&self, task: u64) -> OnCheckpoint {
        let (outbox, pace) = (self.outbox.clone(), Pace::starting(Instant::now()));
        Rc::new(move |world: &World, fuel| {
            let now = Instant::now();
            if !pace.is_due(now) || !pace.takes(now, world.snapshot_bytes()) {
                return;
            }
            let Some(snapshot) = world.snapshot(fuel) else { return };
            let head = FromExecutor::Checkpoint { task };
            drop(outbox.put(&head, &[&snapshot]).and_then(|()| outbox.flush()));
        })
    }
}

/// Frames that are to be written to the parent.
#[derive(Default)]
struct Outbox {
    waiting: Mutex<Vec<u8>>,
    /// Whether the second thread is looking after it.
    watched: AtomicBool,
}

impl Outbox {
    fn put(&self, head: &FromExecutor, body: &[&[u8]]) -> io::Result<()> {
        let body_bytes = body.iter().map(|part| part.len()).sum();
        let mut waiting = self.lock();
        frame::encode_head(&mut waiting, head, body_bytes)?;
        if waiting.len() + body_bytes > FLUSH_BYTES {
            // Nothing large is copied only to be written.
            write_all(&mut waiting)?;
            body.iter().try_for_each(|part| Stdout.write_all(part))
        } else {
            for part in body {
                waiting.extend_from_slice(part);
            }
            Ok(())
        }
    }

    fn put_result(&self, task: u64, result: Result<Execution, NoResult>) -> io::Result<()> {
        let Execution { exit, output, fuel, resumed } = match result {
            Ok(execution) => execution,
            Err(reason) => return self.put(&FromExecutor::Done { task, result: Err(reason) }, &[]),
        };
        let (names, contents): (Vec<_>, Vec<_>) =
            output.files.into_iter().map(|(name, data)| ((name, data.len() as u64), data)).unzip();
        let ended = Ended {
            exit,
            fuel,
            resumed,
            stdout_bytes: output.stdout.len() as u64,
            files: names,
            stderr_bytes: output.stderr.len() as u64,
        };
        let mut body: Vec<&[u8]> = vec![&output.stdout];
        body.extend(contents.iter().map(Vec::as_slice));
        body.push(&output.stderr);
        self.put(&FromExecutor::Done { task, result: Ok(ended) }, &body)
    }

    fn flush(&self) -> io::Result<()> {
        write_all(&mut self.lock())
    }

    fn has_mail(&self) -> bool {
        !self.lock().is_empty()
    }

    fn wake(&self, postman: &Thread) {
        if !self.watched.swap(true, Ordering::Relaxed) {
            postman.unpark();
        }
    }

    /// What the second thread does: asleep until woken, then a look every few milliseconds until there
    /// was nothing to do.
    fn flush_now_and_then(&self) {
        loop {
            thread::park();
            loop {
                thread::sleep(FLUSH_INTERVAL);
                if !self.has_mail() {
                    break;
                }
                if self.flush().is_err() {
                    // The parent is gone; the other thread will find out when it reads.
                    return;
                }
            }
            self.watched.store(false, Ordering::Relaxed);
            // What was put in between the look and the store may have found the thread still awake.
            if self.has_mail() {
                self.wake(&thread::current());
            }
        }
    }

    fn lock(&self) -> MutexGuard<'_, Vec<u8>> {
        self.waiting.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

fn write_all(waiting: &mut Vec<u8>) -> io::Result<()> {
    let written = Stdout.write_all(waiting);
    waiting.clear();
    written
}
