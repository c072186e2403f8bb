//! Credit in the form that statistics sites read: BOINC's XML export.
//!
//! BOINC's words, and what they mean here: a *host* is a peer, a *user* is the name of an owner (or a peer that has
//! none), a *team* a team. Ids never change as long as peers keep their names: those of a host are its number at the
//! coordinator, from 1, and a user or a team has the one of its first host. `docs/statistics.md` lists the tags.

use std::{collections::BTreeMap, fmt::Write as _};

use talka_core::ids::PeerId;

/// What is exported of one peer.
#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Host {
    /// The coordinator's number, from 0.
    pub(crate) number: u32,
    pub(crate) peer: PeerId,
    pub(crate) owner: String,
    pub(crate) team: String,
    pub(crate) credit: f64,
    /// Recent average, as of `average_secs`.
    pub(crate) average: f64,
    pub(crate) average_secs: u64,
    /// Processors; 0 when it is not connected.
    pub(crate) cpus: u32,
}

/// Some peers together: a user, or a team.
#[derive(Debug, Default)]
struct Sum {
    id: u32,
    credit: f64,
    average: f64,
    average_secs: u64,
    hosts: u32,
    team: Option<u32>,
    founder: String,
}

/// The files: name and content.
pub(crate) fn files(hosts: &[Host], now_secs: u64) -> Vec<(&'static str, String)> {
    let mut hosts: Vec<&Host> = hosts.iter().filter(|host| host.credit > 0.0).collect();
    hosts.sort_by_key(|host| host.number);
    let (mut users, mut teams) = (BTreeMap::<String, Sum>::new(), BTreeMap::<&str, Sum>::new());
    for host in &hosts {
        let team = (!host.team.is_empty()).then(|| {
            let team = teams.entry(&host.team).or_default();
            team.add(host);
            team.id
        });
        let user = users.entry(user_name(host)).or_default();
        user.add(host);
        user.team = user.team.or(team);
    }
    vec![
        ("tables.xml", tables(&hosts, users.len(), teams.len(), now_secs)),
        ("host.xml", list("hosts", hosts.iter().map(|host| xml_host(host, users[&user_name(host)].id)))),
        ("user.xml", list("users", users.iter().map(|(name, user)| xml_user(name, user)))),
        ("team.xml", list("teams", teams.iter().map(|(name, team)| xml_team(name, team, &users)))),
    ]
}

/// Under which name a peer's credit is shown.
fn user_name(host: &Host) -> String {
    if host.owner.is_empty() { format!("peer {}", host.peer.short()) } else { host.owner.clone() }
}

impl Sum {
    fn add(&mut self, host: &Host) {
        if self.hosts == 0 {
            self.id = host.number + 1;
            self.founder = user_name(host);
        }
        self.hosts += 1;
        self.credit += host.credit;
        // All averages are of the moment of the export, so they add up.
        self.average += host.average;
        self.average_secs = self.average_secs.max(host.average_secs);
    }
}

fn tables(hosts: &[&Host], users: usize, teams: usize, now_secs: u64) -> String {
    let credit: f64 = hosts.iter().map(|host| host.credit).sum();
    let mut element = Element::new("tables");
    element.tag("update_time", now_secs).tag("nusers_total", users).tag("nteams_total", teams);
    element.tag("nhosts_total", hosts.len()).tag("total_credit", format_args!("{credit:.6}"));
    let mut application = Element::new("application");
    application.tag("name", "talka-1");
    element.nested("applications", &application);
    format!("{DECLARATION}{}", element.finish())
}

fn xml_host(host: &Host, user: u32) -> Element {
    let mut element = Element::new("host");
    element.tag("id", host.number + 1).tag("userid", user);
    element.credit(host.credit, host.average, host.average_secs);
    // What kind of machine it is nobody is told.
    element.tag("p_vendor", "").tag("p_model", "").tag("os_name", "").tag("os_version", "");
    element.tag("ncpus", host.cpus).tag("host_cpid", cpid("host", &host.peer.to_string()));
    element
}

fn xml_user(name: &str, user: &Sum) -> Element {
    let mut element = Element::new("user");
    element.tag("id", user.id).text("name", name);
    element.credit(user.credit, user.average, user.average_secs).tag("cpid", cpid("user", name));
    if let Some(team) = user.team {
        element.tag("teamid", team);
    }
    element
}

