//! Second act: one target's web server is killed in the middle of traffic, and comes back.
//!
//! All times are since the kill. What must hold: new connections fail only within the time that the
//! health check needs, plus a second; flows pinned elsewhere notice nothing.

use std::{
    sync::{
        Arc, PoisonError,
        atomic::{AtomicBool, Ordering},
    },
    time::{Duration, Instant},
};

use anyhow::{Context as _, Result, anyhow};
use nlb_tests::lab::{
    Lab,
    daemon::Daemon,
    wait::{pause, wait_until},
};

use crate::{
    EXAMPLE, EXAMPLE_PATH,
    report::{Failover, Report},
    service::{self, Service},
    spread,
    traffic::{Attempt, Attempts, Pinned, connect_steadily, download, joined, pin_http, pin_udp},
};

/// Which target dies: `target2`.
const VICTIM: usize = 1;
/// Traffic before the kill, and after each change that was seen.
const CALM: Duration = Duration::from_secs(2);

pub(crate) fn run(
    lab: &mut Lab,
    daemon: &Daemon,
    services: &[Service],
    report: &mut Report,
    say: impl Fn(&str),
) -> Result<()> {
    let victim = lab.target(VICTIM).name().to_owned();
    let limit = limit()?;
    let end = Arc::new(AtomicBool::new(false));
    say("opening flows that stay, on every target through every VIP, and slow downloads");
    let mut pinned = Vec::new();
    let mut downloads = Vec::new();
    for service in services {
        pinned.extend(pin_http(lab.client(), *service, &end)?);
        pinned.extend(pin_udp(lab.client(), *service, &end)?);
        downloads.push(download(lab.client(), *service, &victim)?);
    }
    let attempts: Attempts = Arc::default();
    let stream: Vec<_> = (0..)
        .zip(services)
        .map(|(index, service)| {
            let (service, end, attempts) = (*service, Arc::clone(&end), Arc::clone(&attempts));
            lab.client()
                .thread(move || connect_steadily(index, service, &end, &attempts))
        })
        .collect();
    pause(CALM)?;

    let killed = Instant::now();
    let mut figures = kill_and_return(lab, daemon, killed, &attempts, &say)?;
    figures.limit_seconds = limit.as_secs_f64();
    for download in downloads {
        figures.downloads += 1;
        match joined(download)? {
            Ok(()) => figures.downloads_finished += 1,
            Err(error) => figures.examples.push(format!("a download: {error}")),
        }
    }
    end.store(true, Ordering::Relaxed);
    for thread in stream {
        joined(thread)??;
    }
    for thread in pinned {
        let flow = joined(thread)?;
        count_pinned(&flow, &victim, &mut figures);
    }
    let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
    count_new(&attempts, killed, limit, &mut figures);
    report.failover = Some(figures);
    judge(report);
    spread::gateway_saw(&daemon.status()?, report);
    Ok(())
}

/// The victim's death and return, under traffic.
fn kill_and_return(
    lab: &mut Lab,
    daemon: &Daemon,
    killed: Instant,
    attempts: &Attempts,
    say: &impl Fn(&str),
) -> Result<Failover> {
    let victim = lab.target(VICTIM).name().to_owned();
    say(&format!("killing the web server of {victim} (SIGKILL)"));
    lab.kill_nginx(VICTIM)?;
    let mut unhealthy_first = None;
    wait_until(
        "nlb status shows the target unhealthy",
        Duration::from_secs(15),
        || {
            let states = victim_states(daemon);
            if states.iter().any(|state| state == "unhealthy") {
                unhealthy_first.get_or_insert(killed.elapsed());
            }
            !states.is_empty() && states.iter().all(|state| state == "unhealthy")
        },
    )?;
    let unhealthy_all = killed.elapsed();
    say(&format!(
        "nlb routes around {victim}; {} s of traffic",
        CALM.as_secs()
    ));
    pause(CALM)?;

    say(&format!("starting the web server of {victim} again"));
    lab.start_nginx(VICTIM)?;
    let restarted = Instant::now();
    wait_until(
        "nlb status shows the target healthy again",
        Duration::from_secs(15),
        || {
            let states = victim_states(daemon);
            !states.is_empty() && states.iter().all(|state| state == "healthy")
        },
    )?;
    let healthy = restarted.elapsed();
    wait_until(
        "new connections reach the target again",
        Duration::from_secs(10),
        || {
            let attempts = attempts.lock().unwrap_or_else(PoisonError::into_inner);
            (0..service::all().len()).all(|service| {
                attempts.iter().rev().any(|attempt| {
                    attempt.service == service
                        && attempt.started > restarted
                        && attempt
                            .target
                            .as_deref()
                            .is_ok_and(|target| target == victim)
                })
            })
        },
    )?;
    let back = restarted.elapsed();
    say("new connections reach it again; a little more traffic, and the downloads end");
    pause(CALM)?;

    Ok(Failover {
        victim,
        unhealthy_first_seconds: unhealthy_first.unwrap_or(unhealthy_all).as_secs_f64(),
        unhealthy_seconds: unhealthy_all.as_secs_f64(),
        healthy_again_seconds: healthy.as_secs_f64(),
        used_again_seconds: back.as_secs_f64(),
        ..Failover::default()
    })
}

