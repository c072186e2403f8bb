//! An executor, seen from the parent: a child process that runs tasks, and is replaced when it fails.

use std::{borrow::Cow, io, path::PathBuf, sync::Arc, time::Duration};

use talka_core::{
    job::is_file_name,
    limits,
    outcome::{Execution, Exit, NoResult, Output},
};
use tokio::{io::AsyncWriteExt as _, process::ChildStdin, sync::mpsc};

use super::{
    child::frame::{self, Ended, Frame, FromExecutor, ToExecutor},
    control::{Attached, Control},
    deadline::Deadline,
    job::{JobWorld, TaskInput},
    loads::{Loads, Plan},
    process::{ChildProcess, Role, Stdout},
    saving::{Saving, load},
};
use crate::checkpoints::Keep;

/// What an executor needs to know.
#[derive(Debug, Clone)]
pub struct ExecutorConfig {
    /// The program to start; its `main` begins with [`dispatch`](super::child::dispatch). On Linux,
    /// `/proc/self/exe` names the running program itself, even after its file was replaced.
    pub exe: PathBuf,
}

/// The result of one task, by its position in the batch.
pub type TaskResult = (usize, Result<Execution, NoResult>);

/// Time for the child to take a job's program and datasets, up to 1 GiB over a pipe.
const SEND_JOB_TIMEOUT: Duration = Duration::from_mins(1);

/// Small tasks are handed over in pieces of this size.
const WRITE_BYTES: usize = 64 << 10;

/// Runs tasks, one after the other, in a warm child process.
#[derive(Debug)]
pub struct Executor {
    config: ExecutorConfig,
    control: Control,
    /// `None` while a batch runs, and after a child was lost until the next batch.
    child: Option<Warm>,
}

/// A child with what it has been given.
#[derive(Debug)]
struct Warm {
    // First, so that it is dropped before the child is: its number is free for others afterwards.
    attached: Attached,
    process: ChildProcess,
    loads: Loads,
    next_task: u64,
}

/// A child that has a job.
#[derive(Debug)]
struct Given {
    child: Warm,
    /// The job's number there.
    number: u64,
    /// Whether the child has run nothing yet.
    is_new: bool,
}

/// How a child failed at a task.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Failed {
    /// Results that had come before.
    done: usize,
    /// What that is for the next task. None if the task is to be run again, from its beginning.
    reason: Option<NoResult>,
}

/// Nobody wants the results any more.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
struct Unwanted;

/// How a batch, or the rest of one, ended in one child.
type BatchEnd = Result<Result<(), Failed>, Unwanted>;

impl Executor {
    /// Starts the child and waits until it is ready.
    pub async fn spawn(config: ExecutorConfig) -> io::Result<Self> {
        let mut executor = Self { config, control: Control::new(), child: None };
        executor.child = Some(executor.start().await?);
        Ok(executor)
    }

    /// A hand on it, for while it runs.
    pub fn control(&self) -> Control {
        self.control.clone()
    }

    /// The process that runs tasks at this moment.
    pub fn pid(&self) -> Option<u32> {
        self.control.pid()
    }

    /// Runs tasks of one job in their order. Each result is sent as soon as it is there, with the
    /// position of its task; every task gets exactly one.
    ///
    /// A child that dies, lies or passes the job's deadline costs the task that it was running; the others
    /// are run in a new child. Dropping the future, or the receiver, kills the child.
    pub async fn run(
        &mut self,
        job: &Arc<JobWorld>,
        tasks: Vec<TaskInput>,
        results: mpsc::Sender<TaskResult>,
    ) {
        self.run_kept(job, tasks, &[], results).await;
    }

    /// The same with checkpoints, for the tasks at whose position in `keeps` it says where they are. A task that has one
    /// goes on from there; the result is the same but for its fuel. One that then fails is run again from its
    /// beginning before anything is said: an honest worker does not vouch for a failure that the interruption may
    /// have caused.
    pub async fn run_kept(
        &mut self,
        job: &Arc<JobWorld>,
        tasks: Vec<TaskInput>,
        keeps: &[Option<Keep>],
        results: mpsc::Sender<TaskResult>,
    ) {
        let mut first = 0;
        while first < tasks.len() {
            let Given { mut child, number, is_new } = match self.child_with(job).await {
                Ok(given) => given,
                Err(error) => {
                    tracing::warn!(%error, "an executor can't be started");
                    for position in first..tasks.len() {
                        if results.send((position, Err(NoResult::Internal))).await.is_err() {
                            break;
                        }
                    }
                    return;
                }
            };
            let batch = Batch { job, number, tasks: &tasks, keeps, first, results: &results };
            let failed = match batch.run(&mut child, &self.control).await {
                Ok(Err(failed)) => failed,
                Ok(Ok(())) => {
                    self.child = Some(child);
                    return;
                }
                Err(Unwanted) => return,
            };
            drop(child);
            let Failed { done, reason } = failed;
            let Some(reason) = reason else {
                first += done;
                tracing::info!("a task that was resumed has failed and is run again from its beginning");
                if let Some(Some(keep)) = keeps.get(first) {
                    keep.remove().await;
                }
                continue;
            };
            tracing::info!(%reason, "an executor is replaced");
            if (done, reason) == (0, NoResult::ChildDied) && !is_new {
                // It may have died while it had nothing to do, which is not the task's fault.
                continue;
            }
            first += done;
            if results.send((first, Err(reason))).await.is_err() {
                return;
            }
            first += 1;
        }
    }

