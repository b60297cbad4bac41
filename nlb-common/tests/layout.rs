//! The layout of everything that crosses the kernel's boundary, pinned byte for byte.
//!
//! The derives of zerocopy prove that there is no padding; this proves that nothing moved. Whoever
//! has to change a line here also has to raise `maps::LAYOUT_VERSION`, because daemons of two
//! releases meet over pinned maps.

use std::{fmt::Write as _, net::IpAddr};

use nlb_common::{
    address::Address,
    admission::{Admission, AdmissionPolicy, Source, SourceRecord, Window},
    counter::Traffic,
    early::EarlyFragment,
    event::Event,
    flow::{Bucket, Choice, Client, FlowEntry, FlowState},
    fragment::{Disguise, FragmentKey, FragmentRecord, Identifications, Way},
    hash::Key,
    listener::{
        HashInput, Listener, ListenerFlags, ListenerId, ListenerKey, ListenerPolicy, Stranded,
    },
    maps::{Header, LAYOUT_VERSION, Prefilter},
    next_hop::{MacPair, NeighbourKey, NextHop, NextHopId, NextHopSlot, VlanId},
    pressure::Pressure,
    quic::{CidLayout, ServerIdKey},
    ring::Ring,
    settings::Settings,
    source::{Pool, SourceBucket, Translations},
    target::{Mode, Target, TargetControl, TargetId, TargetIdentity},
    tick::Tick,
    tunnel::{Tunnel, TunnelSlot},
    wire::ethernet::MacAddress,
};
use zerocopy::{FromBytes, IntoBytes, big_endian::U16};

/// A record's bytes as hexadecimal words of eight bytes.
fn hex<R: IntoBytes + FromBytes>(mut record: R) -> String {
    let mut text = String::new();
    for (index, byte) in record.as_mut_bytes().iter().enumerate() {
        if index > 0 && index % 8 == 0 {
            text.push(' ');
        }
        write!(text, "{byte:02x}").unwrap();
    }
    text
}

fn address() -> Address {
    Address::from(IpAddr::from([0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x1234]))
}

#[test]
fn sizes() {
    assert_eq!(LAYOUT_VERSION, 6);
    assert_eq!(size_of::<Address>(), 16);
    assert_eq!(size_of::<ListenerKey>(), 24);
    assert_eq!((size_of::<Listener>(), align_of::<Listener>()), (64, 64));
    assert_eq!((size_of::<Target>(), align_of::<Target>()), (32, 32));
    assert_eq!(
        (size_of::<NextHopSlot>(), align_of::<NextHopSlot>()),
        (32, 32)
    );
    assert_eq!(size_of::<NeighbourKey>(), 24);
    assert_eq!((size_of::<FlowEntry>(), align_of::<FlowEntry>()), (32, 32));
    assert_eq!((size_of::<Bucket>(), align_of::<Bucket>()), (128, 64));
    assert_eq!(size_of::<Ring>(), 262_152);
    assert_eq!(size_of::<Traffic>(), 64);
    assert_eq!(size_of::<Admission>(), 64);
    assert_eq!(size_of::<Source>(), 24);
    assert_eq!(size_of::<SourceRecord>(), 16);
    assert_eq!(size_of::<Event>(), 24);
    assert_eq!(size_of::<Prefilter>(), 8192);
    assert_eq!(size_of::<Header>(), 64);
    assert_eq!(size_of::<Settings>(), 128);
    assert_eq!(size_of::<Key>(), 48);
    assert_eq!(size_of::<FragmentKey>(), 40);
    assert_eq!(size_of::<FragmentRecord>(), 40);
    assert_eq!(size_of::<Identifications>(), 2048);
    assert_eq!(size_of::<EarlyFragment>(), 2104);
    assert_eq!(
        (size_of::<TunnelSlot>(), align_of::<TunnelSlot>()),
        (64, 64)
    );
    assert_eq!((size_of::<Pool>(), align_of::<Pool>()), (3072, 64));
    assert_eq!(size_of::<Translations>(), 32);
    assert_eq!(size_of::<SourceBucket>(), 64);
}

#[test]
fn a_listener() {
    let key = ListenerKey::new(address(), 6, U16::new(0x1f90));
    assert_eq!(
        hex(key),
        "20010db800000000 0000000000001234 1f90060000000000"
    );
    let record = Listener::default();
    record.write(
        &key,
        ListenerPolicy {
            group: 0x0102,
            idle_ticks: 0x0304,
            stray: Stranded::RESET,
            expired: Stranded::DROP,
            mss_clamp_bytes: 0x0506,
            flags: ListenerFlags::default()
                .with_hash_input(HashInput::Source)
                .with_quic(true),
        },
    );
    record.set_cid_layout(CidLayout {
        id_bytes: 0x11,
        server_id_offset_bytes: 1,
        server_id_bytes: 8,
    });
    assert_eq!(
        hex(record),
        "20010db800000000 0000000000001234 1f90060100000000 0201040366000605 \
         0000000000000000 0000000000000000 0000000000000000 1101080000000000"
    );
}

