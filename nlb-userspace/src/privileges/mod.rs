//! What the daemon gives up, in two steps: before it touches the network, and once it runs.
//!
//! ```text
//!  start ─► keep_to_ourselves ─► narrow ─► load, attach ─► settle ─► the loop
//!           no core dumps        user,                     no PERFMON,
//!                                4 capabilities,           seccomp
//!                                no_new_privs
//! ```
//!
//! Capabilities and users are a thread's in Linux, so both steps insist on being the only thread:
//! every later one then has as little. Without the right to give something up (in a container, or
//! not as root) it stays as it is; what must not be is a step that half happened.

mod capabilities;
mod error;
pub mod seccomp;
mod user;

use std::{fs, path::Path};

use rustix::process::{DumpableBehavior, set_dumpable_behavior};

pub use self::error::PrivilegesError;
use self::user::User;
use crate::config::{Node, Seccomp};

/// Keeps what this process knows out of core dumps, and other processes of its user from looking
/// into it. Called before the first secret is read.
pub fn keep_to_ourselves() -> Result<(), PrivilegesError> {
    set_dumpable_behavior(DumpableBehavior::NotDumpable)
        .map_err(PrivilegesError::because("keep secrets out of core dumps"))
}

/// Becomes the configuration's user, if it names one, and keeps four capabilities. `files` are what
/// that user must be able to change besides the pins and the state directory; those that do not exist are passed over.
pub fn narrow(node: &Node, files: &[&Path]) -> Result<(), PrivilegesError> {
    require_one_thread()?;
    let user = node.user.as_deref().map(User::named).transpose()?;
    if let Some(user) = &user {
        user.own_folder(&node.pins())?;
        user.own_folder(&node.state_directory)?;
        for file in files {
            user.own(file)?;
        }
        user.become_it()?;
    }
    capabilities::narrow()?;
    // Only now: what root may, the user need not.
    if let Some(user) = &user {
        user.require_pins(&node.pins(), &node.bpffs)?;
        tracing::info!(user = user.name(), "runs as a user of its own");
    }
    rustix::thread::set_no_new_privs(true)
        .map_err(PrivilegesError::because("refuse new privileges"))?;
    // A change of user allows dumps again.
    keep_to_ourselves()
}

/// Gives up what only loading programs takes, and has every system call refused that the daemon
/// does not make.
pub fn settle(node: &Node) -> Result<(), PrivilegesError> {
    require_one_thread()?;
    capabilities::settle()?;
    match node.seccomp {
        Seccomp::Off => {}
        policy @ (Seccomp::Enforce | Seccomp::Log) => seccomp::apply(policy)?,
    }
    Ok(())
}

fn require_one_thread() -> Result<(), PrivilegesError> {
    let threads = fs::read_dir("/proc/self/task").map_err(PrivilegesError::Threads)?;
    match threads.count() {
        1 => Ok(()),
        several => Err(PrivilegesError::SeveralThreads(several)),
    }
}
