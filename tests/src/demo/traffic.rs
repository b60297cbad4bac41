//! The clients of the second act: flows that stay, new connections at a steady rate, downloads.

use std::{
    collections::BTreeMap,
    io,
    sync::{
        Arc, Mutex, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    thread::{self, JoinHandle},
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow, ensure};
use nlb_tests::lab::{
    addresses::TARGETS, host::Host, http::HttpConnection, nginx::LARGE_BYTES, udp::UdpClient,
};

use crate::service::Service;

/// Flows pinned per VIP, protocol and target.
const PINNED_EACH: usize = 2;
/// Between two requests on a pinned flow.
const PINNED_EVERY: Duration = Duration::from_millis(100);
/// Between two new connections to a VIP.
const NEW_EVERY: Duration = Duration::from_millis(20);
/// What a client allows an answer. Longer than any wait that is in order here.
const PATIENCE: Duration = Duration::from_secs(2);

/// What became of a flow that stays.
#[derive(Debug)]
pub(crate) struct Pinned {
    pub(crate) name: String,
    pub(crate) target: String,
    pub(crate) asked: u64,
    /// Answers from another target.
    pub(crate) wrong: u64,
    pub(crate) broken: Option<io::Error>,
}

/// One question on a flow; the name of the target that answered.
type Ask = Box<dyn FnMut() -> io::Result<String> + Send>;

pub(crate) fn pin_http(
    client: &Host,
    service: Service,
    end: &Arc<AtomicBool>,
) -> Result<Vec<JoinHandle<Pinned>>> {
    let name = format!("{} TCP", service.name);
    pin(&name, end, || {
        let mut connection = HttpConnection::from(client, service.http(), PATIENCE)?;
        Ok(Box::new(move || Ok(connection.get("/pinned")?.target)))
    })
}

pub(crate) fn pin_udp(
    client: &Host,
    service: Service,
    end: &Arc<AtomicBool>,
) -> Result<Vec<JoinHandle<Pinned>>> {
    let name = format!("{} UDP", service.name);
    pin(&name, end, || {
        let mut socket = UdpClient::new(client, service.udp(), PATIENCE)?;
        Ok(Box::new(move || Ok(socket.ask()?.target)))
    })
}

/// Opens flows until every target has its share, and asks on each until the end.
fn pin(
    name: &str,
    end: &Arc<AtomicBool>,
    open: impl Fn() -> Result<Ask>,
) -> Result<Vec<JoinHandle<Pinned>>> {
    let mut count: BTreeMap<String, usize> = BTreeMap::new();
    let mut flows = Vec::new();
    for _ in 0..100 {
        let mut ask = open()?;
        let target = ask().with_context(|| format!("{name}: the first request"))?;
        let has = count.entry(target.clone()).or_default();
        if *has < PINNED_EACH {
            *has += 1;
            let (name, end) = (name.to_owned(), Arc::clone(end));
            flows.push(thread::spawn(move || stay(name, target, ask, &end)));
        }
        if flows.len() == TARGETS * PINNED_EACH {
            return Ok(flows);
        }
    }
    Err(anyhow!(
        "{name}: of 100 flows not {PINNED_EACH} went to each target, but {count:?}"
    ))
}

fn stay(name: String, target: String, mut ask: Ask, end: &AtomicBool) -> Pinned {
    let mut flow = Pinned {
        name,
        target,
        asked: 1,
        wrong: 0,
        broken: None,
    };
    while !end.load(Ordering::Relaxed) && flow.broken.is_none() {
        thread::sleep(PINNED_EVERY);
        flow.asked += 1;
        match ask() {
            Ok(target) => flow.wrong += u64::from(target != flow.target),
            Err(error) => flow.broken = Some(error),
        }
    }
    flow
}

/// A download of about ten seconds from a target that stays.
pub(crate) fn download(
    client: &Host,
    service: Service,
    victim: &str,
) -> Result<JoinHandle<Result<()>>> {
    for _ in 0..100 {
        let mut connection = HttpConnection::from(client, service.http(), PATIENCE)?;
        let target = connection.get("/which")?.target;
        if target == victim {
            continue;
        }
        return Ok(thread::spawn(move || {
            let name = service.name;
            let answer = connection
                .get("/slow")
                .with_context(|| format!("{name} from {target}"))?;
            ensure!(
                answer.target == target && answer.body_bytes == LARGE_BYTES as u64,
                "{name} from {target}: {answer:?}"
            );
            Ok(())
        }));
    }
    Err(anyhow!(
        "{}: of 100 connections none avoided {victim}",
        service.name
    ))
}

/// A new connection with one request.
#[derive(Debug)]
pub(crate) struct Attempt {
    pub(crate) service: usize,
    pub(crate) started: Instant,
    pub(crate) ended: Instant,
    pub(crate) target: Result<String, String>,
}

pub(crate) type Attempts = Arc<Mutex<Vec<Attempt>>>;

pub(crate) fn connect_steadily(
    index: usize,
    service: Service,
    end: &AtomicBool,
    attempts: &Mutex<Vec<Attempt>>,
) {
    let mut next = Instant::now();
    while !end.load(Ordering::Relaxed) {
        let started = Instant::now();
        let target = HttpConnection::here(service.http(), PATIENCE)
            .and_then(|mut connection| connection.get("/new"))
            .map(|answer| answer.target)
            .map_err(|error| format!("{}: {error}", service.name));
        let attempt = Attempt {
            service: index,
            started,
            ended: Instant::now(),
            target,
        };
        attempts
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
            .push(attempt);
        next += NEW_EVERY;
        thread::sleep(next.saturating_duration_since(Instant::now()));
        // After a stall the rate goes on; what was missed is not made up.
        next = next.max(Instant::now());
    }
}

pub(crate) fn joined<T>(thread: JoinHandle<T>) -> Result<T> {
    thread
        .join()
        .map_err(|_| anyhow!("a client's thread panicked"))
}
