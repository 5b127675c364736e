//! `steps` of `health`: what a probe sends, and what it waits for, in turn.

use crate::policy::health::probe_step::ProbeStep;

use super::file::{Field, Section, Value};
use super::key::{Key, KeyTable, Shape};
use super::payload::{PAYLOAD_MAX, escaped, expectation, payload};
use super::report::{Finding, Report};
use super::scalar;

/// Most steps of one probe.
const STEPS_MAX: usize = 32;
const SAMPLE: &str = "[{ expect = \"220 \" }, { send = \"QUIT\\r\\n\" }]";

/// Keys of an entry of `steps`.
pub(super) static STEP: KeyTable = KeyTable {
    name: "Step",
    title: "an entry of `steps` of [pool.NAME.health]",
    sample: "{ expect = \"220 \" }",
    keys: &[
        Key::new("send", Shape::TextOf("bytes", 0, PAYLOAD_MAX))
            .or_else("it expects")
            .reload("now")
            .means("What the probe sends."),
        Key::new("expect", Shape::TextOf("bytes", 1, PAYLOAD_MAX))
            .or_else("it sends")
            .reload("now")
            .means("What the server has to say next, at the start of what comes or of a line."),
    ],
    also: &[],
};

/// Reads the steps of a probe.
pub(super) fn steps(value: &Value<'_>, report: &mut Report<'_>) -> Option<Vec<ProbeStep>> {
    let steps = scalar::list(value, SAMPLE, report, step)?;
    let finding = if steps.len() > STEPS_MAX {
        let expected = format!("at most {STEPS_MAX}");
        Finding::new(format!("`steps` has {} entries", steps.len())).expected(expected)
    } else if !steps.iter().any(|step| step.expected().is_some()) {
        Finding::new("`steps` waits for nothing: every server would pass")
            .expected("a step with `expect`")
            .hint("`probe = \"tcp\"` only connects")
    } else {
        return Some(steps);
    };
    report.error(&value.place, finding);
    None
}

fn step(value: &Value<'_>, report: &mut Report<'_>) -> Option<ProbeStep> {
    const EXPECTED: &str = "a table with `send` or with `expect`";
    let Some(section) = Section::of(value, &STEP) else {
        scalar::wrong_type(value, EXPECTED, None, report);
        return None;
    };
    let send = section.read("send", report, payload);
    let expect = section.read("expect", report, expectation);
    let finding = match (send, expect) {
        (Field::Given(bytes, _), Field::Absent) => return Some(ProbeStep::Send(bytes)),
        (Field::Absent, Field::Given(bytes, _)) => return Some(ProbeStep::Expect(bytes)),
        (Field::Absent, Field::Absent) => Finding::new("this step does nothing"),
        (Field::Given(..), Field::Given(..)) => {
            Finding::new("this step both sends and expects").hint("make two steps of it")
        }
        _ => return None,
    };
    report.error(&value.place, finding.expected(EXPECTED));
    None
}

/// As `evenkeel config` shows them.
pub(super) fn shown(steps: &[ProbeStep]) -> String {
    let line = |step: &ProbeStep| match step {
        ProbeStep::Send(bytes) => format!("  {{ send = '{}' }},\n", escaped(bytes)),
        ProbeStep::Expect(bytes) | ProbeStep::Find(bytes) => {
            format!("  {{ expect = '{}' }},\n", escaped(bytes))
        }
    };
    format!("[\n{}]", steps.iter().map(line).collect::<String>())
}
