//! What valid configurations mean.

use std::{
    net::{IpAddr, Ipv4Addr},
    num::NonZeroU32,
    path::{Path, PathBuf},
    time::Duration,
};

use nlb_common::listener::HashInput;
use nlb_userspace::config::{
    self, Access, Capacity, Desired, Endpoint, FlowLimits, HashKey, HashKeySource, HealthCheck,
    HealthCheckPort, HealthCheckProtocol, HttpCodes, IpVersion, Listener, LoadBalancer, Minimum,
    Mode, Node, OnExit, OverLimit, Protocol, Seccomp, Share, StrandedAction, Suspicion, SynCookies,
    Target, TargetGroup, TcpApi, TunnelOptions, TunnelSource, TunnelSources, XdpMode,
};
const MINIMAL: &str = r#"
[node]
interfaces = ["eth0"]

[[load_balancer]]
name = "edge"
addresses = ["192.0.2.10"]

  [[load_balancer.listener]]
  protocol = "TCP"
  port = 80
  target_group = "web"

[[target_group]]
name = "web"
protocol = "TCP"
port = 80

  [[target_group.target]]
  address = "10.0.0.11"
"#;

const FULL: &str = include_str!("full.toml");

/// What a group says of its tunnel if nothing is written.
const NO_TUNNEL: TunnelOptions = TunnelOptions {
    has_entropy: true,
    port: 0,
    vni: 0,
};

const TUNNELS: &str = r#"
[node]
interfaces = ["eth0"]
tunnel.source_ipv4 = "10.9.0.1"

[[load_balancer]]
name = "edge"
addresses = ["192.0.2.10", "2001:db8::10"]

  [[load_balancer.listener]]
  protocol = "TCP"
  port = 80
  target_group = "gue"

  [[load_balancer.listener]]
  protocol = "TCP"
  port = 81
  target_group = "geneve"

[[target_group]]
name = "gue"
protocol = "TCP"
port = 80
mode = "dsr-gue"

  [[target_group.target]]
  address = "10.0.0.11"

[[target_group]]
name = "geneve"
protocol = "TCP"
port = 81
mode = "dsr-geneve"
tunnel.entropy.enabled = false
tunnel.port = 16081
tunnel.vni = 4711

  [[target_group.target]]
  address = "10.0.0.11"
"#;

fn parse(text: &str) -> Desired {
    match config::parse("nlb.toml", text) {
        Ok(desired) => desired,
        Err(faults) => panic!("{faults}"),
    }
}

fn address(text: &str) -> IpAddr {
    text.parse().unwrap()
}

fn size(number: u32) -> NonZeroU32 {
    NonZeroU32::new(number).unwrap()
}

fn suspicions(text: &str) -> Vec<Suspicion> {
    parse(text)
        .warnings
        .iter()
        .map(|warning| warning.suspicion)
        .collect()
}