/// How long new connections may fail: until the checks must have found out, and a second more.
fn limit() -> Result<Duration> {
    let desired = nlb_userspace::config::parse(EXAMPLE_PATH, EXAMPLE)
        .map_err(|faults| anyhow!("{faults}"))?;
    desired
        .target_groups
        .iter()
        .map(|group| group.health_check.interval * group.health_check.unhealthy_threshold)
        .max()
        .map(|finding_out| finding_out + Duration::from_secs(1))
        .context("the example has no target group")
}

fn victim_states(daemon: &Daemon) -> Vec<String> {
    daemon.status().map_or_else(
        |_| Vec::new(),
        |status| {
            service::targets(&status)
                .filter(|target| target.host == Some(VICTIM))
                .map(|target| target.state)
                .collect()
        },
    )
}

/// The victim's TCP flows die with their server; everybody else's must not notice. Its datagram
/// server lives on, so those flows may move once the target is unhealthy, and back.
fn count_pinned(flow: &Pinned, victim: &str, figures: &mut Failover) {
    if flow.target == victim {
        figures.pinned_on_victim += 1;
        return;
    }
    figures.pinned_elsewhere += 1;
    figures.pinned_requests += flow.asked;
    figures.pinned_wrong_target += flow.wrong;
    if let Some(error) = &flow.broken {
        figures.pinned_broken += 1;
        let (name, target) = (&flow.name, &flow.target);
        figures
            .examples
            .push(format!("pinned {name} on {target}: {error}"));
    }
}

fn count_new(attempts: &[Attempt], killed: Instant, limit: Duration, figures: &mut Failover) {
    figures.new_connections = attempts.len();
    let since = |time: Instant| time.saturating_duration_since(killed).as_secs_f64();
    for attempt in attempts {
        let Err(error) = &attempt.target else {
            continue;
        };
        figures.new_failed += 1;
        if attempt.ended < killed || attempt.ended > killed + limit {
            figures.new_failed_outside += 1;
            figures.examples.push(format!(
                "a new connection begun {:.2} s, failed {:.2} s after the kill: {error}",
                since(attempt.started),
                since(attempt.ended)
            ));
        }
        let first = figures
            .first_failure_seconds
            .get_or_insert(since(attempt.started));
        *first = first.min(since(attempt.started));
        let last = figures
            .last_failure_seconds
            .get_or_insert(since(attempt.ended));
        *last = last.max(since(attempt.ended));
    }
}

fn judge(report: &mut Report) {
    let Some(figures) = report.failover.clone() else {
        return;
    };
    report.check(figures.new_failed_outside == 0, || {
        format!(
            "{} new connections failed outside of the {:.1} s after the kill",
            figures.new_failed_outside, figures.limit_seconds
        )
    });
    report.check(figures.unhealthy_seconds <= figures.limit_seconds, || {
        format!(
            "the target was unhealthy {:.2} s after the kill, not within {:.1} s",
            figures.unhealthy_seconds, figures.limit_seconds
        )
    });
    report.check(figures.new_failed > 0, || {
        "no new connection failed: the kill was not noticed, so nothing was shown".into()
    });
    report.check(figures.pinned_broken == 0, || {
        format!(
            "{} flows pinned to other targets broke",
            figures.pinned_broken
        )
    });
    report.check(figures.pinned_wrong_target == 0, || {
        format!(
            "{} answers on pinned flows from a wrong target",
            figures.pinned_wrong_target
        )
    });
    report.check(figures.downloads_finished == figures.downloads, || {
        let unfinished = figures.downloads - figures.downloads_finished;
        format!("{unfinished} downloads from other targets did not finish")
    });
    for example in figures.examples.iter().take(5) {
        report.problems.push(format!("  {example}"));
    }
}
