//! Waiting for a condition, with a bound; a Ctrl-C ends it.

use std::{
    thread,
    time::{Duration, Instant},
};

use anyhow::{Result, bail};

use super::interrupt;

/// How often a condition is asked.
const EVERY: Duration = Duration::from_millis(20);

/// Waits until `is_so`, at most `timeout`; how long it took.
pub fn wait_until(
    what: &str,
    timeout: Duration,
    mut is_so: impl FnMut() -> bool,
) -> Result<Duration> {
    let start = Instant::now();
    loop {
        if is_so() {
            return Ok(start.elapsed());
        }
        if start.elapsed() > timeout {
            bail!("not so within {timeout:?}: {what}");
        }
        interrupt::check()?;
        thread::sleep(EVERY);
    }
}

/// Sleeps, unless interrupted.
pub fn pause(duration: Duration) -> Result<()> {
    let end = Instant::now() + duration;
    loop {
        interrupt::check()?;
        let left = end.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Ok(());
        }
        thread::sleep(left.min(EVERY));
    }
}
