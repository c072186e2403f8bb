//! The few DNS messages of service discovery that matter here (RFC 1035, RFC 6762, RFC 6763).
//!
//! A coordinator is the instance `KEY._talka._udp.local`, where KEY is its key in base32: hexadecimal is one character too
//! long for a label. `SRV` says its port, `A` its address. Nothing is compressed when it is written; when it is read, a name
//! may point backwards, as those of other programs do.

use std::{
    collections::BTreeMap,
    net::{Ipv4Addr, SocketAddr, SocketAddrV4},
};

use talka_core::{ids::PeerId, limits};

use crate::text;

/// Names of services end on this.
const LOCAL: &str = "local";
/// What is announced.
const SERVICE: &str = "_talka._udp.local";

const CLASS_IN: u16 = 1;
/// In a question: the answer may go to who asks alone. In an answer: it replaces what was known.
const CLASS_TOP_BIT: u16 = 1 << 15;
const TYPE_A: u16 = 1;
const TYPE_PTR: u16 = 12;
const TYPE_TXT: u16 = 16;
const TYPE_SRV: u16 = 33;
const TYPE_ANY: u16 = 255;
/// An answer, by who should know (RFC 6762, section 18).
const FLAGS_ANSWER: u16 = 0x8400;
/// How long others may remember an answer. Who asks by name of one question may not for long (section 6.7).
const TTL_SECS: u32 = 120;
const TTL_ONCE_SECS: u32 = 10;
/// Longest name, RFC 1035.
const NAME_BYTES_MAX: usize = 255;
const LABEL_BYTES_MAX: usize = 63;

/// A question for coordinators.
pub(super) fn question(id: u16) -> Vec<u8> {
    let mut message = header(id, 0, [1, 0, 0]);
    put_question(&mut message);
    message
}

/// The number of a question, if the message asks for coordinators.
pub(super) fn asked(message: &[u8]) -> Option<u16> {
    let (mut reader, header) = Reader::open(message)?;
    if header.flags & 0xf800 != 0 {
        return None;
    }
    let wanted = (0..header.questions).find_map(|_| {
        let (name, kind, class) = (reader.name()?, reader.u16()?, reader.u16()?);
        let right = matches!(kind, TYPE_PTR | TYPE_ANY) && class & !CLASS_TOP_BIT == CLASS_IN;
        Some(right && name == SERVICE)
    });
    // The first question is the one: ours has one, and browsers ask for one service at a time.
    wanted.filter(|wanted| *wanted).map(|_| header.id)
}

/// Whom an answer is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum For {
    /// All who listen.
    Everybody,
    /// Who asked this question.
    Asker(u16),
}

/// Says that a coordinator is at an address.
pub(super) fn answer(coordinator: PeerId, at: SocketAddrV4, whom: For) -> Vec<u8> {
    let key = text::base32(coordinator.as_bytes());
    let (instance, host) = (format!("{key}.{SERVICE}"), format!("{key}.{LOCAL}"));
    let (mut message, ttl) = match whom {
        For::Everybody => (header(0, FLAGS_ANSWER, [0, 3, 1]), TTL_SECS),
        For::Asker(id) => {
            let mut message = header(id, FLAGS_ANSWER, [1, 3, 1]);
            put_question(&mut message);
            (message, TTL_ONCE_SECS)
        }
    };
    let own = match whom {
        For::Everybody => CLASS_IN | CLASS_TOP_BIT,
        For::Asker(_) => CLASS_IN,
    };
    let mut record = |name: &str, kind: u16, class: u16, data: &[u8]| {
        put_name(&mut message, name);
        message.extend_from_slice(&kind.to_be_bytes());
        message.extend_from_slice(&class.to_be_bytes());
        message.extend_from_slice(&ttl.to_be_bytes());
        // A name, a word or an address: far below 2¹⁶.
        message.extend_from_slice(&u16::try_from(data.len()).unwrap_or_default().to_be_bytes());
        message.extend_from_slice(data);
    };
    let mut name = Vec::new();
    put_name(&mut name, &instance);
    record(SERVICE, TYPE_PTR, CLASS_IN, &name);
    let mut service = [0, 0, 0, 0].to_vec();
    service.extend_from_slice(&at.port().to_be_bytes());
    put_name(&mut service, &host);
    record(&instance, TYPE_SRV, own, &service);
    record(&instance, TYPE_TXT, own, b"\x03v=1");
    record(&host, TYPE_A, own, &at.ip().octets());
    message
}

