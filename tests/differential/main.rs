//! Random and malformed frames through the memory body and through the loaded kernel program:
//! verdict, every byte, counters and flow table must agree.

use std::collections::BTreeMap;

use anyhow::{Context as _, Result, ensure};
use nlb_common::{
    admission::AdmissionPolicy,
    counter::Traffic,
    flow::{Choice, FlowState},
    listener::{ListenerId, Stranded},
    stop::Stop,
    target::{TargetControl, TargetId},
    tick::Tick,
};
use nlb_ebpf::{
    handle,
    memory::{MemoryFrame, MemoryTables},
};
use nlb_tests::{
    hostile::{self, Random},
    kernel::{self, Answer, Kernel, set_forwarding, unavailable},
    packet::facts,
    world,
};
use nlb_userspace::dataplane::XDP_OBJECT;

/// Frames of each IP version.
const FRAMES: usize = 24_000;
/// Frames between two changes of the world.
const CHAPTER: usize = 400;
/// Silence between two chapters, in ticks: more than some time-outs (13, 38, 150), and less than the
/// longest (438).
const SILENCE_TICKS: u16 = 165;

struct Pair {
    kernel: Kernel,
    memory: MemoryTables,
    /// What comes next, instead of something new.
    reply: Option<MemoryFrame>,
}

impl Pair {
    /// One frame through both.
    fn frame(&mut self, random: &mut Random, is_v6: bool) -> Result<Answer> {
        let frame = match self.reply.take() {
            Some(reply) => reply,
            None => hostile::frame(random, is_v6),
        };
        let mut ours = frame.clone();
        let cookies = self.memory.stops(Stop::SynCookie);
        self.memory.now.set(Kernel::NOW.0);
        let verdict = Answer::from(handle(&mut ours, &self.memory));
        let is_cookie = self.memory.stops(Stop::SynCookie) > cookies;
        let (answer, bytes) = self.kernel.run(&frame.bytes, frame.interface)?;
        let mut context = || {
            format!(
                "{}of {}{}",
                self.stop_difference(),
                facts::describe(&frame.bytes),
                facts::hex(&frame.bytes, &[])
            )
        };
        ensure!(
            answer == verdict,
            "kernel {answer:?}, memory {verdict:?} {}",
            context()
        );
        let (mut expected, mut found) = (ours.bytes.clone(), bytes);
        if is_cookie {
            // The kernel's are not memory's.
            for frame in [&mut expected, &mut found] {
                hide_cookie(frame).context("not an answer of ours")?;
            }
        }
        if let Some(difference) = facts::difference(&expected, &found) {
            anyhow::bail!(
                "memory is expected, the kernel found: {difference}\n{}",
                context()
            );
        }
        // Only for clients of the world: the kernel knows more of its links than memory does.
        let is_known = facts::read(&frame.bytes)
            .is_some_and(|facts| self.memory.routes.contains_key(&facts.source.into()));
        if answer == Answer::Redirect && is_known && random.once_in(2) {
            self.reply = if random.once_in(4) {
                hostile::complaint(random, &ours.bytes)
            } else {
                hostile::reply(&ours.bytes)
            };
        }
        Ok(answer)
    }

    /// Which stops differ, if any.
    fn stop_difference(&mut self) -> String {
        let Ok(theirs) = self.kernel.stops() else {
            return String::new();
        };
        let ours = self.memory.stop_counters.borrow();
        let mut text = String::new();
        for (stop, (theirs, ours)) in Stop::ALL.iter().zip(theirs.iter().zip(ours.iter())) {
            if theirs != ours {
                for part in [
                    "[",
                    stop.name(),
                    ": kernel ",
                    &theirs.to_string(),
                    ", memory ",
                ] {
                    text.push_str(part);
                }
                text.push_str(&ours.to_string());
                text.push_str("] ");
            }
        }
        text
    }

    /// Everything that was counted and remembered.
    fn compare(&mut self) -> Result<()> {
        let stops = self.kernel.stops()?;
        ensure!(
            stops == *self.memory.stop_counters.borrow(),
            "stops: kernel {stops:?}, memory {:?}",
            self.memory.stop_counters
        );
        for id in 0..128u16 {
            let (listener, target) = (ListenerId(id), TargetId(u32::from(id)));
            let ours = self
                .memory
                .listener_counters
                .borrow()
                .get(&listener)
                .copied();
            let theirs = self.kernel.listener(id)?;
            ensure!(
                theirs == ours.unwrap_or_default(),
                "{listener:?}: {theirs:?}, {ours:?}"
            );
            let ours = self.memory.target_counters.borrow().get(&target).copied();
            let theirs = self.kernel.target(target.0)?;
            ensure!(
                theirs == ours.unwrap_or_default(),
                "{target:?}: {theirs:?}, {ours:?}"
            );
        }
        if let Some(difference) = self.kernel.admission_difference(&self.memory)? {
            anyhow::bail!("limits: {difference}");
        }
        if let Some(difference) = self.kernel.flow_difference(&mut self.memory)? {
            anyhow::bail!("flow tables: {difference}");
        }
        Ok(())
    }

