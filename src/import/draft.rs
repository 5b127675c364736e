//! A configuration in the making: what both peers are translated to before it is written.

use super::endpoint::Endpoint;
use super::place::SourcePlace;

/// Keys of one table in the order in which they are written, with values as TOML has them.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct KeyLines(Vec<(&'static str, String)>);

impl KeyLines {
    /// Sets a key to a value that is TOML already.
    pub(super) fn set(&mut self, key: &'static str, value: impl ToString) {
        let value = value.to_string();
        match self.0.iter_mut().find(|(name, _)| *name == key) {
            Some((_, old)) => *old = value,
            None => self.0.push((key, value)),
        }
    }

    /// Sets a key to a text.
    pub(super) fn set_text(&mut self, key: &'static str, text: &str) {
        self.set(key, quoted(text));
    }

    /// Sets a key to a list of texts.
    pub(super) fn set_list<T: AsRef<str>>(&mut self, key: &'static str, texts: &[T]) {
        let texts: Vec<String> = texts.iter().map(|text| quoted(text.as_ref())).collect();
        self.set(key, format!("[{}]", texts.join(", ")));
    }

    pub(super) fn get(&self, key: &str) -> Option<&str> {
        self.0.iter().find(|(name, _)| *name == key).map(|(_, value)| value.as_str())
    }

    pub(super) fn iter(&self) -> impl Iterator<Item = (&'static str, &str)> {
        self.0.iter().map(|(key, value)| (*key, value.as_str()))
    }

    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// As an inline table.
    pub(super) fn inline(&self) -> String {
        let pairs: Vec<String> =
            self.iter().map(|(key, value)| format!("{key} = {value}")).collect();
        format!("{{ {} }}", pairs.join(", "))
    }
}

/// A text in the quotes of TOML.
pub(super) fn quoted(text: &str) -> String {
    toml::Value::from(text).to_string()
}

/// The whole of it.
#[derive(Debug, Clone, Default)]
pub(super) struct Draft {
    pub(super) global: KeyLines,
    pub(super) listeners: Vec<ListenerDraft>,
    pub(super) pools: Vec<PoolDraft>,
}

impl Draft {
    /// The name of a pool without backends, for clients that the peer would turn away.
    pub(super) fn refusing_pool(&mut self, listener: &str) -> String {
        let is_it = |pool: &&PoolDraft| pool.refuses.as_deref() == Some(listener);
        if let Some(pool) = self.pools.iter().find(is_it) {
            return pool.name.clone();
        }
        let taken = self.pools.iter().map(|pool| pool.name.as_str());
        let name = free_name(&format!("{listener}-refused"), taken);
        let refuses = Some(listener.to_owned());
        self.pools.push(PoolDraft { refuses, ..PoolDraft::named(&name) });
        name
    }

    /// Adds a listener: as two where only some of its addresses have a PROXY header. Names and
    /// addresses of the template are not looked at but for the name's beginning.
    pub(super) fn add_listener(
        &mut self,
        template: &ListenerDraft,
        binds: &[BindLine],
        from: &[String],
    ) {
        for takes_header in [false, true] {
            let is_chosen =
                |bind: &&BindLine| bind.takes_header == takes_header && !bind.binds.is_empty();
            let chosen: Vec<&BindLine> = binds.iter().filter(is_chosen).collect();
            if chosen.is_empty() {
                continue;
            }
            let mut listener = template.clone();
            for bind in &chosen {
                bind.keys.iter().for_each(|(key, value)| listener.keys.set(key, value));
                listener.binds.extend(bind.binds.iter().cloned());
            }
            if takes_header {
                let mut peers = from.to_vec();
                if listener.binds.iter().any(|bind| matches!(bind.endpoint, Endpoint::Unix(_))) {
                    peers.push("unix:".to_owned());
                }
                let mut accept = KeyLines::default();
                accept.set_list("from", &peers);
                listener.keys.set("accept_proxy", accept.inline());
            }
            let taken = self.listeners.iter().map(|listener| listener.name.as_str());
            listener.name = free_name(&template.name, taken);
            self.listeners.push(listener);
        }
    }

    pub(super) fn has_pool(&self, name: &str) -> bool {
        self.pools.iter().any(|pool| pool.name == name)
    }
}

/// `[listener.NAME]`.
#[derive(Debug, Clone)]
pub(super) struct ListenerDraft {
    pub(super) name: String,
    /// Where the peer's listener begins.
    pub(super) place: SourcePlace,
    pub(super) binds: Vec<BindDraft>,
    pub(super) pool: String,
    pub(super) keys: KeyLines,
    pub(super) peek: KeyLines,
    pub(super) routes: Vec<RouteDraft>,
    pub(super) limits: Vec<KeyLines>,
}

/// One address to accept on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BindDraft {
    pub(super) endpoint: Endpoint,
    pub(super) place: SourcePlace,
}

/// What one statement of a peer says of addresses.
#[derive(Debug, Clone, Default)]
pub(super) struct BindLine {
    pub(super) binds: Vec<BindDraft>,
    /// Whether peers begin with a PROXY header there.
    pub(super) takes_header: bool,
    /// Keys of the listener that it asks for.
    pub(super) keys: KeyLines,
}

/// `[[listener.NAME.route]]`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct RouteDraft {
    pub(super) keys: KeyLines,
    pub(super) pool: String,
}

/// `[pool.NAME]`.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct PoolDraft {
    pub(super) name: String,
    /// The listener whose clients it refuses, where that is all it is for.
    pub(super) refuses: Option<String>,
    pub(super) keys: KeyLines,
    pub(super) backends: Vec<BackendDraft>,
    /// Servers whose address is missing, for the operator to fill in.
    pub(super) missing: Vec<String>,
    pub(super) health: Option<KeyLines>,
    pub(super) outlier: Option<KeyLines>,
}

impl PoolDraft {
    pub(super) fn named(name: &str) -> Self {
        Self { name: name.to_owned(), ..Self::default() }
    }
}

/// An entry of `backends`.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct BackendDraft {
    pub(super) endpoint: Endpoint,
    pub(super) name: String,
    /// What it has beside address and name.
    pub(super) keys: KeyLines,
    pub(super) place: SourcePlace,
}

/// A name that listeners, pools and backends may have, made of any text.
pub(super) fn name_of(text: &str) -> String {
    const BYTES_MAX: usize = 100;
    let mut name = String::new();
    for letter in text.chars() {
        let is_odd = letter.is_whitespace() || letter.is_control() || letter == '/';
        let letter = if is_odd { '-' } else { letter };
        if name.len() + letter.len_utf8() > BYTES_MAX {
            break;
        }
        name.push(letter);
    }
    if name.is_empty() { "unnamed".to_owned() } else { name }
}

/// A name that none of these has: the text, or the text and a number.
pub(super) fn free_name<'a>(text: &str, taken: impl Iterator<Item = &'a str> + Clone) -> String {
    let wanted = name_of(text);
    let is_free = |name: &str| taken.clone().all(|other| other != name);
    if is_free(&wanted) {
        return wanted;
    }
    // One of more numbers than there are names is free.
    let numbers = 2..taken.clone().count() + 3;
    let mut names = numbers.map(|number| format!("{wanted}-{number}"));
    names.find(|name| is_free(name)).unwrap_or(wanted)
}
