//! Errors as they are answered: problem details for HTTP APIs (RFC 9457), each fault by itself.

use axum::{
    Json,
    http::{HeaderValue, StatusCode, header},
    response::{IntoResponse, Response},
};
use serde::{Deserialize, Serialize};
use utoipa::ToSchema;

use crate::{
    config::{Fault, Faults},
    daemon::DaemonError,
    desk::Refused,
    document::edit::EditError,
};

/// The answer to a request that was refused.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Problem {
    /// What kind of problem it is; stays the same from release to release.
    #[serde(rename = "type")]
    #[schema(example = "urn:nlb:problem:invalid")]
    pub kind: String,
    /// The kind, for people.
    pub title: String,
    /// The status of the answer.
    pub status: u16,
    /// What is wrong, and what to do.
    pub detail: String,
    /// The faults of a configuration, each for itself.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub faults: Vec<FaultSaid>,
}

/// One fault of a configuration.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct FaultSaid {
    /// The file; absent if the fault is in what was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub file: Option<String>,
    /// The line in it, or in the TOML that was sent.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub line: Option<usize>,
    /// The column.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub column: Option<usize>,
    /// The key: `target_group "web".target "10.0.0.11".weight`.
    pub field: String,
    /// Its value; absent for missing keys and secrets.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub value: Option<String>,
    /// What is wrong.
    pub problem: String,
    /// What would be right.
    pub remedy: String,
}

impl FaultSaid {
    fn of(fault: &Fault, place: Place) -> Self {
        let position = fault.position.filter(|_| place != Place::Nowhere);
        Self {
            file: (place == Place::File).then(|| fault.file.clone()),
            line: position.map(|at| at.line),
            column: position.map(|at| at.column),
            field: fault.field.clone(),
            value: fault.value.clone(),
            problem: fault.problem.to_string(),
            remedy: fault.remedy.to_string(),
        }
    }

    /// The fault on one line; `sent` is the name of the file that was sent.
    pub fn line(&self, sent: Option<&str>) -> String {
        let file = self
            .file
            .as_deref()
            .or(sent.filter(|_| self.line.is_some()));
        let mut place = String::new();
        if let Some(file) = file {
            place = format!("{file}:");
        }
        if let (Some(line), Some(column)) = (self.line, self.column) {
            place = format!("{place}{line}:{column}:");
        }
        let mut words = Vec::new();
        if !place.is_empty() {
            words.push(place);
        }
        if !self.field.is_empty() {
            words.push(format!("{}:", self.field));
        }
        if let Some(value) = &self.value {
            words.push(format!("value `{value}`"));
        }
        words.push(format!("{}; {}", self.problem, self.remedy));
        words.join(" ")
    }
}

/// What the positions of faults refer to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum Place {
    /// A file that the daemon read.
    File,
    /// The text that was sent.
    Body,
    /// Text that nobody has seen.
    Nowhere,
}

impl Problem {
    pub(super) fn new(status: StatusCode, kind: &str, title: &str, detail: String) -> Self {
        Self {
            kind: format!("urn:nlb:problem:{kind}"),
            title: title.to_owned(),
            status: status.as_u16(),
            detail,
            faults: Vec::new(),
        }
    }

    pub(super) fn bad_request(detail: String) -> Self {
        Self::new(
            StatusCode::BAD_REQUEST,
            "bad-request",
            "The request is wrong",
            detail,
        )
    }

    pub(super) fn missing(detail: String) -> Self {
        Self::new(
            StatusCode::NOT_FOUND,
            "not-found",
            "There is no such resource",
            detail,
        )
    }

    pub(super) fn ending() -> Self {
        let detail = "the daemon is ending; try again when it is back".to_owned();
        Self::new(
            StatusCode::SERVICE_UNAVAILABLE,
            "ending",
            "The daemon is ending",
            detail,
        )
    }

    fn conflict(detail: String) -> Self {
        Self::new(
            StatusCode::CONFLICT,
            "conflict",
            "The request does not fit",
            detail,
        )
    }

    fn invalid(detail: String) -> Self {
        let title = "The result would not be valid, and nothing has changed";
        Self::new(StatusCode::UNPROCESSABLE_ENTITY, "invalid", title, detail)
    }

    pub(super) fn not_kept(detail: String) -> Self {
        Self::new(
            StatusCode::INSUFFICIENT_STORAGE,
            "not-kept",
            "The change cannot be kept, so it was not made",
            detail,
        )
    }

    fn faults(faults: &Faults, place: Place) -> Self {
        let count = faults.len();
        let plural = if count == 1 { "" } else { "s" };
        let wherein = match (place, faults.iter().next()) {
            (Place::File, Some(fault)) => format!(" in {}", fault.file),
            _ => String::new(),
        };
        let mut problem = Self::invalid(format!(
            "{count} fault{plural}{wherein}; nothing has changed"
        ));
        problem.faults = faults
            .iter()
            .map(|fault| FaultSaid::of(fault, place))
            .collect();
        problem
    }

    pub(super) fn of_edit(error: &EditError) -> Self {
        let detail = error.to_string();
        match error {
            EditError::Missing(..) | EditError::NotAnId(_) => Self::missing(detail),
            EditError::Exists(_) | EditError::Ambiguous(..) => Self::conflict(detail),
            EditError::Shape(_) | EditError::Null(_) | EditError::OtherName { .. } => {
                Self::invalid(detail)
            }
        }
    }

    pub(super) fn of_daemon(error: &DaemonError, place: Place) -> Self {
        let detail = error.to_string();
        match error {
            DaemonError::Config(faults) | DaemonError::Refused(Refused::Config(faults)) => {
                Self::faults(faults, place)
            }
            DaemonError::Refused(Refused::Edit(error)) => Self::of_edit(error),
            DaemonError::Refused(Refused::Document(_)) => Self::invalid(detail),
            DaemonError::Refused(Refused::Precondition { .. }) => Self::new(
                StatusCode::PRECONDITION_FAILED,
                "changed-meanwhile",
                "It has changed since it was read",
                detail,
            ),
            DaemonError::Refused(Refused::Store(_)) => Self::not_kept(detail),
            DaemonError::Directory(_) | DaemonError::Tls(_) => Self::invalid(detail),
            DaemonError::NeedsRestart { .. } | DaemonError::Plan(_) => Self::conflict(detail),
            _ => Self::new(
                StatusCode::INTERNAL_SERVER_ERROR,
                "failed",
                "The daemon could not do it",
                detail,
            ),
        }
    }
}

impl IntoResponse for Problem {
    fn into_response(self) -> Response {
        let status = StatusCode::from_u16(self.status).unwrap_or(StatusCode::INTERNAL_SERVER_ERROR);
        let mut response = (status, Json(self)).into_response();
        response.headers_mut().insert(
            header::CONTENT_TYPE,
            HeaderValue::from_static("application/problem+json"),
        );
        response
    }
}