#[test]
fn a_minimal_file_gets_every_default() {
    let expected = Desired {
        node: Node {
            interfaces: vec!["eth0".to_owned()],
            xdp_mode: XdpMode::Auto,
            hash_key: HashKeySource::Kept,
            bpffs: PathBuf::from("/sys/fs/bpf"),
            socket: PathBuf::from("/run/nlb/nlb.sock"),
            tcp_api: None,
            audit_log: None,
            metrics: None,
            on_exit: OnExit::Keep,
            user: None,
            seccomp: Seccomp::Enforce,
            state_directory: PathBuf::from("/var/lib/nlb"),
            tunnel_sources: TunnelSources::default(),
            capacity: Capacity {
                flows: size(1_048_576),
                targets: size(4_096),
                listeners: size(1_024),
                target_groups: size(1_024),
            },
            snat_addresses: Vec::new(),
        },
        load_balancers: vec![LoadBalancer {
            name: "edge".to_owned(),
            addresses: vec![address("192.0.2.10")],
            icmp_echo: true,
            listeners: vec![Listener {
                name: "edge/TCP/80".to_owned(),
                protocol: Protocol::Tcp,
                port: 80,
                addresses: vec![address("192.0.2.10")],
                forward: vec![Share {
                    target_group: 0,
                    name: "web".to_owned(),
                    weight: 1,
                }],
                hash_input: HashInput::FiveTuple,
                pins_on_change: false,
                tcp_idle_timeout: Duration::from_secs(350),
                udp_idle_timeout: Duration::from_mins(2),
                source_rules: Vec::new(),
                limits: FlowLimits::default(),
                tcp_idle_timeout_action: StrandedAction::Reset,
                tcp_stray_action: StrandedAction::Reset,
                tcp_mss_clamp_bytes: None,
                tcp_syn_cookies: SynCookies::Off,
            }],
        }],
        target_groups: vec![TargetGroup {
            name: "web".to_owned(),
            protocol: Protocol::Tcp,
            port: 80,
            mode: Mode::Nat,
            tunnel: NO_TUNNEL,
            ip_version: Some(IpVersion::Ipv4),
            deregistration_delay: Duration::from_mins(5),
            terminates_deregistered: false,
            terminates_unhealthy: true,
            unhealthy_draining_interval: Duration::ZERO,
            is_sticky: false,
            slow_start: Duration::ZERO,
            dns_failover: Minimum::ONE,
            unhealthy_state_routing: Minimum::ONE,
            health_check: HealthCheck {
                enabled: true,
                protocol: HealthCheckProtocol::Tcp,
                through_data_path: false,
                port: HealthCheckPort::TrafficPort,
                interval: Duration::from_secs(30),
                timeout: Duration::from_secs(10),
                healthy_threshold: 5,
                unhealthy_threshold: 2,
            },
            quic: None,
            targets: vec![Target {
                address: address("10.0.0.11"),
                port: 80,
                weight: 1,
                quic_server_id: None,
                health_check_port: None,
            }],
        }],
        access: Access::default(),
        warnings: Vec::new(),
    };
    assert_eq!(parse(MINIMAL), expected);
}

/// The minimal file with another forward, other keys of the group, and a second group.
fn two_groups(forward: &str, web: &str, canary: &str) -> Desired {
    let text = MINIMAL
        .replace("target_group = \"web\"", forward)
        .replace(
            "port = 80\n\n  [[target_group.target]]",
            &format!("port = 80\n{web}\n"),
        )
        .replace("  address = \"10.0.0.11\"\n", "");
    parse(&format!(
        "{text}\n[[target_group]]\nname = \"canary\"\nprotocol = \"TCP\"\nport = 80\n{canary}\n"
    ))
}

const BOTH: &str =
    "target_groups = [{ name = \"web\", weight = 90 }, { name = \"canary\", weight = 0 }]";

#[test]
fn a_listener_forwards_to_several_groups_by_weight() {
    let desired = two_groups(BOTH, "", "");
    let share = |target_group, name: &str, weight| Share {
        target_group,
        name: name.to_owned(),
        weight,
    };
    assert_eq!(
        desired.load_balancers[0].listeners[0].forward,
        [share(0, "web", 90), share(1, "canary", 0)]
    );
    let one = two_groups("target_groups = [{ name = \"canary\" }]", "", "");
    assert_eq!(
        one.load_balancers[0].listeners[0].forward,
        [share(1, "canary", 1)]
    );
}

#[test]
fn stickiness_of_its_groups_decides_over_a_listeners_hash() {
    let sequence = format!("{BOTH}\nhash = \"five_tuple_and_sequence\"");
    let sticky = "stickiness.enabled = true\nstickiness.type = \"source_ip\"";
    for (forward, group, input) in [
        (BOTH, "", HashInput::FiveTuple),
        (&*sequence, "", HashInput::FiveTupleAndSequence),
        (BOTH, sticky, HashInput::Source),
        (&*sequence, sticky, HashInput::Source),
    ] {
        let desired = two_groups(forward, group, group);
        assert_eq!(desired.load_balancers[0].listeners[0].hash_input, input);
    }
}

/// The minimal file with rules and with more keys of its listener.
fn admission(rules: &str, listener: &str) -> Listener {
    let text = MINIMAL
        .replace(
            "[\"192.0.2.10\"]\n",
            &format!("[\"192.0.2.10\"]\n{rules}\n"),
        )
        .replace(
            "target_group = \"web\"\n",
            &format!("target_group = \"web\"\n{listener}\n"),
        );
    parse(&text).load_balancers[0].listeners[0].clone()
}

