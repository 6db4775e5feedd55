//! Stories that take long: `cargo nextest run -E 'test(/^full::/)'`. Each is a file or a function elsewhere.

mod load;

use crate::Result;

#[test]
fn an_idle_session_through_nginx_stays() -> Result {
    crate::nginx::an_idle_session_stays()
}
