//! `nlb top`: what goes where just now, in a terminal.
//!
//! ```text
//!  GET /v1/status every second ─┐
//!  keys, from a thread          ┴─► state (pure) ─► view (pure) ─► terminal
//!                                     └► drain, over the API
//! ```

mod measure;
pub mod state;
pub mod view;

use std::{
    io, thread,
    time::{Duration, Instant},
};

use hyper::Method;
use ratatui::crossterm::event::{self, Event, KeyEventKind};
use tokio::{
    sync::mpsc,
    time::{MissedTickBehavior, interval},
};

use self::state::{Asked, State};
use crate::{
    client::{self, ClientError, Endpoint},
    daemon::Written,
    status::Status,
};

/// Between two looks.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why it ended.
#[derive(Debug, thiserror::Error)]
pub enum TopError {
    /// The daemon does not answer.
    #[error(transparent)]
    Client(#[from] ClientError),
    /// The terminal does not do as it is told.
    #[error("cannot draw: {0}; `nlb top` needs a terminal, `nlb status` does not")]
    Terminal(#[from] io::Error),
}

/// Shows it until somebody presses `q`.
pub async fn run(daemon: &Endpoint) -> Result<(), TopError> {
    // Before the terminal is taken: what is said of a daemon that does not answer stays readable.
    let started = Instant::now();
    let mut state = State::new(&ask(daemon).await?, started.elapsed());
    let mut terminal = ratatui::try_init()?;
    let mut keys = keys();
    let mut look = interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let ended = loop {
        if let Err(error) = terminal.draw(|frame| view::draw(&state, frame)) {
            break Err(error.into());
        }
        let asked = tokio::select! {
            _ = look.tick() => match ask(daemon).await {
                Ok(status) => {
                    state.take(&status, started.elapsed());
                    Asked::Nothing
                }
                Err(error) => break Err(error.into()),
            },
            key = keys.recv() => match key {
                Some(Event::Key(key)) if key.kind != KeyEventKind::Release => state.key(key.code),
                // Another size, which the next drawing is for.
                Some(_) => Asked::Nothing,
                None => Asked::Quit,
            },
        };
        match asked {
            Asked::Nothing => {}
            Asked::Quit => break Ok(()),
            Asked::Drain { group, target } => {
                let path = format!("/v1/target-groups/{group}/targets/{target}/drain");
                let drained = client::call::<Written>(daemon, Method::POST, &path).await;
                state.say(match drained {
                    Ok(written) => format!("{target} drains, generation {}", written.generation),
                    Err(error) => error.to_string(),
                });
            }
        }
    };
    ratatui::restore();
    ended
}

async fn ask(daemon: &Endpoint) -> Result<Status, ClientError> {
    client::call(daemon, Method::GET, "/v1/status").await
}

/// What is pressed. The thread that waits for it ends with the process.
fn keys() -> mpsc::Receiver<Event> {
    let (sender, keys) = mpsc::channel(16);
    thread::spawn(move || {
        while let Ok(event) = event::read() {
            if sender.blocking_send(event).is_err() {
                return;
            }
        }
    });
    keys
}
