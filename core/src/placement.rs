//! Who may stand beside whom: what a coordinator knows of where a peer comes from, and what its owner said of it.

use core::{
    net::{IpAddr, Ipv4Addr, Ipv6Addr},
    str::FromStr,
};

/// What the owner of a coordinator said of a peer.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
#[repr(u8)]
pub enum Admission {
    /// Nothing.
    #[default]
    Open = 0,
    /// It came with an invite.
    Invited = 1,
    /// It may work, and need not prove itself before it gets as much as others.
    Approved = 2,
    /// It gets no work. What it did counts.
    Rejected = 3,
    /// It gets no work, and nothing rests on its word.
    Banned = 4,
}

impl Admission {
    /// From the number of a row; `None` for one that this version never wrote.
    pub fn from_code(code: u8) -> Option<Self> {
        [Self::Open, Self::Invited, Self::Approved, Self::Rejected, Self::Banned]
            .into_iter()
            .find(|admission| *admission as u8 == code)
    }

    /// Whether it gets work.
    pub fn may_work(self) -> bool {
        !matches!(self, Self::Rejected | Self::Banned)
    }

    /// Whether somebody vouches for it.
    pub fn is_vouched_for(self) -> bool {
        matches!(self, Self::Invited | Self::Approved)
    }

    /// A word for people and programs.
    pub fn name(self) -> &'static str {
        match self {
            Self::Open => "open",
            Self::Invited => "invited",
            Self::Approved => "approved",
            Self::Rejected => "rejected",
            Self::Banned => "banned",
        }
    }
}

/// A public network in which one person may easily have many addresses: the first 24 bits of an IPv4 address, or
/// 48 of an IPv6 one.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct Site(u64);

impl Site {
    /// The site of an address. Those that are not public have none: a machine, a home or a laboratory is one's own.
    pub fn of(address: IpAddr) -> Option<Self> {
        match address.to_canonical() {
            IpAddr::V4(address) => of_v4(address),
            IpAddr::V6(address) => of_v6(address),
        }
    }

    /// The one of all that come through a relay: where they are can't be seen.
    const RELAYED: Self = Self(3 << 48);

    /// Whether it is that one.
    pub fn is_relayed(self) -> bool {
        self == Self::RELAYED
    }

    /// As a row has it.
    pub fn to_code(self) -> u64 {
        self.0
    }

    /// The inverse of [`Site::to_code`]; `None` for what this version never wrote.
    pub fn from_code(code: u64) -> Option<Self> {
        (1..=3).contains(&(code >> 48)).then_some(Self(code))
    }
}

fn of_v4(address: Ipv4Addr) -> Option<Site> {
    let [a, b, c, _] = address.octets();
    // Behind a carrier's translation, or on an overlay network: RFC 6598.
    let shared = a == 100 && b & 0xc0 == 64;
    let own = address.is_loopback() || address.is_private() || address.is_link_local();
    let public = !(own || shared || address.is_unspecified());
    public.then_some(Site(1 << 48 | u64::from(a) << 16 | u64::from(b) << 8 | u64::from(c)))
}

fn of_v6(address: Ipv6Addr) -> Option<Site> {
    let [a, b, c, ..] = address.segments();
    let own = address.is_loopback() || address.is_unique_local() || address.is_unicast_link_local();
    let public = !(own || address.is_unspecified());
    public.then_some(Site(2 << 48 | u64::from(a) << 32 | u64::from(b) << 16 | u64::from(c)))
}

/// Where a session comes from.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub struct Origin {
    /// The address that its packets come from; none where a relay forwards them.
    pub address: Option<IpAddr>,
    /// A hash of the name that its owner goes by.
    pub owner: Option<OwnerKey>,
    /// The invite that it shows.
    pub invite: Option<InviteId>,
    /// Whether it shows the coordinator's own token, which makes a submitter: no stranger has that.
    pub has_token: bool,
}

impl Origin {
    /// Whether it is a process of the same machine.
    pub fn is_local(&self) -> bool {
        self.address.is_some_and(|address| address.to_canonical().is_loopback())
    }

