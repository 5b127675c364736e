//! ACLs and the conditions of rules, as far as a balancer of connections can judge them.

use ipnet::IpNet;

use crate::import::server_name::is_server_name;

use super::quantities::haproxy_networks;
use super::sections::ConfigLine;

/// What one test asks of a connection.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum Subject {
    Always,
    Never,
    /// The client is in one of these networks.
    Networks(Vec<IpNet>),
    /// The name in the TLS hello is one of these, as `sni` of a route has them.
    Sni(Vec<String>),
    Alpn(Vec<String>),
    /// There is a TLS hello.
    Hello,
    /// A counter of the client is above this.
    Above {
        counter: ClientCounter,
        of: CounterHome,
        allowed: u64,
    },
    /// Nothing that evenkeel can ask, and why.
    Unknown(String),
}

/// What a stick table counts of a client.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum ClientCounter {
    ConnectionRate,
    OpenConnections,
}

/// Where the counter is found.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) enum CounterHome {
    /// In the table that this slot (`sc0`) tracks.
    Slot(u8),
    /// In a table, of this name or of the proxy itself.
    Table(Option<String>),
}

/// A test, or its opposite.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct AclTest {
    pub(super) is_negated: bool,
    pub(super) subject: Subject,
}

/// Named tests of one proxy.
#[derive(Debug, Clone, Default)]
pub(super) struct Acls(Vec<(String, Subject)>);

impl Acls {
    /// Reads `acl NAME ...`; lines with the same name are alternatives.
    pub(super) fn define(&mut self, line: &ConfigLine) -> Subject {
        let subject = subject(line.from(2));
        self.0.push((line.word(1).to_owned(), subject.clone()));
        subject
    }

    fn named(&self, name: &str) -> Vec<Subject> {
        match name {
            "TRUE" => vec![Subject::Always],
            "FALSE" => vec![Subject::Never],
            "LOCALHOST" => {
                let loopback = ["127.0.0.0/8".to_owned(), "::1".to_owned()];
                vec![Subject::Networks(haproxy_networks(&loopback).unwrap_or_default())]
            }
            _ => {
                let found = self.0.iter().filter(|(other, _)| other == name);
                let found: Vec<Subject> = found.map(|(_, subject)| subject.clone()).collect();
                if found.is_empty() {
                    vec![Subject::Unknown(format!("there is no acl {name}"))]
                } else {
                    found
                }
            }
        }
    }

    /// The alternatives of a condition (`if A !B or C`), each a list of tests that all have to
    /// hold.
    ///
    /// # Errors
    /// In words, when it is no condition or cannot be written so.
    pub(super) fn alternatives(&self, words: &[String]) -> Result<Vec<Vec<AclTest>>, String> {
        let Some((first, rest)) = words.split_first() else { return Ok(vec![Vec::new()]) };
        let all = self.disjunction(rest)?;
        match first.as_str() {
            "if" => Ok(all),
            "unless" => negated(all),
            other => Err(format!("`{other}` is not understood")),
        }
    }

    fn disjunction(&self, words: &[String]) -> Result<Vec<Vec<AclTest>>, String> {
        let mut all: Vec<Vec<AclTest>> = Vec::new();
        let mut terms: Vec<Vec<AclTest>> = vec![Vec::new()];
        let mut is_negated = false;
        let mut rest = words.iter();
        while let Some(word) = rest.next() {
            let bare = word.trim_start_matches('!');
            is_negated ^= (word.len() - bare.len()) % 2 == 1;
            let subjects = match bare {
                "" => continue,
                "or" | "||" => {
                    all.append(&mut terms);
                    terms.push(Vec::new());
                    continue;
                }
                "{" => {
                    let inside: Vec<String> =
                        rest.by_ref().take_while(|word| *word != "}").cloned().collect();
                    vec![subject(&inside)]
                }
                name => self.named(name),
            };
            terms = with(terms, subjects, is_negated)?;
            is_negated = false;
        }
        all.append(&mut terms);
        if all.iter().any(Vec::is_empty) {
            return Err("a condition is empty".to_owned());
        }
        Ok(all)
    }
}

/// Most alternatives of one condition.
const ALTERNATIVES_MAX: usize = 256;

/// Each alternative, and one of these subjects beside it; all of them where they are negated.
fn with(
    terms: Vec<Vec<AclTest>>,
    subjects: Vec<Subject>,
    is_negated: bool,
) -> Result<Vec<Vec<AclTest>>, String> {
    let test = |subject| AclTest { is_negated, subject };
    let subjects = merged(subjects);
    let mut found = Vec::new();
    for term in terms {
        if is_negated {
            let mut term = term;
            term.extend(subjects.iter().cloned().map(test));
            found.push(term);
            continue;
        }
        for subject in &subjects {
            let mut term = term.clone();
            term.push(test(subject.clone()));
            found.push(term);
        }
    }
    if found.len() > ALTERNATIVES_MAX {
        return Err("it has too many alternatives".to_owned());
    }
    Ok(found)
}

/// Subjects of one kind as one.
fn merged(subjects: Vec<Subject>) -> Vec<Subject> {
    let mut found: Vec<Subject> = Vec::new();
    for subject in subjects {
        match (subject, found.last_mut()) {
            (Subject::Networks(more), Some(Subject::Networks(list))) => list.extend(more),
            (Subject::Sni(more), Some(Subject::Sni(list))) => list.extend(more),
            (Subject::Alpn(more), Some(Subject::Alpn(list))) => list.extend(more),
            (subject, _) => found.push(subject),
        }
    }
    found
}

