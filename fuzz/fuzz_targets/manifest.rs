//! `plugin.toml`: any text is read or its faults are told.
#![no_main]

use libfuzzer_sys::fuzz_target;
use viworks_signing::manifest::Manifest;

fuzz_target!(|text: &str| {
    if let Err(error) = Manifest::parse(text) {
        assert!(!error.to_string().is_empty());
    }
});
