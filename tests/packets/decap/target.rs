//! A target with its addresses and VIPs, in memory and in the kernel.

use std::{collections::BTreeSet, net::IpAddr};

use anyhow::{Context as _, Result, bail};
use aya::{
    Ebpf, EbpfLoader,
    maps::{HashMap, LpmTrie, PerCpuArray, lpm_trie::Key},
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use nlb_common::{
    address::Address,
    decap::{DecapSettings, DecapStop, Decapsulated, Encapsulation, SourceKey},
    plain::Plain,
};
use nlb_ebpf::{
    Verdict,
    decap::{decapsulate, memory::MemoryDecapTables},
    memory::MemoryFrame,
};
use nlb_userspace::{dataplane::DECAP_OBJECT, decap::prefix::Prefix};
use zerocopy::{IntoBytes as _, big_endian::U16};

/// The load balancer's address.
pub(super) const LB_V4: &str = "10.0.0.1";
/// The load balancer's address.
pub(super) const LB_V6: &str = "fd00::1";
/// An address from which no load balancer sends.
pub(super) const STRANGER_V4: &str = "10.0.0.99";
/// An address from which no load balancer sends.
pub(super) const STRANGER_V6: &str = "fd00::99";
/// The target's own address.
pub(super) const OWN_V4: &str = "10.0.0.11";
/// The target's own address.
pub(super) const OWN_V6: &str = "fd00::11";
/// The VIP.
pub(super) const VIP_V4: &str = "192.0.2.20";
/// The VIP.
pub(super) const VIP_V6: &str = "2001:db8::20";
/// The client.
pub(super) const CLIENT_V4: &str = "198.51.100.7";
/// The client.
pub(super) const CLIENT_V6: &str = "2001:db8:c::7";

/// What was typed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Setup {
    /// All encapsulations, from the load balancers only.
    Restricted,
    /// All encapsulations, from anywhere.
    Open,
    /// Only IP in IP, from anywhere.
    IpipAlone,
    /// Only GUE, from anywhere, at a port of its own.
    GueAlone,
}

impl Setup {
    pub(super) const ALL: [Self; 4] = [
        Self::Restricted,
        Self::Open,
        Self::IpipAlone,
        Self::GueAlone,
    ];

    fn settings(self) -> DecapSettings {
        let all = DecapSettings {
            gue_port: U16::new(6080),
            geneve_port: U16::new(6081),
            takes_ipip: 1,
            restricts_sources: 0,
        };
        match self {
            Self::Restricted => DecapSettings {
                restricts_sources: 1,
                ..all
            },
            Self::Open => all,
            Self::IpipAlone => DecapSettings {
                takes_ipip: 1,
                ..DecapSettings::default()
            },
            Self::GueAlone => DecapSettings {
                gue_port: U16::new(7777),
                ..DecapSettings::default()
            },
        }
    }
}

fn addresses(texts: [&str; 2]) -> [Address; 2] {
    texts.map(|text| Address::from(text.parse::<IpAddr>().expect("an address")))
}

const SOURCES: [(&str, u8); 2] = [("10.0.0.0", 28), ("fd00::", 124)];

/// What became of a frame.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Outcome {
    pub(super) passed: bool,
    pub(super) bytes: Vec<u8>,
    pub(super) stops: [u64; DecapStop::COUNT],
    pub(super) decapsulated: [Decapsulated; Encapsulation::ALL.len()],
}

/// The target in memory.
pub(super) struct MemoryTarget(MemoryDecapTables);

impl MemoryTarget {
    pub(super) fn new(setup: Setup) -> Self {
        Self(MemoryDecapTables {
            settings: setup.settings(),
            own: addresses([OWN_V4, OWN_V6]).into(),
            vips: addresses([VIP_V4, VIP_V6]).into(),
            sources: SOURCES
                .map(|(address, length)| (address.parse().expect("an address"), length))
                .into(),
            ..MemoryDecapTables::default()
        })
    }