#[test]
fn a_listener_has_the_rules_that_mean_its_protocol_and_port() {
    let rule = |more: &str| {
        let sources = r#"["10.0.0.0/8", "192.0.2.7", "2001:db8::/32"]"#;
        format!("[[load_balancer.rule]]\naction = \"deny\"\nsources = {sources}\n{more}\n")
    };
    for (more, is_meant) in [
        ("", true),
        ("protocol = \"any\"", true),
        ("protocol = \"TCP\"\nfrom_port = 80", true),
        ("from_port = 1\nto_port = 80", true),
        ("from_port = 81", false),
        ("from_port = 81\nto_port = 65535", false),
        ("protocol = \"UDP\"", false),
    ] {
        let rules = admission(&rule(more), "").source_rules;
        let versions: Vec<IpVersion> = rules.iter().map(|(_, version, _)| *version).collect();
        let expected: &[IpVersion] = if is_meant {
            &[IpVersion::Ipv4, IpVersion::Ipv6]
        } else {
            &[]
        };
        assert_eq!(versions, expected, "{more}");
        if let Some((_, _, rules)) = rules.first() {
            // Everybody, the network and the host.
            assert_eq!(rules.verdicts().len(), 3);
        }
    }
}

#[test]
fn limits_are_read_with_their_defaults() {
    assert_eq!(admission("", "").limits, FlowLimits::default());
    let all = "limits.new_flows_per_second = 1000\nlimits.active_flows = 2000\n\
               limits.source = { new_flows_per_second = 10, active_flows = 20, prefix_length_ipv4 = 24, \
               prefix_length_ipv6 = 56 }\nlimits.over = \"drop\"";
    let expected = FlowLimits {
        new_flows_per_second: Some(1000),
        active_flows: Some(2000),
        source_new_flows_per_second: Some(10),
        source_active_flows: Some(20),
        source_prefix_ipv4: 24,
        source_prefix_ipv6: 56,
        over: OverLimit::Drop,
    };
    assert_eq!(admission("", all).limits, expected);
}

#[test]
fn a_hundred_thousand_prefixes_are_read() {
    let sources: Vec<String> = (0..100_000u32)
        .map(|number| format!("\"{}/32\"", std::net::Ipv4Addr::from(0x0a00_0000 + number)))
        .collect();
    let rule = format!(
        "[[load_balancer.rule]]\naction = \"deny\"\nsources = [{}]\n",
        sources.join(", ")
    );
    let rules = admission(&rule, "").source_rules;
    assert_eq!(rules[0].2.verdicts().len(), 100_001);
}

#[test]
fn minimums_of_healthy_targets_follow_each_other() {
    let of = |keys: &str| {
        let desired = two_groups(BOTH, &format!("target_group_health = {{ {keys} }}"), "");
        let group = &desired.target_groups[0];
        (group.unhealthy_state_routing, group.dns_failover)
    };
    let minimum = |count, percentage| Minimum { count, percentage };
    let routing = "unhealthy_state_routing.minimum_healthy_targets";
    let dns = "dns_failover.minimum_healthy_targets";
    assert_eq!(
        of(&format!("{routing} = {{ count = 2, percentage = 50 }}")),
        (minimum(Some(2), Some(50)), minimum(Some(2), Some(50)))
    );
    assert_eq!(
        of(&format!(
            "{routing}.percentage = 50, {dns} = {{ count = \"off\", percentage = 60 }}"
        )),
        (minimum(Some(1), Some(50)), minimum(None, Some(60)))
    );
}

