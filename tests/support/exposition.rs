//! A strict reader of the OpenMetrics text format: it accepts nothing that a scraper might refuse.

#![allow(
    clippy::unwrap_used,
    clippy::expect_used,
    clippy::panic,
    reason = "a test that cannot go on fails"
)]

use std::collections::{BTreeMap, BTreeSet};

/// One family of metrics.
#[derive(Debug, Default)]
pub(crate) struct Family {
    pub(crate) kind: String,
    /// Name with suffix and labels in order, to value.
    pub(crate) samples: BTreeMap<String, f64>,
}

/// Reads a whole exposition; panics with the offending line.
pub(crate) fn read(text: &str) -> BTreeMap<String, Family> {
    let body = text.strip_suffix("# EOF\n").expect("it does not end in # EOF");
    let mut families: BTreeMap<String, Family> = BTreeMap::new();
    let mut current = String::new();
    for line in body.lines() {
        if let Some(help) = line.strip_prefix("# HELP ") {
            let (name, text) = help.split_once(' ').expect(line);
            assert!(!text.is_empty(), "no help: {line}");
            assert!(families.insert(name.to_owned(), Family::default()).is_none(), "twice: {line}");
            current = name.to_owned();
        } else if let Some(kind) = line.strip_prefix("# TYPE ") {
            let (name, kind) = kind.split_once(' ').expect(line);
            assert_eq!(name, current, "TYPE does not follow its HELP: {line}");
            families.get_mut(name).unwrap().kind = kind.to_owned();
        } else {
            let family = families.get_mut(&current).expect("a sample before any family");
            let (series, value) = sample(line);
            check_suffix(&current, &family.kind, &series);
            assert!(family.samples.insert(series, value).is_none(), "twice: {line}");
        }
    }
    families.values().for_each(check_histogram);
    families
}

fn sample(line: &str) -> (String, f64) {
    let (series, value) = line.rsplit_once(' ').expect(line);
    let value = value.parse::<f64>().expect(line);
    let name = series.split('{').next().unwrap();
    let is_word = |text: &str| {
        text.chars().all(|c| c.is_ascii_alphanumeric() || c == '_')
            && !text.starts_with(|c: char| c.is_ascii_digit())
            && !text.is_empty()
    };
    assert!(is_word(name), "bad name: {line}");
    let mut labels = BTreeSet::new();
    let mut rest = match series.strip_prefix(name).unwrap() {
        "" => return (series.to_owned(), value),
        braced => braced.strip_prefix('{').and_then(|b| b.strip_suffix('}')).expect(line),
    };
    while !rest.is_empty() {
        let (label, after) = rest.split_once("=\"").expect(line);
        assert!(is_word(label) && labels.insert(label.to_owned()), "bad label: {line}");
        let end = end_of_value(after).expect(line);
        rest = &after[end + 1..];
        rest = rest.strip_prefix(',').unwrap_or_else(|| {
            assert!(rest.is_empty(), "no comma between labels: {line}");
            rest
        });
    }
    (series.to_owned(), value)
}

/// Where a quoted value ends: at a quote that no backslash stands before.
fn end_of_value(text: &str) -> Option<usize> {
    let mut escaped = false;
    text.char_indices().find_map(|(index, letter)| {
        let ends = letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        ends.then_some(index)
    })
}

fn check_suffix(family: &str, kind: &str, series: &str) {
    let name = series.split('{').next().unwrap();
    let suffix = name.strip_prefix(family).unwrap_or_else(|| panic!("{name} is not of {family}"));
    let allowed: &[&str] = match kind {
        "counter" => &["_total"],
        "gauge" => &[""],
        "info" => &["_info"],
        "histogram" => &["_bucket", "_sum", "_count"],
        other => panic!("unknown type {other} of {family}"),
    };
    assert!(allowed.contains(&suffix), "{name} cannot be of type {kind}");
    assert!(!family.ends_with("_total"), "{family} would be {family}_total");
}

/// Buckets grow, and the last one holds everything.
fn check_histogram(family: &Family) {
    if family.kind != "histogram" {
        return;
    }
    let counts = family.samples.iter().filter(|(series, _)| series.contains("_count{"));
    for (series, count) in counts {
        let labels = series.split_once('{').unwrap().1;
        let mut buckets: Vec<(f64, f64)> = family
            .samples
            .iter()
            .filter(|(series, _)| series.contains("_bucket{") && series.ends_with(labels))
            .map(|(series, value)| (bound(series), *value))
            .collect();
        buckets.sort_by(|a, b| a.0.total_cmp(&b.0));
        assert!(buckets.windows(2).all(|pair| pair[0].1 <= pair[1].1), "{series}: {buckets:?}");
        assert_eq!(buckets.last(), Some(&(f64::INFINITY, *count)), "{series}");
    }
}

fn bound(series: &str) -> f64 {
    let text = series.split("le=\"").nth(1).unwrap().split('"').next().unwrap();
    if text == "+Inf" { f64::INFINITY } else { text.parse().unwrap() }
}
