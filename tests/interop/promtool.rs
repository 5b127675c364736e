//! promtool, and what it is given: samples that Prometheus would have from scrapes of evenkeel.

use std::collections::{BTreeMap, BTreeSet};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::{SystemTime, UNIX_EPOCH};

use serde_json::{Value, json};

use crate::exposition;
use crate::program::{program, text_of};
use crate::support::Proxy;

/// Longer than the longest `for` of a rule, in minutes, which is how far the samples are apart.
const MINUTES: u32 = 90;

/// What the second scrape is followed by.
#[derive(Clone, Copy)]
pub(crate) enum Then {
    /// Nothing more is counted.
    Rest,
    /// What was counted between the two scrapes is counted again and again.
    GoOn,
}

/// The alert rules that are shipped.
pub(crate) fn rules() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("configs/prometheus/evenkeel.rules.yml")
}

/// One scrape as Prometheus stores it.
#[derive(Debug, Default)]
pub(crate) struct Scrape(BTreeMap<String, Sample>);

#[derive(Debug)]
struct Sample {
    value: f64,
    counts: bool,
}

impl Scrape {
    /// Scrapes a process.
    pub(crate) fn of(proxy: &Proxy) -> Self {
        let mut scrape = Self::default();
        scrape.0.insert(with_target("up"), Sample { value: 1.0, counts: false });
        for (name, family) in exposition::read(&proxy.ask("GET", "/metrics", "").body) {
            for (series, value) in family.samples {
                // The clock of promtool's samples begins at 0.
                let is_time = name.ends_with("timestamp_seconds") || name.contains("start_time");
                let value = if is_time { value - now() } else { value };
                let counts = family.kind != "gauge" && family.kind != "info";
                scrape.0.insert(with_target(&series), Sample { value, counts });
            }
        }
        scrape
    }

    /// What Prometheus stores when a process does not answer.
    pub(crate) fn of_nothing() -> Self {
        Self(BTreeMap::from([(with_target("up"), Sample { value: 0.0, counts: false })]))
    }

    fn after(&self, before: &Self, then: Then) -> Value {
        let names: BTreeSet<&String> = self.0.keys().chain(before.0.keys()).collect();
        let values = |name: &String| match (before.0.get(name), self.0.get(name)) {
            (Some(first), None) => first.value.to_string(),
            (None, Some(last)) => format!("_ {}+0x{MINUTES}", last.value),
            (Some(first), Some(last)) => {
                let goes_on = last.counts && matches!(then, Then::GoOn);
                let step = if goes_on { last.value - first.value } else { 0.0 };
                format!("{} {}+{step}x{MINUTES}", first.value, last.value)
            }
            (None, None) => unreachable!("the name is of one of them"),
        };
        names.iter().map(|name| json!({ "series": name, "values": values(name) })).collect()
    }
}

#[allow(clippy::cast_precision_loss, reason = "seconds fit")]
fn now() -> f64 {
    SystemTime::now().duration_since(UNIX_EPOCH).unwrap().as_secs() as f64
}

/// A series with the labels that Prometheus gives it.
fn with_target(series: &str) -> String {
    let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
    let comma = if labels == "}" { "" } else { "," };
    format!("{name}{{instance=\"lb1:9900\",job=\"evenkeel\"{comma}{labels}")
}

/// An expression, and the series that it has to give.
pub(crate) struct Question {
    pub(crate) expression: String,
    pub(crate) answer: Vec<(String, f64)>,
}

/// Asserts what expressions give at the end of the samples, when the rules have been evaluated on
/// all of them.
#[track_caller]
pub(crate) fn assert_answers(scrapes: [&Scrape; 2], then: Then, questions: &[Question]) {
    let end = format!("{MINUTES}m");
    let asked = questions.iter().map(|question| {
        let answer = question.answer.iter();
        let answer: Value =
            answer.map(|(labels, value)| json!({ "labels": labels, "value": value })).collect();
        json!({ "expr": question.expression, "eval_time": end, "exp_samples": answer })
    });
    let [before, after] = scrapes;
    let test = json!({
        "interval": "1m",
        "input_series": after.after(before, then),
        "promql_expr_test": asked.collect::<Value>(),
    });
    let file = json!({ "rule_files": [rules()], "evaluation_interval": "1m", "tests": [test] });
    let directory = tempfile::tempdir().unwrap();
    let path = directory.path().join("test.yml");
    // JSON is YAML.
    std::fs::write(&path, file.to_string()).unwrap();
    text_of(Command::new(program("promtool")).args(["test", "rules"]).arg(path));
}

/// Asserts that these alerts fire, each with the labels that its annotations speak of, and no
/// others.
#[track_caller]
pub(crate) fn assert_fire(scrapes: [&Scrape; 2], then: Then, alerts: &[&str]) {
    let text = std::fs::read_to_string(rules()).unwrap();
    let of = |alert: &str| format!("{{alertname=\"{alert}\"}}");
    let all = Question {
        expression: "group by (alertname) (ALERTS{alertstate=\"firing\"})".to_owned(),
        answer: alerts.iter().map(|alert| (of(alert), 1.0)).collect(),
    };
    let explained = alerts.iter().map(|alert| {
        let named = labels_of(&text, alert);
        let named: Vec<String> = named.iter().map(|label| format!("{label}!=\"\"")).collect();
        let named = named.join(",");
        let firing = format!("ALERTS{{alertname=\"{alert}\",alertstate=\"firing\",{named}}}");
        Question {
            expression: format!("group by (alertname) ({firing})"),
            answer: vec![(of(alert), 1.0)],
        }
    });
    let questions: Vec<Question> = std::iter::once(all).chain(explained).collect();
    assert_answers(scrapes, then, &questions);
}

/// The names of all alerts.
pub(crate) fn alerts(rules: &str) -> BTreeSet<&str> {
    rules.lines().filter_map(|line| line.trim_start().strip_prefix("- alert: ")).collect()
}

/// The labels that the annotations of an alert speak of.
fn labels_of<'a>(rules: &'a str, alert: &str) -> BTreeSet<&'a str> {
    let (_, rule) = rules.split_once(&format!("- alert: {alert}\n")).unwrap();
    let rule = rule.split("- alert: ").next().unwrap();
    let named = rule.split("$labels.").skip(1);
    named.filter_map(|rest| rest.split(|letter: char| !letter.is_alphanumeric()).next()).collect()
}
