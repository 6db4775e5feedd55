//! Room for handshakes and sessions: peers that stall, addresses that ask too often, and
//! more agents than there is room for.

use std::net::{Ipv4Addr, SocketAddr};
use tokio::io::AsyncReadExt as _;
use tokio::net::{TcpSocket, TcpStream};

use super::backend::Backend;
use crate::metrics::{Kind, Word};
use crate::testing::soon;

fn refused(backend: &Backend, rule: &'static str) -> u64 {
    backend.state.metrics.refusals.get_or_create(&Kind { kind: Word(rule) }).get()
}

async fn silent(backend: &Backend, from: [u8; 4]) -> TcpStream {
    let socket = TcpSocket::new_v4().expect("a socket");
    socket.bind(SocketAddr::from((Ipv4Addr::from(from), 0))).expect("bound");
    socket.connect(backend.address).await.expect("connected")
}

#[tokio::test]
async fn silent_peers_hold_up_neither_others_nor_a_turn() {
    let backend = Backend::start_with(|config| {
        config.agents_address_handshakes = 3;
        config.agents_handshakes = 1;
    })
    .await;
    let mut held = Vec::new();
    for _ in 0..3 {
        held.push(silent(&backend, [127, 0, 0, 2]).await);
    }
    let admission = backend.state.admission.get().expect("started");
    soon(async {
        while admission.underway() < 3 {
            tokio::task::yield_now().await;
        }
    })
    .await;
    // One more of that address is closed at once; others are served.
    let mut fourth = silent(&backend, [127, 0, 0, 2]).await;
    assert!(!matches!(soon(fourth.read(&mut [0])).await, Ok(1)));
    assert_eq!(refused(&backend, "address-handshakes"), 1);
    let _session = backend.session("web-01").await;
    drop(held);
    soon(async {
        while admission.underway() > 0 {
            tokio::task::yield_now().await;
        }
    })
    .await;
}

#[tokio::test]
async fn an_address_that_asks_too_often_is_closed_out() {
    let backend = Backend::start_with(|config| {
        config.agents_address_rate = 1;
        config.agents_address_burst = 2;
    })
    .await;
    for _ in 0..2 {
        assert!(soon(backend.get(None, "/health")).await.is_ok());
    }
    assert!(soon(backend.get(None, "/health")).await.is_err());
    assert_eq!(refused(&backend, "address-rate"), 1);
    let other = silent(&backend, [127, 0, 0, 2]).await;
    let tls = backend.tls_over(other, None).await.expect("TLS");
    assert!(soon(Backend::ask(tls, "/health", "")).await.is_ok_and(|text| text.starts_with("HTTP/1.1 200")));
}

#[tokio::test]
async fn who_finds_no_room_is_told_when_to_come_again() {
    let backend = Backend::start_with(|config| config.max_sessions = Some(1)).await;
    let _first = backend.session("web-01").await;
    let answer = soon(backend.get(Some(backend.authority.client("web-02", 8)), "/ws/agent")).await.expect("an answer");
    assert!(answer.starts_with("HTTP/1.1 503"), "{answer}");
    assert!(answer.to_ascii_lowercase().contains("retry-after: 30\r\n"), "{answer}");
    assert_eq!(refused(&backend, "sessions"), 1);
}