    async fn start(&self) -> io::Result<Warm> {
        let (process, _) = ChildProcess::spawn(&self.config.exe, Role::Executor).await?;
        let attached = self.control.attach(process.pid);
        Ok(Warm { attached, process, loads: Loads::default(), next_task: 0 })
    }

    /// A child that has the job. It is taken out of `self`, so that it dies if the caller is dropped.
    async fn child_with(&mut self, job: &Arc<JobWorld>) -> io::Result<Given> {
        if let Some(mut child) = self.child.take() {
            // It may have died since, killed by its owner or for want of memory: then a new one is tried.
            if let Ok(number) = child.give(job).await {
                return Ok(Given { child, number, is_new: false });
            }
        }
        let mut child = self.start().await?;
        let number = child.give(job).await?;
        Ok(Given { child, number, is_new: true })
    }
}

impl Warm {
    /// Sees to it that the child has the job, and tells its number. After an error nothing is known of the child.
    async fn give(&mut self, job: &Arc<JobWorld>) -> io::Result<u64> {
        let plan = self.loads.plan(job);
        if plan.sends_job {
            // Who is paused takes nothing, and that is no fault.
            let mut deadline = Deadline::new(self.attached.control(), SEND_JOB_TIMEOUT);
            tokio::select! {
                given = send(&mut self.process.stdin, &plan, job) => given?,
                () = deadline.passed() => return Err(io::ErrorKind::TimedOut.into()),
            }
        }
        Ok(plan.job)
    }
}

/// Sends what the child has not got of a job.
async fn send(stdin: &mut ChildStdin, plan: &Plan, job: &JobWorld) -> io::Result<()> {
    let mut heads = Vec::new();
    for job in plan.forget_jobs.iter().copied() {
        frame::encode_head(&mut heads, &ToExecutor::Forget { job }, 0)?;
    }
    for program in plan.forget_programs.iter().copied() {
        frame::encode_head(&mut heads, &ToExecutor::ForgetProgram { program }, 0)?;
    }
    let program = plan.program;
    if plan.sends_program {
        let compiled = &job.program().compiled;
        frame::encode_head(&mut heads, &ToExecutor::Program { program }, compiled.len())?;
        stdin.write_all(&heads).await?;
        stdin.write_all(compiled).await?;
        heads.clear();
    }
    for (name, content) in job.datasets() {
        let dataset = ToExecutor::Dataset { name: name.to_owned() };
        frame::encode_head(&mut heads, &dataset, content.len())?;
        stdin.write_all(&heads).await?;
        stdin.write_all(content).await?;
        heads.clear();
    }
    let (seed, clock_secs) = job.seed_and_clock();
    let last = ToExecutor::Job { job: plan.job, program, limits: job.limits(), seed, clock_secs };
    frame::encode_head(&mut heads, &last, 0)?;
    stdin.write_all(&heads).await
}

/// The rest of a batch, in one child.
struct Batch<'a> {
    job: &'a Arc<JobWorld>,
    number: u64,
    tasks: &'a [TaskInput],
    keeps: &'a [Option<Keep>],
    first: usize,
    results: &'a mpsc::Sender<TaskResult>,
}

