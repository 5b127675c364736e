//! Any text, as a configuration file: no panic, every refusal has a message, and what is accepted
//! is printed as a configuration that means the same.

#![no_main]

use std::path::Path;

use evenkeel::config::{Severity, parse, render};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|text: &str| {
    let file = Path::new("evenkeel.toml");
    let parsed = parse(text, file);
    let shown = render(&parsed.problems, text, false);
    let errors = parsed.problems.iter().filter(|problem| problem.severity == Severity::Error);
    assert_eq!(parsed.config.is_none(), errors.count() > 0, "{shown}");
    for problem in &parsed.problems {
        assert!(problem.line >= 1 && problem.column >= 1 && !problem.message.is_empty());
    }
    if let Some(config) = parsed.config {
        let printed = config.to_toml();
        let again = parse(&printed, file);
        let shown = render(&again.problems, &printed, false);
        assert_eq!(again.config, Some(config), "{printed}\n{shown}");
    }
});
