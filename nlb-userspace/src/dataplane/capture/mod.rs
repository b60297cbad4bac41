//! A program that stands in the running packet program's place while somebody captures: it calls that one for
//! each packet, and copies what came in and what left.
//!
//! It is put behind the pinned links by the atomic update that a new daemon uses, too, and only in the place of
//! the program that it calls; so neither of two who replace it at once undoes what the other did. Who captures
//! renews a lease. If they are killed it runs out, packets go straight on to the packet program, and the
//! daemon takes that its place back.

mod place;
mod syscall;

use std::{
    fs, io,
    path::{Path, PathBuf},
    time::Duration,
};

use aya::{
    Ebpf, EbpfLoader,
    maps::{Array, Map, MapData, MapError, PerCpuArray, RingBuf},
};
use nlb_common::{
    capture::{Lease, Missed, Wish},
    plain::Plain,
    stage::Stage,
};
use tokio::io::unix::AsyncFd;

use self::place::{LEASE, Place};
pub(super) use self::place::{LEASE_PIN, front, pinned_lease};
use super::{
    CAPTURE_OBJECT, DataplaneError,
    events::waited_for,
    kernel::map_error,
    load::{self, LINK_PREFIX, number},
    running::Running,
    stages,
};
use crate::clock;

/// The program's name.
const PROGRAM: &str = "nlb_capture";

/// The counters of the packet program that tell why a packet was stopped.
const STOP_COUNTERS: &str = "STOP_COUNTERS";

/// How long a lease is; it is renewed more often.
const LEASE_TIME: Duration = Duration::from_secs(5);

/// Why packets cannot be captured.
#[derive(Debug, thiserror::Error)]
pub enum CaptureError {
    /// The program or a map could not be made, put in its place, or read.
    #[error(transparent)]
    Dataplane(#[from] DataplaneError),
    /// One capture at a time.
    #[error("somebody else captures already; one capture runs at a time")]
    Taken,
    /// The interface has no link of ours.
    #[error("nlb is not attached to this interface; `nlb status` shows the ones it is attached to")]
    NotAttached,
    /// The array of programs of the running packet program is not pinned.
    #[error(
        "the running packet program is of another release; restart the daemon, which replaces it"
    )]
    OtherRelease,
    /// The ring buffer cannot be waited for.
    #[error("cannot wait for packets: {0}")]
    Wait(io::Error),
}

/// What is asked for.
#[derive(Clone, Copy, Debug)]
pub struct Request<'r> {
    /// The folder of the pins.
    pub pins: &'r Path,
    /// Which packets.
    pub wish: &'r Wish,
    /// The index of the interface that they come in through, if not all are meant.
    pub interface: Option<u32>,
    /// Bytes for packets that have not been read yet, a power of two.
    pub ring_bytes: u32,
}

/// The program, while it is there.
pub struct Capture {
    // Kept: the program is loaded for as long as it, or a link, is there.
    _object: Ebpf,
    /// The id of the program.
    own: u32,
    lease_id: u32,
    lease: Array<MapData, Plain<Lease>>,
    ring: AsyncFd<RingBuf<MapData>>,
    missed: PerCpuArray<MapData, Plain<Missed>>,
    /// The id of the packet program.
    front: u32,
    interface: Option<u32>,
    pins: PathBuf,
}

impl std::fmt::Debug for Capture {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Capture(..)")
    }
}

impl Capture {
    /// Begins; needs a tokio runtime around it.
    pub fn begin(running: &Running, request: &Request<'_>) -> Result<Self, CaptureError> {
        // One of an earlier program is our own, or nobody's any more.
        let lease = pinned_lease(request.pins)?;
        if lease.is_some_and(|lease| lease.front == u64::from(running.program)) {
            return Err(CaptureError::Taken);
        }
        let mut loader = EbpfLoader::new();
        let stages_pin = stages_pin(running, request.pins)?;
        loader
            .map_max_entries("CAPTURED", request.ring_bytes)
            .map_pin_path(stages::STAGES, stages_pin)
            .map_pin_path(STOP_COUNTERS, request.pins.join(STOP_COUNTERS));
        let mut object = loader.load(CAPTURE_OBJECT).map_err(DataplaneError::Load)?;
        let mut take =
            |name: &'static str| object.take_map(name).ok_or(DataplaneError::NoMap(name));
        let used = |name| map_error("use", name);
        let mut wish: Array<_, Plain<Wish>> =
            Array::try_from(take("WISH")?).map_err(used("WISH"))?;
        wish.set(0, Plain(*request.wish), 0)
            .map_err(map_error("write", "WISH"))?;
        let lease = take(LEASE)?;
        let lease_id = pin(&lease, request.pins)?;
        let lease = Array::try_from(lease).map_err(used(LEASE))?;
        let missed = PerCpuArray::try_from(take("MISSED")?).map_err(used("MISSED"))?;
        let ring = RingBuf::try_from(take("CAPTURED")?).map_err(used("CAPTURED"))?;
        let program = stages::program(&mut object, PROGRAM)?;
        program.load().map_err(DataplaneError::Program)?;
        let own = program.info().map_err(DataplaneError::Program)?.id();
        let mut capture = Self {
            _object: object,
            own,
            lease_id,
            lease,
            ring: waited_for(ring).map_err(CaptureError::Wait)?,
            missed,
            front: running.program,
            interface: request.interface,
            pins: request.pins.to_owned(),
        };
        if capture.renew()? == 0 {
            return Err(CaptureError::NotAttached);
        }
        Ok(capture)
    }