fn negated(all: Vec<Vec<AclTest>>) -> Result<Vec<Vec<AclTest>>, String> {
    let not = |test: AclTest| AclTest { is_negated: !test.is_negated, ..test };
    if all.iter().all(|term| term.len() == 1) {
        return Ok(vec![all.into_iter().flatten().map(not).collect()]);
    }
    match <[Vec<AclTest>; 1]>::try_from(all) {
        Ok([term]) => Ok(term.into_iter().map(|test| vec![not(test)]).collect()),
        Err(_) => Err("`unless` with such a condition cannot be written otherwise".to_owned()),
    }
}

/// What `FETCH [flags] PATTERN...` asks.
fn subject(words: &[String]) -> Subject {
    let Some((fetch, rest)) = words.split_first() else {
        return Subject::Unknown("it asks for nothing".to_owned());
    };
    let (name, arguments) = fetch.split_once('(').unwrap_or((fetch.as_str(), ""));
    let arguments = arguments.trim_end_matches(')');
    let unknown = |why: String| Subject::Unknown(why);
    match name {
        "src" if arguments.is_empty() => match plain(rest) {
            Ok(patterns) => haproxy_networks(&patterns).map_or_else(unknown, Subject::Networks),
            Err(why) => unknown(why),
        },
        "always_true" => Subject::Always,
        "always_false" => Subject::Never,
        "req.ssl_sni" | "req_ssl_sni" | "req.ssl_sni,lower" | "req_ssl_sni,lower" => {
            server_names(rest)
        }
        "req.ssl_alpn" => plain(rest).map_or_else(unknown, Subject::Alpn),
        "req.ssl_hello_type" | "req_ssl_hello_type" if rest == ["1"] => Subject::Hello,
        "src_conn_rate" | "src_conn_cur" => {
            let table = (!arguments.is_empty()).then(|| arguments.to_owned());
            above(name, CounterHome::Table(table), rest)
        }
        _ => slot(name, arguments).map_or_else(
            || Subject::Unknown(format!("evenkeel cannot ask for `{fetch}` of a connection")),
            |home| above(name, home, rest),
        ),
    }
}

/// Where `sc0_conn_rate`, `sc0_conn_rate(table)` or `sc_conn_rate(0)` looks.
fn slot(name: &str, arguments: &str) -> Option<CounterHome> {
    if !name.ends_with("_conn_rate") && !name.ends_with("_conn_cur") {
        return None;
    }
    let prefix = name.strip_prefix("sc")?;
    let (number, _) = prefix.split_once('_')?;
    if number.is_empty() {
        return arguments.parse().ok().map(CounterHome::Slot);
    }
    let number = number.parse().ok()?;
    let is_own = arguments.is_empty();
    Some(if is_own {
        CounterHome::Slot(number)
    } else {
        CounterHome::Table(Some(arguments.to_owned()))
    })
}

fn above(name: &str, of: CounterHome, rest: &[String]) -> Subject {
    let counter = if name.ends_with("_conn_rate") {
        ClientCounter::ConnectionRate
    } else {
        ClientCounter::OpenConnections
    };
    let bound = |at: usize| rest.get(at).and_then(|word| word.parse::<u64>().ok());
    let allowed = match rest.first().map(String::as_str) {
        Some("gt") => bound(1),
        Some("ge") => bound(1).and_then(|number| number.checked_sub(1)),
        _ => None,
    };
    match allowed.filter(|allowed| *allowed > 0 && rest.len() == 2) {
        Some(allowed) => Subject::Above { counter, of, allowed },
        None => Subject::Unknown("only `gt N` and `ge N` become a limit".to_owned()),
    }
}

/// Patterns behind flags that change nothing here.
fn plain(words: &[String]) -> Result<Vec<String>, String> {
    let mut rest = words.iter().peekable();
    while let Some(word) = rest.next_if(|word| word.starts_with('-')) {
        match word.as_str() {
            "-i" | "-n" => {}
            "--" => break,
            "-m" => match rest.next().map(String::as_str) {
                Some("ip" | "str") => {}
                other => {
                    let method = other.unwrap_or_default();
                    return Err(format!("`-m {method}` has no counterpart"));
                }
            },
            "-f" => return Err("write the patterns of the file into the condition".to_owned()),
            other => return Err(format!("`{other}` has no counterpart")),
        }
    }
    Ok(rest.cloned().collect())
}

/// Server names as `sni` of a route has them.
fn server_names(words: &[String]) -> Subject {
    let method = words.iter().position(|word| word == "-m");
    let is_end = method.is_some_and(|at| words.get(at + 1).is_some_and(|word| word == "end"));
    let mut words = words.to_vec();
    if let Some(at) = method.filter(|_| is_end) {
        words.drain(at..at + 2);
    }
    let names = match plain(&words) {
        Ok(names) if names.is_empty() => return Subject::Unknown("it names no server".to_owned()),
        Ok(names) => names,
        Err(why) => return Subject::Unknown(why),
    };
    let mut found = Vec::new();
    for name in names {
        let name = name.to_ascii_lowercase();
        let (bare, pattern) = match name.strip_prefix('.') {
            Some(below) if is_end => (below, format!("*.{below}")),
            None if is_end => {
                let why = format!("end of name `{name}` without a dot in front: write `.{name}`");
                return Subject::Unknown(why);
            }
            _ => (name.as_str(), name.clone()),
        };
        if !is_server_name(bare) {
            return Subject::Unknown(format!("`{name}` is no server name"));
        }
        found.push(pattern);
    }
    Subject::Sni(found)
}
