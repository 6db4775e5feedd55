//! DSSE envelopes: nothing verifies without a signature of the trusted key.
#![no_main]

use libfuzzer_sys::fuzz_target;
use viworks_signing::dsse::Envelope;
use viworks_signing::keys::SecretKey;
use viworks_signing::verify::MAX_STATEMENTS;
use viworks_signing::strict_json::{self, Floats};

fuzz_target!(|bytes: &[u8]| {
    let Ok(envelope) = strict_json::from_slice::<Envelope>(bytes, MAX_STATEMENTS, Floats::Refused) else { return };
    let trusted = [SecretKey::generate().public()];
    assert!(envelope.verify(&envelope.payload_type, &trusted).is_err(), "nobody signed this");
});