/// The coordinators that an answer to the question `id` names, with their addresses. What is broken ends the reading.
pub(super) fn coordinators(message: &[u8], id: u16) -> BTreeMap<PeerId, Vec<SocketAddr>> {
    let mut found = Found { id, ..Found::default() };
    // What was read before a broken part is as good as the rest would be: not trusted at all.
    let _ = found.read(message);
    found.into_coordinators()
}

#[derive(Default)]
struct Found {
    /// The question.
    id: u16,
    /// Instance, host and port.
    services: Vec<(PeerId, String, u16)>,
    hosts: Vec<(String, Ipv4Addr)>,
}

impl Found {
    fn read(&mut self, message: &[u8]) -> Option<()> {
        let (mut reader, header) = Reader::open(message)?;
        if header.flags & 0x8000 == 0 || header.id != self.id {
            return None;
        }
        for _ in 0..header.questions {
            reader.name()?;
            reader.take(4)?;
        }
        for _ in 0..header.records.min(limits::LAN_RECORDS_MAX) {
            let (name, kind, class) = (reader.name()?, reader.u16()?, reader.u16()?);
            reader.take(4)?;
            let length = usize::from(reader.u16()?);
            let end = reader.at.checked_add(length).filter(|end| *end <= message.len())?;
            if class & !CLASS_TOP_BIT == CLASS_IN {
                match kind {
                    TYPE_SRV => self.service(&mut reader, &name),
                    TYPE_A => self.host(&mut reader, name, length),
                    _ => Some(()),
                }?;
            }
            reader.at = end;
        }
        Some(())
    }

    fn service(&mut self, reader: &mut Reader<'_>, name: &str) -> Option<()> {
        reader.take(4)?;
        let (port, host) = (reader.u16()?, reader.name()?);
        let key = name.strip_suffix(SERVICE).and_then(|rest| rest.strip_suffix('.')).and_then(key);
        if let Some(key) = key.filter(|_| port != 0) {
            self.services.push((key, host, port));
        }
        Some(())
    }

    fn host(&mut self, reader: &mut Reader<'_>, name: String, length: usize) -> Option<()> {
        let octets: [u8; 4] = reader.take(4).filter(|_| length == 4)?.try_into().ok()?;
        self.hosts.push((name, octets.into()));
        Some(())
    }

    fn into_coordinators(self) -> BTreeMap<PeerId, Vec<SocketAddr>> {
        let mut coordinators = BTreeMap::<_, Vec<_>>::new();
        for (peer, host, port) in self.services {
            let here = self.hosts.iter().filter(|(name, _)| *name == host);
            let addresses = here.map(|(_, ip)| SocketAddr::from((*ip, port)));
            coordinators.entry(peer).or_default().extend(addresses.take(limits::TICKET_ADDRESSES_MAX));
        }
        coordinators.retain(|_, addresses| !addresses.is_empty());
        coordinators
    }
}

fn key(label: &str) -> Option<PeerId> {
    let bytes: [u8; 32] = text::from_base32(label.as_bytes())?.try_into().ok()?;
    Some(PeerId::new(bytes))
}

fn header(id: u16, flags: u16, [questions, answers, additional]: [u16; 3]) -> Vec<u8> {
    [id, flags, questions, answers, 0, additional].iter().flat_map(|field| field.to_be_bytes()).collect()
}

fn put_question(message: &mut Vec<u8>) {
    put_name(message, SERVICE);
    message.extend_from_slice(&TYPE_PTR.to_be_bytes());
    message.extend_from_slice(&CLASS_IN.to_be_bytes());
}

/// Labels of names that are written here have at most 52 bytes.
fn put_name(message: &mut Vec<u8>, name: &str) {
    for label in name.split('.') {
        message.push(u8::try_from(label.len()).unwrap_or_default());
        message.extend_from_slice(label.as_bytes());
    }
    message.push(0);
}

struct Header {
    id: u16,
    flags: u16,
    questions: u16,
    /// Of all three kinds.
    records: usize,
}