#[test]
fn a_quic_servers_number() {
    let key = ServerIdKey::new(0x0102, 0x0304_0506_0708_090a);
    assert_eq!(hex(key), "030405060708090a 0102000000000000");
}

#[test]
fn an_admission() {
    let record = Admission::default();
    record.set_policy(&AdmissionPolicy {
        has_rules: true,
        forwards_unpinned: true,
        source_bits: 0x78,
        flows_per_tick: 0x0102_0304,
        source_flows_per_tick: 0x0506_0708,
        active_flows: 0x090a_0b0c,
        source_active_flows: 0x0d0e_0f10,
        usual_syns_per_tick: 0x1112_1314,
    });
    let window = Window {
        tick: Tick(0x0102),
        flows: 0x0304_0506,
    };
    record.window.store(window.to_word());
    record.active.store(7);
    let pressure = Pressure::of_word(0).after_a_syn(Tick(0x0102), 0);
    record.pressure.store(pressure.to_word());
    assert_eq!(
        hex(record),
        "0378000000000000 0403020108070605 0c0b0a09100f0e0d 0605040300000201 \
         0700000000000000 1413121100000000 0000008002010201 0000000000000000"
    );
    assert_eq!(
        hex(Source::of(ListenerId(0x0102), address(), 32)),
        "20010db800000000 0000000000000000 0201000000000000"
    );
}

#[test]
fn a_target() {
    let record = Target::default();
    let identity = TargetIdentity {
        address: address(),
        port: U16::new(0x1f90),
        group: 0x0102,
        group_fingerprint: 0x0304_0506,
    };
    record.write(
        &identity,
        TargetControl {
            mode: Mode::NAT,
            takes_new_flows: true,
            resets_flows: true,
            next_hop: NextHopId(0x0708),
        },
    );
    assert_eq!(
        hex(record),
        "0103080700000000 20010db800000000 0000000000001234 1f90020106050403"
    );
}

#[test]
fn a_tunnel() {
    let slot = TunnelSlot::default();
    slot.write(&Tunnel {
        source_v4: Address::from_v4_bytes([0x11, 0x12, 0x13, 0]),
        source_v6: address(),
        spread_v4: [0, 0, 0, 0xff],
        spread_v6: [0, 0, 0, 0, 0, 0, 0x21, 0x22],
        port: U16::new(0x17c0),
        network: [0x31, 0x32, 0x33],
        has_entropy: true,
    });
    assert_eq!(
        hex(slot),
        "010317c031323300 11121300000000ff 20010db800000000 0000000000001234 \
         0000000000002122 0000000000000000 0000000000000000 0000000000000000"
    );
}

#[test]
fn a_next_hop() {
    let key = NeighbourKey::new(0x0102_0304, address());
    assert_eq!(
        hex(key),
        "20010db800000000 0000000000001234 0403020100000000"
    );
    let slot = NextHopSlot::default();
    slot.write(&NextHop {
        macs: MacPair::new(
            MacAddress([0x11, 0x12, 0x13, 0x14, 0x15, 0x16]),
            MacAddress([0x21, 0x22, 0x23, 0x24, 0x25, 0x26]),
        ),
        interface: 0x0102_0304,
        mtu_bytes: 0x0506,
        vlan: VlanId(0x0708),
    });
    assert_eq!(
        hex(slot),
        "0605010001000807 1112131415162122 2324252604030201 0000000000000000"
    );
}

#[test]
fn a_fragment() {
    let key = FragmentKey {
        source: address(),
        destination: address(),
        identification: 0x0102_0304,
        protocol: 17,
    };
    assert_eq!(
        hex(key),
        "20010db800000000 0000000000001234 20010db800000000 0000000000001234 0403020111000000"
    );
    let record = FragmentRecord::new(
        &key,
        ListenerId(0x0506),
        TargetId(0x0708_090a),
        Way::ToClient,
        Tick(0x0b0c),
    );
    assert_eq!(
        hex(record),
        "0a09080706050c0b 0403020101000000 0000000000000000 0000000000000000 00000000e6823b37"
    );
    let disguise = Disguise {
        address: address(),
        identification: 0x0d0e_0f10,
    };
    assert_eq!(
        hex(record.disguised(disguise)),
        "0a09080706050c0b 0403020101000000 20010db800000000 0000000000001234 100f0e0d9703f050"
    );
}

#[test]
fn a_flow() {
    let entry = FlowEntry::default();
    let client = Client {
        address: address(),
        port: U16::new(0x9c40),
        protocol: 17,
    };
    let choice = Choice {
        target: TargetId(0x0102_0304),
        listener: ListenerId(0x0506),
        next_hop: NextHopId(0x0708),
    };
    entry.fill(&client, choice, FlowState::ESTABLISHED, Tick(0x0a0b));
    assert_eq!(
        hex(entry),
        "0403020106050807 20010db800000000 0000000000001234 9c4011020b0a0000"
    );
}