fn xml_team(name: &str, team: &Sum, users: &BTreeMap<String, Sum>) -> Element {
    let mut element = Element::new("team");
    let founder = users.get(&team.founder).map_or(0, |user| user.id);
    element.tag("id", team.id).tag("type", 0).text("name", name).tag("userid", founder);
    element.credit(team.credit, team.average, team.average_secs);
    element.text("founder_name", &team.founder);
    element
}

/// The same name has the same id at every coordinator, which is how sites add up what somebody earned everywhere.
fn cpid(kind: &str, name: &str) -> String {
    let mut hasher = blake3::Hasher::new_derive_key("talka statistics cpid");
    hasher.update(kind.as_bytes()).update(b"\0").update(name.as_bytes());
    // Sites expect as many digits as an MD5 has.
    hasher.finalize().to_hex()[..32].to_owned()
}

const DECLARATION: &str = "<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n";

fn list(name: &str, elements: impl Iterator<Item = Element>) -> String {
    let mut text = format!("{DECLARATION}<{name}>\n");
    for element in elements {
        text.push_str(&element.finish());
    }
    // Writing to a string can't fail.
    let _ = writeln!(text, "</{name}>");
    text
}

/// One XML element with its children.
struct Element {
    name: &'static str,
    text: String,
}

impl Element {
    fn new(name: &'static str) -> Self {
        Self { name, text: format!("<{name}>\n") }
    }

    /// A value that needs no escaping.
    fn tag(&mut self, name: &str, value: impl std::fmt::Display) -> &mut Self {
        let _ = writeln!(self.text, "  <{name}>{value}</{name}>");
        self
    }

    fn text(&mut self, name: &str, value: &str) -> &mut Self {
        self.tag(name, escaped(value))
    }

    fn credit(&mut self, total: f64, average: f64, average_secs: u64) -> &mut Self {
        self.tag("total_credit", format_args!("{total:.6}"));
        self.tag("expavg_credit", format_args!("{average:.6}"));
        self.tag("expavg_time", format_args!("{average_secs}.000000"))
    }

    fn nested(&mut self, name: &str, inner: &Self) {
        let _ = write!(self.text, "  <{name}>\n{}</{}>\n  </{name}>\n", inner.text, inner.name);
    }

    fn finish(self) -> String {
        let Self { name, mut text } = self;
        let _ = writeln!(text, "</{name}>");
        text
    }
}

/// Text as XML wants it. Names hold no control characters.
fn escaped(text: &str) -> String {
    let mut escaped = String::with_capacity(text.len());
    for c in text.chars() {
        match c {
            '&' => escaped.push_str("&amp;"),
            '<' => escaped.push_str("&lt;"),
            '>' => escaped.push_str("&gt;"),
            '"' => escaped.push_str("&quot;"),
            '\'' => escaped.push_str("&apos;"),
            // Not a character of XML 1.0.
            '\u{fffe}' | '\u{ffff}' => {}
            c => escaped.push(c),
        }
    }
    escaped
}

#[cfg(test)]
mod tests {
    use super::*;

    /// An element of the format, as a page of `docs/statistics.md` describes it: tag, type, whether it must be there.
    type Description = BTreeMap<String, Vec<(String, String, bool)>>;

    /// Reads the tables of the documentation, which are the description that this is checked against.
    fn description() -> Description {
        let page = include_str!("../docs/statistics.md");
        let (mut elements, mut element) = (Description::new(), String::new());
        for line in page.lines() {
            if let Some(title) = line.strip_prefix("## `") {
                element = title.trim_end_matches('`').to_owned();
            } else if let Some(row) = line.strip_prefix("| `") {
                let cells: Vec<&str> = row.split('|').map(|cell| cell.trim().trim_matches('`')).collect();
                let row = (cells[0].to_owned(), cells[1].to_owned(), cells[2] == "yes");
                elements.entry(element.clone()).or_default().push(row);
            }
        }
        elements
    }

    /// The children of each element with this name: a reader of the plain XML that this module writes, which knows
    /// nothing of how that is written.
    fn parse(xml: &str, name: &str) -> Vec<Vec<(String, String)>> {
        let body = xml.strip_prefix("<?xml version=\"1.0\" encoding=\"UTF-8\"?>").expect("a declaration");
        let (mut stack, mut found, mut children) = (Vec::<String>::new(), vec![], vec![]);
        let mut rest = body.trim();
        while !rest.is_empty() {
            let (text, tail) = rest.split_once('<').expect("a tag");
            let (tag, tail) = tail.split_once('>').expect("its end");
            rest = tail;
            if let Some(closed) = tag.strip_prefix('/') {
                assert_eq!(stack.pop().as_deref(), Some(closed), "nesting");
                if closed == name {
                    found.push(std::mem::take(&mut children));
                } else if stack.last().is_some_and(|parent| parent == name) {
                    children.push((closed.to_owned(), text.trim().to_owned()));
                }
            } else {
                assert_eq!(text.trim(), "", "no text between tags");
                stack.push(tag.to_owned());
            }
            rest = if stack.is_empty() { rest.trim() } else { rest };
        }
        assert!(stack.is_empty(), "{stack:?}");
        found
    }

