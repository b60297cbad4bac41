//! `nlb events`: what happened, and what happens.

use std::{
    fmt::Write as _,
    time::{Duration, SystemTime},
};

use clap::Args;
use hyper::Method;

use super::{Failure, endpoint::Reach, say};
use crate::{
    client,
    events::{Event, Page},
};

/// How long one question waits for an answer, in seconds.
const WAIT_SECONDS: u64 = 60;

/// `nlb events`.
#[derive(Debug, Args)]
pub struct Events {
    /// Go on as they happen
    #[arg(long, short)]
    follow: bool,
    /// Only those of the last so long, such as `10m` or `2h 30m`
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration)]
    since: Option<Duration>,
    /// Print JSON, one event a line
    #[arg(long)]
    json: bool,
    #[command(flatten)]
    reach: Reach,
}

impl Events {
    pub(super) async fn run(self) -> Result<String, Failure> {
        let begin = self.since.and_then(|since| now().checked_sub(since));
        let mut page = self.ask("after=0").await?;
        page.events.retain(|event| is_since(event, begin));
        if begin.is_some() {
            // Nobody asked for those.
            page.lost = 0;
        }
        if !self.follow {
            return self.shown(&page);
        }
        loop {
            say(&self.shown(&page)?);
            let question = format!("after={}&wait_seconds={WAIT_SECONDS}", page.next);
            page = self.ask(&question).await?;
        }
    }

    async fn ask(&self, question: &str) -> Result<Page, Failure> {
        let path = format!("/v1/events?{question}");
        Ok(client::call(&self.reach.endpoint()?, Method::GET, &path).await?)
    }

    fn shown(&self, page: &Page) -> Result<String, Failure> {
        let mut text = String::new();
        if page.lost > 0 {
            eprintln!("nlb: {} earlier events are forgotten", page.lost);
        }
        for event in &page.events {
            if self.json {
                writeln!(text, "{}", serde_json::to_string(event)?)?;
            } else {
                let Event { time, what, .. } = event;
                writeln!(text, "{time}  {:<13}  {what}", what.name())?;
            }
        }
        Ok(text)
    }
}

/// Whether it happened after that; one whose time cannot be read did.
fn is_since(event: &Event, begin: Option<SystemTime>) -> bool {
    let time = humantime::parse_rfc3339(&event.time).ok();
    begin.zip(time).is_none_or(|(begin, time)| time >= begin)
}

#[expect(clippy::disallowed_methods, reason = "events carry the time of day")]
fn now() -> SystemTime {
    SystemTime::now()
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::events::What;

    #[test]
    fn events_before_the_time_that_was_asked_for_are_left_out() {
        let event = |time: &str| Event {
            number: 1,
            time: time.to_owned(),
            what: What::Generation {
                generation: 1,
                steps: 1,
                after_us: None,
            },
        };
        let begin = humantime::parse_rfc3339("2026-01-01T12:00:00Z").ok();
        assert!(!is_since(&event("2026-01-01T11:59:59.999Z"), begin));
        assert!(is_since(&event("2026-01-01T12:00:00.000Z"), begin));
        assert!(is_since(&event("2026-01-01T11:00:00.000Z"), None));
    }
}
