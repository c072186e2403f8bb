//! What only a coordinator's owner may do: whoever can read the key in its data directory.

use anyhow::Context;
use talka_coordinator_peer::operator_token;
use talka_peer::{identity::Identity, ticket::Ticket};

use crate::{
    cli::CoordinatorFlags,
    client::parse_ticket,
    error::{Code, Failure},
    find, registry,
};

/// The ticket of the coordinator that `flags` mean, with its owner's token in it; `None` when this user can't read the
/// coordinator's key.
pub(crate) fn owners_ticket(flags: &CoordinatorFlags) -> anyhow::Result<Option<Ticket>> {
    let found = find::coordinator(flags)?;
    let ticket = parse_ticket(&found)?;
    let coordinator = ticket.coordinator.peer;
    let runs_here = || {
        let running = registry::dir().map(|dir| registry::running(&dir)).unwrap_or_default();
        let is_it = |entry: &registry::Entry| {
            entry.ticket.parse::<Ticket>().is_ok_and(|ticket| ticket.coordinator.peer == coordinator)
        };
        running.into_iter().find(is_it).map(|entry| entry.data_dir)
    };
    let Some(dir) = found.data_dir.or_else(runs_here) else { return Ok(None) };
    let key = Identity::load_existing(&dir);
    let key = key.with_context(|| format!("cannot read the coordinator's key in {}", dir.display()))?;
    let key = key.filter(|key| key.peer_id() == coordinator);
    Ok(key.map(|key| Ticket { invite: Some(operator_token(&key)), ..ticket }))
}

/// The same for commands that nobody else may give.
pub(crate) fn require(flags: &CoordinatorFlags) -> anyhow::Result<Ticket> {
    let denied = || {
        Failure::new(
            Code::Denied,
            "this is for the coordinator's owner: run it on the coordinator's machine under its user, or with \
             --data-dir and the coordinator's data directory",
        )
    };
    Ok(owners_ticket(flags)?.ok_or_else(denied)?)
}
