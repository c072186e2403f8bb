//! By which ways a peer may be reached, and who may know of them.

use std::str::FromStr;

use iroh::{RelayConfig, RelayMode, RelayUrl};
use iroh_relay::RelayQuicConfig;
use talka_core::{ids::PeerId, limits};

/// Which relay carries what can't go directly.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub enum Relay {
    /// None: only direct connections.
    #[default]
    Disabled,
    /// This one.
    Url(RelayUrl),
}

/// The text is neither `disabled` nor the URL of a relay.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{text:?} is not a relay: write `disabled`, or a URL as https://relay.example.org")]
pub struct ParseRelayError {
    text: String,
}

impl Relay {
    /// Its URL, if there is one.
    pub fn url(&self) -> Option<&RelayUrl> {
        match self {
            Self::Disabled => None,
            Self::Url(url) => Some(url),
        }
    }

    pub(crate) fn mode(&self) -> RelayMode {
        match self {
            Self::Disabled => RelayMode::Disabled,
            Self::Url(url) => {
                // Whoever asks a relay for his own public address asks by QUIC, which a relay without TLS does not speak.
                let quic = (url.scheme() == "https").then(RelayQuicConfig::default);
                RelayMode::Custom(RelayConfig::new(url.clone(), quic).into())
            }
        }
    }
}

impl From<Option<RelayUrl>> for Relay {
    fn from(url: Option<RelayUrl>) -> Self {
        url.map_or(Self::Disabled, Self::Url)
    }
}

impl FromStr for Relay {
    type Err = ParseRelayError;

    fn from_str(text: &str) -> Result<Self, ParseRelayError> {
        let wrong = || ParseRelayError { text: text.chars().take(80).collect() };
        if text == "disabled" {
            return Ok(Self::Disabled);
        }
        if text.len() > limits::RELAY_URL_BYTES_MAX {
            return Err(wrong());
        }
        let url: RelayUrl = text.parse().map_err(|_| wrong())?;
        let usable = matches!(url.scheme(), "http" | "https") && url.has_host();
        if usable { Ok(Self::Url(url)) } else { Err(wrong()) }
    }
}

/// A relay's URL as people may see it: without what lets one in.
pub fn shown(relay: &RelayUrl) -> String {
    let mut shown = (**relay).clone();
    shown.set_query(None);
    shown.to_string()
}

/// Who may learn this peer's network address.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub enum Privacy {
    /// Whoever deals with it.
    #[default]
    Open,
    /// Nobody but the relay, which carries everything: there is no UDP socket to send from.
    RelayOnly,
    /// Nobody but this peer: no other is dialed, and none is answered.
    Only(PeerId),
}

impl Privacy {
    /// How a private peer deals with its coordinator: over the relay if both have one, else with it alone.
    pub fn private(own: &Relay, coordinator: PeerId, its_relay: Option<&RelayUrl>) -> Self {
        match (own, its_relay) {
            (Relay::Url(_), Some(_)) => Self::RelayOnly,
            _ => Self::Only(coordinator),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_relay_is_a_url_with_a_host_or_disabled() {
        assert_eq!("disabled".parse(), Ok(Relay::Disabled));
        for url in ["https://relay.example.org", "http://127.0.0.1:3340", "https://r.example.org/?token=abc"]
        {
            let relay: Relay = url.parse().expect(url);
            assert!(relay.url().is_some_and(|relay| !shown(relay).contains("abc")), "{url}");
        }
        let long = format!("https://{}", "a".repeat(limits::RELAY_URL_BYTES_MAX));
        for text in ["", "none", "relay.example.org", "file:///etc/passwd", "ftp://x", long.as_str()] {
            let error = text.parse::<Relay>().expect_err(text).to_string();
            assert!(error.len() < 200, "{error}");
        }
    }

    #[test]
    fn a_private_peer_uses_the_relay_only_when_its_coordinator_has_one() {
        let (me, coordinator) = (Relay::from("http://r.example".parse().ok()), PeerId::new([1; 32]));
        let url = me.url();
        assert_eq!(Privacy::private(&me, coordinator, url), Privacy::RelayOnly);
        assert_eq!(Privacy::private(&me, coordinator, None), Privacy::Only(coordinator));
        assert_eq!(Privacy::private(&Relay::Disabled, coordinator, url), Privacy::Only(coordinator));
    }
}
