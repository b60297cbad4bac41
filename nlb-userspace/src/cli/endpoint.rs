//! Where the daemon is that commands are for: at a socket of this host, or elsewhere.

use std::path::PathBuf;

use clap::Args;

use super::Failure;
use crate::client::{Endpoint, network::Network};

/// Where the daemon listens unless the configuration says otherwise.
const DEFAULT_SOCKET: &str = "/run/nlb/nlb.sock";

/// Where help pages list these options.
const HEADING: &str = "Where the daemon is";

/// Where the daemon is.
#[derive(Debug, Args)]
pub struct Reach {
    /// The daemon's control socket, the configuration's `node.socket`: /run/nlb/nlb.sock unless
    /// something else is said here or with --api
    #[arg(long, value_name = "PATH", help_heading = HEADING)]
    socket: Option<PathBuf>,
    /// A daemon elsewhere, at its `node.api.tcp.address`: `https://HOST:PORT`; takes the three
    /// options that follow. --socket outweighs it
    #[arg(long, value_name = "URL", env = "NLB_API", hide_env_values = true, help_heading = HEADING)]
    api: Option<String>,
    /// Our certificate for that daemon, in PEM
    #[arg(long, value_name = "FILE", env = "NLB_CERT", hide_env_values = true, help_heading = HEADING)]
    cert: Option<PathBuf>,
    /// Its private key, in PEM
    #[arg(long, value_name = "FILE", env = "NLB_KEY", hide_env_values = true, help_heading = HEADING)]
    key: Option<PathBuf>,
    /// The authorities that vouch for the daemon's certificate, in PEM
    #[arg(long, value_name = "FILE", env = "NLB_CA", hide_env_values = true, help_heading = HEADING)]
    ca: Option<PathBuf>,
}

impl Reach {
    pub(super) fn endpoint(&self) -> Result<Endpoint, Failure> {
        if let Some(socket) = &self.socket {
            return Ok(Endpoint::Socket(socket.clone()));
        }
        let Some(url) = &self.api else {
            return Ok(Endpoint::Socket(DEFAULT_SOCKET.into()));
        };
        let needed = |file: &Option<PathBuf>, option, variable| {
            file.clone().ok_or_else(|| {
                format!("--api takes {option}, too: write `{option} FILE`, or set {variable}")
            })
        };
        let network = Network::new(
            url,
            &needed(&self.cert, "--cert", "NLB_CERT")?,
            &needed(&self.key, "--key", "NLB_KEY")?,
            &needed(&self.ca, "--ca", "NLB_CA")?,
        )?;
        Ok(Endpoint::Network(Box::new(network)))
    }
}
