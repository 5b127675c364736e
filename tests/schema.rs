//! The JSON schema of the configuration file: what it admits, and what it refuses.
//!
//! Files are validated by a validator of its own that knows the words the schema uses, so that it
//! takes part in no agreement with what makes the schema; an unknown word fails.

#![allow(
    clippy::unwrap_used,
    clippy::panic,
    reason = "a helper that fails a test is part of the test"
)]

use std::fs;
use std::path::{Path, PathBuf};

use evenkeel::config::{self, keys};
use regex::Regex;
use serde_json::{Value, json};

/// The `.toml` files of a directory of the repository.
fn files(directory: &str) -> Vec<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).join(directory);
    let entries = fs::read_dir(directory).unwrap();
    let mut files: Vec<PathBuf> = entries.map(|entry| entry.unwrap().path()).collect();
    files.retain(|file| file.extension().is_some_and(|extension| extension == "toml"));
    files.sort();
    assert!(!files.is_empty());
    files
}

/// A file as JSON; `None` if it is no TOML.
fn document(file: &Path) -> Option<Value> {
    toml::from_str(&fs::read_to_string(file).unwrap()).ok()
}

/// What of `value` a schema does not admit, each with its place; `root` is where references lead.
fn violations(schema: &Value, root: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (word, rule) in schema.as_object().unwrap() {
        let is_kept = match word.as_str() {
            "$schema" | "$defs" | "title" | "description" | "default" => true,
            "$ref" => {
                let pointer = rule.as_str().unwrap().strip_prefix('#').unwrap();
                found.extend(violations(root.pointer(pointer).unwrap(), root, value, place));
                true
            }
            "type" => has_type(value, rule.as_str().unwrap()),
            "const" => value == rule,
            "enum" => rule.as_array().unwrap().contains(value),
            "anyOf" => {
                let mut all = rule.as_array().unwrap().iter();
                all.any(|schema| violations(schema, root, value, place).is_empty())
            }
            "pattern" => {
                let pattern = Regex::new(rule.as_str().unwrap()).unwrap();
                value.as_str().is_none_or(|text| pattern.is_match(text))
            }
            "minimum" => value.as_f64().is_none_or(|number| number >= rule.as_f64().unwrap()),
            "maximum" => value.as_f64().is_none_or(|number| number <= rule.as_f64().unwrap()),
            "minItems" => {
                value.as_array().is_none_or(|list| list.len() as u64 >= rule.as_u64().unwrap())
            }
            "items" => {
                for (index, item) in value.as_array().into_iter().flatten().enumerate() {
                    found.extend(violations(rule, root, item, &format!("{place}[{index}]")));
                }
                true
            }
            "required" => value.as_object().is_none_or(|table| {
                rule.as_array()
                    .unwrap()
                    .iter()
                    .all(|name| table.contains_key(name.as_str().unwrap()))
            }),
            "properties" | "additionalProperties" => {
                found.extend(of_table(schema, word, root, value, place));
                true
            }
            word => panic!("no rule for {word}"),
        };
        if !is_kept {
            found.push(format!("{place}: {word} {rule}"));
        }
    }
    found
}

fn of_table(schema: &Value, word: &str, root: &Value, value: &Value, place: &str) -> Vec<String> {
    let mut found = Vec::new();
    for (name, value) in value.as_object().into_iter().flatten() {
        let place = format!("{place}.{name}");
        let known = schema.get("properties").and_then(|known| known.get(name));
        match (word, known, &schema[word]) {
            ("properties", Some(known), _) => found.extend(violations(known, root, value, &place)),
            ("additionalProperties", None, Value::Bool(false)) => found.push(place),
            ("additionalProperties", None, other) => {
                found.extend(violations(other, root, value, &place));
            }
            _ => {}
        }
    }
    found
}