    /// The public network that it comes from, or the one of all strangers whose network can't be seen.
    pub fn site(&self) -> Option<Site> {
        match self.address {
            Some(address) => Site::of(address),
            None => (!self.has_token).then_some(Site::RELAYED),
        }
    }
}

/// An owner, as a hash of its name.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct OwnerKey(u64);

impl OwnerKey {
    /// The owner of that name; none for an empty one.
    pub fn of(name: &str) -> Option<Self> {
        let hash = blake3::hash(name.as_bytes());
        let first = hash.as_bytes().first_chunk::<8>().filter(|_| !name.is_empty())?;
        Some(Self(u64::from_le_bytes(*first)))
    }

    /// As a row has it.
    pub fn to_code(self) -> u64 {
        self.0
    }

    /// The inverse of [`OwnerKey::to_code`].
    pub fn from_code(code: u64) -> Self {
        Self(code)
    }
}

/// Who may work for a coordinator.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq)]
pub enum Admit {
    /// Whoever comes.
    #[default]
    Anyone,
    /// Who comes with an invite or with the coordinator's own token, and who is approved.
    Invited,
    /// Who is approved.
    Approved,
}

/// What the attempts of one task must not share. What is named first includes nothing, what is named last all.
#[derive(Debug, Default, Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
pub enum Apart {
    /// A peer.
    Peers,
    /// Nor an owner.
    Owners,
    /// Nor a public network.
    #[default]
    Networks,
}

/// Not a word for this; the text names those there are.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("{0:?} is none of {1}")]
pub struct UnknownWord(String, &'static str);

impl FromStr for Admit {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "anyone" => Ok(Self::Anyone),
            "invited" => Ok(Self::Invited),
            "approved" => Ok(Self::Approved),
            _ => Err(UnknownWord(text.into(), "anyone, invited, approved")),
        }
    }
}

impl FromStr for Apart {
    type Err = UnknownWord;

    fn from_str(text: &str) -> Result<Self, UnknownWord> {
        match text {
            "peers" => Ok(Self::Peers),
            "owners" => Ok(Self::Owners),
            "networks" => Ok(Self::Networks),
            _ => Err(UnknownWord(text.into(), "peers, owners, networks")),
        }
    }
}

/// An invite, as the BLAKE3 hash of its token: a coordinator need not keep what others could use.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub struct InviteId(pub [u8; 32]);

impl InviteId {
    /// The invite with this token.
    pub fn of(token: &[u8]) -> Self {
        Self(*blake3::hash(token).as_bytes())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn addresses_of_one_public_network_share_a_site_and_private_ones_have_none() {
        let site = |text: &str| Site::of(text.parse().expect("an address"));
        for (a, b) in [
            ("192.0.2.1", "192.0.2.254"),
            ("::ffff:192.0.2.1", "192.0.2.9"),
            ("2001:db8:1:2::3", "2001:db8:1:ffff::1"),
        ] {
            assert!(site(a).is_some() && site(a) == site(b), "{a} {b}");
        }
        for (a, b) in [("192.0.2.1", "192.0.3.1"), ("2001:db8:1::", "2001:db8:2::"), ("0.0.1.0", "::1:0:0:0")]
        {
            assert_ne!(site(a), site(b), "{a} {b}");
        }
        for own in
            ["127.0.0.1", "10.1.2.3", "172.16.0.1", "192.168.1.1", "169.254.1.1", "100.64.0.1", "0.0.0.0"]
        {
            assert_eq!(site(own), None, "{own}");
        }
        for own in ["::1", "fd00::1", "fe80::1", "::", "::ffff:127.0.0.1"] {
            assert_eq!(site(own), None, "{own}");
        }
    }

    #[test]
    fn only_loopback_is_local() {
        let from = |text: &str| Origin { address: text.parse().ok(), ..Origin::default() };
        assert!(
            from("127.0.0.1").is_local() && from("::1").is_local() && from("::ffff:127.0.0.1").is_local()
        );
        assert!(!from("192.168.1.1").is_local() && !Origin::default().is_local());
    }

    #[test]
    fn every_word_on_a_peer_reads_back() {
        for code in 0..=4 {
            assert_eq!(Admission::from_code(code).map(|admission| admission as u8), Some(code));
        }
        assert_eq!(Admission::from_code(5), None);
    }
}
