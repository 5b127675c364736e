//! The table of keys as a JSON schema (draft 2020-12), for editors and for what programs write.
//!
//! It knows names, types, words and the bounds of numbers. What takes more than one value to judge,
//! what a host has, and bounds of durations, stay with `evenkeel check`.

use serde_json::{Map, Value, json};

use super::backend::BACKEND;
use super::key::{Default, Key, KeyTable, Shape, Values};
use super::keys::{self, DEFAULTS, FILE};
use super::route::ROUTE;

/// Patterns of strings that carry a unit: what [`super::units`] reads.
const DURATION: &str = r"^\s*([0-9]+(\.[0-9]+)?\s*(d|h|min|m|s|ms|us|µs|μs)\s*)+$";
const RATE: &str = r"^\s*[0-9]+\s*/\s*(s|min|h|d)\s*$";
const PERCENT: &str = r"^\s*[0-9]+\s*%\s*$";
const SIZE: &str = r"^\s*[0-9]+\s*(B|KiB|MiB|GiB)\s*$";
const BANDWIDTH: &str = r"^\s*[0-9]+\s*(B|KiB|MiB|GiB)\s*/s$";

/// The schema of a configuration file.
#[must_use]
pub fn schema() -> Value {
    let tables = keys::tables().into_iter().chain([&DEFAULTS]);
    let definitions: Map<String, Value> =
        tables.map(|table| (table.name.to_owned(), of_table(table))).collect();
    let properties: Map<String, Value> =
        FILE.keys.iter().map(|key| (key.name.to_owned(), of_shape(key.shape))).collect();
    json!({
        "$schema": "https://json-schema.org/draft/2020-12/schema",
        "title": "evenkeel",
        "description": "Configuration of evenkeel, a Layer-4 TCP load balancer.",
        "type": "object",
        "properties": properties,
        "required": ["listener"],
        "additionalProperties": false,
        "$defs": definitions,
    })
}

fn reference(table: &KeyTable) -> Value {
    json!({ "$ref": format!("#/$defs/{}", table.name) })
}

fn of_table(table: &KeyTable) -> Value {
    let properties: Map<String, Value> =
        table.keys().map(|key| (key.name.to_owned(), of_key(key, table))).collect();
    let mut schema = json!({
        "type": "object",
        "title": table.to_string(),
        "properties": properties,
        "additionalProperties": false,
    });
    // Elsewhere `[defaults]` may have what is required.
    if table.is(&ROUTE) || table.is(&BACKEND) {
        let required = table.keys().filter(|key| key.default == Default::Required);
        schema["required"] = required.map(|key| key.name).collect();
    }
    schema
}

fn of_key(key: &Key, inside: &KeyTable) -> Value {
    let mut schema = of_shape(key.shape);
    // There is nothing to take back in [defaults] itself.
    if key.can_be_off() && !inside.is(&DEFAULTS) {
        schema = json!({ "anyOf": [{ "const": false }, schema] });
    }
    schema["description"] = describe(key).into();
    if let Some(text) = key.default_text() {
        schema["default"] =
            if key.is_quoted(text) { text.into() } else { text.parse().unwrap_or(Value::Null) };
    }
    schema
}

fn of_shape(shape: Shape) -> Value {
    let integer = |from, to| json!({ "type": "integer", "minimum": from, "maximum": to });
    let pattern = |pattern: &str| json!({ "type": "string", "pattern": pattern });
    match shape {
        Shape::Boolean => json!({ "type": "boolean" }),
        Shape::Count(from, to) => integer(from, to),
        Shape::AutoOrCount(from, to) => {
            json!({ "anyOf": [{ "const": "auto" }, integer(from, to)] })
        }
        Shape::Factor(from, to) => {
            let [from, to] = [from, to].map(|bound| f64::from(bound) / 1_000.0);
            json!({ "type": "number", "minimum": from, "maximum": to })
        }
        Shape::Duration(..) | Shape::WholeSeconds(..) => pattern(DURATION),
        Shape::Rate => pattern(RATE),
        Shape::Percent => pattern(PERCENT),
        Shape::PercentOr(word) => json!({ "anyOf": [{ "const": word }, pattern(PERCENT)] }),
        Shape::Size(..) => pattern(SIZE),
        Shape::Bandwidth(..) => pattern(BANDWIDTH),
        Shape::Word(words) => json!({ "enum": words() }),
        Shape::WordWith(words, argument) => {
            let forms = words().into_iter().map(|word| match word.strip_suffix(' ') {
                Some(word) => pattern(&format!("^{word} {}", argument.pattern())),
                None => json!({ "const": word }),
            });
            json!({ "anyOf": forms.collect::<Vec<_>>() })
        }
        Shape::Text(_) | Shape::TextOf(..) => json!({ "type": "string" }),
        Shape::List(_) | Shape::ListUpTo(..) | Shape::ListOf(..) => {
            json!({ "type": "array", "items": { "type": "string" } })
        }
        Shape::Numbers(_, from, to) => json!({ "type": "array", "items": integer(from, to) }),
        Shape::StringsOrTables(table, _) => {
            let entry = json!({ "anyOf": [{ "type": "string" }, reference(table)] });
            json!({ "type": "array", "items": entry })
        }
        Shape::Table(table) | Shape::TableOrFalse(table) => reference(table),
        Shape::Named(table) => {
            json!({ "type": "object", "additionalProperties": reference(table) })
        }
        Shape::TableOrTables(table) => {
            let list = json!({ "type": "array", "items": reference(table), "minItems": 1 });
            json!({ "anyOf": [reference(table), list] })
        }
        Shape::Tables(table) => json!({ "type": "array", "items": reference(table) }),
    }
}

/// What an editor shows beside the key: its meaning, and beside what it counts.
fn describe(key: &Key) -> String {
    let mut text = without_links(key.meaning);
    for companion in key.companions {
        let other = companion.key;
        let beside = match companion.values {
            Values::Among(words) => format!("beside `{other}` = {}", words.join(", ")),
            Values::Except(words) => format!("beside `{other}` other than {}", words.join(", ")),
            Values::Any => format!("beside `{other}`"),
        };
        let or = companion.or_beside.map(|key| format!(", or beside `{key}`")).unwrap_or_default();
        text.push_str(&format!(" Counts only {beside}{or}."));
    }
    text.push_str(&format!(" Reload: {}.", key.reload));
    text
}

/// Markdown with only the words of its links.
fn without_links(text: &str) -> String {
    let mut out = String::new();
    let mut rest = text;
    while let Some((before, link)) = rest.split_once('[') {
        let Some((words, after)) = link.split_once("](") else { break };
        let Some((_, after)) = after.split_once(')') else { break };
        out.push_str(before);
        out.push_str(words);
        rest = after;
    }
    out.push_str(rest);
    out
}
