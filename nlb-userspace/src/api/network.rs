//! The API over TCP, for clients with a certificate.
//!
//! It has a thread of its own, so that whatever strangers do to it takes nothing from the daemon's
//! loop or from the control socket. Everything that somebody outside can make it hold is bounded: how
//! many handshakes are under way, how many clients are connected, and how long each may take over a
//! handshake, a request's head, its body, and all of a connection.

use std::{io, net::SocketAddr, sync::Arc, thread, time::Duration};

use axum::{Extension, Router, extract::ConnectInfo};
use hyper::server::conn::http1;
use hyper_util::{
    rt::{TokioIo, TokioTimer},
    service::TowerToHyperService,
};
use tokio::{
    net::{TcpListener, TcpStream},
    sync::{OwnedSemaphorePermit, Semaphore, watch},
    time::{Instant, sleep, timeout},
};
use tokio_rustls::{TlsAcceptor, server::TlsStream};

use super::tls::Terms;
use crate::access::{Caller, certificate::Certificate, guard::Peer};

/// How many handshakes are under way at once; further clients wait in the kernel's queue.
const HANDSHAKES: usize = 32;
/// How many clients are connected at once.
const CONNECTIONS: usize = 64;
/// How long a handshake may take.
const HANDSHAKE: Duration = Duration::from_secs(5);
/// How long a request's head may take, and how long a connection may have none.
const HEAD: Duration = Duration::from_secs(15);
/// The largest head of a request, in bytes.
const LARGEST_HEAD: usize = 16 << 10;
/// How long a connection takes new requests.
const LIFE: Duration = Duration::from_mins(10);
/// How long the last request of a connection may take: longer than an answer may be waited for.
const FAREWELL: Duration = Duration::from_mins(11);
/// How often refused clients are told of in the log, at most.
const TELL_EVERY: Duration = Duration::from_secs(1);
/// How long to wait when the kernel has no connection for us, such as for want of file descriptors.
const PAUSE: Duration = Duration::from_millis(100);

/// A listener over TCP that is bound and not served yet.
#[derive(Debug)]
pub struct Network(std::net::TcpListener);

/// The address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("node.api.tcp.address: cannot listen on {address}: {source}")]
pub struct NetworkError {
    address: SocketAddr,
    source: io::Error,
}

impl Network {
    /// Listens. What connects waits until [`Self::serve`].
    pub fn bind(address: SocketAddr) -> Result<Self, NetworkError> {
        let bind = || {
            let listener = std::net::TcpListener::bind(address)?;
            listener.set_nonblocking(true)?;
            Ok(Self(listener))
        };
        bind().map_err(|source| NetworkError { address, source })
    }

    /// Where it listens.
    pub fn address(&self) -> io::Result<SocketAddr> {
        self.0.local_addr()
    }

    /// Answers on a thread of its own, under the terms that hold, until the process ends.
    pub(super) fn serve(
        self,
        terms: watch::Receiver<Option<Terms>>,
        router: Router,
    ) -> io::Result<()> {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        tracing::info!(
            address = %self.address()?,
            "the API answers over TCP, to clients with a certificate"
        );
        let thread = thread::Builder::new().name("nlb-api".to_owned());
        thread.spawn(move || {
            let served = runtime.block_on(accept(self.0, terms, router));
            if let Err(error) = served {
                tracing::error!("the API over TCP failed: {error}");
            }
        })?;
        Ok(())
    }
}

async fn accept(
    listener: std::net::TcpListener,
    terms: watch::Receiver<Option<Terms>>,
    router: Router,
) -> io::Result<()> {
    let listener = TcpListener::from_std(listener)?;
    let handshakes = Arc::new(Semaphore::new(HANDSHAKES));
    let connections = Arc::new(Semaphore::new(CONNECTIONS));
    let mut refused = Refused::default();
    let (tell, mut told) = tokio::sync::mpsc::channel::<(SocketAddr, String)>(HANDSHAKES);
    loop {
        let place = Arc::clone(&handshakes).acquire_owned();
        let accepted = tokio::select! {
            Some((from, why)) = told.recv() => {
                refused.tell(from, &why);
                continue;
            }
            accepted = async { (place.await, listener.accept().await) } => accepted,
        };
        let (Ok(place), Ok((stream, from))) = accepted else {
            sleep(PAUSE).await;
            continue;
        };
        let mut terms = terms.clone();
        let Some(now) = terms.borrow_and_update().clone() else {
            continue;
        };
        let (connections, router, tell) = (Arc::clone(&connections), router.clone(), tell.clone());
        tokio::spawn(async move {
            let client = Client::shake_hands(stream, from, now, place, &connections).await;
            match client {
                Ok(client) => client.serve(terms, router).await,
                // With many of them, one is as good as another.
                Err(why) => drop(tell.try_send((from, why))),
            }
        });
    }
}

/// Clients that did not get past the handshake. Anybody can make as many as they like.
#[derive(Debug, Default)]
struct Refused {
    last: Option<Instant>,
    untold: u64,
}

impl Refused {
    fn tell(&mut self, from: SocketAddr, why: &str) {
        if self.last.is_some_and(|last| last.elapsed() < TELL_EVERY) {
            self.untold += 1;
            return;
        }
        let untold = std::mem::take(&mut self.untold);
        self.last = Some(Instant::now());
        tracing::warn!(%from, untold, "a client of the API was refused: {why}");
    }
}

/// A client that has shown its certificate.
struct Client {
    stream: TlsStream<TcpStream>,
    peer: Peer,
    _place: OwnedSemaphorePermit,
}

impl Client {
    async fn shake_hands(
        stream: TcpStream,
        from: SocketAddr,
        terms: Terms,
        handshake: OwnedSemaphorePermit,
        connections: &Arc<Semaphore>,
    ) -> Result<Self, String> {
        let stream = timeout(HANDSHAKE, TlsAcceptor::from(terms.0).accept(stream)).await;
        drop(handshake);
        let stream = stream
            .map_err(|_| format!("no TLS session within {} s", HANDSHAKE.as_secs()))?
            .map_err(|error| error.to_string())?;
        let place = Arc::clone(connections)
            .try_acquire_owned()
            .map_err(|_| format!("{CONNECTIONS} clients are connected already"))?;
        let shown = stream.get_ref().1.peer_certificates();
        let shown = shown.and_then(<[_]>::first).ok_or("no certificate")?;
        let certificate = Certificate::parse(shown).map_err(|error| error.to_string())?;
        Ok(Self {
            stream,
            peer: Peer {
                caller: Some(Caller::Certificate(Arc::new(certificate))),
                pid: None,
                remote: Some(from),
            },
            _place: place,
        })
    }

    /// Answers until the client ends, its time is up, or other terms hold: then whoever is connected
    /// has to show a certificate again.
    async fn serve(self, mut terms: watch::Receiver<Option<Terms>>, router: Router) {
        let router = router.layer(Extension(ConnectInfo(self.peer)));
        let connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEAD)
            .max_buf_size(LARGEST_HEAD)
            .serve_connection(TokioIo::new(self.stream), TowerToHyperService::new(router));
        let mut connection = std::pin::pin!(connection);
        tokio::select! {
            // How it ended, the client knows.
            _ended = &mut connection => return,
            () = sleep(LIFE) => {}
            _changed = terms.changed() => {}
        }
        connection.as_mut().graceful_shutdown();
        drop(timeout(FAREWELL, connection).await);
    }
}