impl Batch<'_> {
    /// Writes tasks and reads results at the same time: neither waits for the other.
    async fn run(&self, child: &mut Warm, control: &Control) -> BatchEnd {
        let _busy = control.busy();
        let first_task = child.next_task;
        child.next_task += self.rest().len() as u64;
        let writing = self.write(&mut child.process.stdin, first_task);
        let reading = self.read(&mut child.process.stdout, first_task, control);
        tokio::pin!(writing, reading);
        tokio::select! {
            biased;
            end = &mut reading => end,
            // Whether it worked or not, the reader will find out.
            _ = &mut writing => reading.await,
        }
    }

    fn rest(&self) -> &[TaskInput] {
        self.tasks.get(self.first..).unwrap_or_default()
    }

    async fn write(&self, stdin: &mut ChildStdin, first_task: u64) -> io::Result<()> {
        let mut buffer = Vec::with_capacity(WRITE_BYTES);
        for (done, input) in self.rest().iter().enumerate() {
            let (task, keep) = (first_task + done as u64, self.keep(done));
            if let Some(snapshot) = load(keep).await {
                frame::encode_head(&mut buffer, &ToExecutor::Resume, snapshot.len())?;
                stdin.write_all(&buffer).await?;
                stdin.write_all(&snapshot).await?;
                buffer.clear();
            }
            let (keep, job) = (keep.is_some(), self.number);
            let head = ToExecutor::Task { job, task, keep, input: Cow::Borrowed(input) };
            frame::encode_head(&mut buffer, &head, input.stdin.len())?;
            if buffer.len() + input.stdin.len() > WRITE_BYTES {
                stdin.write_all(&buffer).await?;
                stdin.write_all(&input.stdin).await?;
                buffer.clear();
            } else {
                buffer.extend_from_slice(&input.stdin);
            }
        }
        stdin.write_all(&buffer).await
    }

    /// Where the checkpoints of the task are that comes after so many.
    fn keep(&self, done: usize) -> Option<&Keep> {
        self.keeps.get(self.first + done)?.as_ref()
    }

    async fn read(&self, stdout: &mut Stdout, first_task: u64, control: &Control) -> BatchEnd {
        let mut saving = Saving::default();
        let end = self.read_results(stdout, first_task, control, &mut saving).await;
        saving.finish().await;
        end
    }

    async fn read_results(
        &self,
        stdout: &mut Stdout,
        first_task: u64,
        control: &Control,
        saving: &mut Saving,
    ) -> BatchEnd {
        let limits = self.job.limits();
        let mut deadline = Deadline::new(control, limits.deadline);
        let mut done = 0;
        while done < self.rest().len() {
            let failed = |reason| Ok(Err(Failed { done, reason: Some(reason) }));
            let keep = self.keep(done);
            let body_bytes_max = frame::done_bytes_max(limits, keep.is_some());
            let next = tokio::select! {
                biased;
                next = stdout.next(body_bytes_max) => next,
                () = deadline.passed() => return failed(NoResult::Deadline),
            };
            let Ok(frame) = next else { return failed(NoResult::ChildDied) };
            let expected = first_task + done as u64;
            match accept(frame, expected, limits.output.get()) {
                // A flood of them must not keep the deadline from being looked at.
                Some(Accepted::Progress(_) | Accepted::Checkpoint(_)) if deadline.is_over() => {
                    return failed(NoResult::Deadline);
                }
                Some(Accepted::Progress(ppm)) => control.set_progress(Some(ppm)),
                Some(Accepted::Checkpoint(snapshot)) => match keep {
                    Some(keep) => saving.save(keep, snapshot),
                    None => return failed(NoResult::ChildDied),
                },
                Some(Accepted::Done(result)) => {
                    control.set_progress(None);
                    saving.finish().await;
                    match &result {
                        Ok(execution) if execution.resumed && keep.is_none() => {
                            return failed(NoResult::ChildDied);
                        }
                        Ok(execution) if execution.resumed && !execution.exit.is_ok() => {
                            return Ok(Err(Failed { done, reason: None }));
                        }
                        _ => {}
                    }
                    self.results.send((self.first + done, result)).await.map_err(|_| Unwanted)?;
                    done += 1;
                    deadline.restart();
                }
                None => return failed(NoResult::ChildDied),
            }
        }
        Ok(Ok(()))
    }
}

enum Accepted {
    Progress(u32),
    Checkpoint(Vec<u8>),
    Done(Result<Execution, NoResult>),
}

/// Takes a frame apart; `None` when no honest child would have sent it.
fn accept(frame: Frame<FromExecutor>, expected: u64, output_bytes_max: u64) -> Option<Accepted> {
    match frame.head {
        FromExecutor::Progress { task, ppm } if task == expected && frame.body.is_empty() => {
            Some(Accepted::Progress(ppm))
        }
        FromExecutor::Checkpoint { task } if task == expected => {
            let fits = frame.body.len() as u64 <= limits::TASK_CHECKPOINT_BYTES_MAX;
            fits.then_some(Accepted::Checkpoint(frame.body))
        }
        FromExecutor::Done { task, result } if task == expected => match result {
            Ok(ended) => execution(ended, frame.body, output_bytes_max).map(|done| Accepted::Done(Ok(done))),
            Err(reason) if frame.body.is_empty() => Some(Accepted::Done(Err(reason))),
            Err(_) => None,
        },
        _ => None,
    }
}

