//! The load balancer's own program, over maps that are filled by a plan, as the daemon fills them.

use std::{net::IpAddr, os::fd::AsFd as _, time::Duration};

use anyhow::{Context as _, Result, ensure};
use aya::{
    Ebpf, EbpfLoader,
    maps::{Map, MapData, ProgramArray, RingBuf},
    programs::{ProgramFd, Xdp},
};
use nlb_common::{
    address::Address,
    counter::Traffic,
    flow::{Bucket, Choice, Client, FlowState, WAYS},
    hash::Key,
    listener::{HashInput, ListenerId, ListenerKey, Stranded},
    next_hop::{MacPair, NextHop, NextHopId, NextHopSlot, VlanId},
    plain::Plain,
    settings::Settings,
    stop::Stop,
    target::{Mode, TargetId},
    tick::Tick,
    tunnel::Tunnel,
    wire::{
        ethernet::MacAddress,
        protocol::{TCP, UDP},
    },
};
use nlb_userspace::{
    dataplane::{Dataplane as _, Step, XDP_OBJECT, kernel::KernelMaps, shared::Shared, stages},
    plan::{
        Actual, Wish, WishedAdmission, WishedForward, WishedGroup, WishedListener, WishedRing,
        WishedTarget, plan,
    },
    settling::{Exceptions, Settling},
};
use zerocopy::big_endian::U16;

use super::admission::Question;

/// The loopback interface, which test packets come in through: always the namespace's first.
const LOOPBACK: u32 = 1;
/// The one next hop: to every target and to every client.
const NEXT_HOP: NextHopId = NextHopId(1);
/// Where targets listen.
pub const TARGET_PORT: u16 = 8080;
/// Where listeners listen.
pub const LISTENER_PORT: u16 = 443;

/// Where those listen that pin flows on change.
pub const SETTLED_PORT: u16 = 8_005;

/// The modes that are measured.
const MODES: [Mode; 6] = [
    Mode::FULL_NAT,
    Mode::NAT,
    Mode::DSR_L2,
    Mode::DSR_IPIP,
    Mode::DSR_GUE,
    Mode::DSR_GENEVE,
];

/// A kind of listener.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Kind {
    /// How packets get to targets.
    pub mode: Mode,
    /// Whether the VIP is an IPv6 address.
    pub is_v6: bool,
    /// [`TCP`] or [`UDP`].
    pub protocol: u8,
}

impl Kind {
    /// All kinds, in the order of their listeners.
    pub fn all() -> impl Iterator<Item = Self> {
        MODES.into_iter().flat_map(|mode| {
            [false, true].into_iter().flat_map(move |is_v6| {
                [TCP, UDP].into_iter().map(move |protocol| Self {
                    mode,
                    is_v6,
                    protocol,
                })
            })
        })
    }

    /// Whether it has a listener that pins flows on change.
    pub fn may_settle(self) -> bool {
        !self.mode.is_translated()
    }

    /// The VIP.
    pub const fn vip(self) -> &'static str {
        match (self.mode, self.is_v6) {
            (Mode::NAT, false) => "192.0.2.10",
            (Mode::NAT, true) => "2001:db8::10",
            (Mode::DSR_IPIP, false) => "192.0.2.30",
            (Mode::DSR_IPIP, true) => "2001:db8::30",
            (Mode::DSR_GUE, false) => "192.0.2.40",
            (Mode::DSR_GUE, true) => "2001:db8::40",
            (Mode::DSR_GENEVE, false) => "192.0.2.50",
            (Mode::DSR_GENEVE, true) => "2001:db8::50",
            (Mode::FULL_NAT, false) => "192.0.2.60",
            (Mode::FULL_NAT, true) => "2001:db8::60",
            (_, false) => "192.0.2.20",
            (_, true) => "2001:db8::20",
        }
    }

    /// The target.
    pub const fn target(self) -> &'static str {
        if self.is_v6 {
            "fd00::11"
        } else {
            "192.168.0.11"
        }
    }

    /// What packets are addressed to.
    pub fn key(self) -> Result<ListenerKey> {
        self.key_of(LISTENER_PORT)
    }

    /// What packets to another port are addressed to.
    fn key_of(self, port: u16) -> Result<ListenerKey> {
        let address = Address::from(self.vip().parse::<IpAddr>()?);
        Ok(ListenerKey::new(address, self.protocol, U16::new(port)))
    }
}

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
    next_hops: Shared<NextHopSlot>,
    actual: Actual,
    // Kept: the kernel empties an array of programs that nobody holds.
    _stages: ProgramArray<MapData>,
    // Kept open: a full buffer costs less than one that is gone.
    _events: RingBuf<MapData>,
}

