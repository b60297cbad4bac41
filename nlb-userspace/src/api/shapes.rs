//! What requests ask with and are answered with, where it is not a document.

use serde::{Deserialize, Serialize};
use serde_json::Value;
use utoipa::{IntoParams, ToSchema};

use crate::status::GroupHealth;

/// How something is asked for: the query.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Asked {
    /// Answer with the plan and change nothing.
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    pub dry_run: bool,
    /// Answer only when this is so.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub wait: Option<Wait>,
    /// How long to wait for that; 30 if it is not said, at most 600.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub timeout_seconds: Option<f64>,
}

/// Which events are asked for: the query.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize, IntoParams)]
#[into_params(parameter_in = Query)]
#[serde(deny_unknown_fields)]
pub struct Listening {
    /// Those after this number; 0 for all that are kept.
    #[serde(default)]
    pub after: u64,
    /// How long to wait for one if there is none; at most 600.
    #[serde(default)]
    pub wait_seconds: u64,
}

/// What an answer waits for.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema, clap::ValueEnum)]
#[serde(rename_all = "lowercase")]
pub enum Wait {
    /// The change is live: the kernel's maps say it
    Live,
    /// It is live, and the target that was registered is healthy
    Healthy,
}

/// A resource as it is read.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Item {
    /// Its name in paths, below what it belongs to: `web`, `TCP:80`, `10.0.0.11:80`.
    pub id: String,
    /// A hash of what it says, for `If-Match`.
    pub etag: String,
    /// Who says it: `file`, `api`, or `file+api` if keys of the file were changed over the API.
    pub origin: String,
    /// What it says: the table of the configuration file, with the same keys.
    #[schema(value_type = Object)]
    pub document: Value,
}

/// Resources as they are listed.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Listing {
    /// The generation that is live.
    pub generation: u64,
    /// The resources, in the order of the document.
    pub items: Vec<Item>,
}

/// Which generation is live.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Generation {
    /// The generation that is live on the wire. Counts up with every change of the kernel's maps,
    /// those that health checks and the network bring about, too.
    pub generation: u64,
    /// Whether everything that was changed is live.
    pub live: bool,
    /// The tag of the whole document.
    pub etag: String,
    /// How many resources differ from the base: from the configuration file, or from the document
    /// that was applied in its place.
    pub changed_over_api: usize,
}

/// What became of flows that were to be killed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize, ToSchema)]
pub struct Killed {
    /// How many were forgotten.
    pub killed: u64,
}

/// How all targets are.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize, ToSchema)]
pub struct Health {
    /// The groups, in the order of the document.
    pub target_groups: Vec<GroupHealth>,
}
