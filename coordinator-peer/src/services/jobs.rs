//! `Jobs`: what submitters do.

use std::{pin::Pin, time::Duration};

use futures_util::Stream;
use talka_core::{
    coordinator::{Coordinator, FinalOutput, FinalRow, JobProgress, Refusal, TaskState},
    ids::{JobId, PeerId, PeerNo, TaskId},
    job::{JobSpec, JobState},
    limits,
    precedence::Priority,
};
use talka_peer::rpc::peer;
use talka_proto::{
    convert::{InvalidMessage, peer_id},
    wire::{self, jobs_server::Jobs, submit_event},
};
use tokio::sync::{broadcast::error::RecvError, mpsc};
use tokio_stream::wrappers::ReceiverStream;
use tonic::{Request, Response, Status};

use super::{Context, refused, views};
use crate::{
    reactor::{Change, Event, Steering, Stopped},
    submission::SignedSpec,
};

/// See the [module](self).
pub(crate) struct JobsService(pub(crate) Context);

type Stream_<T> = Pin<Box<dyn Stream<Item = Result<T, Status>> + Send>>;

/// Messages that wait for a client which reads slowly.
const STREAM_QUEUE: usize = 16;

#[tonic::async_trait]
impl Jobs for JobsService {
    type SubmitStream = Stream_<wire::SubmitEvent>;

    async fn submit(
        &self,
        request: Request<wire::SubmitRequest>,
    ) -> Result<Response<Self::SubmitStream>, Status> {
        let submitter = peer(&request)?;
        let request = request.into_inner();
        let id: [u8; 16] = request.request[..]
            .try_into()
            .map_err(|_| InvalidMessage::new("request", "expected 16 bytes"))?;
        let spec = request.spec.ok_or_else(|| InvalidMessage::new("spec", "missing"))?;
        let spec = JobSpec::try_from(spec)?;
        let context = self.0.clone();
        let coordinator = context.identity.peer_id();
        let signed = SignedSpec::new(coordinator, submitter, id, spec, &request.signature)?;
        Ok(stream(move |events| async move {
            let job = context.submissions.take(&context, submitter, id, signed, &events).await?;
            let accepted = submit_event::Event::Accepted(context.info_of(&job));
            send(&events, wire::SubmitEvent { event: Some(accepted) }).await
        }))
    }

    async fn get(&self, request: Request<wire::JobRequest>) -> Result<Response<wire::JobInfo>, Status> {
        let job = self.0.resolve(request.get_ref().job).await?;
        Ok(Response::new(self.0.info(job).await?))
    }

    async fn list(
        &self,
        request: Request<wire::ListJobsRequest>,
    ) -> Result<Response<wire::ListJobsReply>, Status> {
        let request = request.into_inner();
        let before = (request.after != 0).then(|| JobId::new(request.after));
        let limit = page(request.limit) as usize;
        let question = move |coordinator: &Coordinator| coordinator.jobs(before, limit);
        let jobs = self.0.reactor.ask(question).await?;
        Ok(Response::new(wire::ListJobsReply { jobs: jobs.iter().map(|job| self.0.info_of(job)).collect() }))
    }

    type WatchStream = Stream_<wire::JobInfo>;

    async fn watch(&self, request: Request<wire::JobRequest>) -> Result<Response<Self::WatchStream>, Status> {
        let job = self.0.resolve(request.get_ref().job).await?;
        let context = self.0.clone();
        Ok(stream(move |infos| async move {
            let mut changed = context.changes_of(job);
            let mut last = None;
            loop {
                let progress = context.progress(job).await?;
                let info = context.info_of(&progress);
                if last.as_ref() != Some(&info) {
                    send(&infos, info.clone()).await?;
                    last = Some(info);
                }
                if progress.state != JobState::Running {
                    return Ok(());
                }
                changed.wait().await?;
            }
        }))
    }

