//! Who asks, for what, and whether that is allowed: the one place through which every request goes.

use std::{collections::BTreeMap, sync::Arc};

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::net::UnixListener;

/// Who is at the other end of the socket, as the kernel says (`SO_PEERCRED`).
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub struct Caller {
    /// The user, unless the kernel does not know.
    pub uid: Option<u32>,
    /// The group.
    pub gid: Option<u32>,
    /// The process, if it is in our process namespace.
    pub pid: Option<i32>,
}

impl Connected<IncomingStream<'_, UnixListener>> for Caller {
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred().ok();
        Self {
            uid: peer.map(|peer| peer.uid()),
            gid: peer.map(|peer| peer.gid()),
            pid: peer.and_then(|peer| peer.pid()),
        }
    }
}

/// A request as far as a policy is concerned.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Call {
    /// Who asks.
    pub caller: Caller,
    /// For what, such as `targets:register`.
    pub action: &'static str,
    /// Of what, such as `target-group/web/target/10.0.0.11:80`, or `*` for what is no resource: the
    /// one name of each resource, however the request writes it. It need not be there.
    pub resource: String,
    /// Its tags, and those of the load balancer or target group that it is in, as they are before
    /// the call.
    pub tags: BTreeMap<String, String>,
}

/// Decides on calls; the error says why not, and what to do about it.
pub type Gate = Arc<dyn Fn(&Call) -> Result<(), String> + Send + Sync>;

/// Root and the daemon's own user may do everything, others nothing. The permissions of the socket
/// say the same; this holds if somebody has changed those.
pub fn owner_only() -> Gate {
    let own = rustix::process::geteuid().as_raw();
    Arc::new(move |call| match call.caller.uid {
        Some(uid) if uid == 0 || uid == own => Ok(()),
        Some(uid) => Err(format!(
            "user {uid} may not use this socket: only root and the daemon's user {own} may; try \
             `sudo`"
        )),
        None => Err("the kernel does not say who asks".to_owned()),
    })
}
