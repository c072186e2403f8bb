//! A ticket: the one string that a person pastes to join a grid.
//!
//! Text: `talka`, then lower-case base32 (RFC 4648, no padding) of
//!
//! ```text
//! version (1 byte) | postcard of the fields | first 4 bytes of BLAKE3 over all before
//! ```
//!
//! The checksum stands at the same place in every version, so a typo is told from a newer version's ticket.

use std::{fmt, net::SocketAddr, str::FromStr};

use iroh::RelayUrl;
use serde::{Deserialize, Serialize};
use talka_core::{ids::PeerId, limits};

use crate::{address::PeerAddr, endpoint::Relay, identity::endpoint_id, text};

const PREFIX: &str = "talka";
const VERSION: u8 = 1;
const CHECKSUM_BYTES: usize = 4;

/// Who coordinates, where, and optionally the token that lets its bearer in.
#[derive(Clone, PartialEq, Eq)]
pub struct Ticket {
    /// The coordinator.
    pub coordinator: PeerAddr,
    /// Lets the bearer in where not everybody may come. Treat a ticket with one like a password.
    pub invite: Option<InviteToken>,
}

/// The secret part of a ticket.
#[derive(Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
pub struct InviteToken(pub [u8; 16]);

impl fmt::Debug for InviteToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("InviteToken(…)")
    }
}

impl fmt::Debug for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { coordinator, invite } = self;
        f.debug_struct("Ticket").field("coordinator", coordinator).field("invite", invite).finish()
    }
}

/// The text is no ticket that this version can use. Never worth a retry.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum ParseTicketError {
    /// It does not look like one.
    #[error("not a ticket: a ticket starts with `{PREFIX}` and is one word of letters a-z and digits 2-7")]
    NotATicket,
    /// It was one once.
    #[error("damaged ticket: a part is missing or changed; copy the whole of it again")]
    Damaged,
    /// Made by another version.
    #[error(
        "ticket of version {found}, but this program reads version {VERSION}: use the coordinator's version of talka"
    )]
    OtherVersion {
        /// Its version.
        found: u8,
    },
    /// Well-formed, but it names nobody.
    #[error("unusable ticket: {what}")]
    Unusable {
        /// What is wrong with it.
        what: &'static str,
    },
}

/// The fields as they are encoded. Changing them means another [`VERSION`].
#[derive(Serialize, Deserialize)]
struct Fields {
    coordinator: [u8; 32],
    direct: Vec<SocketAddr>,
    relay: Option<String>,
    invite: Option<InviteToken>,
}

impl fmt::Display for Ticket {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let PeerAddr { peer, direct, relay } = &self.coordinator;
        let fields = Fields {
            coordinator: *peer.as_bytes(),
            direct: direct.iter().take(limits::TICKET_ADDRESSES_MAX).copied().collect(),
            relay: relay.as_ref().map(ToString::to_string),
            invite: self.invite,
        };
        let mut bytes = postcard::to_extend(&fields, vec![VERSION]).map_err(|_| fmt::Error)?;
        bytes.extend_from_slice(&checksum(&bytes));
        write!(f, "{PREFIX}{}", text::base32(&bytes))
    }
}

impl FromStr for Ticket {
    type Err = ParseTicketError;

    fn from_str(pasted: &str) -> Result<Self, ParseTicketError> {
        let word = pasted.trim().strip_prefix(PREFIX).ok_or(ParseTicketError::NotATicket)?;
        if word.len() > limits::TICKET_CHARS_MAX {
            return Err(ParseTicketError::NotATicket);
        }
        if !word.bytes().all(|byte| matches!(byte, b'a'..=b'z' | b'2'..=b'7')) {
            return Err(ParseTicketError::NotATicket);
        }
        let bytes = text::from_base32(word.as_bytes()).ok_or(ParseTicketError::Damaged)?;
        let (body, sum) = bytes.split_last_chunk::<CHECKSUM_BYTES>().ok_or(ParseTicketError::Damaged)?;
        if checksum(body) != *sum {
            return Err(ParseTicketError::Damaged);
        }
        let (version, fields) = body.split_first().ok_or(ParseTicketError::Damaged)?;
        if *version != VERSION {
            return Err(ParseTicketError::OtherVersion { found: *version });
        }
        match postcard::take_from_bytes::<Fields>(fields) {
            Ok((fields, [])) => fields.try_into(),
            _ => Err(ParseTicketError::Damaged),
        }
    }
}

impl TryFrom<Fields> for Ticket {
    type Error = ParseTicketError;

    fn try_from(fields: Fields) -> Result<Self, ParseTicketError> {
        let unusable = |what| ParseTicketError::Unusable { what };
        let peer = PeerId::new(fields.coordinator);
        endpoint_id(peer).map_err(|_| unusable("the coordinator's key is no key"))?;
        if fields.direct.len() > limits::TICKET_ADDRESSES_MAX {
            return Err(unusable("it names too many addresses"));
        }
        let relay = fields.relay.as_deref().map(relay_url).transpose()?;
        let coordinator = PeerAddr { peer, direct: fields.direct, relay };
        if !coordinator.is_dialable() {
            return Err(unusable("it names no address of the coordinator"));
        }
        Ok(Self { coordinator, invite: fields.invite })
    }
}

