//! The load balancer's own program, over maps that are filled by a plan, as the daemon fills them.

use std::{collections::BTreeMap, os::fd::AsFd as _};

use anyhow::{Context as _, Result};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, ProgramArray, RingBuf},
    programs::{ProgramFd, Xdp},
};
use nlb_common::{
    counter::Traffic,
    flow::{Bucket, Choice, WAYS, near_buckets},
    hash::Key,
    listener::{ListenerId, Stranded},
    next_hop::NextHopSlot,
    plain::Plain,
    sequence::Sequences,
    settings::Settings,
    stop::Stop,
};
use nlb_userspace::{
    dataplane::{
        Dataplane as _, XDP_OBJECT, kernel::KernelMaps, shared::Shared, stages, sweep::Sweep,
    },
    plan::{Actual, Wish, WishedForward, WishedListener, WishedRing, plan},
};

use super::{
    admission::Question,
    flows,
    harness::accounted,
    kind::{
        COOKIE_PORT, Kind, LISTENER_PORT, NEXT_HOP, SETTLED_PORT, pool, settled, to_everybody,
        wished_group, wished_listener,
    },
};

/// What was counted, of all listeners together.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Counts {
    /// What was sent on.
    pub traffic: Traffic,
    /// What was stopped, by [`Stop`].
    pub stops: [u64; Stop::COUNT],
}

/// The loaded program.
pub struct Subject {
    ebpf: Ebpf,
    maps: KernelMaps,
    flows: Shared<Bucket>,
    sequences: Shared<Sequences>,
    next_hops: Shared<NextHopSlot>,
    flow_memory_bytes: u64,
    actual: Actual,
    // Kept: the kernel empties an array of programs that nobody holds.
    _stages: ProgramArray<MapData>,
    // Kept open: a full buffer costs less than one that is gone.
    _events: RingBuf<MapData>,
}

/// What flows are remembered in.
const FLOW_MAPS: [&str; 3] = ["FLOWS", "TRANSLATIONS", "SOURCES"];

fn array<'e>(ebpf: &'e Ebpf, name: &str) -> Result<&'e MapData> {
    match ebpf.map(name) {
        Some(Map::Array(data)) => Ok(data),
        _ => anyhow::bail!("no array {name}"),
    }
}

fn share<R>(
    ebpf: &Ebpf,
    name: &str,
    new: impl FnOnce(&MapData, usize) -> std::io::Result<R>,
) -> Result<R> {
    let data = array(ebpf, name)?;
    let count = data.info()?.max_entries() as usize;
    new(data, count).with_context(|| format!("mapping the memory of {name}"))
}

impl Subject {
    /// Loads the program with room for `flows` flows and one listener of every kind.
    pub fn load(flows: u32) -> Result<Self> {
        let buckets = flows.next_power_of_two() / 4;
        let settings = Plain(Settings {
            select_key: Key::derive(&[0x5a; 32], 1),
            table_key: Key::derive(&[0x5a; 32], 2),
            bucket_mask: buckets - 1,
            near_mask: near_buckets(buckets) - 1,
            log_faults: 1,
            tick_shift: nlb_userspace::clock::of_this_kernel().shift,
            translates_sources: 1,
            pins_on_change: 1,
            makes_cookies: 1,
            reserved: 0,
        });
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", &settings, true)
            .map_max_entries("FLOWS", buckets)
            .map_max_entries("SPILLS", settings.0.near_mask + 1)
            .map_max_entries("TRANSLATIONS", buckets)
            .map_max_entries("SOURCES", buckets)
            .map_max_entries("SEQUENCES", buckets)
            .load(XDP_OBJECT)
            .context("loading the packet program")?;
        let stages = stages::load(&mut ebpf).context("the verifier")?;
        let flows = share(&ebpf, "FLOWS", |map, count| {
            Shared::<Bucket>::new(map.fd().as_fd(), count)
        })?;
        let sequences = share(&ebpf, "SEQUENCES", |map, count| {
            Shared::<Sequences>::new(map.fd().as_fd(), count)
        })?;
        let next_hops = share(&ebpf, "NEXT_HOPS", |map, count| {
            Shared::<NextHopSlot>::new(map.fd().as_fd(), count)
        })?;
        let mut flow_memory_bytes = 0;
        for name in FLOW_MAPS {
            flow_memory_bytes += accounted(array(&ebpf, name)?)?;
        }
        let (maps, events) = KernelMaps::take(&mut ebpf, None)?;
        let mut subject = Self {
            ebpf,
            maps,
            flows,
            sequences,
            next_hops,
            flow_memory_bytes,
            actual: Actual::default(),
            _stages: stages,
            _events: events,
        };
        subject.configure()?;
        Ok(subject)
    }