    pub(super) fn run(&mut self, frame: &[u8]) -> Outcome {
        *self.0.counters.borrow_mut() = Default::default();
        *self.0.stops.borrow_mut() = Default::default();
        let mut frame = MemoryFrame {
            bytes: frame.to_vec(),
            interface: 1,
        };
        let verdict = decapsulate(&mut frame, &self.0);
        Outcome {
            passed: verdict == Verdict::Pass,
            bytes: frame.bytes,
            stops: *self.0.stops.borrow(),
            decapsulated: *self.0.counters.borrow(),
        }
    }
}

/// The loaded program.
pub(super) struct KernelTarget(Ebpf);

impl KernelTarget {
    pub(super) fn load(setup: Setup) -> Result<Self> {
        let mut ebpf = EbpfLoader::new()
            .override_global("DECAP_SETTINGS", setup.settings().as_bytes(), true)
            .load(DECAP_OBJECT)?;
        for (name, texts) in [
            ("DECAP_OWN", [OWN_V4, OWN_V6]),
            ("DECAP_VIPS", [VIP_V4, VIP_V6]),
        ] {
            let map = ebpf.map_mut(name).context(name)?;
            let mut map = HashMap::<_, Plain<Address>, u32>::try_from(map)?;
            for address in addresses(texts) {
                map.insert(Plain(address), 1, 0)?;
            }
        }
        let map = ebpf.map_mut("DECAP_SOURCES").context("DECAP_SOURCES")?;
        let mut map = LpmTrie::<_, Plain<SourceKey>, u32>::try_from(map)?;
        let sources: BTreeSet<Prefix> = SOURCES
            .map(|(address, length)| format!("{address}/{length}").parse().expect("a prefix"))
            .into();
        for prefix in sources {
            let key = Key::new(
                SourceKey::BITS_BEFORE + prefix.mapped_length(),
                Plain(SourceKey::of(prefix.mapped())),
            );
            map.insert(&key, 1, 0)?;
        }
        let program: &mut Xdp = ebpf.program_mut("decap").context("`decap`")?.try_into()?;
        program.load()?;
        Ok(Self(ebpf))
    }

    fn counts(
        &mut self,
    ) -> Result<(
        [u64; DecapStop::COUNT],
        [Decapsulated; Encapsulation::ALL.len()],
    )> {
        let mut stops = [0; DecapStop::COUNT];
        let map = self.0.map_mut("DECAP_STOPS").context("DECAP_STOPS")?;
        let map = PerCpuArray::<_, u64>::try_from(map)?;
        for (index, sum) in (0..).zip(&mut stops) {
            *sum = map.get(&index, 0)?.iter().sum();
        }
        let mut decapsulated = [Decapsulated::default(); Encapsulation::ALL.len()];
        let map = self.0.map_mut("DECAP_COUNTERS").context("DECAP_COUNTERS")?;
        let map = PerCpuArray::<_, Plain<Decapsulated>>::try_from(map)?;
        for (index, sum) in (0..).zip(&mut decapsulated) {
            for part in map.get(&index, 0)?.iter() {
                *sum += part.0;
            }
        }
        Ok((stops, decapsulated))
    }

    pub(super) fn run(&mut self, frame: &[u8]) -> Result<Outcome> {
        let before = self.counts()?;
        let program: &mut Xdp = self.0.program_mut("decap").context("`decap`")?.try_into()?;
        let mut out = vec![0xa5; frame.len() + 256];
        let mut options = TestRunOptions::new();
        options.data_in = Some(frame);
        options.data_out = Some(&mut out);
        let result = program.test_run(options).context("BPF_PROG_TEST_RUN")?;
        out.truncate(usize::try_from(result.data_size_out)?);
        let passed = match result.return_value {
            1 => false,
            2 => true,
            other => bail!("the program returned {other}"),
        };
        let (mut stops, mut decapsulated) = self.counts()?;
        for (now, before) in stops.iter_mut().zip(before.0) {
            *now -= before;
        }
        for (now, before) in decapsulated.iter_mut().zip(before.1) {
            now.packets -= before.packets;
            now.bytes -= before.bytes;
        }
        Ok(Outcome {
            passed,
            bytes: out,
            stops,
            decapsulated,
        })
    }
}
