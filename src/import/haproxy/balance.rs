//! `balance` and `hash-type` of HAProxy.

use crate::import::draft::KeyLines;
use crate::import::notes::Notes;

use super::sections::ConfigLine;

/// The keys of a pool that balance as the line says, or take turns.
pub(super) fn balance(line: &ConfigLine, notes: &mut Notes) -> KeyLines {
    let mut keys = KeyLines::default();
    let word = line.word(1);
    let (name, argument) = word.split_once('(').unwrap_or((word, ""));
    let argument = argument.trim_end_matches(')');
    let hashed = |keys: &mut KeyLines, what: Option<&str>, notes: &mut Notes| {
        keys.set_text("balance", "maglev");
        if let Some(what) = what {
            keys.set_text("hash_key", what);
        }
        notes.differs(
            line,
            "the hash is another: each client keeps one backend, but not the one that HAProxy gave \
             it, and few move when backends change",
        );
    };
    match name {
        "roundrobin" | "static-rr" => keys.set_text("balance", "round-robin"),
        "leastconn" => keys.set_text("balance", "least-connections"),
        "first" => keys.set_text("balance", "first"),
        "random" if argument == "1" => keys.set_text("balance", "random"),
        "random" => {
            keys.set_text("balance", "random-two");
            if !matches!(argument, "" | "2") {
                notes.differs(line, "evenkeel draws two backends");
            }
        }
        "source" => hashed(&mut keys, None, notes),
        "hash" if line.word(2) == "src" => hashed(&mut keys, None, notes),
        "hash" if line.word(2).starts_with("req.ssl_sni") => hashed(&mut keys, Some("sni"), notes),
        "rdp-cookie" if matches!(argument, "" | "mstshash") => {
            hashed(&mut keys, Some("rdp-cookie"), notes);
        }
        "hdr" if is_token(argument) => {
            hashed(&mut keys, Some(&format!("http-header {argument}")), notes);
            notes.differs(line, "the first request of a connection counts for all of them");
        }
        _ => {
            keys.set_text("balance", "round-robin");
            notes.lost(line, "evenkeel cannot balance by that: it takes turns instead");
        }
    }
    keys
}

fn is_token(name: &str) -> bool {
    let is_plain = |letter: char| letter.is_ascii_alphanumeric() || "-_".contains(letter);
    !name.is_empty() && name.len() <= 64 && name.chars().all(is_plain)
}

/// `hash-type`: Maglev is one of its own, which `balance` says.
pub(super) fn hash_type(line: &ConfigLine, notes: &mut Notes) {
    let factor = line.words.iter().position(|word| word == "hash-balance-factor");
    if factor.is_some() {
        notes.lost(line, "`load_factor` of the pool is the bound of the load");
    } else if line.word(1) != "consistent" {
        notes.differs(line, "evenkeel's hash is always consistent: few clients move on a change");
    }
}
