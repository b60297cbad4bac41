//! What happened, and waiting for what happens.

use std::time::Duration;

use axum::{
    Json,
    extract::Query,
    response::{IntoResponse, Response},
};
use tokio::time::timeout;

use super::{problem::Problem, request::Asking, shapes::Listening};

/// How long to wait at most.
const LONGEST_SECONDS: u64 = 600;

impl Asking {
    /// Answers with the events that there are, or with the next ones; with none if none come in time.
    pub(super) async fn listen(&self) -> Result<Response, Problem> {
        let Query(Listening {
            after,
            wait_seconds,
        }) = Query::try_from_uri(&self.uri)
            .map_err(|error| Problem::bad_request(error.body_text()))?;
        if wait_seconds > LONGEST_SECONDS {
            return Err(Problem::bad_request(format!(
                "wait_seconds must be from 0 to {LONGEST_SECONDS}"
            )));
        }
        let events = &self.app.guard.events;
        let patience = Duration::from_secs(wait_seconds);
        let page = match timeout(patience, events.next_after(after)).await {
            Ok(page) => page,
            Err(_) => events.after(after),
        };
        Ok(Json(page).into_response())
    }
}
