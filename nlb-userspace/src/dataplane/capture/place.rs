//! Who stands in the packet program's place: nobody, somebody who captures, or somebody who was killed while
//! they did.

use std::{
    os::fd::AsFd as _,
    path::{Path, PathBuf},
};

use aya::{
    maps::{Array, Map, MapData},
    programs::{
        ProgramFd, ProgramInfo,
        links::{FdLink, PinnedLink},
    },
};
use nlb_common::{capture::Lease, plain::Plain};

use super::{PROGRAM, syscall::Link};
use crate::{
    clock,
    dataplane::{DataplaneError, kernel::map_error, load, present::program, running::maps},
};

/// A pinned link, and whose program is behind it.
pub(super) struct Place {
    pub(super) path: PathBuf,
    program: ProgramInfo,
    /// The lease of a program that captures.
    lease: Option<Lease>,
}

impl Place {
    /// What a link leads to; none if its program has just been replaced.
    pub(super) fn of(path: &Path) -> Result<Option<Self>, DataplaneError> {
        let unusable = |source| DataplaneError::Link {
            path: path.to_owned(),
            source,
        };
        let link = FdLink::from(PinnedLink::from_pin(path).map_err(unusable)?);
        let id = link.info().map_err(unusable)?.program_id();
        let program = program(id);
        program
            .map(|program| {
                Ok(Self {
                    path: path.to_owned(),
                    lease: lease(&program)?,
                    program,
                })
            })
            .transpose()
    }

    /// The id of the packet program that packets come to here.
    pub(super) fn front(&self) -> u32 {
        let front = self.lease.map(|lease| lease.front);
        front
            .and_then(|front| u32::try_from(front).ok())
            .unwrap_or_else(|| self.program.id())
    }

    /// Whether somebody captures here.
    pub(super) fn is_leased(&self) -> bool {
        self.lease.as_ref().is_some_and(is_running)
    }

    /// Whether the program with this id is here.
    pub(super) fn is(&self, program: u32) -> bool {
        self.program.id() == program
    }

    /// Puts a program here, unless it is another one's place by now.
    pub(super) fn put(&self, new: &ProgramFd) -> Result<(), DataplaneError> {
        let old = self.program.fd().map_err(DataplaneError::Program)?;
        let put = Link::open(&self.path).and_then(|link| link.replace(old.as_fd(), new.as_fd()));
        put.map_err(load::io_error("replace the program behind", &self.path))
    }
}

/// The packet program behind a link's program: itself, or the one that it stands in the place of.
pub(in crate::dataplane) fn front(program_id: u32) -> Result<u32, DataplaneError> {
    let program = program(program_id);
    let lease = program.map(|program| lease(&program)).transpose()?;
    let front = lease.flatten().map(|lease| lease.front);
    Ok(front
        .and_then(|front| u32::try_from(front).ok())
        .unwrap_or(program_id))
}

/// The lease of somebody who captures, if they have pinned one here that has not run out: to be asked by the
/// daemon, which may not look programs up by their ids.
pub(in crate::dataplane) fn pinned_lease(pins: &Path) -> Result<Option<Lease>, DataplaneError> {
    let pin = pins.join(LEASE_PIN);
    if !pin.try_exists().map_err(load::io_error("look at", &pin))? {
        return Ok(None);
    }
    let lease = read(MapData::from_pin(&pin).map_err(map_error("read", LEASE))?)?;
    Ok(Some(lease).filter(is_running))
}

/// A program that is there, by its id.
pub(super) fn descriptor(id: u32) -> Result<ProgramFd, DataplaneError> {
    let program = program(id).ok_or(DataplaneError::Unreadable)?;
    program.fd().map_err(DataplaneError::Program)
}

/// The lease in a program's maps, if it is one that captures.
fn lease(program: &ProgramInfo) -> Result<Option<Lease>, DataplaneError> {
    if program.name_as_str() != Some(PROGRAM) {
        return Ok(None);
    }
    let failed = map_error("read", LEASE);
    let maps = maps(program)?;
    let id = maps.get(LEASE).ok_or(DataplaneError::NoMap(LEASE))?;
    read(MapData::from_id(*id).map_err(&failed)?).map(Some)
}

fn read(map: MapData) -> Result<Lease, DataplaneError> {
    let failed = map_error("read", LEASE);
    let lease: Array<_, Plain<Lease>> = Array::try_from(Map::Array(map)).map_err(&failed)?;
    let Plain(lease) = lease.get(&0, 0).map_err(&failed)?;
    Ok(lease)
}

fn is_running(lease: &Lease) -> bool {
    clock::since_boot().as_nanos() < lease.until_ns.into()
}

/// The map of the lease.
pub(super) const LEASE: &str = "LEASE";

/// The name of its pin.
pub(in crate::dataplane) const LEASE_PIN: &str = "capture-lease";
