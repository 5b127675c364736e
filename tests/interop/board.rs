//! The Grafana board that is shipped: Grafana can import it, and every query of it gives something.

use std::collections::BTreeSet;
use std::io::{Read, Write};

use serde_json::Value;

use crate::promtool::{Question, Scrape, Then, assert_answers};
use crate::support::{Backend, PATIENCE, Setup, connect, eventually};

/// Every object of a board that has a key.
fn objects_with<'a>(value: &'a Value, key: &str, found: &mut Vec<&'a Value>) {
    match value {
        Value::Object(object) => {
            found.extend(object.contains_key(key).then_some(value));
            object.values().for_each(|value| objects_with(value, key, found));
        }
        Value::Array(values) => values.iter().for_each(|value| objects_with(value, key, found)),
        _ => {}
    }
}

fn board() -> Value {
    serde_json::from_str(include_str!("../../configs/grafana/evenkeel.json")).unwrap()
}

/// If it fails, Grafana refuses the board, overwrites another, or asks a source that is not there.
#[test]
fn grafana_can_import_the_board() {
    let board = board();
    assert_eq!((board["uid"].as_str(), board.get("id")), (Some("evenkeel"), None));
    assert!(board["schemaVersion"].as_u64() > Some(30));
    let variables = board["templating"]["list"].as_array().unwrap();
    let names: BTreeSet<&str> =
        variables.iter().map(|variable| variable["name"].as_str().unwrap()).collect();
    assert_eq!(names, BTreeSet::from(["datasource", "instance", "listener", "pool"]));
    let panels = board["panels"].as_array().unwrap();
    let ids: BTreeSet<u64> = panels.iter().map(|panel| panel["id"].as_u64().unwrap()).collect();
    assert_eq!(ids.len(), panels.len(), "two panels have one id");
    let mut sources = Vec::new();
    objects_with(&board, "datasource", &mut sources);
    assert!(sources.iter().all(|object| object["datasource"]["uid"] == "${datasource}"));
    let mut placed: Vec<[u64; 4]> = Vec::new();
    for panel in panels {
        let [x, y, w, h] = ["x", "y", "w", "h"].map(|key| panel["gridPos"][key].as_u64().unwrap());
        let is_apart = |[left, top, width, height]: &[u64; 4]| {
            x + w <= *left || left + width <= x || y + h <= *top || top + height <= y
        };
        assert!(x + w <= 24 && placed.iter().all(is_apart), "{}", panel["title"]);
        placed.push([x, y, w, h]);
    }
}

/// If it fails, a panel stays empty whatever happens.
#[test]
fn every_query_of_the_board_gives_something() {
    let backend = Backend::echo();
    let proxy = Setup::of(&[&backend])
        .listener("max_sessions = 10")
        .limit("rate = \"1000/s\"")
        .pool("queue = { max = 10, timeout = \"1s\" }")
        .also("[pool.back.health]\nprobe = \"tcp\"\ninterval = \"20ms\"")
        .start();
    let before = Scrape::of(&proxy);
    let mut client = connect(proxy.address());
    client.write_all(b"x").and_then(|()| client.read_exact(&mut [0])).unwrap();
    let passed = || proxy.metric("evenkeel_backend_probes_total", &[("result", "pass")]);
    eventually("probes pass", PATIENCE, || (passed() > 2.5).then_some(()));
    let board = board();
    let mut targets = Vec::new();
    objects_with(&board, "expr", &mut targets);
    assert!(targets.len() > 25, "{}", targets.len());
    let questions: Vec<Question> = targets
        .iter()
        .map(|target| {
            let expression = target["expr"].as_str().unwrap();
            let expression = ["$instance", "$listener", "$pool"]
                .iter()
                .fold(expression.to_owned(), |text, variable| text.replace(variable, ".*"));
            let expression = expression
                .replace("$__rate_interval", "5m")
                .replace("$__range", "1h")
                // Of an annotation, which marks the moments at which this is true.
                .replace("[1m]) > 0", "[5m]) >= 0");
            assert!(!expression.contains('$'), "{expression}");
            Question {
                expression: format!("group({expression})"),
                answer: vec![("{}".to_owned(), 1.0)],
            }
        })
        .collect();
    assert_answers([&before, &Scrape::of(&proxy)], Then::GoOn, &questions);
}