fn relay_url(text: &str) -> Result<RelayUrl, ParseTicketError> {
    match text.parse() {
        Ok(Relay::Url(url)) => Ok(url),
        _ => Err(ParseTicketError::Unusable { what: "its relay is no URL" }),
    }
}

fn checksum(bytes: &[u8]) -> [u8; CHECKSUM_BYTES] {
    let [a, b, c, d, ..] = *blake3::hash(bytes).as_bytes();
    [a, b, c, d]
}

#[cfg(test)]
mod tests {
    use std::net::{IpAddr, Ipv4Addr};

    use proptest::{collection::vec, option, prelude::*};

    use super::*;
    use crate::identity::{Identity, tests::nobody};

    fn tickets() -> impl Strategy<Value = Ticket> {
        let addresses =
            vec(any::<(IpAddr, u16)>().prop_map(SocketAddr::from), 0..limits::TICKET_ADDRESSES_MAX);
        let relay = option::of("https://[a-z]{1,20}\\.example/");
        let invite = option::of(any::<[u8; 16]>().prop_map(InviteToken));
        (any::<[u8; 32]>(), addresses, relay, invite).prop_map(|(seed, mut direct, relay, invite)| {
            let relay = relay.map(|url| url.parse().expect("a URL"));
            if direct.is_empty() {
                direct.push((Ipv4Addr::LOCALHOST, 1).into());
            }
            let peer = crate::identity::peer_id(iroh::SecretKey::from_bytes(&seed).public());
            Ticket { coordinator: PeerAddr { peer, direct, relay }, invite }
        })
    }

    proptest! {
        #[test]
        fn a_ticket_survives_its_text(ticket in tickets()) {
            let text = ticket.to_string();
            prop_assert!(text.len() < limits::TICKET_CHARS_MAX);
            prop_assert_eq!(format!(" {text}\n").parse::<Ticket>(), Ok(ticket));
        }

        #[test]
        fn any_changed_character_is_noticed(ticket in tickets(), position in any::<prop::sample::Index>(), new in "[ -~]") {
            let text = ticket.to_string();
            let position = position.index(text.len());
            prop_assume!(text[position..=position] != new);
            // A blank at an end is trimmed, and then a character is missing.
            let changed = [&text[..position], &new, &text[position + 1..]].concat();
            prop_assert!(changed.parse::<Ticket>().is_err(), "{}", changed);
        }

        #[test]
        fn nothing_that_is_pasted_panics(text in "\\PC*", tail in "[a-z2-7]{0,400}") {
            let _ = text.parse::<Ticket>();
            let made_up = format!("talka{tail}").parse::<Ticket>();
            prop_assert!(made_up.is_err());
        }
    }

    fn encode(version: u8, fields: &Fields, tail: &[u8]) -> String {
        let mut bytes = postcard::to_extend(fields, vec![version]).expect("encodable");
        bytes.extend_from_slice(tail);
        bytes.extend_from_slice(&checksum(&bytes));
        format!("{PREFIX}{}", text::base32(&bytes))
    }

    #[test]
    fn each_error_says_what_is_wrong() {
        let fields = |direct: Vec<SocketAddr>, relay: Option<&str>| Fields {
            coordinator: *Identity::ephemeral().peer_id().as_bytes(),
            direct,
            relay: relay.map(str::to_owned),
            invite: None,
        };
        let here = SocketAddr::from((Ipv4Addr::LOCALHOST, 7117));
        let check = |text: String, expected: &str| {
            let error = text.parse::<Ticket>().expect_err(&text).to_string();
            assert!(error.starts_with(expected), "{text}: {error}");
        };
        check("https://talka.example".into(), "not a ticket");
        check("talka-coordinator".into(), "not a ticket");
        check(String::new(), "not a ticket");
        check(format!("talka{}", "a".repeat(100_000)), "not a ticket");
        check("talka".into(), "damaged ticket");
        check(encode(2, &fields(vec![here], None), b""), "ticket of version 2");
        check(encode(1, &fields(vec![here], None), b"x"), "damaged ticket");
        check(encode(1, &fields(vec![], None), b""), "unusable ticket: it names no address");
        check(encode(1, &fields(vec![here; 17], None), b""), "unusable ticket: it names too many");
        check(encode(1, &fields(vec![], Some("file:///etc/passwd")), b""), "unusable ticket: its relay");
        let nobody = Fields { coordinator: *nobody().as_bytes(), ..fields(vec![here], None) };
        check(encode(1, &nobody, b""), "unusable ticket: the coordinator's key");
        let whole = encode(1, &fields(vec![here], None), b"");
        check(whole[..whole.len() - 3].to_owned(), "damaged ticket");
    }

    #[test]
    fn a_token_is_not_logged() {
        let ticket = Ticket {
            coordinator: PeerAddr::new(Identity::ephemeral().peer_id(), []),
            invite: Some(InviteToken([7; 16])),
        };
        assert!(!format!("{ticket:?}").contains("7, 7"));
    }
}