/// Reads a message from front to back; every step may find that it is broken.
struct Reader<'a> {
    message: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn open(message: &'a [u8]) -> Option<(Self, Header)> {
        let mut reader = Self { message, at: 0 };
        let (id, flags, questions) = (reader.u16()?, reader.u16()?, reader.u16()?);
        let mut records = 0;
        for _ in 0..3 {
            records += usize::from(reader.u16()?);
        }
        Some((reader, Header { id, flags, questions, records }))
    }

    fn take(&mut self, bytes: usize) -> Option<&'a [u8]> {
        let end = self.at.checked_add(bytes)?;
        let taken = self.message.get(self.at..end)?;
        self.at = end;
        Some(taken)
    }

    fn u16(&mut self) -> Option<u16> {
        Some(u16::from_be_bytes(self.take(2)?.try_into().ok()?))
    }

    /// A name in lower case. Pointers lead backwards only, so reading ends.
    fn name(&mut self) -> Option<String> {
        let mut name = String::new();
        let mut reader = Self { message: self.message, at: self.at };
        let mut after = None;
        let mut start = self.at;
        loop {
            let length = usize::from(*reader.take(1)?.first()?);
            match length {
                0 => break,
                1..=LABEL_BYTES_MAX => {
                    let label = str::from_utf8(reader.take(length)?).ok()?;
                    let plain = |byte: u8| byte.is_ascii_graphic() && byte != b'.';
                    if !label.bytes().all(plain) || name.len() + length >= NAME_BYTES_MAX {
                        return None;
                    }
                    if !name.is_empty() {
                        name.push('.');
                    }
                    name.push_str(&label.to_ascii_lowercase());
                }
                192..=255 => {
                    let low = usize::from(*reader.take(1)?.first()?);
                    after.get_or_insert(reader.at);
                    let target = (length & 0x3f) << 8 | low;
                    if target >= start {
                        return None;
                    }
                    (start, reader.at) = (target, target);
                }
                _ => return None,
            }
        }
        self.at = after.unwrap_or(reader.at);
        Some(name)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const PEER: PeerId = PeerId::new([7; 32]);
    const AT: SocketAddrV4 = SocketAddrV4::new(Ipv4Addr::new(192, 168, 1, 5), 7118);

    fn expected() -> BTreeMap<PeerId, Vec<SocketAddr>> {
        [(PEER, vec![AT.into()])].into()
    }

    #[test]
    fn a_question_is_understood_and_an_answer_is_none() {
        assert_eq!(asked(&question(77)), Some(77));
        assert_eq!(asked(&answer(PEER, AT, For::Everybody)), None);
        let other = String::from_utf8_lossy(&question(0)).replace("talka", "other");
        assert_eq!(asked(other.as_bytes()), None);
        // What browsers of other programs ask: any type, an answer to them alone is welcome.
        let mut other = question(0);
        let end = other.len();
        other[end - 3] = 255;
        other[end - 2] = 0x80;
        assert_eq!(asked(&other), Some(0));
    }

    #[test]
    fn an_answer_names_the_coordinator_and_its_address() {
        for (whom, id) in [(For::Everybody, 0), (For::Asker(77), 77)] {
            let message = answer(PEER, AT, whom);
            assert!(message.len() < 512, "{}", message.len());
            assert_eq!(coordinators(&message, id), expected(), "{whom:?}");
            assert_eq!(coordinators(&message, 78), BTreeMap::new(), "of another question");
        }
        assert_eq!(coordinators(&question(1), 1), BTreeMap::new());
    }

    #[test]
    fn names_may_point_backwards_and_only_so() {
        // One name, then a pointer to its second label, then one to itself, then one forwards.
        let message = b"\x01A\x05local\x00\x01b\xc0\x02\xc0\x0d\xc0\x13\x00";
        let name = |at| Reader { message, at }.name();
        assert_eq!(name(0).as_deref(), Some("a.local"));
        assert_eq!(name(9).as_deref(), Some("b.local"));
        assert_eq!((name(13), name(15)), (None, None));
        let mut reader = Reader { message, at: 9 };
        reader.name().expect("a name");
        assert_eq!(reader.at, 13, "reading goes on behind the pointer");
    }

    #[test]
    fn cut_messages_name_nobody_and_break_nothing() {
        let message = answer(PEER, AT, For::Asker(1));
        for end in 0..message.len() {
            assert_eq!(coordinators(&message[..end], 1), BTreeMap::new(), "{end}");
            let _ = asked(&message[..end]);
        }
    }

    proptest! {
        #[test]
        fn no_message_breaks_the_reader(bytes in proptest::collection::vec(any::<u8>(), 0..600)) {
            let bytes = [&[0, 0, 0x84, 0], &bytes[..]].concat();
            let _ = asked(&bytes);
            let found = coordinators(&bytes, 0);
            prop_assert!(found.len() <= limits::LAN_RECORDS_MAX);
        }

        #[test]
        fn a_changed_answer_breaks_nothing(position in 0usize..400, value: u8) {
            let mut message = answer(PEER, AT, For::Everybody);
            let length = message.len();
            message[position % length] = value;
            let found = coordinators(&message, 0);
            prop_assert!(found.len() <= 1);
        }
    }
}
