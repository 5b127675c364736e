//! "Did you mean" for the words of other load balancers, which no distance of letters finds.

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
pub(super) fn value(key: &str, written: &str) -> Option<&'static str> {
    VALUES.iter().find(|(of, word, _)| *of == key && *word == written).map(|(_, _, ours)| *ours)
}

/// Our words for a key, the most likely first.
pub(super) fn key(written: &str) -> &'static [&'static str] {
    KEYS.iter().find(|(word, _)| *word == written).map_or(&[], |(_, ours)| *ours)
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::keys;

    /// Keys of ours, too, in another table than the one where others have them.
    const OURS_ELSEWHERE: &[&str] = &["port"];

    /// If it fails, somebody is sent to a key that does not exist, or away from one that does.
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
