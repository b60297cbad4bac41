//! Waiting until a change is live, or until its target is healthy.

use std::time::Duration;

use axum::http::StatusCode;
use tokio::time::{Instant, sleep};

use super::{
    problem::Problem,
    request::App,
    shapes::{Asked, Wait},
};
use crate::{
    daemon::{Command, Written},
    document::resource::ResourceId,
};

/// How long to wait if nobody says.
const PATIENCE_SECONDS: f64 = 30.0;
/// How long to wait at most.
const LONGEST_SECONDS: f64 = 600.0;
/// How often to look again. Asking takes the daemon's loop some microseconds.
const LOOK_EVERY: Duration = Duration::from_millis(20);

impl App {
    /// Waits for what was asked for.
    pub(super) async fn wait(&self, asked: &Asked, written: &mut Written) -> Result<(), Problem> {
        let Some(wait) = asked.wait.filter(|_| !written.dry_run) else {
            return Ok(());
        };
        let seconds = asked.timeout_seconds.unwrap_or(PATIENCE_SECONDS);
        if !(0.0..=LONGEST_SECONDS).contains(&seconds) {
            return Err(Problem::bad_request(format!(
                "timeout_seconds must be from 0 to {LONGEST_SECONDS}"
            )));
        }
        let until = Instant::now() + Duration::from_secs_f64(seconds);
        while !written.live {
            if Instant::now() >= until {
                return Err(late(
                    "the change is kept and not live yet",
                    &written.warnings,
                ));
            }
            sleep(LOOK_EVERY).await;
            let reading = self.ask(Command::Read).await?;
            written.live = reading.is_live;
            written.generation = reading.generation;
        }
        if wait == Wait::Healthy
            && let Some(ResourceId::Target(group, address)) =
                written.resource.as_deref().and_then(|id| id.parse().ok())
        {
            let target = address.to_string();
            loop {
                let groups = self.ask(Command::Health).await?;
                let health = groups
                    .iter()
                    .find(|health| health.target_group == group)
                    .and_then(|health| health.targets.iter().find(|it| it.target == target));
                match health {
                    // With checks disabled there is nothing better to wait for.
                    Some(it) if matches!(it.state.as_str(), "healthy" | "unavailable") => break,
                    None => break,
                    Some(it) if Instant::now() >= until => {
                        let why: Vec<String> = [&it.reason, &it.description, &it.last_failure]
                            .into_iter()
                            .flatten()
                            .cloned()
                            .collect();
                        let what = format!("the change is live, and {target} is {}", it.state);
                        return Err(late(&what, &why));
                    }
                    Some(_) => sleep(LOOK_EVERY).await,
                }
            }
            written.generation = self.ask(Command::Read).await?.generation;
        }
        Ok(())
    }
}

fn late(what: &str, why: &[String]) -> Problem {
    let detail = match why {
        [] => what.to_owned(),
        _ => format!("{what} ({})", why.join("; ")),
    };
    let title = "What was waited for did not come in time";
    Problem::new(StatusCode::GATEWAY_TIMEOUT, "late", title, detail)
}