    /// A table is full where its flows are established.
    fn establish(&self, random: &mut Random) {
        let entries = self.memory.buckets.iter();
        for entry in entries.flat_map(|bucket| &bucket.entries) {
            if entry.choice.load() != Choice::EMPTY && !random.once_in(4) {
                let mut progress = entry.progress();
                progress.state = FlowState::NEW.with(FlowState::ESTABLISHED);
                progress.last_seen = Tick(self.memory.now.get());
                entry.progress.store(progress.to_word());
            }
        }
    }

    /// Limits have counted anything.
    fn count_anew(&mut self, random: &mut Random) {
        self.memory.now.set(Kernel::NOW.0);
        let mut of_limits = Random::new(random.next());
        world::set_windows(&self.memory, hostile::CLIENTS, || {
            u32::from(of_limits.byte() % 5)
        });
        for (id, _) in world::LIMITS {
            let record = &self.memory.admissions[usize::from(*id)];
            record.active.store(u64::from(of_limits.byte() % 6));
        }
        for record in self.memory.admission_sources.borrow().values() {
            record.active.store(u64::from(of_limits.byte() % 3));
        }
    }

    /// Time goes by, or rings change, or next hops.
    fn turn_page(&mut self, random: &mut Random) -> Result<()> {
        self.count_anew(random);
        match random.below(8) {
            0 | 6 => {
                // Where expired flows began anew, nothing would tell that they had.
                for listener in self.memory.listeners.iter().filter(|it| it.key().is_some()) {
                    let mut policy = listener.policy();
                    policy.expired = Stranded(random.pick(&[0, 1, 2]));
                    listener.set_policy(policy);
                }
                for entry in self
                    .memory
                    .buckets
                    .iter()
                    .flat_map(|bucket| &bucket.entries)
                {
                    if entry.choice.load() != Choice::EMPTY {
                        let mut progress = entry.progress();
                        let seen = progress.last_seen.0.wrapping_sub(SILENCE_TICKS);
                        progress.last_seen.0 = seen;
                        entry.progress.store(progress.to_word());
                    }
                }
                for record in self.memory.fragments.borrow_mut().values_mut() {
                    let seen = record.seen().0.wrapping_sub(SILENCE_TICKS);
                    *record = record.seen_at(Tick(seen));
                }
            }
            1 => {
                // Now and then there is nothing to translate sources to.
                let left = random.below(world::POOL.len() + 1);
                let pool: Vec<_> = world::POOL[..left]
                    .iter()
                    .map(|text| world::address(text))
                    .collect();
                self.memory.set_pool(&pool);
                for group in world::GROUPS.iter().filter(|group| group.targets.len() > 1) {
                    let keep = random.below(group.targets.len());
                    let left = group.targets.iter().enumerate();
                    let left = left.filter(|(index, _)| *index != keep);
                    let left: Vec<u32> = left.map(|(_, target)| target.0).collect();
                    self.memory.set_ring(group.id, &world::ring(&left));
                }
            }
            2 => {
                let slot = &self.memory.next_hops[1 + random.below(26)];
                if random.once_in(2) {
                    slot.renew();
                } else {
                    slot.invalidate();
                }
            }
            3 => {
                for target in &self.memory.targets {
                    if let Some(control) = target.control() {
                        let takes_new_flows = random.once_in(2);
                        target.set_control(TargetControl {
                            takes_new_flows,
                            resets_flows: !takes_new_flows && random.once_in(2),
                            ..control
                        });
                    }
                }
                for listener in self.memory.listeners.iter().filter(|it| it.key().is_some()) {
                    let mut policy = listener.policy();
                    // Mostly, flows shall begin in any way.
                    policy.stray = Stranded(random.pick(&[0, 0, 0, 0, 1, 2]));
                    policy.expired = Stranded(random.pick(&[0, 1, 2]));
                    policy.mss_clamp_bytes = random.pick(&[0, 1400, 536]);
                    policy.flags = policy.flags.with_syn_cookies(random.once_in(6));
                    listener.set_policy(policy);
                }
                for record in &self.memory.admissions {
                    record.set_policy(&AdmissionPolicy {
                        usual_syns_per_tick: random.pick(&[0, 1, 20]),
                        ..record.policy()
                    });
                }
            }
            4 => {
                for (id, _) in world::RULES {
                    let (_, rows) = random.pick(world::RULES);
                    let id = ListenerId(*id);
                    self.memory.rules.insert(id, world::rules(rows));
                    let policy = AdmissionPolicy {
                        has_rules: !random.once_in(4),
                        ..AdmissionPolicy::default()
                    };
                    self.memory.set_admission(id, &policy);
                }
            }
            5 => self.establish(random),
            _ => {
                let fresh = world::tables();
                self.memory.targets = fresh.targets;
                self.memory.listeners = fresh.listeners;
                self.memory.next_hops = fresh.next_hops;
                self.memory.rings = fresh.rings;
            }
        }
        self.kernel.write(&mut self.memory)?;
        self.kernel.write_flows(&mut self.memory)
    }
}

