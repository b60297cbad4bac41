//! What `nlb run` does around the daemon: the socket before it, signals while it runs, and what
//! becomes of the data plane after it.

use std::{
    fs::Permissions,
    io,
    os::unix::fs::{MetadataExt as _, PermissionsExt as _},
    path::{Path, PathBuf},
    sync::{Arc, Mutex},
    time::Duration,
};

use tokio::{
    net::UnixListener,
    signal::unix::{Signal, SignalKind, signal},
    sync::{mpsc, watch},
    time::MissedTickBehavior,
};

use crate::{
    access::{
        Policy,
        audit::{AuditError, AuditLog},
        guard::Guard,
    },
    api::{
        self, Api, ApiError,
        network::{Network, NetworkError},
    },
    config::{self, Faults, OnExit},
    daemon::{Daemon, DaemonError},
    dataplane::{DataplaneError, load},
    privileges::{self, PrivilegesError},
    secret, service,
    store::{StoreError, keys::KeyLog},
};

/// How often it is looked whether the control socket is still there.
const LOOK_EVERY: Duration = Duration::from_secs(1);

/// Why the daemon did not start, or did not end in good order.
#[derive(Debug, thiserror::Error)]
pub enum RunError {
    /// The configuration has faults.
    #[error(transparent)]
    Config(#[from] Faults),
    /// The configuration's path is not one.
    #[error("cannot use the path `{path}`: {source}")]
    Path {
        /// The path.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no folder for the control socket.
    #[error("node.socket: cannot make `{path}`: {source}")]
    Folder {
        /// The folder.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// There is no control socket.
    #[error(transparent)]
    Api(#[from] ApiError),
    /// The API cannot be asked over TCP.
    #[error(transparent)]
    Network(#[from] NetworkError),
    /// There is no thread for the API over TCP.
    #[error("cannot start the thread of the API over TCP: {0}")]
    NetworkThread(#[source] io::Error),
    /// What is remembered of answered requests cannot be read.
    #[error(transparent)]
    Answers(#[from] StoreError),
    /// What the service manager hands over cannot be used.
    #[error("cannot use the socket that the service manager hands over: {0}")]
    HandedOver(#[source] io::Error),
    /// There is no audit log.
    #[error("node.audit_log: {0}")]
    Audit(#[from] AuditError),
    /// Privileges could not be given up.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// The daemon could not start.
    #[error(transparent)]
    Daemon(#[from] DaemonError),
    /// The data plane was to end with the daemon and does not.
    #[error(
        "node.on_exit = \"detach\": {0}; the data plane goes on, `nlb detach` ends what is left"
    )]
    Detach(#[source] DataplaneError),
}

/// Runs the daemon until it is told to end.
pub async fn run(config: &Path) -> Result<(), RunError> {
    let config = std::path::absolute(config).map_err(|source| RunError::Path {
        path: config.to_owned(),
        source,
    })?;
    privileges::keep_to_ourselves()?;
    let handed_over = service::handed_over().map_err(RunError::HandedOver)?;
    // It is the service manager's, which goes on listening when we end.
    let is_ours = handed_over.is_none();
    let desired = config::load(&config)?;
    // The socket first: two daemons on the same maps must not meet.
    let listener = match handed_over {
        Some(listener) => adopt(listener).map_err(RunError::HandedOver)?,
        None => bind(&desired.node.socket).await?,
    };
    // While root can: a port may be one of those that are root's. Nobody is answered yet.
    let tcp_api = desired.node.tcp_api.as_ref();
    let network = tcp_api.map(|api| Network::bind(api.address)).transpose()?;
    let mut terminate = wait_for(SignalKind::terminate())?;
    let mut interrupt = wait_for(SignalKind::interrupt())?;
    let mut hang_up = wait_for(SignalKind::hangup())?;
    let node = &desired.node;
    // While root can: the key that is kept is made where only root may write.
    let folder = node.socket.parent().unwrap_or(Path::new("/run/nlb"));
    secret::deployment_key(&node.hash_key, folder).map_err(DaemonError::Secret)?;
    let key = folder.join("hash.key");
    let mut files = vec![node.socket.as_path(), &key];
    files.extend(node.audit_log.as_deref());
    privileges::narrow(node, &files)?;
    let audit = node.audit_log.as_deref().map(AuditLog::open).transpose()?;
    let (mut daemon, inputs) = Daemon::start(&config).await?;
    privileges::settle(node)?;
    let (commands, received) = mpsc::channel(16);
    let (reload, reloads) = mpsc::channel(1);
    tokio::spawn(async move {
        while hang_up.recv().await.is_some() {
            // One that is waiting already reads the same file.
            let _ = reload.try_send(());
        }
    });
    let guard = Guard {
        policy: daemon.policy(),
        generation: daemon.generation(),
        audit: audit.map(|log| Arc::new(Mutex::new(log))),
        from: node.socket.display().to_string().into(),
    };
    if is_ours {
        open_up(&node.socket, &guard.policy);
    }
    let policy = guard.policy.clone();
    let api = Api::new(commands, guard, KeyLog::open(&node.state_directory)?);
    serve(listener, api.clone());
    if let Some(network) = network {
        let served = api.clone().serve_network(network, daemon.terms());
        served.map_err(RunError::NetworkThread)?;
    }
    if is_ours {
        tokio::spawn(stay_reachable(node.socket.clone(), api, policy));
    }
    tracing::info!(socket = %desired.node.socket.display(), "ready");
    daemon.tell_ready();
    let stop = async {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    };
    let daemon = daemon.run(inputs, received, reloads, stop).await;
    let node = daemon.node().clone();
    // Its maps, and its lock on them.
    drop(daemon);
    // One that is gone already is as well.
    if is_ours {
        drop(std::fs::remove_file(&node.socket));
    }
    match node.on_exit {
        OnExit::Keep => {
            tracing::info!("the daemon ends, traffic goes on; `nlb detach` ends it");
        }
        OnExit::Detach => {
            let detached = load::detach(&node.bpffs, &node.pins()).map_err(RunError::Detach)?;
            tracing::info!(
                interfaces = detached.links,
                "the daemon ends, and the data plane with it (node.on_exit = \"detach\")"
            );
        }
    }
    Ok(())
}

/// Makes our own control socket, and the folder around it.
async fn bind(socket: &Path) -> Result<UnixListener, RunError> {
    if let Some(folder) = socket.parent() {
        std::fs::create_dir_all(folder).map_err(|source| RunError::Folder {
            path: folder.to_owned(),
            source,
        })?;
    }
    Ok(api::bind(socket).await?)
}

/// Lets others than its owner connect where the configuration gives someone a role: who may do what is
/// the guard's to say then.
fn open_up(socket: &Path, policy: &watch::Receiver<Arc<Policy>>) {
    let is_shared = policy.borrow().is_shared();
    let mode = Permissions::from_mode(if is_shared { 0o666 } else { 0o600 });
    if let Err(error) = std::fs::set_permissions(socket, mode) {
        tracing::error!("cannot set the permissions of the control socket: {error}");
    }
}

fn serve(listener: UnixListener, api: Api) {
    tokio::spawn(async move {
        if let Err(error) = api.serve(listener).await {
            tracing::error!("the control socket failed: {error}");
        }
    });
}

/// Makes the control socket anew when someone has removed it, or the folder around it: a daemon that
/// nobody can ask or tell anything is as good as none.
async fn stay_reachable(socket: PathBuf, api: Api, mut policy: watch::Receiver<Arc<Policy>>) {
    let mut look = tokio::time::interval(LOOK_EVERY);
    look.set_missed_tick_behavior(MissedTickBehavior::Delay);
    let mut ours = identity(&socket);
    let mut is_reported = false;
    loop {
        tokio::select! {
            _ = look.tick() => {}
            Ok(()) = policy.changed() => open_up(&socket, &policy),
        }
        // Another daemon may have put its own there, and have ended since.
        if ours.is_some() && identity(&socket) == ours {
            continue;
        }
        match bind(&socket).await {
            Ok(listener) => {
                let path = socket.display();
                tracing::warn!(socket = %path, "the control socket was removed; made anew");
                is_reported = false;
                ours = identity(&socket);
                open_up(&socket, &policy);
                serve(listener, api.clone());
            }
            Err(error) if !is_reported => {
                is_reported = true;
                tracing::error!("nobody can reach this daemon, its socket was removed: {error}");
            }
            Err(_) => {}
        }
    }
}

/// Which file stands at a path.
fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = std::fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn adopt(listener: std::os::unix::net::UnixListener) -> io::Result<UnixListener> {
    listener.set_nonblocking(true)?;
    UnixListener::from_std(listener)
}

fn wait_for(kind: SignalKind) -> Result<Signal, RunError> {
    Ok(signal(kind).map_err(DaemonError::Signals)?)
}
