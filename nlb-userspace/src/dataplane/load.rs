//! Load, adopt, attach, replace, pin, detach.
//!
//! Maps and links are pinned, so the data plane goes on without a daemon. A daemon that starts
//! finds the pins, loads its own program over the same maps, and replaces the program behind each
//! link in one step: there is no moment without one.

use std::{
    fs, io,
    os::fd::OwnedFd,
    path::{Path, PathBuf},
};

use aya::{
    Ebpf, EbpfError, EbpfLoader,
    maps::{MapData, MapError, ProgramArray, RingBuf},
    programs::{
        ProgramError, TestRun as _, TestRunAttrs, TestRunOptions, Xdp, XdpMode as AttachMode,
        links::{FdLink, PinnedLink},
        xdp::{XdpLink, XdpLinkId},
    },
};
use nlb_common::{
    flow::{LEAST_BUCKETS, WAYS, near_buckets},
    hash::Key,
    maps::{Header, LAYOUT_VERSION, SERVER_IDS_PER_TARGET},
    settings::Settings,
    stage::Stage,
};
use rustix::fs::FlockOperation;
use zerocopy::IntoBytes as _;

use super::{
    DataplaneError, XDP_OBJECT, capture, early::EarlyMaps, kernel::KernelMaps, log, shared::Shared,
    stages,
};
use crate::{
    bond::{Bond, bond_of},
    config::{Capacity, XdpMode},
};

/// Names of the maps that are pinned under their own names.
const PINNED_MAPS: [&str; 28] = [
    "HEADER",
    "PREFILTER",
    "LISTENER_INDEX",
    "LISTENERS",
    "ADMISSION",
    "RULES",
    "ADMISSION_SOURCES",
    "RINGS",
    "RING_BASES",
    "LISTENER_HINTS",
    "TARGETS",
    "TUNNELS",
    "NEXT_HOPS",
    "NEXT_HOP_INDEX",
    "VLAN_LINKS",
    "SERVER_IDS",
    "FLOWS",
    "SPILLS",
    "FRAGMENTS",
    "IDENTIFICATIONS",
    "TRANSLATIONS",
    "SOURCES",
    "SEQUENCES",
    "SNAT_POOL",
    "LISTENER_COUNTERS",
    "TARGET_COUNTERS",
    "STOP_COUNTERS",
    "EVENTS",
];

/// What the name of a pinned link begins with; the interface's index follows.
pub(super) const LINK_PREFIX: &str = "link-";

/// What the name of a pinned array of stages begins with; a number follows.
const STAGES_PREFIX: &str = "stages-";

/// `bpf_statfs.f_type` of a bpffs: `BPF_FS_MAGIC` of `linux/magic.h`.
const BPF_FS_MAGIC: rustix::fs::FsWord = 0xcafe_4a11;

/// What the program and its maps are made for.
#[derive(Clone, Debug)]
pub struct Request<'r> {
    /// The mounted bpffs.
    pub bpffs: &'r Path,
    /// The folder in it for our pins.
    pub pins: &'r Path,
    /// Sizes of maps that are not there yet.
    pub capacity: Capacity,
    /// What is wanted; maps that are not there yet get room for it.
    pub features: Features,
    /// The secret that all nodes of a deployment share.
    pub secret: &'r [u8; 32],
    /// A fresh secret for the flow table, used if the table is not there yet.
    pub table_secret: [u64; 4],
}

/// What costs every packet, or memory, and is therefore decided when the program is loaded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Features {
    /// Sources are translated.
    pub translates_sources: bool,
    /// Listeners may pin flows on change only.
    pub pins_on_change: bool,
    /// Listeners may answer with SYN cookies.
    pub makes_cookies: bool,
}

/// A loaded program and its maps.
pub struct Loaded {
    object: Ebpf,
    pins: PathBuf,
    /// Where the array of this program's stages is pinned.
    stages_pin: PathBuf,
    /// The maps.
    pub maps: KernelMaps,
    events: Option<RingBuf<MapData>>,
    early: Option<EarlyMaps>,
    /// Whether the maps were there before us.
    pub is_adopted: bool,
    /// What the program can do, as far as the maps have room for it.
    pub features: Features,
    /// What flows' places on rings come from.
    pub select_key: Key,
    /// The key that places flows.
    pub table_key: Key,
    /// Sizes that differ from the configuration, because the maps were there before us.
    pub kept_sizes: Vec<KeptSize>,
    /// Held as long as we write the maps.
    _lock: OwnedFd,
}

