//! Datagrams: servers that say who they are and who asked, and a client for them.

use std::{
    io,
    net::{IpAddr, SocketAddr, UdpSocket},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::Duration,
};

use anyhow::{Context as _, Result};

use super::{addresses, host::Host};

/// The largest datagram.
const LARGEST_BYTES: usize = 1 << 16;

/// How soon a server notices that it shall end.
const TICK: Duration = Duration::from_millis(100);

/// Servers on a host, one per address; a thread each, ended on drop.
#[derive(Debug)]
pub(super) struct UdpEcho {
    end: Arc<AtomicBool>,
    threads: Vec<JoinHandle<io::Result<()>>>,
}

impl UdpEcho {
    pub(super) fn start(host: &Host, at: &[SocketAddr]) -> Result<Self> {
        let end = Arc::new(AtomicBool::new(false));
        let mut threads = Vec::new();
        for socket in bind(host, at)? {
            let (end, name) = (Arc::clone(&end), host.name().to_owned());
            threads.push(thread::spawn(move || serve(&socket, &name, &end)));
        }
        Ok(Self { end, threads })
    }
}

impl Drop for UdpEcho {
    fn drop(&mut self) {
        self.end.store(true, Ordering::Relaxed);
        for thread in self.threads.drain(..) {
            thread.join().ok();
        }
    }
}

fn bind(host: &Host, at: &[SocketAddr]) -> Result<Vec<UdpSocket>> {
    host.enter(|| {
        at.iter()
            .map(|address| {
                UdpSocket::bind(address)
                    .with_context(|| format!("binding {address} on {}", host.name()))
            })
            .collect()
    })?
}

/// Serves in the namespace of this process, for ever.
pub fn serve_here(name: &str, at: &[SocketAddr]) -> Result<()> {
    let mut threads = Vec::new();
    for address in at {
        let socket = UdpSocket::bind(address).with_context(|| format!("binding {address}"))?;
        let name = name.to_owned();
        threads.push(thread::spawn(move || {
            serve(&socket, &name, &AtomicBool::new(false))
        }));
    }
    for thread in threads {
        if let Ok(ended) = thread.join() {
            ended?;
        }
    }
    Ok(())
}

/// Answers each datagram with `NAME CLIENT-ADDRESS CLIENT-PORT CONTENT`.
fn serve(socket: &UdpSocket, name: &str, end: &AtomicBool) -> io::Result<()> {
    socket.set_read_timeout(Some(TICK))?;
    let mut buffer = vec![0; LARGEST_BYTES];
    while !end.load(Ordering::Relaxed) {
        // Time-outs, and errors that an earlier answer brought about, are no reason to stop.
        let Ok((length, from)) = socket.recv_from(&mut buffer) else {
            continue;
        };
        let mut answer = format!("{name} {} {} ", from.ip(), from.port()).into_bytes();
        answer.extend_from_slice(&buffer[..length]);
        socket.send_to(&answer, from).ok();
    }
    Ok(())
}

/// What a server said.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct UdpAnswer {
    /// Who answered.
    pub target: String,
    /// Who asked, as the server sees it.
    pub client: SocketAddr,
}

/// A client's socket: one flow.
#[derive(Debug)]
pub struct UdpClient {
    socket: UdpSocket,
    sent: u64,
}

impl UdpClient {
    /// A socket on `host` with a fresh port.
    pub fn new(host: &Host, to: SocketAddr, timeout: Duration) -> Result<Self> {
        let socket = host.enter(|| -> io::Result<UdpSocket> {
            let socket = UdpSocket::bind((addresses::client_for(to.ip()), 0))?;
            socket.connect(to)?;
            socket.set_read_timeout(Some(timeout))?;
            Ok(socket)
        })?;
        Ok(Self {
            socket: socket.with_context(|| format!("a socket to {to}"))?,
            sent: 0,
        })
    }

    /// The client's end.
    pub fn local(&self) -> io::Result<SocketAddr> {
        self.socket.local_addr()
    }

    /// Sends one datagram and waits for its answer, which must come from where it was sent to.
    pub fn ask(&mut self) -> io::Result<UdpAnswer> {
        self.ask_at_length(0)
    }

    /// The same with a datagram of at least so many bytes.
    pub fn ask_at_length(&mut self, bytes: usize) -> io::Result<UdpAnswer> {
        self.sent += 1;
        let end = format!("datagram {}", self.sent);
        let content = end.repeat(bytes.div_ceil(end.len()).max(1));
        self.socket.send(content.as_bytes())?;
        let mut buffer = vec![0; LARGEST_BYTES];
        // An answer that came too late for its question is not this one's.
        loop {
            let length = self.socket.recv(&mut buffer)?;
            let text = String::from_utf8_lossy(&buffer[..length]);
            if text.ends_with(&content) {
                return parse(&text);
            }
        }
    }
}

fn parse(text: &str) -> io::Result<UdpAnswer> {
    let wrong = || io::Error::other(format!("not an answer of the lab's servers: {text}"));
    let mut words = text.splitn(4, ' ');
    let mut word = || words.next().ok_or_else(wrong);
    let (target, address, port) = (word()?.to_owned(), word()?, word()?);
    let address: IpAddr = address.parse().map_err(io::Error::other)?;
    let port: u16 = port.parse().map_err(io::Error::other)?;
    Ok(UdpAnswer {
        target,
        client: (address, port).into(),
    })
}