    async fn cancel(&self, request: Request<wire::JobRequest>) -> Result<Response<wire::JobInfo>, Status> {
        let job = self.0.resolve(request.get_ref().job).await?;
        let answer = self.0.reactor.call(|reply| Event::Cancel(job, reply)).await?;
        answer.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(self.0.info(job).await?))
    }

    async fn pause(&self, request: Request<wire::JobRequest>) -> Result<Response<wire::JobInfo>, Status> {
        self.0.steer(request.get_ref().job, Steering::Pause).await
    }

    async fn resume(&self, request: Request<wire::JobRequest>) -> Result<Response<wire::JobInfo>, Status> {
        self.0.steer(request.get_ref().job, Steering::Resume).await
    }

    async fn set_priority(
        &self,
        request: Request<wire::PriorityRequest>,
    ) -> Result<Response<wire::JobInfo>, Status> {
        let wire::PriorityRequest { job, priority } = request.into_inner();
        let priority = Priority::new(priority.into())
            .map_err(|error| InvalidMessage::new("priority", error.to_string()))?;
        self.0.steer(job, Steering::Priority(priority)).await
    }

    type ResultsStream = Stream_<wire::TaskResult>;

    async fn results(
        &self,
        request: Request<wire::ResultsRequest>,
    ) -> Result<Response<Self::ResultsStream>, Status> {
        let request = request.into_inner();
        let job = self.0.resolve(request.job).await?;
        let context = self.0.clone();
        Ok(stream(move |results| async move {
            let mut changed = context.changes_of(job);
            let mut from = request.from;
            loop {
                let progress = context.progress(job).await?;
                let ended = progress.state != JobState::Running;
                // While tasks are open, only those below the lowest open one come in order.
                let until = if ended || !request.follow {
                    u64::MAX
                } else {
                    context.settled_below(&progress, from).await?
                };
                from = context.send_results(&progress, from, until, &request, &results).await?;
                if ended || !request.follow {
                    return Ok(());
                }
                changed.wait().await?;
            }
        }))
    }

    async fn tasks(
        &self,
        request: Request<wire::TasksRequest>,
    ) -> Result<Response<wire::TasksReply>, Status> {
        let request = request.into_inner();
        let job = self.0.resolve(request.job).await?;
        let total = self.0.progress(job).await?.tasks();
        let end = request.from.saturating_add(page(request.limit).into()).min(total);
        let mut tasks = Vec::new();
        for index in request.from..end {
            tasks.push(self.0.task_info(TaskId { job, index }).await?);
        }
        Ok(Response::new(wire::TasksReply { tasks }))
    }

    async fn explain(&self, request: Request<wire::TaskRequest>) -> Result<Response<wire::TaskInfo>, Status> {
        let request = request.into_inner();
        let job = self.0.resolve(request.job).await?;
        let info = self.0.task_info(TaskId { job, index: request.position }).await?;
        Ok(Response::new(info))
    }

    async fn explain_job(
        &self,
        request: Request<wire::JobRequest>,
    ) -> Result<Response<wire::JobExplanation>, Status> {
        let id = self.0.resolve(request.get_ref().job).await?;
        let question = move |coordinator: &Coordinator| -> Result<_, Refusal> {
            Ok((coordinator.job(id)?, coordinator.explain_job(id)?))
        };
        let answer = self.0.reactor.ask(question).await?;
        let (job, view) = answer.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(views::job_explanation(self.0.info_of(&job), view)))
    }
}

impl Context {
    /// Changes where a job stands. The answer comes when that is durable.
    async fn steer(&self, job: u64, steering: Steering) -> Result<Response<wire::JobInfo>, Status> {
        let job = self.resolve(job).await?;
        let answer = self.reactor.call(|reply| Event::Steer(job, steering, reply)).await?;
        answer.map_err(|refusal| refused(&refusal))?;
        Ok(Response::new(self.info(job).await?))
    }

    /// The job that a client means: a number, or 0 for the newest.
    pub(super) async fn resolve(&self, job: u64) -> Result<JobId, Status> {
        if job != 0 {
            return Ok(JobId::new(job));
        }
        let newest = self.reactor.ask(Coordinator::newest_job).await?;
        newest.ok_or_else(|| Status::not_found("there are no jobs; submit one with `talka submit`"))
    }

