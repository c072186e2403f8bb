//! Which coordinator of the local network a worker works for, when it was given no ticket.
//!
//! What is on the network is an offer of whoever is there: the owner agrees to a key before anything of it is run.

use std::{
    fmt::Write as _,
    io::{self, BufRead, IsTerminal},
    net::SocketAddr,
    str::FromStr,
};

use talka_core::ids::{ParseIdError, PeerId};
use talka_peer::{address::PeerAddr, lan, ticket::Ticket};

use crate::{
    error::{Code, Failure},
    output::Out,
};

/// What the owner says of the local network.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) enum Lan {
    /// Look around, and ask.
    #[default]
    Ask,
    /// Don't look.
    Off,
    /// The coordinator with this key.
    Key(PeerId),
}

impl FromStr for Lan {
    type Err = ParseIdError;

    fn from_str(text: &str) -> Result<Self, ParseIdError> {
        match text {
            "off" => Ok(Self::Off),
            "ask" => Ok(Self::Ask),
            key => key.parse().map(Self::Key),
        }
    }
}

/// Finds a coordinator on the networks of who would listen at `bind`, and has the owner agree to it.
pub(crate) async fn coordinator(which: Lan, bind: Option<SocketAddr>, out: Out) -> anyhow::Result<Ticket> {
    let wanted = match which {
        Lan::Key(key) => Some(key),
        Lan::Ask | Lan::Off => None,
    };
    out.note("looking for coordinators on the local network…");
    let found = lan::find(bind, wanted).await.map_err(|error| not_found(&error.to_string()))?;
    let coordinator = match choose(found, wanted)? {
        Choice::Agreed(coordinator) => coordinator,
        Choice::Ask(coordinator) => {
            let interactive = !out.is_json() && !out.is_quiet() && io::stdin().is_terminal();
            if !(interactive && agrees(&coordinator, out)) {
                return Err(offer(&[coordinator]).into());
            }
            coordinator
        }
    };
    out.note(format!("found coordinator {} at {}", coordinator.peer, places(&coordinator)));
    Ok(Ticket { coordinator, invite: None })
}

enum Choice {
    /// The owner named it.
    Agreed(PeerAddr),
    /// It is the only one.
    Ask(PeerAddr),
}

fn choose(mut found: Vec<PeerAddr>, wanted: Option<PeerId>) -> Result<Choice, Failure> {
    if let Some(wanted) = wanted {
        let it = found.into_iter().find(|coordinator| coordinator.peer == wanted);
        return it
            .map(Choice::Agreed)
            .ok_or_else(|| not_found("the coordinator with that key does not answer"));
    }
    match (found.pop(), found.len()) {
        (None, _) => Err(not_found("none answers")),
        (Some(only), 0) => Ok(Choice::Ask(only)),
        (Some(last), _) => {
            found.push(last);
            Err(offer(&found))
        }
    }
}

fn not_found(reason: &str) -> Failure {
    let message = format!(
        "no coordinator runs here, no ticket was given, and on the local network none was found: {reason}; give --ticket \
         (TALKA_TICKET), or let one be found: talka coordinator start --lan"
    );
    Failure::new(Code::NoCoordinator, message)
}

/// What to do about coordinators that nobody has agreed to.
fn offer(found: &[PeerAddr]) -> Failure {
    let (code, mut message) = match found {
        [_] => (Code::NoCoordinator, "a coordinator was found on the local network".to_owned()),
        _ => {
            (Code::ManyCoordinators, format!("{} coordinators were found on the local network", found.len()))
        }
    };
    message += "; to run what its submitters send, name its key, which its owner can confirm:";
    for coordinator in found {
        // Writing to a string can't fail.
        let _ = write!(
            message,
            "\n  talka worker start --lan {}  (at {})",
            coordinator.peer,
            places(coordinator)
        );
    }
    Failure::new(code, message)
}

fn places(coordinator: &PeerAddr) -> String {
    let places: Vec<String> = coordinator.direct.iter().map(ToString::to_string).collect();
    places.join(", ")
}

/// Asks the owner at the terminal.
fn agrees(coordinator: &PeerAddr, out: Out) -> bool {
    out.note(format!(
        "coordinator {} at {}\nRun what its submitters send, in the sandbox? [y/N]",
        coordinator.peer,
        places(coordinator)
    ));
    let mut answer = String::new();
    let read = io::stdin().lock().read_line(&mut answer);
    read.is_ok() && matches!(answer.trim(), "y" | "Y" | "yes")
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(number: u8) -> PeerAddr {
        PeerAddr::new(PeerId::new([number; 32]), [([192, 168, 1, number], 7118).into()])
    }

    #[test]
    fn the_network_is_looked_at_unless_it_is_off() {
        assert_eq!("off".parse(), Ok(Lan::Off));
        assert_eq!("ask".parse(), Ok(Lan::Ask));
        let key = PeerId::new([7; 32]);
        assert_eq!(key.to_string().parse(), Ok(Lan::Key(key)));
        key.short().parse::<Lan>().expect_err("a part of a key is anybody's");
    }

    #[test]
    fn nothing_is_agreed_to_but_a_key_that_the_owner_named() {
        assert!(matches!(choose(vec![at(1)], None), Ok(Choice::Ask(found)) if found == at(1)));
        let named = choose(vec![at(1), at(2)], Some(at(2).peer));
        assert!(matches!(named, Ok(Choice::Agreed(found)) if found == at(2)));
        for (found, wanted, code, says) in [
            (vec![], None, Code::NoCoordinator, "talka coordinator start --lan"),
            (vec![at(1)], Some(at(2).peer), Code::NoCoordinator, "does not answer"),
            (vec![at(1), at(2)], None, Code::ManyCoordinators, "--lan 0202"),
        ] {
            let failure = choose(found, wanted).err().expect("nobody");
            assert!(failure.code() == code && failure.to_string().contains(says), "{failure}");
        }
    }
}
