//! The gRPC services: thin shells that convert, ask the reactor or the store, and convert back.

pub(crate) mod grid;
pub(crate) mod jobs;
pub(crate) mod ledger;
pub(crate) mod names;
pub(crate) mod peers;
pub(crate) mod views;

use std::sync::Arc;

use talka_core::coordinator::Refusal;
use talka_peer::identity::Identity;
use tonic::Status;

use crate::{
    inputs::InputIndices,
    reactor::{Handle, Stopped},
    store::{Reader, StoreError},
    submission::Submissions,
};

/// What every service needs.
#[derive(Clone)]
pub(crate) struct Context {
    /// The coordinator's own key.
    pub(crate) identity: Identity,
    pub(crate) reactor: Handle,
    pub(crate) reader: Arc<dyn Reader>,
    pub(crate) inputs: InputIndices,
    pub(crate) submissions: Submissions,
    pub(crate) names: names::PeerNames,
}

impl Context {
    /// Asks the store on a thread that may block.
    pub(crate) async fn read<T: Send + 'static>(
        &self,
        question: impl FnOnce(&dyn Reader) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Status> {
        let reader = self.reader.clone();
        let answer = tokio::task::spawn_blocking(move || question(reader.as_ref())).await;
        match answer {
            Ok(Ok(answer)) => Ok(answer),
            Ok(Err(error)) => {
                tracing::error!(%error, "store can't be read");
                Err(Status::unavailable("the coordinator can't read its store; try again"))
            }
            Err(_) => Err(Status::internal("the coordinator failed to read its store")),
        }
    }
}

impl From<Stopped> for Status {
    fn from(stopped: Stopped) -> Self {
        Self::unavailable(stopped.to_string())
    }
}

/// The code that belongs to a refusal.
pub(crate) fn refused(refusal: &Refusal) -> Status {
    let text = refusal.to_string();
    match refusal {
        Refusal::UnknownJob(_) => Status::not_found(text),
        Refusal::JobEnded(..) => Status::failed_precondition(text),
        Refusal::NotAdmitted(_) | Refusal::NotInvited | Refusal::NotApproved(_) => {
            Status::permission_denied(text)
        }
        Refusal::TooManyJobs(_) | Refusal::TooManyWorkers(_) | Refusal::TooManyInvites(_) => {
            Status::resource_exhausted(text)
        }
    }
}
