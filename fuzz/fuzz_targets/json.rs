//! Strict JSON: what it takes, serde_json takes too, and canonical JSON of it reads back.
#![no_main]

use libfuzzer_sys::fuzz_target;
use serde_json::Value;
use viworks_signing::strict_json::{self, Floats};
use viworks_signing::tuf::canonical;

fuzz_target!(|bytes: &[u8]| {
    let Ok(value) = strict_json::from_slice::<Value>(bytes, 1 << 20, Floats::Refused) else { return };
    if let Ok(form) = canonical::encode(&value) {
        let back: Value = serde_json::from_slice(&form).expect("canonical JSON is JSON");
        assert_eq!(canonical::encode(&back).ok(), Some(form));
    }
});
