//! Engines that are silent, endless, wrong or absent: each costs a bounded time and memory
//! and a typed failure.

use super::*;
use std::time::Instant;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::{UnixListener, UnixStream};

/// A provider whose engine answers every request by `answer`, written to the stream raw.
async fn engine<F, R>(answer: F) -> (tempfile::TempDir, Provider)
where
    F: Fn(String, UnixStream) -> R + Send + Sync + 'static,
    R: Future<Output = std::io::Result<()>> + Send + 'static,
{
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("e.sock");
    let listener = UnixListener::bind(&socket).unwrap();
    tokio::spawn(async move {
        while let Ok((mut stream, _)) = listener.accept().await {
            let mut request = Vec::new();
            while !request.windows(4).any(|w| w == b"\r\n\r\n") {
                if stream.read_buf(&mut request).await.unwrap_or(0) == 0 {
                    break;
                }
            }
            tokio::spawn(answer(String::from_utf8_lossy(&request).into_owned(), stream));
        }
    });
    let provider = Provider::new(&Config { socket: Some(socket), timeout_secs: 1 });
    (dir, provider)
}

async fn json(mut stream: UnixStream, body: &str) -> std::io::Result<()> {
    let head = format!("HTTP/1.1 200 OK\r\nContent-Type: application/json\r\nContent-Length: {}\r\n\r\n", body.len());
    stream.write_all(head.as_bytes()).await?;
    stream.write_all(body.as_bytes()).await
}

#[tokio::test]
async fn an_absent_engine_is_unavailable_with_a_mend() {
    let none = Provider::new(&Config::default()).engine.version().await;
    assert!(matches!(none, Err(Failure::Unavailable(why)) if why.contains("set container_engine")));
    let gone = Config { socket: Some("/nonexistent/engine.sock".into()), ..Config::default() };
    let gone = Provider::new(&gone).engine.version().await;
    assert!(matches!(gone, Err(Failure::Unavailable(why)) if why.contains("/nonexistent/engine.sock")));
}

#[tokio::test]
async fn a_silent_engine_is_left_after_its_deadline() {
    let (_dir, provider) = engine(|_, stream| async move {
        let _held = stream;
        std::future::pending().await
    })
    .await;
    let started = Instant::now();
    assert!(matches!(provider.engine.version().await, Err(Failure::Unavailable(_))));
    assert!(started.elapsed() < Duration::from_secs(3));
}

#[tokio::test]
async fn an_answer_that_never_ends_is_cut_off() {
    let (_dir, provider) = engine(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Type: application/json\r\n\r\n[").await?;
        loop {
            stream.write_all(&[b' '; 64 * 1024]).await?;
        }
    })
    .await;
    let started = Instant::now();
    let answer = provider.engine.list(|_| true).await;
    assert!(matches!(answer, Err(Failure::Failed(ref why)) if why.contains("too long")), "{answer:?}");
    // One that drips is ended by the deadline instead, which covers the body.
    assert!(started.elapsed() < Duration::from_secs(3));

    let (_dir, provider) = engine(|_, mut stream| async move {
        stream.write_all(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n[").await?;
        std::future::pending().await
    })
    .await;
    assert!(matches!(provider.engine.list(|_| true).await, Err(Failure::Unavailable(_))));
}

#[tokio::test]
async fn giant_lists_and_nonsense_are_refused() {
    let (_dir, provider) = engine(|_, stream| async move {
        let items = vec!["{\"Id\":\"aaaaaaaaaaaa\"}"; 2_001].join(",");
        json(stream, &format!("[{items}]")).await
    })
    .await;
    let answer = provider.engine.list(|_| true).await;
    assert!(matches!(answer, Err(Failure::Failed(ref why)) if why.contains("more than")), "{answer:?}");

    for body in ["{}", "nonsense", "[[[[", "[{\"Id\":7}]", &"[".repeat(100_000)] {
        let owned = body.to_owned();
        let (_dir, provider) = engine(move |_, stream| {
            let body = owned.clone();
            async move { json(stream, &body).await }
        })
        .await;
        assert!(provider.engine.list(|_| true).await.is_err(), "{body:.20}");
        assert!(provider.engine.inspect("x").await.is_err(), "{body:.20}");
    }
}

#[tokio::test]
async fn ids_that_are_paths_never_reach_the_engine() {
    let (_dir, provider) = engine(|request, _| async move { panic!("reached: {request}") }).await;
    for bad in ["", "../x", "a/b", "a?force=1", "a#b", "-a", "a b", "a%2f", &"a".repeat(129)] {
        assert!(matches!(provider.engine.inspect(bad).await, Err(Failure::InvalidArgument(_))), "{bad}");
        assert!(matches!(provider.engine.remove(bad, false).await, Err(Failure::InvalidArgument(_))), "{bad}");
    }
}

#[tokio::test]
async fn removal_asks_without_force_and_without_volumes() {
    let (send, mut requests) = tokio::sync::mpsc::channel(8);
    let (_dir, provider) = engine(move |request, stream| {
        let send = send.clone();
        async move {
            let _ = send.send(request).await;
            json(stream, "").await
        }
    })
    .await;
    provider.engine.remove("abcdefabcdef", false).await.unwrap();
    let request = requests.recv().await.unwrap();
    assert!(
        request.starts_with("DELETE /containers/abcdefabcdef?v=false&force=false&link=false HTTP/1.1"),
        "{request}"
    );
}
