//! The jobs that the user means, as the coordinator knows them.

use talka_core::limits;
use talka_proto::wire;

use crate::{
    client::{self, Client},
    error::{Code, Failure},
    selector::Selector,
};

/// Jobs in one page of a listing. Each carries its specification, and a message has its limit.
const PAGE_JOBS: u32 = 100;
const _: () = assert!(PAGE_JOBS <= limits::PAGE_ROWS_MAX, "a page is one that the coordinator gives");

/// The jobs that a selector means, ascending. A job that was named and is not there is an error.
pub(crate) async fn select(client: &Client, jobs: &Selector) -> anyhow::Result<Vec<wire::JobInfo>> {
    let ids = match jobs {
        Selector::All => {
            let mut jobs = newest(client, u64::MAX).await?;
            jobs.reverse();
            return Ok(jobs);
        }
        Selector::Last => {
            return Ok(vec![client::unary(client.jobs().get(wire::JobRequest { job: 0 })).await?]);
        }
        Selector::Ids(ids) => ids,
    };
    let mut found = Vec::new();
    for part in ids {
        for job in part.iter() {
            match client::unary(client.jobs().get(wire::JobRequest { job })).await {
                Ok(info) => found.push(info),
                // Of a range, what there is.
                Err(failure) if failure.code() == Code::NotFound && !part.is_single() => {}
                Err(failure) => return Err(failure.into()),
            }
        }
    }
    if found.is_empty() {
        return Err(Failure::new(Code::NotFound, "no job matches; see: talka job list").into());
    }
    Ok(found)
}

/// The newest jobs, newest first.
pub(crate) async fn newest(client: &Client, limit: u64) -> anyhow::Result<Vec<wire::JobInfo>> {
    let mut jobs: Vec<wire::JobInfo> = Vec::new();
    while (jobs.len() as u64) < limit {
        let left = limit - jobs.len() as u64;
        let page = u32::try_from(left).unwrap_or(u32::MAX).min(PAGE_JOBS);
        let after = jobs.last().map_or(0, |info| info.job);
        let request = wire::ListJobsRequest { after, limit: page };
        let reply = client::unary(client.jobs().list(request)).await?;
        let Some(last) = reply.jobs.last() else { break };
        // A page that does not go down would be asked for again without end.
        if after != 0 && last.job >= after {
            break;
        }
        jobs.extend(reply.jobs);
    }
    Ok(jobs)
}