#[test]
fn a_full_node_is_taken_as_written() {
    let node = parse(FULL).node;
    let mut key = [0; 32];
    for (byte, value) in key.iter_mut().zip(0..) {
        *byte = value;
    }
    let expected = Node {
        interfaces: vec!["eth0".to_owned(), "eth1".to_owned()],
        xdp_mode: XdpMode::Generic,
        hash_key: HashKeySource::Written(HashKey::new(key)),
        bpffs: PathBuf::from("/run/bpf"),
        socket: PathBuf::from("/run/nlb/a.sock"),
        tcp_api: Some(TcpApi {
            address: "[2001:db8::5]:8443".parse().unwrap(),
            certificate_file: PathBuf::from("/etc/nlb/node.pem"),
            key_file: PathBuf::from("/etc/nlb/node.key"),
            client_ca_file: PathBuf::from("/etc/nlb/clients.pem"),
        }),
        audit_log: None,
        metrics: Some(Endpoint::Address(([127, 0, 0, 1], 9118).into())),
        on_exit: OnExit::Detach,
        user: Some("nlb".to_owned()),
        seccomp: Seccomp::Log,
        state_directory: PathBuf::from("/srv/nlb"),
        tunnel_sources: TunnelSources {
            v4: Some(TunnelSource {
                address: Ipv4Addr::new(10, 9, 0, 1),
                host_bits: 4,
            }),
            v6: Some(TunnelSource {
                address: "fd09::1".parse().unwrap(),
                host_bits: 0,
            }),
        },
        capacity: Capacity {
            flows: size(2_048),
            targets: size(8),
            listeners: size(16),
            target_groups: size(4),
        },
        snat_addresses: Vec::new(),
    };
    assert_eq!(node, expected);
    assert_eq!(node.pins(), Path::new("/run/bpf/nlb"));
}

#[test]
fn listeners_answer_on_the_addresses_of_their_groups_version() {
    let balancer = &parse(FULL).load_balancers[0];
    let v4 = vec![address("192.0.2.10"), address("192.0.2.11")];
    let v6 = vec![address("2001:db8::10")];
    let found: Vec<_> = balancer
        .listeners
        .iter()
        .map(|listener| {
            (
                listener.name.as_str(),
                listener.forward[0].target_group,
                listener.addresses.clone(),
            )
        })
        .collect();
    assert_eq!(
        found,
        [
            ("edge/TCP_UDP/443/ipv4", 0, v4.clone()),
            ("edge/TCP_UDP/443/ipv6", 1, v6),
            ("edge/UDP/53", 0, v4),
        ]
    );
    assert_eq!(
        balancer.listeners[0].tcp_idle_timeout,
        Duration::from_mins(1)
    );
    let actions: Vec<_> = balancer
        .listeners
        .iter()
        .map(|listener| (listener.tcp_idle_timeout_action, listener.tcp_stray_action))
        .collect();
    assert_eq!(
        actions[..2],
        [
            (StrandedAction::Drop, StrandedAction::Drop),
            (StrandedAction::Forward, StrandedAction::Forward),
        ]
    );
    assert_eq!(balancer.listeners[0].tcp_mss_clamp_bytes, Some(1360));
    assert_eq!(
        balancer.listeners[0].udp_idle_timeout,
        Duration::from_secs(1)
    );
}

#[test]
fn tunnels_reach_targets_of_either_version_from_every_address() {
    let desired = parse(TUNNELS);
    let groups = &desired.target_groups;
    assert_eq!(groups[0].mode, Mode::DsrGue);
    let gue = TunnelOptions {
        port: 6080,
        ..NO_TUNNEL
    };
    assert_eq!(groups[0].tunnel, gue);
    assert_eq!(groups[1].mode, Mode::DsrGeneve);
    let geneve = TunnelOptions {
        has_entropy: false,
        port: 16_081,
        vni: 4711,
    };
    assert_eq!(groups[1].tunnel, geneve);
    for listener in &desired.load_balancers[0].listeners {
        let both = [address("192.0.2.10"), address("2001:db8::10")];
        assert_eq!(listener.addresses, both);
    }
}

/// A file with one group that is checked so.
fn checked_by(check: &str) -> HealthCheckProtocol {
    let text = format!(
        "[node]\ninterfaces = [\"eth0\"]\n\
         [[target_group]]\nname = \"web\"\nprotocol = \"TCP\"\nport = 80\n\
         [target_group.health_check]\n{check}"
    );
    let mut desired = parse(&text);
    desired.target_groups.remove(0).health_check.protocol
}

