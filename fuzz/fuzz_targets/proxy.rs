//! What stands before a handshake: PROXY protocol headers, and certificates in a header.
#![no_main]

// Two files of the backend, without the rest of it: they need none.
#[path = "../../host-backend/src/edge/certificate.rs"]
#[allow(dead_code, reason = "reading headers is the backend's")]
mod certificate;
#[path = "../../host-backend/src/edge/proxy.rs"]
#[allow(dead_code, reason = "reading sockets is the backend's")]
mod proxy;

use libfuzzer_sys::fuzz_target;
use proxy::Parsed;

fuzz_target!(|bytes: &[u8]| {
    let mut read = 0;
    while let Ok(Parsed::More(more)) = proxy::parse(&bytes[..read]) {
        assert!(more > 0 && more <= 1_024, "bounded, and always further");
        read += more;
        if read > bytes.len() {
            break;
        }
    }
    if let Ok(Parsed::Whole(_, length)) = proxy::parse(bytes) {
        assert!(length <= bytes.len());
        assert_eq!(proxy::parse(&bytes[..length]).map(|p| matches!(p, Parsed::Whole(_, l) if l == length)), Ok(true));
    }
    let _ = certificate::decode(bytes);
});