    /// Renews the lease, and takes the place of the packet program where it has that itself; behind how many
    /// links it stands now.
    ///
    /// Links come with interfaces, and a lease that had run out had the daemon give places back.
    pub fn renew(&mut self) -> Result<usize, CaptureError> {
        let until = clock::since_boot() + LEASE_TIME;
        let lease = Lease {
            until_ns: u64::try_from(until.as_nanos()).unwrap_or(u64::MAX),
            front: self.front.into(),
        };
        let written = self.lease.set(0, Plain(lease), 0);
        written.map_err(map_error("write", LEASE))?;
        let ours = place::descriptor(self.own)?;
        let mut places = 0;
        for path in load::links(&self.pins)? {
            let is_meant = self
                .interface
                .is_none_or(|wanted| number(&path, LINK_PREFIX) == Some(wanted));
            let Some(place) = Place::of(&path)?.filter(|_| is_meant) else {
                continue;
            };
            if place.front() != self.front {
                continue;
            }
            if !place.is(self.own) {
                if place.is_leased() {
                    return Err(CaptureError::Taken);
                }
                place.put(&ours)?;
            }
            places += 1;
        }
        Ok(places)
    }

    /// Waits until there are packets, and shows each; a record of [`nlb_common::capture::Captured`] and the
    /// bytes behind it. Stops when `show` says so, or when no more are there. Dropping the future loses nothing.
    pub async fn packets(&mut self, mut show: impl FnMut(&[u8]) -> bool) -> io::Result<()> {
        let mut guard = self.ring.readable_mut().await?;
        while let Some(record) = guard.get_inner_mut().next() {
            if !show(&record) {
                return Ok(());
            }
        }
        guard.clear_ready();
        Ok(())
    }

    /// How many packets were not shown, so far.
    pub fn missed(&self) -> Result<Missed, DataplaneError> {
        let values = self
            .missed
            .get(&0, 0)
            .map_err(map_error("read", "MISSED"))?;
        Ok(values
            .iter()
            .fold(Missed::default(), |sum, Plain(one)| Missed {
                lost: sum.lost + one.lost,
                limited: sum.limited + one.limited,
            }))
    }

    /// Gives the packet program its places back.
    fn end(&self) -> Result<(), DataplaneError> {
        let front = place::descriptor(self.front)?;
        for path in load::links(&self.pins)? {
            if let Some(place) = Place::of(&path)?.filter(|place| place.is(self.own)) {
                place.put(&front)?;
            }
        }
        let pin = self.pins.join(LEASE_PIN);
        // It may be that of our next program already.
        if id(&pin).is_ok_and(|pinned| pinned == self.lease_id) {
            remove(&pin)?;
        }
        Ok(())
    }
}

/// Pins a lease for the daemon to read, in the place of one that has run out; its id.
fn pin(lease: &Map, pins: &Path) -> Result<u32, DataplaneError> {
    let path = pins.join(LEASE_PIN);
    remove(&path)?;
    match lease.pin(&path) {
        Ok(()) => id(&path).map_err(map_error("look at", LEASE)),
        Err(source) => Err(DataplaneError::Pin { path, source }),
    }
}

/// The id of a pinned map.
fn id(pin: &Path) -> Result<u32, MapError> {
    Ok(MapData::from_pin(pin)?.info()?.id())
}

/// Removes a pin, if it is there.
fn remove(pin: &Path) -> Result<(), DataplaneError> {
    match fs::remove_file(pin) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => {
            Err(load::io_error("remove", pin)(error))
        }
        _ => Ok(()),
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        if let Err(error) = self.end() {
            tracing::error!(
                "cannot give the packet program its place back, so the daemon will: {error}"
            );
        }
    }
}

/// Where the running packet program's array of programs is pinned, with the front program in it.
fn stages_pin(running: &Running, pins: &Path) -> Result<PathBuf, CaptureError> {
    let stages = running.data(stages::STAGES)?;
    let failed = map_error("look at", stages::STAGES);
    let wanted = stages.info().map_err(&failed)?;
    if wanted.max_entries() <= Stage::FRONT_INDEX {
        return Err(CaptureError::OtherRelease);
    }
    let mut paths = load::stages_pins(pins)?.into_iter();
    let path = paths.find(|path| id(path).is_ok_and(|id| id == wanted.id()));
    path.ok_or(CaptureError::OtherRelease)
}