/// A map that keeps the size it was made with.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptSize {
    /// The key of the configuration.
    pub key: &'static str,
    /// What it has.
    pub kept: u32,
    /// What the configuration asks for.
    pub asked: u32,
}

/// How a program is attached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attached {
    /// The program behind an existing link was replaced.
    Replaced,
    /// A new link in the driver.
    Driver,
    /// A new link in the kernel's generic hook, which is slower.
    Generic,
}

impl Attached {
    /// For the log and the status.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Replaced => "replaced",
            Self::Driver => "driver",
            Self::Generic => "generic",
        }
    }
}

pub(super) fn io_error<'p>(
    action: &'static str,
    path: &'p Path,
) -> impl Fn(io::Error) -> DataplaneError + 'p {
    move |source| DataplaneError::Io {
        action,
        path: path.to_owned(),
        source,
    }
}

/// Loads the program over new or pinned maps.
pub fn load(request: &Request<'_>) -> Result<Loaded, DataplaneError> {
    require_bpffs(request.bpffs)?;
    let pins = request.pins;
    fs::create_dir_all(pins).map_err(io_error("make", pins))?;
    let lock = lock(pins)?;
    let adopted_secret = adoptable(pins)?;
    let is_adopted = adopted_secret.is_some();
    let table_secret = adopted_secret.unwrap_or(request.table_secret);
    let mut kept_sizes = Vec::new();
    let mut size = |key: &'static str, map: &'static str, asked: u32| {
        let kept = if is_adopted {
            pinned_size(pins, map).unwrap_or(asked)
        } else {
            asked
        };
        if kept != asked {
            kept_sizes.push(KeptSize { key, kept, asked });
        }
        kept
    };
    let (capacity, wanted) = (request.capacity, request.features);
    #[expect(clippy::cast_possible_truncation, reason = "WAYS is 4")]
    let buckets = size(
        "flows",
        "FLOWS",
        (capacity.flows.get() / WAYS as u32).max(LEAST_BUCKETS),
    );
    // Id 0 is never used, so one record more.
    let listeners = size("listeners", "LISTENERS", capacity.listeners.get() + 1);
    let targets = size("targets", "TARGETS", capacity.targets.get() + 1);
    let groups = size("target_groups", "RINGS", capacity.target_groups.get() + 1);
    let beside = |maps: &[&str], is_wanted: bool| {
        if is_adopted {
            let kept = maps.iter().filter_map(|map| pinned_size(pins, map));
            return kept.min().unwrap_or(1);
        }
        if is_wanted { buckets } else { 1 }
    };
    let translations = beside(&["TRANSLATIONS", "SOURCES"], wanted.translates_sources);
    let sequences = beside(&["SEQUENCES"], wanted.makes_cookies);
    let features = Features {
        translates_sources: translations == buckets,
        makes_cookies: sequences == buckets,
        ..wanted
    };
    let settings = Settings {
        select_key: Key::derive(request.secret, SELECT_PURPOSE),
        table_key: Key::derive(&secret_bytes(table_secret), TABLE_PURPOSE),
        bucket_mask: buckets.next_power_of_two() - 1,
        near_mask: near_buckets(buckets.next_power_of_two()) - 1,
        log_faults: 1,
        tick_shift: crate::clock::of_this_kernel().shift,
        translates_sources: features.translates_sources.into(),
        pins_on_change: features.pins_on_change.into(),
        makes_cookies: features.makes_cookies.into(),
        reserved: 0,
    };
    let pin_paths: Vec<PathBuf> = PINNED_MAPS.iter().map(|name| pins.join(name)).collect();
    let mut loader = EbpfLoader::new();
    loader
        .map_max_entries("FLOWS", buckets)
        .map_max_entries("SPILLS", settings.near_mask + 1)
        .map_max_entries("TRANSLATIONS", translations)
        .map_max_entries("SOURCES", translations)
        .map_max_entries("SEQUENCES", sequences)
        .map_max_entries("LISTENERS", listeners)
        .map_max_entries("ADMISSION", listeners)
        .map_max_entries("RULES", listeners)
        .map_max_entries("LISTENER_COUNTERS", listeners)
        // VIPs are in the index beside their listeners.
        .map_max_entries("LISTENER_INDEX", listeners * 2)
        .map_max_entries("RINGS", groups)
        .map_max_entries("RING_BASES", groups)
        .map_max_entries("TARGETS", targets)
        .map_max_entries("TUNNELS", groups)
        .map_max_entries("TARGET_COUNTERS", targets)
        .map_max_entries("SERVER_IDS", targets * SERVER_IDS_PER_TARGET)
        .override_global("SETTINGS", settings.as_bytes(), true);
    for (name, path) in PINNED_MAPS.iter().zip(&pin_paths) {
        loader.map_pin_path(name, path.as_path());
    }
    let mut object = loader.load(XDP_OBJECT).map_err(unloadable)?;
    let stages = stages::load(&mut object)?;
    let stages_pin = pin_stages(pins, stages)?;
    let (maps, events) = KernelMaps::take(&mut object, Some(pins))?;
    let early = EarlyMaps::take(&mut object)?;
    if !is_adopted && let Some(header) = maps.header() {
        sign(header, table_secret);
    }
    Ok(Loaded {
        object,
        pins: pins.to_owned(),
        stages_pin,
        maps,
        events: Some(events),
        early: Some(early),
        is_adopted,
        features,
        select_key: settings.select_key,
        table_key: settings.table_key,
        kept_sizes,
        _lock: lock,
    })
}

