//! Repository metadata of every kind, a client's memory, and the list of revocations.
#![no_main]

use libfuzzer_sys::fuzz_target;
use std::time::SystemTime;
use viworks_signing::tuf::metadata::{Root, Snapshot, Targets, Timestamp, Unverified};
use viworks_signing::tuf::{Client, MAX_ROOT, MAX_TARGETS, Revocations, State};

fuzz_target!(|bytes: &[u8]| {
    let _ = Unverified::<Root>::read("root", bytes, MAX_ROOT);
    let _ = Unverified::<Timestamp>::read("timestamp", bytes, MAX_ROOT);
    let _ = Unverified::<Snapshot>::read("snapshot", bytes, MAX_ROOT);
    let _ = Unverified::<Targets>::read("targets", bytes, MAX_TARGETS);
    let _ = Client::new(bytes, State::default(), SystemTime::UNIX_EPOCH);
    if let Ok(list) = Revocations::read(bytes) {
        let back = list.write().ok().and_then(|bytes| Revocations::read(&bytes).ok());
        assert_eq!(back, Some(list));
    }
    if let Ok(state) = State::decode(bytes) {
        let _ = state.trusted(bytes);
    }
});
