//! The seeds of the fuzz targets: the packets are sentences of the world, every file has its
//! sentence in the README, and none breaks anything. So an input that once did, and was put there,
//! is tried without a fuzzer, too.
//!
//! `NLB_BLESS=1 cargo test -p nlb-tests --test properties corpus` writes the packets anew.

use std::{
    collections::BTreeSet,
    env, fs,
    path::{Path, PathBuf},
};

use nlb_common::wire::protocol::{TCP, UDP};
use nlb_tests::{
    hostile::{self, ARENA_PORT, Arena},
    packet::Sentence,
    world::{
        self, CLIENT, CLIENT_V6, DSR_VIP, DSR_VIP_V6, FAR_CLIENT, GROUPS, VIP, VIP_V6, chosen,
        from_client, from_target,
    },
};

fn corpus() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus")
}

fn files(target: &str) -> Vec<PathBuf> {
    let entries = fs::read_dir(corpus().join(target)).expect("the folder of a target");
    entries
        .map(|entry| entry.expect("an entry").path())
        // Without one it was learned by a run by hand, and git ignores it.
        .filter(|path| path.extension().is_some())
        .collect()
}

/// What the target of a flow in an [`Arena`] answers.
fn answer(client: &str, vip: (&str, u16), protocol: u8) -> Sentence {
    let id = chosen(&world::tables(), (client, ARENA_PORT), vip, protocol);
    let (_, address, port, _) = *GROUPS
        .iter()
        .flat_map(|group| group.targets)
        .find(|target| Some(target.0) == id)
        .expect("a target of the world");
    let frame = from_target(address).ip(
        address.parse().expect("an address"),
        client.parse().expect("an address"),
    );
    if protocol == TCP {
        frame.tcp(port, ARENA_PORT)
    } else {
        frame.udp(port, ARENA_PORT)
    }
}

fn packets() -> Vec<(&'static str, Sentence)> {
    let v4 = || from_client().ipv4(CLIENT, VIP);
    let v6 = || from_client().ipv6(CLIENT_V6, VIP_V6);
    vec![
        ("tcp-v4-syn", v4().tcp(41_000, 80).syn()),
        (
            "tcp-v4-of-a-flow",
            v4().tcp(ARENA_PORT, 80).payload(b"GET / "),
        ),
        ("tcp-v4-rst", v4().tcp(ARENA_PORT, 80).rst()),
        ("tcp-v4-answer", answer(CLIENT, (VIP, 80), TCP).syn_ack()),
        ("tcp-v4-fin-answer", answer(CLIENT, (VIP, 80), TCP).fin()),
        ("tcp-v6-syn", v6().tcp(41_000, 80).syn()),
        (
            "tcp-v6-answer",
            answer(CLIENT_V6, (VIP_V6, 80), TCP).syn_ack(),
        ),
        ("udp-v4", v4().udp(41_000, 53).payload(b"question")),
        (
            "udp-v4-without-checksum",
            v4().udp(41_000, 53).no_checksum(),
        ),
        (
            "udp-v4-answer",
            answer(CLIENT, (VIP, 53), UDP).payload(b"answer"),
        ),
        ("udp-v6", v6().udp(41_000, 53).payload(b"question")),
        ("udp-v6-answer", answer(CLIENT_V6, (VIP_V6, 53), UDP)),
        (
            "dsr-v4-syn",
            from_client()
                .ipv4(FAR_CLIENT, DSR_VIP)
                .tcp(41_000, 80)
                .syn(),
        ),
        (
            "dsr-v6-udp",
            from_client().ipv6(CLIENT_V6, DSR_VIP_V6).udp(41_000, 53),
        ),
        ("icmp-v4-echo", v4().echo()),
        ("ip-options", v4().options(&[1; 8]).tcp(41_000, 80).syn()),
        ("first-fragment", v4().first_fragment().udp(41_000, 53)),
        ("later-fragment", v4().later_fragment().udp(41_000, 53)),
        (
            "extension-headers",
            v6().hop_by_hop()
                .destination_options()
                .tcp(41_000, 80)
                .syn(),
        ),
        ("vlan-tag", v4().vlan(5).tcp(41_000, 80).syn()),
        ("last-hop", v4().ttl(1).tcp(41_000, 80).syn()),
        ("length-that-lies", v4().length(2000).tcp(41_000, 80).syn()),
        ("tcp-header-that-lies", v4().data_words(15).tcp(41_000, 80)),
    ]
}

#[test]
fn the_packets_of_the_corpus_are_sentences_of_the_world() {
    for (name, sentence) in packets() {
        let path = corpus().join("packet").join(format!("{name}.bin"));
        let frame = sentence.build();
        if env::var_os("NLB_BLESS").is_some() {
            fs::write(&path, frame).expect("writing a seed");
        } else {
            let written = fs::read(&path).expect("a seed; NLB_BLESS=1 writes it");
            assert_eq!(written, frame, "{name}: write it anew with NLB_BLESS=1");
        }
    }
}

#[test]
fn every_file_of_the_corpus_has_its_sentence() {
    let readme = fs::read_to_string(corpus().join("README.md")).expect("the README");
    let told: BTreeSet<String> = readme
        .lines()
        .filter_map(|line| line.strip_prefix("- `")?.split_once("`: "))
        .filter(|(_, sentence)| sentence.ends_with('.'))
        .map(|(name, _)| name.to_owned())
        .collect();
    let there: BTreeSet<String> = ["packet", "config"]
        .into_iter()
        .flat_map(files)
        .map(|path| {
            let name = path.strip_prefix(corpus()).expect("below the corpus");
            name.to_string_lossy().into_owned()
        })
        .collect();
    assert_eq!(told, there);
}

#[test]
fn no_file_of_the_corpus_breaks_anything() {
    let mut arena = Arena::default();
    for path in files("packet") {
        arena.packet(&fs::read(path).expect("a seed"));
    }
    for path in files("config") {
        // As the fuzzer does: text up to the first byte that is none.
        let bytes = fs::read(path).expect("a seed");
        let text = bytes.utf8_chunks().next().map_or("", |chunk| chunk.valid());
        hostile::config(text);
    }
}