/// Says whose the new maps are: from here on another daemon may adopt them.
fn sign(header: &Header, table_secret: [u64; 4]) {
    for (word, secret) in header.table_secret.iter().zip(table_secret) {
        word.store(secret);
    }
    header.layout_version.store(LAYOUT_VERSION);
}

/// Maps that have their size from the configuration, by its keys.
const SIZED_MAPS: [(&str, &[&str]); 4] = [
    (
        "flows",
        &["FLOWS", "SPILLS", "TRANSLATIONS", "SOURCES", "SEQUENCES"],
    ),
    ("targets", &["TARGETS", "TARGET_COUNTERS", "SERVER_IDS"]),
    (
        "listeners",
        &[
            "LISTENERS",
            "LISTENER_INDEX",
            "LISTENER_COUNTERS",
            "ADMISSION",
            "RULES",
        ],
    ),
    ("target_groups", &["RINGS", "RING_BASES", "TUNNELS"]),
];

/// Why the object was not loaded: if it was a map's size, by whose wish.
fn unloadable(error: EbpfError) -> DataplaneError {
    match error {
        EbpfError::MapError(MapError::CreateError { name, io_error }) => {
            let sized = SIZED_MAPS.iter();
            let mut sized = sized.filter(|(_, maps)| maps.contains(&name.as_str()));
            match sized.next() {
                Some((key, _)) => DataplaneError::TooLarge {
                    map: name,
                    key,
                    source: io_error,
                },
                None => EbpfError::from(MapError::CreateError { name, io_error }).into(),
            }
        }
        error => error.into(),
    }
}

/// Tells the two keys apart that come from one kind of secret.
const SELECT_PURPOSE: u64 = 1;
const TABLE_PURPOSE: u64 = 2;

fn secret_bytes(words: [u64; 4]) -> [u8; 32] {
    zerocopy::transmute!(words)
}

/// Pins the stages of this program beside those of the programs that are still attached.
fn pin_stages(pins: &Path, stages: ProgramArray<MapData>) -> Result<PathBuf, DataplaneError> {
    let last = stages_pins(pins)?
        .iter()
        .filter_map(|path| number(path, STAGES_PREFIX))
        .max();
    let path = pins.join(format!("{STAGES_PREFIX}{}", last.unwrap_or(0) + 1));
    stages.pin(&path).map_err(|source| DataplaneError::Pin {
        path: path.clone(),
        source,
    })?;
    Ok(path)
}

pub(super) fn require_bpffs(path: &Path) -> Result<(), DataplaneError> {
    let stat = rustix::fs::statfs(path)
        .map_err(|error| io_error("look at", path)(io::Error::from(error)))?;
    if stat.f_type != BPF_FS_MAGIC {
        return Err(DataplaneError::NotBpffs {
            path: path.to_owned(),
        });
    }
    Ok(())
}