#[test]
fn every_kind_of_health_check_is_read_with_its_keys_and_defaults() {
    let HealthCheckProtocol::Http { tls: Some(tls), .. } = checked_by("protocol = \"HTTPS\"")
    else {
        panic!("an HTTPS check");
    };
    assert_eq!((tls.server_name, tls.ca_file), (None, None));
    let https =
        "protocol = \"HTTPS\"\ntls.server_name = \"web.example\"\ntls.ca_file = \"/ca.pem\"";
    let HealthCheckProtocol::Http { tls: Some(tls), .. } = checked_by(https) else {
        panic!("an HTTPS check");
    };
    assert_eq!(tls.server_name.as_deref(), Some("web.example"));
    assert_eq!(tls.ca_file, Some("/ca.pem".into()));
    for (check, expected) in [
        ("protocol = \"TCP\"", HealthCheckProtocol::Tcp),
        ("protocol = \"ICMP\"", HealthCheckProtocol::Icmp),
        (
            "protocol = \"UDP\"",
            HealthCheckProtocol::Udp {
                send: Vec::new(),
                expect: Vec::new(),
                silence_passes: false,
            },
        ),
        (
            "protocol = \"UDP\"\nudp.send = \"ping\\n\"\nudp.expect = \"0x00fF\"\nudp.silence = \"pass\"",
            HealthCheckProtocol::Udp {
                send: b"ping\n".to_vec(),
                expect: vec![0, 255],
                silence_passes: true,
            },
        ),
        (
            "protocol = \"GRPC\"\ngrpc.service = \"shop.Cart\"",
            HealthCheckProtocol::Grpc {
                tls: None,
                service: "shop.Cart".to_owned(),
            },
        ),
        (
            "protocol = \"COMMAND\"\ncommand = [\"/bin/check\", \"a b\"]",
            HealthCheckProtocol::Command(vec!["/bin/check".to_owned(), "a b".to_owned()]),
        ),
    ] {
        assert_eq!(checked_by(check), expected);
    }
}

#[test]
fn a_target_may_be_checked_on_a_port_of_its_own() {
    let text = format!("{MINIMAL}  health_check_port = 9000\n");
    let target = parse(&text).target_groups[0].targets[0];
    assert_eq!((target.port, target.health_check_port), (80, Some(9000)));
}

#[test]
fn a_full_target_group_is_taken_as_written() {
    let desired = parse(FULL);
    let HealthCheckProtocol::Http { matcher, .. } = &desired.target_groups[0].health_check.protocol
    else {
        panic!("an HTTP check");
    };
    assert_eq!(matcher.to_string(), "200,204-206");
    let expected = TargetGroup {
        name: "web".to_owned(),
        protocol: Protocol::TcpUdp,
        port: 8443,
        mode: Mode::Nat,
        tunnel: NO_TUNNEL,
        ip_version: Some(IpVersion::Ipv4),
        deregistration_delay: Duration::ZERO,
        terminates_deregistered: false,
        terminates_unhealthy: false,
        unhealthy_draining_interval: Duration::from_secs(30),
        is_sticky: false,
        slow_start: Duration::ZERO,
        dns_failover: Minimum::ONE,
        unhealthy_state_routing: Minimum::ONE,
        health_check: HealthCheck {
            enabled: true,
            protocol: HealthCheckProtocol::Http {
                path: "/healthz?full=1".to_owned(),
                matcher: matcher.clone(),
                tls: None,
            },
            through_data_path: false,
            port: HealthCheckPort::Port(8080),
            interval: Duration::from_millis(500),
            timeout: Duration::from_millis(250),
            healthy_threshold: 2,
            unhealthy_threshold: 10,
        },
        quic: None,
        targets: vec![
            Target {
                address: address("10.0.0.11"),
                port: 9443,
                weight: 0,
                quic_server_id: None,
                health_check_port: None,
            },
            Target {
                address: address("10.0.0.11"),
                port: 8443,
                weight: 999,
                quic_server_id: None,
                health_check_port: None,
            },
        ],
    };
    assert_eq!(desired.target_groups[0], expected);
    assert_eq!(desired.target_groups[1].mode, Mode::DsrL2);
}

