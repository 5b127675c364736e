//! "Did you mean": the known word closest to what was written, or our word for one of other load
//! balancers, which no distance of letters finds.
//!
//! Distance is optimal string alignment: insert, remove, replace or swap two neighbours. A word
//! that shares too little with what was written is not proposed.

use strsim::osa_distance;

/// Longest text that is compared; what is longer is no slip of the fingers.
const LENGTH_MAX: usize = 64;

/// The closest of `known` to `written`, if it is close enough to be what was meant.
pub(super) fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_lowercase();
    if written.is_empty() || written.chars().count() > LENGTH_MAX {
        return None;
    }
    let slack = (written.chars().count() / 3).clamp(1, 4);
    known
        .map(|word| (osa_distance(&written, &word.to_lowercase()), word))
        .filter(|(steps, word)| *steps <= slack && *steps < word.chars().count())
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, word)| word)
}

/// Words that stand as a value: the key, the word, what it is called here.
const VALUES: &[(&str, &str, &str)] = &[
    ("balance", "leastconn", "least-connections"),
    ("balance", "least_conn", "least-connections"),
    ("balance", "source", "maglev"),
    ("balance", "hash", "maglev"),
    ("balance", "roundrobin", "round-robin"),
    ("balance", "static-rr", "round-robin"),
];

/// Keys with what they are called here, in one table or another.
const KEYS: &[(&str, &[&str])] = &[
    ("server", &["backends", "address"]),
    ("servers", &["backends"]),
    ("upstream", &["pool", "backends"]),
    ("listen", &["bind"]),
    ("port", &["bind", "address"]),
    ("timeout_connect", &["connect_timeout"]),
    ("maxconn", &["max_sessions"]),
    ("check", &["health"]),
    ("inter", &["interval"]),
];

/// Our word for a value of `key`.
pub(super) fn foreign_value(key: &str, written: &str) -> Option<&'static str> {
    VALUES.iter().find(|(of, word, _)| *of == key && *word == written).map(|(_, _, ours)| *ours)
}

/// Our words for a key, the most likely first.
pub(super) fn foreign_key(written: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(word, _)| *word == written).map_or(&[], |(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    /// Without it a slip of the fingers gets no proposal.
    #[test]
    fn slips_find_their_word() {
        let known = ["idle_timeout", "bind", "pool", "keepalive"];
        let find = |written| nearest(written, known.iter().copied());
        assert_eq!(find("idle_timout"), Some("idle_timeout"));
        assert_eq!(find("idle-timeout"), Some("idle_timeout"));
        assert_eq!(find("bnid"), Some("bind"));
        assert_eq!(find("POOL"), Some("pool"));
        assert_eq!(find("pools"), Some("pool"));
    }

    /// Without it any word gets a proposal, however absurd.
    #[test]
    fn strangers_find_nothing() {
        let known = ["idle_timeout", "bind", "pool"];
        assert_eq!(nearest("certificate", known.iter().copied()), None);
        assert_eq!(nearest("", known.iter().copied()), None);
        assert_eq!(nearest(&"x".repeat(1000), known.iter().copied()), None);
    }

    /// Keys of ours, too, in another table than the one where others have them.
    const OURS_ELSEWHERE: &[&str] = &["port"];

    /// If it fails, an operator is sent to a key that does not exist, or away from one that does.
    #[test]
    fn proposals_are_keys_and_foreign_words_are_not() {
        for (word, ours) in KEYS {
            let is_ours = keys::tables_with(word).next().is_some();
            assert_eq!(is_ours, OURS_ELSEWHERE.contains(word), "{word}");
            assert!(ours.iter().all(|key| keys::tables_with(key).next().is_some()), "{ours:?}");
        }
        assert!(VALUES.iter().all(|(key, _, _)| keys::tables_with(key).next().is_some()));
    }
}