/// Makes us the only daemon on these maps, until the lock is dropped or the process ends.
fn lock(pins: &Path) -> Result<OwnedFd, DataplaneError> {
    let folder = fs::File::open(pins).map_err(io_error("open", pins))?;
    match rustix::fs::flock(&folder, FlockOperation::NonBlockingLockExclusive) {
        Ok(()) => Ok(folder.into()),
        Err(rustix::io::Errno::WOULDBLOCK) => Err(DataplaneError::Locked(pins.to_owned())),
        Err(error) => Err(io_error("lock", pins)(error.into())),
    }
}

/// The flow table's secret, if the pinned maps can be adopted; maps that a daemon did not live to
/// complete are removed.
fn adoptable(pins: &Path) -> Result<Option<[u64; 4]>, DataplaneError> {
    let path = pins.join("HEADER");
    if !path.try_exists().map_err(io_error("look at", &path))? {
        // Without a header nothing else here can be understood.
        remove_pins(pins)?;
        return Ok(None);
    }
    let use_header = |source| DataplaneError::Map {
        action: "use",
        map: "HEADER",
        source,
    };
    let data = MapData::from_pin(&path).map_err(use_header)?;
    let header = Shared::<Header>::new(std::os::fd::AsFd::as_fd(data.fd()), 1)
        .map_err(|error| use_header(MapError::IoError(error)))?;
    let Some(header) = header.first() else {
        return Ok(None);
    };
    match header.layout_version.load() {
        LAYOUT_VERSION => {
            let [a, b, c, d] = &header.table_secret;
            Ok(Some([a.load(), b.load(), c.load(), d.load()]))
        }
        0 => {
            tracing::warn!(pins = %pins.display(), "removing maps that were never completed");
            remove_pins(pins)?;
            Ok(None)
        }
        found => Err(DataplaneError::Layout {
            path: pins.to_owned(),
            found,
            ours: LAYOUT_VERSION,
            flows: u64::from(pinned_size(pins, "FLOWS").unwrap_or(0)) * WAYS as u64,
        }),
    }
}

fn pinned_size(pins: &Path, map: &str) -> Option<u32> {
    let data = MapData::from_pin(pins.join(map)).ok()?;
    Some(data.info().ok()?.max_entries())
}

impl Loaded {
    /// Hands the packet program's log on to the daemon's; needs a tokio runtime around it.
    pub fn forward_log(&mut self) {
        log::forward(&mut self.object);
    }

    /// Whether the maps would outlive this process: a bpffs can be unmounted under it.
    pub fn has_pins(&self) -> bool {
        self.stages_pin.exists()
    }

    /// What the packet program tells; once.
    pub fn take_events(&mut self) -> Result<RingBuf<MapData>, DataplaneError> {
        self.events.take().ok_or(DataplaneError::NoMap("EVENTS"))
    }

    /// The fragments that the packet program asks us to keep; once.
    pub fn take_early(&mut self) -> Result<EarlyMaps, DataplaneError> {
        self.early.take().ok_or(DataplaneError::NoMap("EARLY"))
    }

    /// Sends a frame in as if it had just come in through an interface of ours: the kernel runs the
    /// program on it, and does with it what the program says (`BPF_F_TEST_XDP_LIVE_FRAMES`, Linux 5.18).
    pub fn send_in(&self, interface: u32, frame: &[u8]) -> Result<(), DataplaneError> {
        let name = Stage::FRONT_PROGRAM;
        let program = self.object.program(name);
        let program: &Xdp = program
            .and_then(|program| program.try_into().ok())
            .ok_or(DataplaneError::NoProgram(name))?;
        let end = u32::try_from(frame.len()).unwrap_or(u32::MAX);
        // `struct xdp_md`: data, data_end, data_meta, ingress_ifindex, rx_queue_index,
        // egress_ifindex.
        let context = [0, end, 0, interface, 0, 0].map(u32::to_ne_bytes).concat();
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.ctx_in = Some(&context);
        options.attrs = TestRunAttrs::new().xdp_live_frames(1);
        match program.test_run(options) {
            Ok(_) => Ok(()),
            Err(source) => Err(DataplaneError::SendIn { interface, source }),
        }
    }