    pub(super) async fn progress(&self, job: JobId) -> Result<JobProgress, Status> {
        let progress = self.reactor.ask(move |coordinator| coordinator.job(job)).await?;
        progress.map_err(|refusal| refused(&refusal))
    }

    async fn info(&self, job: JobId) -> Result<wire::JobInfo, Status> {
        Ok(self.info_of(&self.progress(job).await?))
    }

    /// What people are told of a job.
    pub(super) fn info_of(&self, job: &JobProgress) -> wire::JobInfo {
        views::job_info(job, self.submissions.served_of(&job.submission.spec))
    }

    /// Keys of the peers that these rows name.
    async fn names(&self, rows: &[FinalRow]) -> Result<impl Fn(PeerNo) -> Option<PeerId> + use<>, Stopped> {
        let mut numbers: Vec<PeerNo> =
            rows.iter().flat_map(|row| &row.grants).map(|grant| grant.peer).collect();
        numbers.sort_unstable();
        numbers.dedup();
        self.names.of(&self.reactor, numbers).await
    }

    /// Sends the final tasks in `from..until`; returns where to go on.
    async fn send_results(
        &self,
        job: &JobProgress,
        mut from: u64,
        until: u64,
        request: &wire::ResultsRequest,
        results: &mpsc::Sender<Result<wire::TaskResult, Status>>,
    ) -> Result<u64, Status> {
        let (id, spec) = (job.job, &job.submission.spec);
        let with_output = request.with_output;
        let until = until.min(job.tasks());
        while from < until {
            let page =
                self.read(move |reader| reader.results(id, from, limits::PAGE_ROWS_MAX, with_output)).await?;
            let names = self.names(&page).await?;
            let Some(last) = page.last() else { break };
            let next = last.task.index + 1;
            let provisional = match spec.error_rate {
                Some(_) => self.read(move |reader| reader.provisional(id, from, next)).await?,
                None => vec![],
            };
            for row in page.into_iter().take_while(|row| row.task.index < until) {
                let index = row.task.index;
                let is_provisional = provisional.binary_search(&index).is_ok();
                if request.final_only && is_provisional {
                    continue;
                }
                let input = self.inputs.name(id, index);
                let mut result = views::task_result(&row, spec, input, is_provisional, &names);
                result.holders = self.holders(&result);
                result.output_lost = self.is_lost(&row).await;
                send(results, result).await?;
            }
            from = next.min(until);
        }
        Ok(from)
    }

    /// Whether the output of a final task is not here any more: it was, or the task would not be final, so the disk lost it.
    async fn is_lost(&self, row: &FinalRow) -> bool {
        match row.output {
            FinalOutput::Blob(blob) => !self.submissions.blobs().has(blob.hash).await.unwrap_or(true),
            FinalOutput::Inline(_) | FinalOutput::Nothing => false,
        }
    }

    /// Who may have the output of a result: those who agreed on it, as far as it is known where they can be dialed. They
    /// keep it as long as they have room for it, and nobody has to ask them.
    fn holders(&self, result: &wire::TaskResult) -> Vec<wire::Provider> {
        if !matches!(result.output, Some(wire::task_result::Output::Blob(_))) {
            return vec![];
        }
        let agreed = result.grants.iter().filter(|grant| grant.agreed);
        let holder = |grant: &wire::Grant| self.submissions.places().provider(peer_id(&grant.peer).ok()?);
        agreed
            .filter_map(holder)
            .filter(|holder| !holder.addresses.is_empty())
            .take(limits::PROVIDERS_MAX)
            .collect()
    }

