//! Why privileges could not be given up.

use std::{io, path::PathBuf};

/// Something that was to be given up, and could not be.
#[derive(Debug, thiserror::Error)]
pub enum PrivilegesError {
    /// The kernel refused.
    #[error("cannot {action}: {source}")]
    Refused {
        /// What was attempted.
        action: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The user cannot be looked up.
    #[error("node.user: cannot look up `{name}`: {source}")]
    Lookup {
        /// The name.
        name: String,
        /// Why not.
        source: io::Error,
    },
    /// There is no such user.
    #[error("node.user: there is no user `{0}`; make it (useradd --system {0}), or name another")]
    NoUser(String),
    /// A file could not be handed over.
    #[error("node.user: cannot make `{user}` the owner of `{path}`: {source}")]
    Own {
        /// The user.
        user: String,
        /// Which file.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// The user cannot be taken on.
    #[error(
        "node.user: cannot become `{user}`: {source}; nlb must be started as root, with \
         CAP_SETUID, CAP_SETGID and CAP_CHOWN"
    )]
    Become {
        /// The user.
        user: String,
        /// Why not.
        source: io::Error,
    },
    /// The user cannot reach the pins.
    #[error(
        "node.user: `{user}` cannot use `{pins}`: {source}; systemd lets only root into \
         `{bpffs}`: mount a bpffs that `{user}` may enter (mount -t bpf -o mode=0711 bpf DIR) and \
         set node.bpffs"
    )]
    Pins {
        /// The user.
        user: String,
        /// The pins' folder.
        pins: PathBuf,
        /// `node.bpffs`.
        bpffs: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Nobody can say how many threads there are.
    #[error("cannot count this process's threads (is /proc mounted?): {0}")]
    Threads(#[source] io::Error),
    /// Some threads would keep what the others give up.
    #[error("{0} threads run where there must be one: a fault of nlb; nothing was given up")]
    SeveralThreads(usize),
    /// The filter of system calls could not be made.
    #[error("cannot make the filter of system calls: {0}")]
    Filter(#[from] seccompiler::BackendError),
    /// The filter of system calls was refused.
    #[error(
        "the kernel refused the filter of system calls: {0}; node.seccomp = \"off\" does without"
    )]
    Seccomp(#[from] seccompiler::Error),
}

impl PrivilegesError {
    /// For `map_err` on what the kernel answers.
    pub(super) fn because(action: &'static str) -> impl Fn(rustix::io::Errno) -> Self {
        move |errno| Self::Refused {
            action,
            source: errno.into(),
        }
    }
}
