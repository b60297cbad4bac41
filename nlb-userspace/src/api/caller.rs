//! Who asks: over the control socket as the kernel says, over the network as the certificate says.

use axum::{extract::connect_info::Connected, serve::IncomingStream};
use tokio::net::UnixListener;

use crate::access::{Caller, guard::Peer};

impl Connected<IncomingStream<'_, UnixListener>> for Peer {
    /// By `SO_PEERCRED`.
    fn connect_info(stream: IncomingStream<'_, UnixListener>) -> Self {
        let peer = stream.io().peer_cred().ok();
        Self {
            caller: peer.map(|peer| Caller::User {
                uid: peer.uid(),
                gid: peer.gid(),
            }),
            pid: peer.and_then(|peer| peer.pid()),
            remote: None,
        }
    }
}

impl Peer {
    /// Whose idempotency keys it uses: the same whatever process and address it comes from, and with
    /// a certificate that was renewed.
    pub(super) fn owner(&self) -> String {
        match &self.caller {
            Some(Caller::User { uid, .. }) => format!("user {uid}"),
            Some(Caller::Certificate(certificate)) => {
                let names: Vec<String> =
                    certificate.names.iter().map(ToString::to_string).collect();
                format!("{} {}", certificate.subject, names.join(" "))
            }
            None => "nobody".to_owned(),
        }
    }
}
