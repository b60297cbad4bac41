//! The endpoint over real sockets, with a daemon that answers with nothing.

use tokio::{
    io::{AsyncReadExt as _, AsyncWriteExt as _},
    net::{TcpStream, UnixStream},
};

use super::*;
use crate::{metrics::Snapshot, status::Status};

fn empty() -> Snapshot {
    let status: Status = serde_json::from_value(serde_json::json!({
        "version": "0", "generation": 0, "started_at_unix_seconds": 0, "uptime_seconds": 0.0,
        "config": "", "adopted": false, "interfaces": [], "flows": { "active": 0, "capacity": 0 },
        "load_balancers": [], "target_groups": [], "stops": [], "warnings": [],
        "early_fragments": { "kept": 0, "sent_on": 0, "given_up": 0 },
    }))
    .unwrap();
    Snapshot {
        status,
        own: crate::metrics::Own::default(),
        probes: Vec::new(),
    }
}

/// Serves, and counts how often the daemon is asked.
async fn served(endpoint: &Endpoint) -> (Arc<std::sync::atomic::AtomicUsize>, Endpoint) {
    let listener = bind(endpoint).await.unwrap();
    let at = match &listener {
        Listener::Address(listener) => Endpoint::Address(listener.local_addr().unwrap()),
        Listener::Socket(_) => endpoint.clone(),
    };
    let (commands, mut received) = mpsc::channel(1);
    tokio::spawn(serve(listener, commands));
    let asked = Arc::<std::sync::atomic::AtomicUsize>::default();
    let count = Arc::clone(&asked);
    tokio::spawn(async move {
        while let Some(Command::Metrics(answer)) = received.recv().await {
            count.fetch_add(1, std::sync::atomic::Ordering::Relaxed);
            drop(answer.send(empty()));
        }
    });
    (asked, at)
}

async fn ask(mut stream: impl AsyncRead + AsyncWrite + Unpin, head: &str) -> String {
    let request = format!("{head} HTTP/1.1\r\nHost: nlb\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let mut text = String::new();
    stream.read_to_string(&mut text).await.unwrap();
    text
}

#[tokio::test]
async fn a_socket_answers_anybody_and_takes_the_place_of_one_that_was_left() {
    let home = tempfile::tempdir().unwrap();
    let path = home.path().join("below/metrics.sock");
    fs::create_dir(path.parent().unwrap()).unwrap();
    drop(std::os::unix::net::UnixListener::bind(&path).unwrap());
    served(&Endpoint::Socket(path.clone())).await;
    let mode = fs::metadata(&path).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o666);
    let stream = UnixStream::connect(&path).await.unwrap();
    let text = ask(stream, "GET /metrics").await;
    assert!(text.starts_with("HTTP/1.1 200 OK"), "{text}");
    assert!(
        text.contains("content-type: application/openmetrics-text"),
        "{text}"
    );
    assert!(text.ends_with("# EOF\n"), "{text}");
}

#[tokio::test]
async fn an_address_answers_reading_and_nothing_else() {
    let any = Endpoint::Address(([127, 0, 0, 1], 0).into());
    let (asked, at) = served(&any).await;
    let Endpoint::Address(at) = at else {
        panic!("an address")
    };
    for (head, status) in [
        ("GET /", "404"),
        ("GET /v1/status", "404"),
        ("POST /metrics", "405"),
        ("HEAD /metrics", "200"),
    ] {
        let text = ask(TcpStream::connect(at).await.unwrap(), head).await;
        assert!(
            text.starts_with(&format!("HTTP/1.1 {status} ")),
            "{head}: {text}"
        );
        assert!(!text.contains("# EOF"), "{head}: {text}");
    }
    let asked = asked.load(std::sync::atomic::Ordering::Relaxed);
    assert_eq!(asked, 1, "what is refused costs the daemon nothing");
}

#[tokio::test(start_paused = true)]
async fn callers_within_a_second_get_the_same_text() {
    let (commands, mut received) = mpsc::channel(1);
    let source = Source {
        commands,
        latest: Mutex::new(None),
    };
    let daemon = tokio::spawn(async move {
        let mut asked = 0;
        while let Some(Command::Metrics(answer)) = received.recv().await {
            asked += 1;
            drop(answer.send(empty()));
        }
        asked
    });
    for _ in 0..100 {
        assert!(source.text().await.is_some());
    }
    tokio::time::advance(FRESH).await;
    assert!(source.text().await.is_some());
    drop(source);
    assert_eq!(daemon.await.unwrap(), 2);
}

#[tokio::test]
async fn a_place_that_is_taken_is_named() {
    let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
    let at = taken.local_addr().unwrap();
    let error = bind(&Endpoint::Address(at)).await.unwrap_err();
    assert!(error.to_string().contains(&at.to_string()), "{error}");
}
