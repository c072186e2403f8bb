//! Who may work: where peers come from, invites, and what the coordinator's owner says of them.

use super::{
    Coordinator, InviteRow, Refusal, ToWorker, effects::Effects, placing::Present, task::AttemptState,
};
use crate::{
    ids::{PeerId, PeerNo, TaskId},
    limits,
    placement::{Admission, Admit, InviteId, Origin},
    quantities::Timestamp,
};

impl Coordinator {
    /// Says where a worker comes from, before its session opens, and whether it is let in. A worker of which this is never
    /// said counts as one of this machine. An invite that it shows is used up by one, unless the coordinator's owner has
    /// said something of this worker already.
    pub fn on_origin(
        &mut self,
        now: Timestamp,
        peer: PeerId,
        origin: Origin,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let said = self.numbers.get(&peer).map(|no| self.trust.admission(*no)).unwrap_or_default();
        let invite = origin.invite.filter(|_| said == Admission::Open);
        let left = invite.and_then(|invite| Some((invite, self.trust.use_invite(now, invite)?)));
        match self.config.admit {
            _ if !said.may_work() => return Err(Refusal::NotAdmitted(said)),
            Admit::Invited if !said.is_vouched_for() && !origin.has_token && left.is_none() => {
                return Err(Refusal::NotInvited);
            }
            Admit::Approved if said != Admission::Approved => return Err(Refusal::NotApproved(peer)),
            Admit::Anyone | Admit::Invited | Admit::Approved => {}
        }
        let no = self.number(peer, fx);
        if let Some((invite, row)) = left {
            self.trust.set_invite(invite, row);
            fx.batch.invites.insert(invite, row);
            self.trust.set_admission(no, Admission::Invited);
        }
        if self.trust.note_origin(no, &origin) || left.is_some() {
            fx.batch.records.insert(no, self.trust.row(no));
        }
        self.adopt_quota(no);
        Ok(())
    }

    /// The coordinator's owner says what becomes of a peer, which need not be known yet: [`Admission::Open`] takes back what
    /// was said before. One that may not work loses its session and its leases. Of one that is banned no vote counts, and what rests on its word is taken back.
    pub fn on_admission(&mut self, now: Timestamp, peer: PeerId, admission: Admission, fx: &mut Effects) {
        self.shares.set_now(now);
        let no = self.number(peer, fx);
        self.trust.set_admission(no, admission);
        fx.batch.records.insert(no, self.trust.row(no));
        self.adopt_quota(no);
        if !admission.may_work() {
            let session = self.workers.get_mut(&no).and_then(|worker| worker.session.take());
            if let Some(session) = session {
                self.sessions.remove(&session);
                fx.messages.push((session, ToWorker::Replaced));
            }
            if let Some(worker) = self.workers.get_mut(&no) {
                worker.recalled.clear();
                worker.last_seen = now;
            }
            self.hungry.remove(no);
            self.idle.remove(&no);
            self.expire_leases_of(no, fx);
        }
        if admission == Admission::Banned {
            self.backtrack(now, no, fx);
        }
        if admission == Admission::Open && self.config.admit != Admit::Anyone {
            // Whoever was let in by that word has to be let in anew, or not.
            let session = self.workers.get(&no).and_then(|worker| worker.session);
            if let Some(session) = session {
                self.on_session_closed(now, session);
                fx.messages.push((session, ToWorker::Replaced));
            }
        }
        self.note_presence(no);
        self.judge_votes_of(no);
        if self.workers.get(&no).is_some_and(|worker| worker.session.is_some()) {
            self.woken.insert(no);
        }
        self.feed(now, fx);
    }

    /// A new invite. Those whose time is over make room.
    pub fn on_invite(
        &mut self,
        now: Timestamp,
        invite: InviteId,
        row: InviteRow,
        fx: &mut Effects,
    ) -> Result<(), Refusal> {
        let over = self.trust.invites().iter().filter(|(_, row)| row.expires <= now);
        for invite in over.map(|(invite, _)| *invite).collect::<Vec<_>>() {
            let used_up = InviteRow::default();
            self.trust.set_invite(invite, used_up);
            fx.batch.invites.insert(invite, used_up);
        }
        if self.trust.invites().len() >= limits::INVITES_MAX {
            return Err(Refusal::TooManyInvites(limits::INVITES_MAX));
        }
        let uses = row.uses.min(limits::INVITE_USES_MAX);
        let row = InviteRow { uses, ..row };
        self.trust.set_invite(invite, row);
        fx.batch.invites.insert(invite, row);
        Ok(())
    }

    /// What the coordinator's owner said of peers that are not connected and never were, or not for long.
    pub fn admissions(&self) -> impl Iterator<Item = (PeerId, Admission)> {
        let said = self.trust.said().filter(|(no, _)| !self.workers.contains_key(no));
        said.filter_map(|(no, admission)| Some((self.peer_id(no)?, admission)))
    }

    /// Whether an established worker is there may have changed.
    pub(super) fn note_presence(&mut self, no: PeerNo) {
        self.trust.connected = self.sessions.len();
        let Some(peer) = self.peer_id(no) else { return };
        let worker = self.workers.get(&no);
        let there = worker.filter(|worker| worker.session.is_some() && worker.capacity.slots > 0);
        let present = there.map(|worker| Present {
            peer,
            memory_per_slot: worker.memory_per_slot(),
            refused: worker.refused.keys().copied().collect(),
        });
        self.trust.set_present(no, present);
    }

    fn adopt_quota(&mut self, no: PeerNo) {
        let quota = self.trust.quota(no);
        if let Some(worker) = self.workers.get_mut(&no) {
            worker.quota = quota;
        }
    }

    /// Has the tasks judged anew on which a peer voted.
    fn judge_votes_of(&mut self, no: PeerNo) {
        for id in self.shares.running() {
            let Some(job) = self.jobs.get(&id) else { continue };
            let voted = job.open.iter().filter(|(_, task)| {
                let mut votes = task.attempts.iter();
                votes.any(|vote| vote.peer == no && matches!(vote.state, AttemptState::Reported(_)))
            });
            self.reconsidered.extend(voted.map(|(index, _)| TaskId { job: id, index }));
        }
    }
}