    fn is_of_type(value: &str, kind: &str) -> bool {
        match kind {
            "integer" => value.parse::<u64>().is_ok(),
            "decimal" => value.contains('.') && value.parse::<f64>().is_ok_and(|value| value >= 0.0),
            "md5" => value.len() == 32 && value.chars().all(|c| c.is_ascii_hexdigit()),
            "text" => !value.contains(['<', '>', '"']),
            "elements" => true,
            other => panic!("no such type: {other}"),
        }
    }

    fn host(number: u32, owner: &str, team: &str, credit: f64) -> Host {
        Host {
            number,
            peer: PeerId::new([u8::try_from(number).expect("small"); 32]),
            owner: owner.into(),
            team: team.into(),
            credit,
            average: credit / 7.0,
            average_secs: 1_790_000_000,
            cpus: 4,
        }
    }

    fn hosts() -> Vec<Host> {
        vec![
            host(0, "Ada & <Bob>", "Žemė", 5.5),
            host(1, "", "", 2.0),
            host(2, "Ada & <Bob>", "", 1.25),
            host(3, "Eve", "Žemė", 10.0),
            host(4, "Nobody", "None", 0.0),
        ]
    }

    fn file(name: &str) -> String {
        let files = files(&hosts(), 1_795_000_000);
        files.into_iter().find(|(known, _)| *known == name).expect("a file").1
    }

    #[test]
    fn every_file_is_what_its_description_says() {
        let description = description();
        assert_eq!(
            description.keys().map(String::as_str).collect::<Vec<_>>(),
            ["host", "tables", "team", "user"]
        );
        for (element, tags) in &description {
            let name = format!("{element}.xml");
            let found = parse(&file(&name), element);
            assert!(!found.is_empty(), "{element}");
            for children in found {
                for (tag, value) in &children {
                    let known = tags.iter().find(|(known, ..)| known == tag);
                    let (_, kind, _) = known.unwrap_or_else(|| panic!("<{tag}> in {element}"));
                    assert!(is_of_type(value, kind), "{element}: <{tag}>{value}");
                    assert_eq!(children.iter().filter(|(other, _)| other == tag).count(), 1, "{tag}");
                }
                for (tag, _, required) in tags {
                    assert!(!required || children.iter().any(|(known, _)| known == tag), "{element}: {tag}");
                }
            }
        }
    }

    #[test]
    fn users_and_teams_are_the_sums_of_their_hosts() {
        let of = |file_name: &str, element: &str, tag: &str| -> Vec<String> {
            let elements = parse(&file(file_name), element);
            let value = |children: Vec<(String, String)>| {
                children
                    .into_iter()
                    .find(|(known, _)| known == tag)
                    .map_or_else(String::new, |(_, value)| value)
            };
            elements.into_iter().map(value).collect()
        };
        assert_eq!(of("host.xml", "host", "id"), ["1", "2", "3", "4"]);
        assert_eq!(of("host.xml", "host", "userid"), ["1", "2", "1", "4"]);
        assert_eq!(of("user.xml", "user", "name"), ["Ada &amp; &lt;Bob&gt;", "Eve", "peer 0101010101"]);
        assert_eq!(of("user.xml", "user", "total_credit"), ["6.750000", "10.000000", "2.000000"]);
        assert_eq!(of("user.xml", "user", "teamid"), ["1", "1", ""]);
        assert_eq!(of("team.xml", "team", "total_credit"), ["15.500000"]);
        assert_eq!(of("team.xml", "team", "userid"), ["1"]);
        assert_eq!(of("tables.xml", "tables", "total_credit"), ["18.750000"]);
        assert_eq!(of("tables.xml", "tables", "nhosts_total"), ["4"]);
    }

    #[test]
    fn a_name_has_the_same_cross_project_id_everywhere_and_no_other_name_has_it() {
        assert_eq!(cpid("user", "Ada"), cpid("user", "Ada"));
        assert_ne!(cpid("user", "Ada"), cpid("user", "Eve"));
        assert_ne!(cpid("user", "Ada"), cpid("host", "Ada"));
    }
}