    /// Puts the program on an interface: behind its pinned link, or with a new link.
    pub fn attach(
        &mut self,
        interface: &str,
        index: u32,
        mode: XdpMode,
    ) -> Result<Attached, DataplaneError> {
        let path = self.pins.join(format!("{LINK_PREFIX}{index}"));
        if path.try_exists().map_err(io_error("look at", &path))? {
            match self.replace(&path) {
                Ok(()) => return Ok(Attached::Replaced),
                Err(error) => {
                    // The interface under this index is not the one that the link was made for.
                    tracing::warn!(%interface, %error, "the pinned link is dead; attaching anew");
                    fs::remove_file(&path).map_err(io_error("remove", &path))?;
                }
            }
        }
        let front = stages::program(&mut self.object, Stage::FRONT_PROGRAM)?;
        let (id, attached) = attach_anew(front, interface, index, mode)?;
        let link = front.take_link(id).map_err(DataplaneError::Program)?;
        let link = FdLink::try_from(link).map_err(|source| DataplaneError::Link {
            path: path.clone(),
            source,
        })?;
        link.pin(&path).map_err(|source| DataplaneError::Pin {
            path: path.clone(),
            source,
        })?;
        Ok(attached)
    }

    fn replace(&mut self, path: &Path) -> Result<(), DataplaneError> {
        let unusable = |source| DataplaneError::Link {
            path: path.to_owned(),
            source,
        };
        let pinned = PinnedLink::from_pin(path).map_err(unusable)?;
        let link = XdpLink::try_from(FdLink::from(pinned)).map_err(unusable)?;
        stages::program(&mut self.object, Stage::FRONT_PROGRAM)?
            .attach_to_link(link)
            .map_err(DataplaneError::Program)?;
        Ok(())
    }

    /// Takes the program's place back where a capture has it that was killed; how many places that were.
    pub fn end_dead_captures(&mut self) -> Result<usize, DataplaneError> {
        if !self.has_pins() || capture::pinned_lease(&self.pins)?.is_some() {
            return Ok(0);
        }
        let front = stages::program(&mut self.object, Stage::FRONT_PROGRAM)?;
        let own = front.info().map_err(DataplaneError::Program)?.id();
        let mut taken_back = 0;
        for path in links(&self.pins)? {
            let unusable = |source| DataplaneError::Link {
                path: path.clone(),
                source,
            };
            let link = FdLink::from(PinnedLink::from_pin(&path).map_err(unusable)?);
            if link.info().map_err(unusable)?.program_id() != own {
                self.replace(&path)?;
                taken_back += 1;
            }
        }
        let lease = self.pins.join(capture::LEASE_PIN);
        if taken_back > 0 && lease.exists() {
            fs::remove_file(&lease).map_err(io_error("remove", &lease))?;
        }
        Ok(taken_back)
    }