    /// The position below which every task from `from` on is final for good.
    async fn settled_below(&self, job: &JobProgress, from: u64) -> Result<u64, Status> {
        let id = job.job;
        if job.submission.spec.error_rate.is_none() {
            return Ok(job.shard.low);
        }
        let provisional = self.read(move |reader| reader.provisional(id, from, u64::MAX)).await?;
        // What was taken back in between is open now; what has become provisional in between was open before.
        let low = self.progress(id).await?.shard.low.min(job.shard.low);
        Ok(provisional.first().map_or(low, |first| low.min(*first)))
    }

    async fn task_info(&self, id: TaskId) -> Result<wire::TaskInfo, Status> {
        let question = move |coordinator: &Coordinator| -> Result<_, Refusal> {
            Ok((coordinator.job(id.job)?, coordinator.explain(id)?))
        };
        let (job, view) = self.reactor.ask(question).await?.map_err(|refusal| refused(&refusal))?;
        let tasks = job.tasks();
        let view = view.ok_or_else(|| {
            Status::not_found(format!("job {} has tasks 0 to {}, not {}", id.job, tasks - 1, id.index))
        })?;
        let spec = &job.submission.spec;
        let input = self.inputs.name(id.job, id.index);
        if matches!(view.state, TaskState::Final | TaskState::Cancelled) {
            let row = self.read(move |reader| reader.result(id)).await?;
            if let Some(mut row) = row {
                row.output = talka_core::coordinator::FinalOutput::Nothing;
                let names = self.names(std::slice::from_ref(&row)).await?;
                let index = id.index;
                let provisional =
                    self.read(move |reader| reader.provisional(id.job, index, index + 1)).await?;
                let result = views::task_result(&row, spec, input, !provisional.is_empty(), &names);
                return Ok(views::final_task(id, result));
            }
        }
        Ok(views::open_task(id, spec, input, view))
    }

    fn changes_of(&self, job: JobId) -> Changes {
        Changes { job, changes: self.reactor.changes() }
    }
}

/// Waits for changes of one job, at most ten times a second.
struct Changes {
    job: JobId,
    changes: tokio::sync::broadcast::Receiver<Change>,
}

impl Changes {
    async fn wait(&mut self) -> Result<(), Status> {
        /// What a person or a progress bar can follow.
        const PACE: Duration = Duration::from_millis(100);
        let mut wake = None;
        loop {
            let change = match wake {
                None => self.changes.recv().await,
                // One change seldom comes alone: the rest of a burst is waited for, but not the end.
                Some(wake) => match tokio::time::timeout_at(wake, self.changes.recv()).await {
                    Ok(change) => change,
                    Err(_) => return Ok(()),
                },
            };
            match change {
                Ok(Change { job, ended: true }) if job == self.job => return Ok(()),
                Ok(Change { job, .. }) if job != self.job => {}
                Ok(_) | Err(RecvError::Lagged(_)) => {
                    wake.get_or_insert_with(|| tokio::time::Instant::now() + PACE);
                }
                Err(RecvError::Closed) => {
                    return Err(Status::unavailable("the coordinator is shutting down"));
                }
            }
        }
    }
}

fn page(limit: u32) -> u32 {
    if limit == 0 { limits::PAGE_ROWS_MAX } else { limit.min(limits::PAGE_ROWS_MAX) }
}

/// A response stream that `produce` feeds from a task of its own; an error ends it.
fn stream<T, F>(produce: impl FnOnce(mpsc::Sender<Result<T, Status>>) -> F) -> Response<Stream_<T>>
where
    T: Send + 'static,
    F: Future<Output = Result<(), Status>> + Send + 'static,
{
    let (sender, receiver) = mpsc::channel(STREAM_QUEUE);
    let work = produce(sender.clone());
    tokio::spawn(async move {
        tokio::select! {
            result = work => if let Err(status) = result {
                // The client may have gone, which is how it cancels.
                drop(sender.send(Err(status)).await);
            },
            () = sender.closed() => {}
        }
    });
    Response::new(Box::pin(ReceiverStream::new(receiver)))
}

async fn send<T>(to: &mpsc::Sender<Result<T, Status>>, message: T) -> Result<(), Status> {
    to.send(Ok(message)).await.map_err(|_| Status::cancelled("the client left"))
}