#[test]
fn http_checks_have_nlbs_defaults_and_no_timeout_exceeds_its_interval() {
    let http = MINIMAL.replace(
        "port = 80\n\n",
        "port = 80\nhealth_check.protocol = \"HTTP\"\n\n",
    );
    let check = parse(&http).target_groups[0].health_check.clone();
    assert_eq!(check.timeout, Duration::from_secs(6));
    assert_eq!(
        check.protocol,
        HealthCheckProtocol::Http {
            path: "/".to_owned(),
            matcher: HttpCodes::default(),
            tls: None,
        }
    );
    let quick = MINIMAL.replace(
        "port = 80\n\n",
        "port = 80\nhealth_check.interval_seconds = 0.1\n\n",
    );
    let check = parse(&quick).target_groups[0].health_check.clone();
    assert_eq!(check.interval, Duration::from_millis(100));
    assert_eq!(check.timeout, check.interval);
}

#[test]
fn dotted_keys_and_tables_are_the_same() {
    let dotted = MINIMAL.replace(
        "port = 80\n\n",
        "port = 80\nhealth_check.enabled = false\n\n",
    );
    let table = MINIMAL.replace(
        "port = 80\n\n",
        "port = 80\n[target_group.health_check]\nenabled=false\n",
    );
    assert_eq!(parse(&dotted), parse(&table));
    assert!(!parse(&dotted).target_groups[0].health_check.enabled);
}

#[test]
fn a_group_without_targets_lets_its_listener_answer_on_every_address() {
    let text = MINIMAL
        .replace("[\"192.0.2.10\"]", "[\"192.0.2.10\", \"2001:db8::10\"]")
        .replace("[[target_group.target]]\n  address = \"10.0.0.11\"", "");
    let desired = parse(&text);
    assert_eq!(desired.load_balancers[0].listeners[0].addresses.len(), 2);
    assert_eq!(desired.target_groups[0].ip_version, None);
    assert_eq!(suspicions(&text), [Suspicion::NoTarget]);
}

#[test]
fn what_is_legal_but_seldom_meant_is_warned_of_in_the_order_of_the_file() {
    assert_eq!(
        suspicions("[node]\ninterfaces = [\"eth0\"]\n"),
        [Suspicion::NoLoadBalancer]
    );
    assert_eq!(
        suspicions(include_str!("../../packaging/nlb.toml")),
        [Suspicion::NoLoadBalancer, Suspicion::NoInterface],
        "what the Debian package begins with"
    );
    let idle = MINIMAL.replace("10.0.0.11\"", "10.0.0.11\"\n  weight = 0")
        + "\n[[target_group]]\nname = \"spare\"\nprotocol = \"TCP\"\nport = 1\n"
        + "\n[[load_balancer]]\nname = \"bare\"\naddresses = [\"192.0.2.9\"]\n";
    assert_eq!(
        suspicions(&idle),
        [
            Suspicion::AllWeightsZero,
            Suspicion::UnusedGroup,
            Suspicion::NoListener
        ]
    );
    assert_eq!(
        suspicions(&MINIMAL.replace("TCP", "UDP")),
        [Suspicion::UdpCheckedByTcp]
    );
    let warning = parse(&idle).warnings[1].to_string();
    assert_eq!(
        warning,
        "nlb.toml:23:1: target_group \"spare\": warning: is used by no listener; its targets stay \
         `unused` (Target.NotInUse)"
    );
}

#[test]
fn the_packages_configuration_is_whole_once_its_example_is_taken() {
    let text = include_str!("../../packaging/nlb.toml");
    let (comment, rest) = text.split_once("[node]").unwrap();
    let taken = rest
        .replace("interfaces = []", "interfaces = [\"eth0\"]")
        .replace("\n# ", "\n");
    let desired = parse(&format!("{comment}[node]{taken}"));
    assert_eq!(desired.target_groups[0].targets.len(), 2);
    assert!(desired.warnings.is_empty(), "{:?}", desired.warnings);
}

#[test]
fn debug_of_a_configuration_does_not_show_the_hash_key() {
    let desired = parse(FULL);
    for shown in [format!("{desired:?}"), format!("{desired:#?}")] {
        assert!(
            shown.contains("not shown") && !shown.contains("0001020304"),
            "{shown}"
        );
        assert!(!shown.contains("17, 18"), "{shown}");
    }
}