    /// Takes the program off every interface that is not in `keep`. Where the bpffs is gone there is
    /// no pin left to remove, and the status says so.
    pub fn detach_others(&self, keep: &[u32]) -> Result<(), DataplaneError> {
        if !self.has_pins() {
            return Ok(());
        }
        for path in links(&self.pins)? {
            let index = number(&path, LINK_PREFIX);
            if index.is_none_or(|index| !keep.contains(&index)) {
                tracing::info!(link = %path.display(), "detaching from an interface no longer named");
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        self.forget_other_stages()
    }

    /// Removes the stages of programs that are attached nowhere any more.
    fn forget_other_stages(&self) -> Result<(), DataplaneError> {
        for path in stages_pins(&self.pins)? {
            if path != self.stages_pin {
                fs::remove_file(&path).map_err(io_error("remove", &path))?;
            }
        }
        Ok(())
    }
}

/// Puts a program on an interface that has none, in the first of the mode's ways that works.
pub(super) fn attach_anew(
    program: &mut Xdp,
    interface: &str,
    index: u32,
    mode: XdpMode,
) -> Result<(XdpLinkId, Attached), DataplaneError> {
    if let Some(bond) = bond_of(interface) {
        tracing::warn!(
            %interface,
            "this is a member of {bond}, and packets that come in by its other members pass by nlb; \
             name {bond} instead"
        );
    }
    let attempts: &[(AttachMode, &'static str, Attached)] = match mode {
        XdpMode::Auto => &[DRIVER, GENERIC],
        XdpMode::Driver => &[DRIVER],
        XdpMode::Generic => &[GENERIC],
    };
    let mut refused = None;
    for (attempt, name, attached) in attempts {
        match program.attach_to_if_index(index, *attempt) {
            Ok(id) => return Ok((id, *attached)),
            Err(source) => {
                refused.get_or_insert(DataplaneError::Attach {
                    interface: interface.to_owned(),
                    mode: name,
                    hint: hint(&source, interface),
                    source,
                });
            }
        }
    }
    Err(refused.unwrap_or_else(|| DataplaneError::NoInterface(interface.to_owned())))
}

const DRIVER: (AttachMode, &str, Attached) = (AttachMode::Driver, "driver", Attached::Driver);
const GENERIC: (AttachMode, &str, Attached) = (AttachMode::Skb, "generic", Attached::Generic);

/// What usually is behind an attach error.
fn hint(error: &ProgramError, interface: &str) -> &'static str {
    let ProgramError::SyscallError(error) = error else {
        return "";
    };
    match error.io_error.raw_os_error() {
        // `dev_xdp_attach` of net/core/dev.c: not below an interface that has a program.
        Some(libc::EEXIST) if bond_of(interface).is_some() => {
            "; it is a member of a bond that has a program: name the bond instead"
        }
        Some(libc::EOPNOTSUPP) if Bond::named(interface).is_some() => {
            "; the bond's mode, or a driver of its members, has no XDP, or a member has a program \
             of its own: node.xdp_mode = \"generic\" needs none of it"
        }
        Some(libc::EBUSY | libc::EEXIST) => {
            "; another XDP program is attached: `ip link show` names it, \
             `ip link set dev … xdp off` removes it"
        }
        Some(libc::EOPNOTSUPP) => "; the driver has no XDP: set node.xdp_mode = \"generic\"",
        Some(libc::ENOSPC) => {
            "; the driver has too few queues for XDP: on veth, give both ends equally many"
        }
        Some(libc::ERANGE | libc::EINVAL) => "; the MTU may be too large for XDP in this driver",
        Some(libc::EPERM) => "; root is needed",
        _ => "",
    }
}

/// The number behind the prefix of a pin's name.
pub(super) fn number(path: &Path, prefix: &str) -> Option<u32> {
    path.file_name()?
        .to_str()?
        .strip_prefix(prefix)?
        .parse()
        .ok()
}

pub(super) fn links(pins: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    Ok(entries(pins)?
        .into_iter()
        .filter(|path| {
            path.file_name()
                .and_then(|name| name.to_str())
                .is_some_and(|name| name.starts_with(LINK_PREFIX))
        })
        .collect())
}

/// The pins of arrays of stages: of this program, and of others that are still attached.
pub(super) fn stages_pins(pins: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let is_one = |path: &PathBuf| number(path, STAGES_PREFIX).is_some();
    Ok(entries(pins)?.into_iter().filter(is_one).collect())
}

pub(super) fn entries(folder: &Path) -> Result<Vec<PathBuf>, DataplaneError> {
    let unreadable = io_error("list", folder);
    let mut paths = fs::read_dir(folder)
        .and_then(|entries| {
            entries
                .map(|entry| Ok(entry?.path()))
                .collect::<io::Result<Vec<_>>>()
        })
        .map_err(unreadable)?;
    paths.sort();
    Ok(paths)
}

/// Removes every pin in the folder, links first, so that no program runs over maps that are gone.
fn remove_pins(pins: &Path) -> Result<usize, DataplaneError> {
    let links = links(pins)?;
    let rest = entries(pins)?
        .into_iter()
        .filter(|path| !links.contains(path));
    let mut count = 0;
    for path in links.iter().cloned().chain(rest) {
        fs::remove_file(&path).map_err(io_error("remove", &path))?;
        count += 1;
    }
    Ok(count)
}

/// What `detach` removed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Detached {
    /// Links: interfaces that the program was on.
    pub links: usize,
    /// All pins, links among them.
    pub pins: usize,
}

/// Takes the program off every interface and removes all maps, flows with them.
pub fn detach(bpffs: &Path, pins: &Path) -> Result<Detached, DataplaneError> {
    require_bpffs(bpffs)?;
    if !pins.try_exists().map_err(io_error("look at", pins))? {
        return Ok(Detached { links: 0, pins: 0 });
    }
    let _lock = lock(pins)?;
    let links = links(pins)?.len();
    let count = remove_pins(pins)?;
    fs::remove_dir(pins).map_err(io_error("remove", pins))?;
    Ok(Detached { links, pins: count })
}
