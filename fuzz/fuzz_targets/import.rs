//! Any bytes, as a configuration of HAProxy and of nginx: no panic, an error has a place, and
//! a result is accepted.

#![no_main]

use std::path::Path;

use evenkeel::config::parse;
use evenkeel::import::{NoFiles, haproxy, nginx};
use libfuzzer_sys::fuzz_target;

fuzz_target!(|bytes: &[u8]| {
    let file = Path::new("f");
    for import in [haproxy(file, &NoFiles(bytes)), nginx(file, &NoFiles(bytes))] {
        match import {
            Ok(import) => assert!(parse(&import.text, file).config.is_some(), "{}", import.text),
            Err(error) => {
                assert!(error.place.line >= 1, "{error}");
                assert!(!error.message.contains("would not be valid"), "{error}");
            }
        }
    }
});