    fn configure(&mut self) -> Result<()> {
        self.maps.take(&to_everybody())?;
        let mut wish = Wish {
            sources: pool()?,
            ..Wish::default()
        };
        for (group, kind) in Kind::all().enumerate() {
            wish.groups
                .push(wished_group(kind, u32::try_from(group)? + 1)?);
            let plain = wished_listener(kind, LISTENER_PORT, WishedRing::Group(group))?;
            if kind.may_settle() {
                wish.forwards.push(WishedForward {
                    shares: vec![(group, 1)],
                    settles: true,
                });
                wish.listeners.push(WishedListener {
                    key: kind.key_of(SETTLED_PORT)?,
                    ring: WishedRing::Forward(wish.forwards.len() - 1),
                    ..plain.clone()
                });
            }
            if Question::kinds().any(|other| other == kind) {
                for question in Question::ALL {
                    wish.listeners.push(WishedListener {
                        key: kind.key_of(question.port())?,
                        admission: question.admission(kind),
                        ..plain.clone()
                    });
                }
            }
            if kind.begins_with_us() {
                wish.listeners.push(WishedListener {
                    key: kind.key_of(COOKIE_PORT)?,
                    syn_cookies: true,
                    stray: Stranded::DROP,
                    ..plain.clone()
                });
            }
            wish.listeners.push(plain);
        }
        for planned in plan(&self.actual, &wish, self.maps.limits())? {
            self.maps.take(&planned.step)?;
            self.actual.note(&planned.step);
            if let Some(ring) = planned.ring
                && let Some(settling) = ring.settling
            {
                self.maps.take(&settled(ring.group, settling)?)?;
            }
        }
        Ok(())
    }

    /// The program.
    pub fn program(&self) -> Result<ProgramFd> {
        let program: &Xdp = self
            .ebpf
            .program("nlb")
            .context("no program `nlb`")?
            .try_into()?;
        Ok(program.fd()?.try_clone()?)
    }

    /// What was counted so far.
    pub fn counts(&self) -> Result<Counts> {
        let mut counts = Counts {
            traffic: Traffic::default(),
            stops: [0; Stop::COUNT],
        };
        let asking = Question::kinds()
            .flat_map(|kind| Question::ALL.map(|question| kind.key_of(question.port())));
        let settled = Kind::all().map(|kind| kind.key_of(SETTLED_PORT));
        for key in Kind::all().map(Kind::key).chain(asking).chain(settled) {
            if let Some(id) = self.actual.listener_id(&key?) {
                counts.traffic += self.maps.listener_traffic(id)?;
            }
        }
        for (count, stop) in counts.stops.iter_mut().zip(Stop::ALL) {
            *count = self.maps.stop_count(*stop)?;
        }
        Ok(counts)
    }

    fn listener(&self, kind: Kind) -> Result<ListenerId> {
        self.actual
            .listener_id(&kind.key()?)
            .context("the plan gave the listener no id")
    }

    /// Empties the flow table.
    pub fn forget_flows(&self) {
        for entry in self.flows.iter().flat_map(|bucket| &bucket.entries) {
            entry.choice.store(Choice::EMPTY);
        }
    }

    /// Makes every flow established, with a known way back; says how many there are.
    pub fn establish(&self) -> Result<u32> {
        let slot = self.next_hops.get(usize::from(NEXT_HOP.0));
        let (_, epoch) = slot
            .and_then(NextHopSlot::read)
            .context("the next hop is not valid")?;
        let now = nlb_userspace::clock::now();
        Ok(flows::establish(self.flows.iter(), epoch, now))
    }

    /// Has every flow's target count otherwise than its client does, as if a cookie had begun it.
    pub fn shift_numbers(&self) {
        flows::shift_numbers(self.flows.iter().zip(self.sequences.iter()));
    }

    /// Fills every entry with an established flow of somebody else.
    pub fn fill_up(&self, kind: Kind) -> Result<()> {
        let now = nlb_userspace::clock::now();
        flows::fill_up(self.flows.iter(), self.listener(kind)?, kind.protocol, now);
        Ok(())
    }

    /// Entries of the flow table.
    pub fn entries(&self) -> usize {
        self.flows.len() * WAYS
    }

    /// Bytes that the kernel accounts to the flow table and what stands beside it.
    pub const fn flow_memory_bytes(&self) -> u64 {
        self.flow_memory_bytes
    }

    /// What the daemon's sweep sees.
    pub fn sweep(&self) -> Sweep {
        let key = Key::derive(&[0x5a; 32], 1);
        let now = nlb_userspace::clock::now();
        self.maps.sweep(now, &BTreeMap::new(), &key)
    }
}