fn execution(ended: Ended, mut body: Vec<u8>, output_bytes_max: u64) -> Option<Execution> {
    let Ended { exit, fuel, resumed, stdout_bytes, files, stderr_bytes } = ended;
    if Exit::from_code(exit.to_code()) != Some(exit) || files.len() > limits::TASK_OUT_FILES_MAX {
        return None;
    }
    let file_bytes = files.iter().try_fold(0_u64, |sum, (_, bytes)| sum.checked_add(*bytes))?;
    let output_bytes = stdout_bytes.checked_add(file_bytes)?;
    let stderr_bytes_max = limits::TASK_STDERR_BYTES_MAX as u64;
    if output_bytes > output_bytes_max || stderr_bytes > stderr_bytes_max {
        return None;
    }
    if output_bytes + stderr_bytes != body.len() as u64 {
        return None;
    }
    let tail = body.split_off(usize::try_from(stdout_bytes).ok()?);
    let mut output = Output { stdout: body, ..Output::default() };
    // Copied, each by itself: a vector that is split keeps the memory of all that follows it, a thousand times over.
    let mut rest = tail.as_slice();
    for (name, bytes) in files {
        let (file, behind) = rest.split_at_checked(usize::try_from(bytes).ok()?)?;
        let is_safe = name.len() <= limits::TASK_FILE_NAME_BYTES_MAX && name.split('/').all(is_file_name);
        if !is_safe || output.files.insert(name, file.to_vec()).is_some() {
            return None;
        }
        rest = behind;
    }
    output.stderr = rest.to_vec();
    Some(Execution { exit, output, fuel, resumed })
}

#[cfg(test)]
mod tests {
    use talka_core::quantities::Fuel;

    use super::*;

    fn ended(stdout_bytes: u64, files: &[(&str, u64)], stderr_bytes: u64) -> Ended {
        let files = files.iter().map(|(name, bytes)| ((*name).to_owned(), *bytes)).collect();
        let (fuel, resumed) = (Fuel::new(1), false);
        Ended { exit: Exit::Ok, fuel, resumed, stdout_bytes, files, stderr_bytes }
    }

    #[test]
    fn a_body_is_taken_apart_as_the_head_says() {
        let files = [("a", 2), ("b/c", 0)];
        let execution = execution(ended(3, &files, 1), b"outaae".to_vec(), 5).expect("honest");
        assert_eq!(execution.output.stdout, b"out");
        let expected = [("a".to_owned(), b"aa".to_vec()), ("b/c".to_owned(), vec![])];
        assert_eq!(execution.output.files, expected.into());
        assert_eq!(execution.output.stderr, b"e");
    }

    #[test]
    fn checkpoints_are_taken_of_the_running_task_alone() {
        let frame =
            |task, bytes: usize| Frame { head: FromExecutor::Checkpoint { task }, body: vec![0; bytes] };
        let bytes_max = usize::try_from(limits::TASK_CHECKPOINT_BYTES_MAX).expect("64 bits");
        assert!(matches!(accept(frame(7, 3), 7, 100), Some(Accepted::Checkpoint(body)) if body == [0; 3]));
        assert!(accept(frame(7, bytes_max), 7, 100).is_some(), "whatever the output limit is");
        for lie in [frame(6, 3), frame(8, 3), frame(7, bytes_max + 1)] {
            assert!(accept(lie, 7, 100).is_none());
        }
    }

    #[test]
    fn a_child_that_lies_is_not_believed() {
        let body = || b"123456".to_vec();
        let lies = [
            ended(7, &[], 0),
            ended(5, &[], 0),
            ended(u64::MAX, &[("a", u64::MAX)], 8),
            ended(1, &[("a", 3), ("a", 2)], 0),
            ended(1, &[("../a", 5)], 0),
            ended(1, &[("/a", 5)], 0),
            ended(1, &[("", 5)], 0),
            Ended { exit: Exit::Code(0), ..ended(6, &[], 0) },
        ];
        for lie in lies {
            let text = format!("{lie:?}");
            assert_eq!(execution(lie, body(), 100), None, "{text}");
        }
        assert_eq!(execution(ended(6, &[], 0), body(), 5), None, "above the job's limit");
        assert!(execution(ended(6, &[], 0), body(), 6).is_some());
    }
}
