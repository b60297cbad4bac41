//! Clients that ask as fast as they can, or at a rate that nobody slows down.

use std::{
    io,
    net::SocketAddr,
    sync::{
        Arc,
        atomic::{AtomicU64, Ordering},
    },
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, anyhow, ensure};

use crate::lab::{Lab, http::HttpConnection};

/// Clients that open connections.
const CONNECTING: usize = 16;
/// Clients that fetch the large file.
const FETCHING: usize = 4;
/// Clients that ask at a fixed rate, each on a connection that stays.
const ASKING: usize = 8;
/// Requests of each of them per second.
const RATE: u32 = 250;
/// What a client allows a server: slowness is a figure, and no error.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long requests take, from when they were due to when they are answered.
#[derive(Clone, Copy, Debug)]
pub struct Latency {
    /// Half of them take less.
    pub p50_us: f64,
    /// 99 % of them take less.
    pub p99_us: f64,
    /// 99.9 % of them take less.
    pub p999_us: f64,
}

/// Gives the client ports enough for all rounds.
pub fn prepare(lab: &Lab) -> Result<()> {
    lab.client()
        .sysctl(&["ipv4/ip_local_port_range=1024 65535", "ipv4/tcp_tw_reuse=1"])
}

/// Whether there is an answer from each address.
pub fn answers(lab: &Lab, addresses: &[SocketAddr]) -> bool {
    addresses.iter().all(|address| {
        HttpConnection::from(lab.client(), *address, PATIENCE)
            .is_ok_and(|mut connection| connection.get("/health").is_ok())
    })
}

/// Runs clients at once, which take turns with the addresses.
fn clients<T: Send + 'static>(
    lab: &Lab,
    addresses: &[SocketAddr],
    count: usize,
    client: impl Fn(usize, SocketAddr) -> io::Result<T> + Clone + Send + 'static,
) -> Result<Vec<T>> {
    let threads: Vec<_> = (0..count)
        .map(|number| {
            let (client, address) = (client.clone(), addresses[number % addresses.len()]);
            lab.client().thread(move || client(number, address))
        })
        .collect();
    threads
        .into_iter()
        .map(|thread| {
            let told = thread.join().map_err(|_| anyhow!("a client panicked"))?;
            Ok(told??)
        })
        .collect()
}

/// A figure, and how many requests came to nothing meanwhile.
pub type Measured<T> = (T, u32);

/// New connections with one request each, per second.
pub fn connections(lab: &Lab, addresses: &[SocketAddr], within: Duration) -> Result<Measured<f64>> {
    let begin = Instant::now();
    let counts = clients(lab, addresses, CONNECTING, move |_, address| {
        let (mut count, mut failed) = (0u32, 0);
        while begin.elapsed() < within {
            let answer = HttpConnection::here(address, PATIENCE)
                .and_then(|mut connection| connection.get("/health"));
            count += u32::from(answer.is_ok());
            failed += u32::from(answer.is_err());
        }
        Ok((count, failed))
    })?;
    let (counts, failed): (Vec<u32>, Vec<u32>) = counts.into_iter().unzip();
    let count: u32 = counts.iter().sum();
    let per_second = f64::from(count) / begin.elapsed().as_secs_f64();
    Ok((per_second, failed.iter().sum()))
}

/// Bytes of large answers per second.
pub fn transfer(lab: &Lab, addresses: &[SocketAddr], within: Duration) -> Result<Measured<f64>> {
    let begin = Instant::now();
    let bytes = Arc::<AtomicU64>::default();
    let counted = Arc::clone(&bytes);
    let failed = clients(lab, addresses, FETCHING, move |_, address| {
        let mut failed = 0;
        while begin.elapsed() < within {
            let mut before = 0;
            let fetched = HttpConnection::here(address, PATIENCE).and_then(|mut connection| {
                connection.get_with("/large", |now| {
                    counted.fetch_add(now - before, Ordering::Relaxed);
                    before = now;
                })
            });
            failed += u32::from(fetched.is_err());
        }
        Ok(failed)
    })?;
    let kibibytes = u32::try_from(bytes.load(Ordering::Relaxed) >> 10)?;
    let per_second = f64::from(kibibytes) * 1024.0 / begin.elapsed().as_secs_f64();
    Ok((per_second, failed.iter().sum()))
}

/// How long requests take that come at a fixed rate. A request that waits for the one before it has
/// waited, which is counted: from when it was due.
pub fn requests(
    lab: &Lab,
    addresses: &[SocketAddr],
    within: Duration,
) -> Result<Measured<Latency>> {
    let every = Duration::from_secs(1) / RATE;
    let begin = Instant::now() + Duration::from_millis(100);
    let told = clients(lab, addresses, ASKING, move |number, address| {
        let mut connection = HttpConnection::here(address, PATIENCE)?;
        let mut due = begin + every * u32::try_from(number).unwrap_or_default() / 8;
        let (mut times, mut failed) = (Vec::new(), 0);
        while due < begin + within {
            thread::sleep(due.saturating_duration_since(Instant::now()));
            if connection.get("/health").is_err() {
                failed += 1;
                connection = HttpConnection::here(address, PATIENCE)?;
            }
            // One that failed took as long as its client was patient.
            times.push(due.elapsed());
            due += every;
        }
        Ok((times, failed))
    })?;
    let (times, failed): (Vec<Vec<Duration>>, Vec<u32>) = told.into_iter().unzip();
    let mut times = times.concat();
    ensure!(times.len() >= 1_000, "too few requests for a percentile");
    times.sort_unstable();
    let at = |per_mille: usize| {
        let index = (times.len() - 1) * per_mille / 1_000;
        times[index].as_secs_f64() * 1e6
    };
    let latency = Latency {
        p50_us: at(500),
        p99_us: at(990),
        p999_us: at(999),
    };
    Ok((latency, failed.iter().sum()))
}