/// Takes the sequence number and the checksum, which depends on it, out of a SYN-ACK of nlb's own;
/// nothing if it is none, or its checksum is wrong.
fn hide_cookie(frame: &mut [u8]) -> Option<()> {
    facts::read(frame).filter(|facts| facts.is_intact)?;
    // It ends the frame: 24 bytes with its option.
    let segment = frame.last_chunk_mut::<24>()?;
    segment[4..8].fill(0);
    segment[16..18].fill(0);
    Some(())
}

fn run() -> Result<()> {
    let mut memory = world::tables();
    let kernel = Kernel::load(XDP_OBJECT, &mut memory)?;
    let mut pair = Pair {
        kernel,
        memory,
        reply: None,
    };
    let mut random = Random::new(0x6e6c_6221);
    let mut answers: BTreeMap<String, usize> = BTreeMap::new();
    for number in 0..2 * FRAMES {
        if number % CHAPTER == 0 {
            pair.compare()
                .with_context(|| format!("after {number} frames"))?;
            pair.turn_page(&mut random)?;
        }
        let is_v6 = number % 2 == 1;
        let answer = pair
            .frame(&mut random, is_v6)
            .with_context(|| format!("frame {number}"))?;
        let version = if is_v6 { "v6" } else { "v4" };
        *answers.entry(format!("{version} {answer:?}")).or_default() += 1;
    }
    pair.compare()?;

    // Last, the kernel says that it does not forward.
    set_forwarding(false)?;
    for route in pair.memory.routes.values_mut() {
        *route = Err(Stop::ForwardingOff);
    }
    // The one target of the world that no route leads to.
    let nowhere = world::address("10.77.0.1");
    pair.memory.routes.insert(nowhere, Err(Stop::ForwardingOff));
    for number in 0..CHAPTER {
        pair.frame(&mut random, number % 2 == 1)
            .context("forwarding is off")?;
    }
    pair.compare()?;

    println!("{answers:#?}");
    let stops = pair.kernel.stops()?;
    for (stop, count) in Stop::ALL.iter().zip(stops) {
        println!("{:>8} {}", count, stop.name());
        ensure!(
            count > 0 || UNSEEN.contains(stop),
            "{stop:?} was never seen"
        );
    }
    for (name, listener) in [
        ("v4 tcp", 1),
        ("v4 udp", 2),
        ("v6 tcp", 3),
        ("v6 udp", 4),
        ("full-nat v4 tcp", 28),
        ("full-nat v4 udp", 29),
        ("full-nat v6 tcp", 30),
        ("full-nat v6 udp", 31),
    ] {
        let Traffic {
            packets,
            return_packets,
            ..
        } = pair.kernel.listener(listener)?;
        println!("{name}: {packets} to targets, {return_packets} back");
        ensure!(
            packets > 0 && return_packets > 0,
            "{name} was not seen both ways"
        );
    }
    for &(id, vip, protocol, port, _) in world::LISTENERS {
        let is_tunnel = [world::TUNNEL_VIP, world::TUNNEL_VIP_V6].contains(&vip);
        // The first six ports are those whose targets are there.
        if is_tunnel && port <= 6 {
            let packets = pair.kernel.listener(id)?.packets;
            ensure!(packets > 0, "{vip} {protocol} {port} was not seen");
        }
    }
    for answer in ["Pass", "Drop", "Redirect", "Transmit"] {
        for version in ["v4", "v6"] {
            ensure!(
                answers.contains_key(&format!("{version} {answer}")),
                "no {version} {answer}"
            );
        }
    }
    Ok(())
}

/// Not counted at all; not provoked by a frame, but by a driver or by a fault of the daemon.
const UNSEEN: &[Stop] = &[
    Stop::NotOurs,
    Stop::NoRoom,
    Stop::MissingStage,
    Stop::ErrorLimit,
    Stop::HairpinWithoutPool,
    Stop::CollisionWithoutPool,
    Stop::FlowReplaced,
    Stop::EarlyLimit,
    Stop::SynCookieUnavailable,
    Stop::Unaccepted,
];

#[test]
fn memory_and_kernel_agree_on_hostile_frames() {
    if let Some(reason) = unavailable() {
        println!("SKIPPED differential: {reason}");
        return;
    }
    let outcome = kernel::in_lab(run).expect("a network namespace");
    if let Err(error) = outcome {
        panic!("{error:?}");
    }
}