fn share<R>(
    ebpf: &Ebpf,
    name: &str,
    new: impl FnOnce(&MapData, usize) -> std::io::Result<R>,
) -> Result<R> {
    let Some(Map::Array(data)) = ebpf.map(name) else {
        anyhow::bail!("no array {name}");
    };
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
            log_faults: 1,
            tick_shift: nlb_userspace::clock::of_this_kernel().shift,
            translates_sources: 1,
            pins_on_change: 1,
            makes_cookies: 1,
        });
        let mut ebpf = EbpfLoader::new()
            .override_global("SETTINGS", &settings, true)
            .map_max_entries("FLOWS", buckets)
            .map_max_entries("TRANSLATIONS", buckets)
            .map_max_entries("SOURCES", buckets)
            .map_max_entries("SEQUENCES", buckets)
            .load(XDP_OBJECT)
            .context("loading the packet program")?;
        let stages = stages::load(&mut ebpf).context("the verifier")?;
        let flows = share(&ebpf, "FLOWS", |map, count| {
            Shared::<Bucket>::new(map.fd().as_fd(), count)
        })?;
        let next_hops = share(&ebpf, "NEXT_HOPS", |map, count| {
            Shared::<NextHopSlot>::new(map.fd().as_fd(), count)
        })?;
        let (maps, events) = KernelMaps::take(&mut ebpf)?;
        let mut subject = Self {
            ebpf,
            maps,
            flows,
            next_hops,
            actual: Actual::default(),
            _stages: stages,
            _events: events,
        };
        subject.configure()?;
        Ok(subject)
    }

    fn configure(&mut self) -> Result<()> {
        self.maps.take(&Step::WriteNextHop {
            id: NEXT_HOP,
            next_hop: NextHop {
                macs: MacPair::new(
                    MacAddress([2, 0, 0, 0, 1, 11]),
                    MacAddress([2, 0, 0, 0, 0, 1]),
                ),
                interface: LOOPBACK,
                mtu_bytes: 1500,
                vlan: VlanId::NONE,
            },
        })?;
        let mut wish = Wish::default();
        for last in 70..74 {
            wish.sources.push(format!("192.0.2.{last}").parse()?);
            wish.sources.push(format!("2001:db8::{last}").parse()?);
        }
        for (group, kind) in Kind::all().enumerate() {
            wish.groups.push(WishedGroup {
                terminates_removed: false,
                fingerprint: u32::try_from(group)? + 1,
                mode: kind.mode,
                tunnel: kind.mode.is_tunnel().then_some(Tunnel {
                    source_v4: Address::from_v4_bytes([192, 168, 0, 1]),
                    source_v6: Address::from("fd00::1".parse::<IpAddr>()?),
                    spread_v4: [0; 4],
                    spread_v6: [0; 8],
                    port: U16::new(6080),
                    network: [0; 3],
                    has_entropy: true,
                }),
                targets: vec![WishedTarget {
                    resets_flows: false,
                    address: kind.target().parse()?,
                    port: TARGET_PORT,
                    weight: 1,
                    next_hop: NEXT_HOP,
                }],
                quic: None,
            });
            let questions: &[Question] = if Question::kinds().any(|other| other == kind) {
                &Question::ALL
            } else {
                &[]
            };
            let plain = WishedListener {
                // The bench sends data without an opening.
                stray: Stranded::FORWARD,
                expired: Stranded::FORWARD,
                mss_clamp_bytes: 0,
                syn_cookies: false,
                key: kind.key()?,
                ring: WishedRing::Group(group),
                idle_ticks: Tick::at_least_seconds(350),
                hash_input: HashInput::FiveTuple,
                admission: WishedAdmission::default(),
                answers_echo: true,
            };
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
            for question in questions {
                wish.listeners.push(WishedListener {
                    key: kind.key_of(question.port())?,
                    admission: question.admission(kind),
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
                self.settle(ring.group, settling)?;
            }
        }
        Ok(())
    }

    /// Lets a ring settle, as the daemon does when nothing has changed for a while.
    fn settle(&mut self, group: u16, mut ring: Settling) -> Result<()> {
        let exceptions = Exceptions::new();
        for seconds in [0, 1] {
            ring = ring.settled(Duration::from_secs(seconds), Duration::ZERO, &exceptions);
        }
        ensure!(ring.is_settled(), "a ring without flows settles");
        let (slots, bases) = ring.maps();
        let bases = Some(bases);
        self.maps.take(&Step::ReplaceRing {
            group,
            slots,
            bases,
        })?;
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
        let state = FlowState::ANSWERED.with(FlowState::ESTABLISHED);
        let mut count = 0;
        for entry in self.flows.iter().flat_map(|bucket| &bucket.entries) {
            let word = entry.choice.load();
            if word == Choice::EMPTY || word == Choice::BUSY {
                continue;
            }
            let choice = Choice {
                next_hop: NEXT_HOP,
                ..Choice::of_word(word)
            };
            entry.choice.store(choice.to_word());
            let progress = entry.progress().after(state, now, epoch);
            entry.progress.store(progress.to_word());
            count += 1;
        }
        Ok(count)
    }

    /// Fills every entry with an established flow of somebody else.
    pub fn fill_up(&self, kind: Kind) -> Result<()> {
        let now = nlb_userspace::clock::now();
        let choice = Choice {
            target: TargetId(1),
            listener: self.listener(kind)?,
            next_hop: NEXT_HOP,
        };
        let state = FlowState::ANSWERED.with(FlowState::ESTABLISHED);
        for (number, bucket) in (0u64..).zip(self.flows.iter()) {
            for (way, entry) in (0..WAYS as u64).zip(&bucket.entries) {
                let client = Client {
                    address: Address {
                        words: [u64::MAX, number << 2 | way],
                    },
                    port: U16::new(1),
                    protocol: kind.protocol,
                };
                entry.fill(&client, choice, state, now);
            }
        }
        Ok(())
    }
}