fn has_type(value: &Value, name: &str) -> bool {
    match name {
        "object" => value.is_object(),
        "array" => value.is_array(),
        "string" => value.is_string(),
        "boolean" => value.is_boolean(),
        "integer" => value.is_i64() || value.is_u64(),
        "number" => value.is_number(),
        name => panic!("no type {name}"),
    }
}

fn wrong(file: &Path) -> Option<Vec<String>> {
    let schema = config::schema();
    Some(violations(&schema, &schema, &document(file)?, ""))
}

/// If it fails, an editor marks a good file as wrong.
#[test]
fn it_admits_every_good_file() {
    for file in files("configs").into_iter().chain(files("tests/config/valid")) {
        let wrong = wrong(&file).unwrap();
        assert!(wrong.is_empty(), "{}: {wrong:?}", file.display());
    }
}

/// If it fails, an editor is silent about a slip that `check` refuses for its type or its name.
#[test]
fn it_refuses_wrong_types_and_unknown_keys() {
    let mut refused = 0;
    for file in files("tests/config/invalid") {
        let text = fs::read_to_string(&file).unwrap();
        let problems = config::parse(&text, &file).problems;
        let is_plain = problems.iter().any(|problem| {
            let types = ["a string", "an integer", "a boolean", "a float", "an array", "a table"];
            let is_of_type =
                types.iter().any(|name| problem.message.ends_with(&format!(" cannot be {name}")));
            // An integer is a number of JSON, wherever a float is.
            let is_of_type = is_of_type && !problem.key.ends_with("load_factor");
            let begins = ["unknown key", "unknown table"];
            let ends = ["has no unit", "must be a table", "is outside of any table"];
            is_of_type
                || begins.iter().any(|words| problem.message.starts_with(words))
                || ends.iter().any(|words| problem.message.ends_with(words))
        });
        if let (true, Some(wrong)) = (is_plain, wrong(&file)) {
            assert!(!wrong.is_empty(), "{}", file.display());
            refused += 1;
        }
    }
    assert!(refused >= 20, "only {refused} files");
}

/// If it fails, an editor proposes a value that is refused, or shows a key without a word on it.
#[test]
fn every_key_has_a_description_and_a_default_that_it_admits() {
    let schema = config::schema();
    for (table, key) in keys::all() {
        let of_key = &schema["$defs"][table.name]["properties"][key.name];
        assert!(of_key["description"].as_str().unwrap().len() > 10, "{} {of_key}", key.name);
        let Some(default) = of_key.get("default") else { continue };
        let wrong = violations(of_key, &schema, default, key.name);
        assert!(wrong.is_empty(), "{wrong:?}");
    }
}

/// If it fails, the validator of this test admits anything.
#[test]
fn the_validator_sees_what_is_wrong() {
    let schema = config::schema();
    let with = |value: Value| json!({ "listener": { "a": value } });
    let sees = |value: Value| !violations(&schema, &schema, &value, "").is_empty();
    assert!(!sees(with(json!({ "bind": ["127.0.0.1:1"], "backlog": 1, "limit": false }))));
    for wrong in [
        json!({ "bnid": [] }),
        json!({ "bind": "127.0.0.1:1" }),
        json!({ "bind": [1] }),
        json!({ "backlog": 0 }),
        json!({ "backlog": 65_536 }),
        json!({ "backlog": "1" }),
        json!({ "idle_timeout": 5 }),
        json!({ "idle_timeout": "5" }),
        json!({ "limit": true }),
        json!({ "limit": { "rate": "1/m" } }),
        json!({ "protocol": "htpp" }),
        json!({ "route": [{ "sni": ["a"] }] }),
    ] {
        assert!(sees(with(wrong.clone())), "{wrong}");
    }
    assert!(sees(json!({})) && sees(json!({ "listener": {}, "poool": {} })));
    let balance = |value: &str| json!({ "listener": {}, "pool": { "p": { "hash_key": value } } });
    assert!(!sees(balance("http-header X-User")) && sees(balance("http-header ")));
}
