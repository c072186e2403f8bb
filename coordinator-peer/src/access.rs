//! Who may call what: one row per method. A method without a row is refused, and a test walks the service
//! descriptors and fails on one.

use talka_peer::{
    identity::Identity,
    rpc::{Access, Caller, Role, Roles},
    ticket::InviteToken,
};

/// The table.
pub(crate) const ACCESS: &[(&str, Access)] = &[
    // Workers: any peer may offer its time; nothing that it says is believed.
    ("/talka.v1.Grid/Join", Access::Peer),
    ("/talka.v1.Grid/Session", Access::Peer),
    ("/talka.v1.Peers/Providers", Access::Peer),
    // Peers that exchange pieces: this is where they come from, by the blob protocol or over gRPC.
    ("/talka.v1.Exchange/Members", Access::Peer),
    ("/talka.v1.Exchange/Pieces", Access::Peer),
    ("/talka.v1.Exchange/Fetch", Access::Peer),
    // What everybody may see: who takes part, and what they earned.
    ("/talka.v1.Peers/List", Access::Anyone),
    ("/talka.v1.Ledger/Credit", Access::Anyone),
    ("/talka.v1.Ledger/Head", Access::Anyone),
    ("/talka.v1.Ledger/Entries", Access::Anyone),
    ("/talka.v1.Ledger/Prove", Access::Anyone),
    // Jobs and their results are their submitters' business.
    ("/talka.v1.Jobs/Submit", Access::Submitter),
    ("/talka.v1.Jobs/Get", Access::Submitter),
    ("/talka.v1.Jobs/List", Access::Submitter),
    ("/talka.v1.Jobs/Watch", Access::Submitter),
    ("/talka.v1.Jobs/Cancel", Access::Submitter),
    ("/talka.v1.Jobs/Results", Access::Submitter),
    ("/talka.v1.Jobs/Tasks", Access::Submitter),
    ("/talka.v1.Jobs/Explain", Access::Submitter),
    ("/talka.v1.Jobs/ExplainJob", Access::Submitter),
    ("/talka.v1.Jobs/Pause", Access::Submitter),
    ("/talka.v1.Jobs/Resume", Access::Submitter),
    ("/talka.v1.Jobs/SetPriority", Access::Submitter),
    ("/talka.v1.Ledger/Receipt", Access::Submitter),
    // Who may work is for the coordinator's owner to say.
    ("/talka.v1.Peers/Admit", Access::Operator),
    ("/talka.v1.Peers/Invite", Access::Operator),
];

/// The token of a coordinator's owner: whoever can read the coordinator's own key can derive it, and nobody else. It is in
/// no ticket and on no disk.
pub fn operator_token(coordinator: &Identity) -> InviteToken {
    let key = coordinator.derived_key("talka-1 operator");
    let mut token = [0; 16];
    token.copy_from_slice(&key[..16]);
    InviteToken(token)
}

/// Tells roles apart: a token makes a submitter or the operator, a key a peer; whoever connects by TCP from this machine
/// may do what its user may, short of the operator.
pub(crate) struct TokenRoles {
    pub(crate) token: InviteToken,
    pub(crate) operator: InviteToken,
}

impl Roles for TokenRoles {
    fn role(&self, caller: &Caller, token: Option<&[u8]>) -> Role {
        if token.is_some_and(|token| same(token, &self.operator.0)) {
            return Role::Operator;
        }
        if token.is_some_and(|token| same(token, &self.token.0)) {
            return Role::Submitter;
        }
        match caller {
            Caller::Peer(_) => Role::Peer,
            Caller::Tcp { .. } if caller.is_local() => Role::Submitter,
            Caller::Tcp { .. } => Role::Anyone,
        }
    }
}

/// Compares secrets in a time that does not depend on where they differ: through their hashes.
fn same(a: &[u8], b: &[u8]) -> bool {
    blake3::hash(a) == blake3::hash(b)
}

#[cfg(test)]
mod tests {
    use talka_core::ids::PeerId;
    use talka_peer::rpc::AccessTable;

    use super::*;

    #[test]
    fn every_method_has_a_row_and_every_row_a_method() {
        let table = AccessTable::new(ACCESS);
        let differences = table.compare(&[talka_proto::DESCRIPTORS]).expect("descriptors");
        assert_eq!(differences, talka_peer::rpc::access::Differences::default());
    }

    #[test]
    fn the_token_makes_a_submitter_and_a_key_a_peer() {
        let roles = TokenRoles { token: InviteToken([7; 16]), operator: InviteToken([9; 16]) };
        let peer = Caller::Peer(PeerId::new([1; 32]));
        let far = Caller::Tcp { addr: "192.0.2.1:9".parse().expect("an address"), tls: true };
        let near = Caller::Tcp { addr: "127.0.0.1:9".parse().expect("an address"), tls: false };
        assert_eq!(roles.role(&peer, Some(&[7; 16])), Role::Submitter);
        assert_eq!(roles.role(&peer, Some(&[7; 15])), Role::Peer);
        assert_eq!(roles.role(&peer, None), Role::Peer);
        assert_eq!(roles.role(&far, None), Role::Anyone);
        assert_eq!(roles.role(&far, Some(&[7; 16])), Role::Submitter);
        assert_eq!(roles.role(&near, None), Role::Submitter);
        for caller in [peer, far, near] {
            assert_eq!(roles.role(&caller, Some(&[9; 16])), Role::Operator);
        }
    }

    #[test]
    fn only_who_has_the_coordinators_key_has_its_owners_token() {
        let (one, other) = (Identity::ephemeral(), Identity::ephemeral());
        assert_eq!(operator_token(&one), operator_token(&one.clone()));
        assert_ne!(operator_token(&one), operator_token(&other));
    }
}
