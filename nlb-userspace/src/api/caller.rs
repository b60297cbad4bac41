//! Who asks, as the kernel says.

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::net::UnixListener;

use crate::access::{self, guard::Peer};

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

impl From<Caller> for Peer {
    fn from(caller: Caller) -> Self {
        let known = caller.uid.zip(caller.gid);
        Self {
            caller: known.map(|(uid, gid)| access::Caller { uid, gid }),
            pid: caller.pid,
        }
    }
}
