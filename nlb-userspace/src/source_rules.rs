//! Source rules, compiled: of all rules of a load balancer, what they say about the clients of one
//! listener.
//!
//! A listener has one protocol, one port and, where its clients come from, one IP version. So a rule
//! either means it or does not, and what is left is a verdict for each prefix of sources: what the
//! kernel's trie holds and a packet looks up once.

use std::{
    collections::{BTreeMap, HashMap},
    net::IpAddr,
    sync::Arc,
};

use nlb_common::address::Address;

use crate::{
    config::{IpVersion, SourceRule},
    decap::prefix::Prefix,
};

/// What becomes of flows of a prefix that no longer one decides about.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Verdict {
    /// The prefix, IPv4 mapped into IPv6.
    pub prefix: Address,
    /// How many of its bits count.
    pub bits: u8,
    /// Whether they may begin.
    pub allows: bool,
}

/// A verdict for every source: each prefix once, the prefix of all sources among them.
#[derive(Clone, PartialEq, Eq)]
pub struct SourceRules(Arc<[Verdict]>);

impl std::fmt::Debug for SourceRules {
    fn fmt(&self, formatter: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match &*self.0 {
            few if few.len() <= 8 => formatter.debug_list().entries(few).finish(),
            many => write!(formatter, "SourceRules(of {} prefixes)", many.len()),
        }
    }
}

impl SourceRules {
    /// The verdicts, in no order that matters.
    pub fn verdicts(&self) -> &[Verdict] {
        &self.0
    }

    /// Whether these are the very same in memory: a cheap answer for most comparisons.
    pub fn is_same(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

/// Compiles the rules of one load balancer. Listeners that the same rules mean share the result.
pub struct Compiler<'r> {
    rules: &'r [SourceRule],
    done: HashMap<(Vec<bool>, IpVersion), Option<SourceRules>>,
}

impl<'r> Compiler<'r> {
    /// For these rules.
    pub fn new(rules: &'r [SourceRule]) -> Self {
        Self {
            rules,
            done: HashMap::new(),
        }
    }

