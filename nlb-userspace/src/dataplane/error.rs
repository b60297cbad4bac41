//! What can go wrong between the daemon and the kernel's maps and programs.

use std::{io, path::PathBuf};

use aya::{
    EbpfError,
    maps::MapError,
    pin::PinError,
    programs::{ProgramError, links::LinkError},
};

/// Something that was attempted on the data plane, and failed.
#[derive(Debug, thiserror::Error)]
pub enum DataplaneError {
    /// The pins' folder is not on a bpffs.
    #[error(
        "`{path}` is not a mounted bpffs; mount one (mount -t bpf bpf {path}) or set node.bpffs"
    )]
    NotBpffs {
        /// `node.bpffs`.
        path: PathBuf,
    },
    /// Another daemon uses the maps.
    #[error("another nlb daemon uses the maps in `{0}`; stop it first")]
    Locked(PathBuf),
    /// A file or folder could not be used.
    #[error("cannot {action} `{path}`: {source}")]
    Io {
        /// What was attempted.
        action: &'static str,
        /// On what.
        path: PathBuf,
        /// Why not.
        source: io::Error,
    },
    /// Maps of another release are pinned.
    #[error(
        "the maps in `{path}` have layout {found} and this release has layout {ours}; \
         `nlb detach` removes them, and with them {flows} remembered flows"
    )]
    Layout {
        /// The pins' folder.
        path: PathBuf,
        /// Their layout.
        found: u64,
        /// Ours.
        ours: u64,
        /// How many flow entries would be lost; an estimate where the layout is unknown.
        flows: u64,
    },
    /// A map is too large for this machine, or for what the process may have of it.
    #[error(
        "cannot make map {map}, which has its size from node.capacity.{key}: {source}; lower \
         node.capacity.{key}, or let the daemon have more memory (the unit's MemoryMax, and before \
         Linux 5.11 LimitMEMLOCK)"
    )]
    TooLarge {
        /// Which map.
        map: String,
        /// The key of the configuration.
        key: &'static str,
        /// Why not.
        source: io::Error,
    },
    /// The object could not be loaded.
    #[error("cannot load the kernel program and its maps: {0}")]
    Load(#[from] EbpfError),
    /// A map is missing in the object.
    #[error("the kernel object has no map `{0}`: the build is broken")]
    NoMap(&'static str),
    /// The program is missing in the object.
    #[error("the kernel object has no XDP program `{0}`: the build is broken")]
    NoProgram(&'static str),
    /// A map could not be read or written.
    #[error("cannot {action} map {map}: {source}")]
    Map {
        /// What was attempted.
        action: &'static str,
        /// On which map.
        map: &'static str,
        /// Why not.
        source: MapError,
    },
    /// A pin could not be made.
    #[error("cannot pin `{path}`: {source}")]
    Pin {
        /// Where.
        path: PathBuf,
        /// Why not.
        source: PinError,
    },
    /// The verifier or the kernel refused the program.
    #[error("the kernel refused the program: {0}")]
    Program(#[source] ProgramError),
    /// A pinned link could not be used.
    #[error("cannot use the pinned link `{path}`: {source}")]
    Link {
        /// Which.
        path: PathBuf,
        /// Why not.
        source: LinkError,
    },
    /// An interface of the configuration does not exist.
    #[error("node.interfaces: there is no interface `{0}`; `ip link` lists them")]
    NoInterface(String),
    /// The program could not be attached.
    #[error("cannot attach to `{interface}` in {mode} mode: {source}{hint}")]
    Attach {
        /// Where.
        interface: String,
        /// `driver` or `generic`.
        mode: &'static str,
        /// Why not.
        source: ProgramError,
        /// What to try.
        hint: &'static str,
    },
    /// A frame that was kept could not be sent in again.
    #[error(
        "cannot send a fragment in again on interface {interface}: {source}; it is lost, as all are \
         that come before their datagram's first one where this does not work"
    )]
    SendIn {
        /// The interface's index.
        interface: u32,
        /// Why not.
        source: ProgramError,
    },
    /// No program of ours is attached.
    #[error(
        "nlb is attached to no interface here: `{0}` has no link; start the daemon, or name its bpffs \
         with --bpffs"
    )]
    NotRunning(PathBuf),
    /// The program that runs does not say what it was loaded with.
    #[error("the program that runs is of another release; restart the daemon, which replaces it")]
    Unreadable,
    /// The maps that packets use are of another release.
    #[error(
        "the maps have layout {found} and this nlb reads layout {ours}; use the nlb that the daemon is"
    )]
    OtherLayout {
        /// Their layout.
        found: u64,
        /// Ours.
        ours: u64,
    },
    /// There is no record with this number: the configuration needs more than the maps have.
    #[error(
        "map {map} has {capacity} entries and entry {index} is needed; raise node.capacity, then \
         `nlb detach` and start again"
    )]
    Full {
        /// Which map.
        map: &'static str,
        /// How many entries it has.
        capacity: usize,
        /// Which would be needed.
        index: usize,
    },
}