    /// What the rules say about a listener's clients; `None` if all may begin.
    pub fn compile(&mut self, protocol: u8, port: u16, version: IpVersion) -> Option<SourceRules> {
        let rules = self.rules;
        let meant: Vec<bool> = rules
            .iter()
            .map(|rule| rule.means(protocol, port))
            .collect();
        self.done
            .entry((meant, version))
            .or_insert_with_key(|(meant, version)| verdicts(rules, meant, *version))
            .clone()
    }
}

/// The longest prefix decides; where rules name the same one, a `deny` among them does. What no rule
/// names may begin unless the load balancer has an `allow`, for whatever listener.
fn verdicts(rules: &[SourceRule], meant: &[bool], version: IpVersion) -> Option<SourceRules> {
    let mut by_prefix: BTreeMap<(u8, [u8; 16]), bool> = BTreeMap::new();
    for (rule, _) in rules.iter().zip(meant).filter(|(_, is_meant)| **is_meant) {
        let of_version = rule
            .sources
            .iter()
            .filter(|source| source.version() == version);
        for source in of_version {
            by_prefix
                .entry((mapped_bits(*source), source.mapped().v6_bytes()))
                .and_modify(|allows| *allows &= rule.allows)
                .or_insert(rule.allows);
        }
    }
    by_prefix
        .entry((0, [0; 16]))
        .or_insert_with(|| !rules.iter().any(|rule| rule.allows));
    if by_prefix.values().all(|allows| *allows) {
        return None;
    }
    let verdicts = by_prefix
        .into_iter()
        .map(|((bits, prefix), allows)| Verdict {
            prefix: Address::from_v6_bytes(prefix),
            bits,
            allows,
        });
    Some(SourceRules(verdicts.collect()))
}

fn mapped_bits(prefix: Prefix) -> u8 {
    u8::try_from(prefix.mapped_length()).unwrap_or(u8::MAX)
}

/// How many bits of a mapped address a prefix length of its version stands for.
pub const fn mapped_length(address: IpAddr, ipv4: u8, ipv6: u8) -> u8 {
    match address {
        IpAddr::V4(_) => 96 + ipv4,
        IpAddr::V6(_) => ipv6,
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const TCP: u8 = 6;
    const UDP: u8 = 17;

    fn rule(allows: bool, sources: &[&str]) -> SourceRule {
        SourceRule {
            allows,
            sources: sources.iter().map(|text| text.parse().unwrap()).collect(),
            protocol: None,
            ports: 1..=u16::MAX,
        }
    }

    /// What the longest matching verdict says.
    fn allows(rules: &[SourceRule], protocol: u8, port: u16, client: &str) -> bool {
        let client: IpAddr = client.parse().unwrap();
        let compiled = Compiler::new(rules).compile(protocol, port, IpVersion::of(client));
        compiled.is_none_or(|rules| {
            let client = Address::from(client);
            rules
                .verdicts()
                .iter()
                .filter(|verdict| client.prefix(verdict.bits) == verdict.prefix)
                .max_by_key(|verdict| verdict.bits)
                .unwrap()
                .allows
        })
    }

    #[test]
    fn without_rules_everybody_may_begin() {
        assert_eq!(Compiler::new(&[]).compile(TCP, 80, IpVersion::Ipv4), None);
        // So with rules that mean other listeners only, unless one of them allows.
        let mut deny = rule(false, &["10.0.0.0/8"]);
        deny.protocol = Some(UDP);
        assert_eq!(
            Compiler::new(&[deny]).compile(TCP, 80, IpVersion::Ipv4),
            None
        );
    }

    #[test]
    fn what_is_not_denied_may_begin_and_with_an_allow_what_is_not_allowed_may_not() {
        let deny = [rule(false, &["10.0.0.0/8"])];
        assert!(!allows(&deny, TCP, 80, "10.1.1.1"));
        assert!(allows(&deny, TCP, 80, "11.1.1.1"));
        assert!(allows(&deny, TCP, 80, "2001:db8::1"));
        let allow = [rule(true, &["10.0.0.0/8"])];
        assert!(allows(&allow, TCP, 80, "10.1.1.1"));
        assert!(!allows(&allow, TCP, 80, "11.1.1.1"));
        assert!(!allows(&allow, TCP, 80, "2001:db8::1"));
    }

    #[test]
    fn an_allow_for_one_listener_closes_the_others() {
        let mut allow = rule(true, &["0.0.0.0/0"]);
        allow.ports = 443..=444;
        allow.protocol = Some(TCP);
        let rules = [allow];
        assert!(allows(&rules, TCP, 443, "10.1.1.1"));
        assert!(allows(&rules, TCP, 444, "10.1.1.1"));
        assert!(!allows(&rules, TCP, 445, "10.1.1.1"));
        assert!(!allows(&rules, UDP, 443, "10.1.1.1"));
    }

    #[test]
    fn the_longest_prefix_decides_whatever_the_order() {
        let mut rules = vec![
            rule(true, &["10.0.0.0/8", "10.1.1.0/24"]),
            rule(false, &["10.1.0.0/16"]),
        ];
        for _ in 0..2 {
            assert!(allows(&rules, TCP, 80, "10.2.0.1"));
            assert!(!allows(&rules, TCP, 80, "10.1.2.1"));
            assert!(allows(&rules, TCP, 80, "10.1.1.1"));
            rules.reverse();
        }
    }

    #[test]
    fn of_rules_with_the_same_prefix_a_deny_decides() {
        let mut rules = vec![rule(false, &["10.0.0.0/8"]), rule(true, &["10.0.0.0/8"])];
        assert!(!allows(&rules, TCP, 80, "10.1.1.1"));
        rules.reverse();
        assert!(!allows(&rules, TCP, 80, "10.1.1.1"));
    }

    #[test]
    fn a_prefix_of_one_version_says_nothing_about_the_other() {
        let rules = [rule(false, &["::/0"])];
        assert!(allows(&rules, TCP, 80, "10.1.1.1"));
        assert!(!allows(&rules, TCP, 80, "2001:db8::1"));
        let rules = [rule(true, &["0.0.0.0/0"])];
        assert!(allows(&rules, TCP, 80, "10.1.1.1"));
        assert!(!allows(&rules, TCP, 80, "2001:db8::1"));
    }

    #[test]
    fn listeners_that_the_same_rules_mean_share_them() {
        let rules = [rule(false, &["10.0.0.0/8"])];
        let mut compiler = Compiler::new(&rules);
        let one = compiler.compile(TCP, 80, IpVersion::Ipv4).unwrap();
        let other = compiler.compile(UDP, 53, IpVersion::Ipv4).unwrap();
        assert!(one.is_same(&other));
    }
}
