//! The file as written: every value has the right shape and range and knows its place, but nothing
//! is yet compared with anything else. `resolve` turns this into [`super::Desired`].

use std::time::Duration;

use toml::{
    Spanned,
    de::{DeTable, DeValue},
};

use super::{
    reader::{Field, PortChoice, Reader, Table, WholeOrOff},
    report::{At, Spot},
};

/// The whole file.
#[derive(Debug)]
pub(super) struct RawFile {
    /// Absent if there is no such table, which has been recorded.
    pub(super) node: Option<RawNode>,
    pub(super) load_balancers: Vec<RawLoadBalancer>,
    pub(super) target_groups: Vec<RawTargetGroup>,
    pub(super) roles: Vec<RawRole>,
    pub(super) statements: Vec<RawStatement>,
    /// False if some are likely to stand under a mistyped key.
    pub(super) groups_complete: bool,
}

#[derive(Debug)]
pub(super) struct RawNode {
    pub(super) interfaces: Field<Vec<At<String>>>,
    pub(super) xdp_mode: Field<String>,
    pub(super) hash_key_file: Field<String>,
    pub(super) hash_key: Field<String>,
    pub(super) bpffs: Field<String>,
    pub(super) socket: Field<String>,
    pub(super) tcp_api: RawTcpApi,
    pub(super) audit_log: Field<String>,
    pub(super) metrics: Field<String>,
    pub(super) on_exit: Field<String>,
    pub(super) user: Field<String>,
    pub(super) seccomp: Field<String>,
    pub(super) state_directory: Field<String>,
    pub(super) tunnel_source_v4: Field<String>,
    pub(super) tunnel_source_v6: Field<String>,
    pub(super) flows: Field<u64>,
    pub(super) targets: Field<u64>,
    pub(super) listeners: Field<u64>,
    pub(super) target_groups: Field<u64>,
    pub(super) snat_addresses: Field<Vec<At<String>>>,
}

#[derive(Debug)]
pub(super) struct RawTcpApi {
    pub(super) address: Field<String>,
    pub(super) certificate_file: Field<String>,
    pub(super) key_file: Field<String>,
    pub(super) client_ca_file: Field<String>,
}

#[derive(Debug)]
pub(super) struct RawRole {
    pub(super) spot: Spot,
    pub(super) role: Field<String>,
    pub(super) users: Field<Vec<At<String>>>,
    pub(super) groups: Field<Vec<At<String>>>,
    pub(super) certificates: Field<Vec<At<String>>>,
}

#[derive(Debug)]
pub(super) struct RawStatement {
    pub(super) effect: Field<String>,
    pub(super) users: Field<Vec<At<String>>>,
    pub(super) groups: Field<Vec<At<String>>>,
    pub(super) certificates: Field<Vec<At<String>>>,
    pub(super) actions: Field<Vec<At<String>>>,
    pub(super) resources: Field<Vec<At<String>>>,
    pub(super) tags: Field<Vec<At<String>>>,
}

#[derive(Debug)]
pub(super) struct RawLoadBalancer {
    pub(super) spot: Spot,
    pub(super) name: Field<String>,
    pub(super) addresses: Field<Vec<At<String>>>,
    pub(super) icmp_echo: Field<bool>,
    pub(super) listeners: Vec<RawListener>,
    pub(super) rules: Vec<RawRule>,
}

#[derive(Debug)]
pub(super) struct RawRule {
    pub(super) action: Field<String>,
    pub(super) sources: Field<Vec<At<String>>>,
    pub(super) protocol: Field<String>,
    pub(super) from_port: Field<u64>,
    pub(super) to_port: Field<u64>,
}

#[derive(Debug)]
pub(super) struct RawLimits {
    pub(super) new_flows_per_second: Field<u64>,
    pub(super) active_flows: Field<u64>,
    pub(super) source_new_flows_per_second: Field<u64>,
    pub(super) source_active_flows: Field<u64>,
    pub(super) source_prefix_ipv4: Field<u64>,
    pub(super) source_prefix_ipv6: Field<u64>,
    pub(super) over: Field<String>,
}

#[derive(Debug)]
pub(super) struct RawListener {
    pub(super) spot: Spot,
    pub(super) protocol: Field<String>,
    pub(super) port: Field<u64>,
    pub(super) target_group: Field<String>,
    /// Absent, or where they are written and how many there are, right or wrong.
    pub(super) target_groups: Option<(Spot, usize)>,
    /// Those that are tables.
    pub(super) shares: Vec<RawShare>,
    /// Whether either is likely to stand under a mistyped key.
    pub(super) forward_mistyped: bool,
    pub(super) hash: Field<String>,
    pub(super) pinning: Field<String>,
    pub(super) tcp_idle_timeout_seconds: Field<u64>,
    pub(super) udp_idle_timeout_seconds: Field<u64>,
    pub(super) limits: RawLimits,
    pub(super) tcp_idle_timeout_action: Field<String>,
    pub(super) tcp_stray_action: Field<String>,
    pub(super) tcp_mss_clamp_bytes: Field<u64>,
    pub(super) tcp_syn_cookies: Field<String>,
    pub(super) tcp_syn_cookies_above_per_second: Field<u64>,
}

/// A group of several that a listener forwards to.
#[derive(Debug)]
pub(super) struct RawShare {
    pub(super) name: Field<String>,
    pub(super) weight: Field<u64>,
}

#[derive(Debug)]
pub(super) struct RawTargetGroup {
    pub(super) spot: Spot,
    pub(super) name: Field<String>,
    pub(super) protocol: Field<String>,
    pub(super) port: Field<u64>,
    pub(super) mode: Field<String>,
    pub(super) tunnel_entropy: Field<bool>,
    pub(super) tunnel_port: Field<u64>,
    pub(super) tunnel_vni: Field<u64>,
    pub(super) deregistration_delay_seconds: Field<u64>,
    pub(super) terminates_deregistered: Field<bool>,
    pub(super) terminates_unhealthy: Field<bool>,
    pub(super) unhealthy_draining_seconds: Field<u64>,
    pub(super) preserve_client_ip: Field<bool>,
    pub(super) stickiness: Field<bool>,
    pub(super) slow_start_seconds: Field<u64>,
    pub(super) dns_failover: RawMinimum,
    pub(super) unhealthy_state_routing: RawMinimum,
    pub(super) health_check: RawHealthCheck,
    pub(super) quic: RawQuic,
    pub(super) targets: Vec<RawTarget>,
}

/// The shape of QUIC connection IDs.
#[derive(Debug)]
#[expect(clippy::struct_field_names, reason = "the keys' own names")]
pub(super) struct RawQuic {
    pub(super) connection_id_length_bytes: Field<u64>,
    pub(super) server_id_offset_bytes: Field<u64>,
    pub(super) server_id_length_bytes: Field<u64>,
}

/// A `minimum_healthy_targets`.
#[derive(Debug)]
pub(super) struct RawMinimum {
    pub(super) count: Field<WholeOrOff>,
    pub(super) percentage: Field<WholeOrOff>,
}

#[derive(Debug)]
pub(super) struct RawHealthCheck {
    pub(super) enabled: Field<bool>,
    pub(super) protocol: Field<String>,
    pub(super) through: Field<String>,
    pub(super) port: Field<PortChoice>,
    pub(super) path: Field<String>,
    pub(super) interval: Field<Duration>,
    pub(super) timeout: Field<Duration>,
    pub(super) healthy_threshold: Field<u64>,
    pub(super) unhealthy_threshold: Field<u64>,
    pub(super) http_code: Field<String>,
    pub(super) tls_server_name: Field<String>,
    pub(super) tls_ca_file: Field<String>,
    pub(super) udp_send: Field<String>,
    pub(super) udp_expect: Field<String>,
    pub(super) udp_silence: Field<String>,
    pub(super) grpc_service: Field<String>,
    pub(super) command: Field<Vec<At<String>>>,
}

#[derive(Debug)]
pub(super) struct RawTarget {
    pub(super) spot: Spot,
    pub(super) address: Field<String>,
    pub(super) port: Field<u64>,
    pub(super) weight: Field<u64>,
    pub(super) quic_server_id: Field<String>,
    pub(super) health_check_port: Field<u64>,
}

impl RawFile {
    pub(super) fn read(reader: &mut Reader<'_, '_>, file: &Spanned<DeTable<'_>>) -> Self {
        let top = reader.top(file);
        let node = reader
            .table(&top, "node")
            .map(|table| RawNode::read(reader, &table));
        let load_balancers = reader
            .tables(&top, "load_balancer", name_of)
            .iter()
            .map(|table| RawLoadBalancer::read(reader, table))
            .collect();
        let target_groups = reader
            .tables(&top, "target_group", name_of)
            .iter()
            .map(|table| RawTargetGroup::read(reader, table))
            .collect();
        let roles = reader
            .tables(&top, "access_role", |_| None)
            .iter()
            .map(|table| RawRole::read(reader, table))
            .collect();
        let statements = reader
            .tables(&top, "access_statement", |_| None)
            .iter()
            .map(|table| RawStatement::read(reader, table))
            .collect();
        Self {
            node,
            load_balancers,
            target_groups,
            roles,
            statements,
            groups_complete: !top.has_mistyped("target_group"),
        }
    }
}

impl RawNode {
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        Self {
            interfaces: reader.texts_or_none(table, "interfaces"),
            xdp_mode: reader.word(table, "xdp_mode"),
            hash_key_file: reader.text(table, "hash_key_file"),
            hash_key: reader.secret(table, "hash_key"),
            bpffs: reader.text(table, "bpffs"),
            socket: reader.text(table, "socket"),
            tcp_api: RawTcpApi {
                address: reader.text(table, "api.tcp.address"),
                certificate_file: reader.text(table, "api.tcp.certificate_file"),
                key_file: reader.text(table, "api.tcp.key_file"),
                client_ca_file: reader.text(table, "api.tcp.client_ca_file"),
            },
            audit_log: reader.text(table, "audit_log"),
            metrics: reader.text(table, "metrics"),
            on_exit: reader.word(table, "on_exit"),
            user: reader.text(table, "user"),
            seccomp: reader.word(table, "seccomp"),
            state_directory: reader.text(table, "state_directory"),
            tunnel_source_v4: reader.text(table, "tunnel.source_ipv4"),
            tunnel_source_v6: reader.text(table, "tunnel.source_ipv6"),
            flows: reader.whole(table, "capacity.flows"),
            targets: reader.whole(table, "capacity.targets"),
            listeners: reader.whole(table, "capacity.listeners"),
            target_groups: reader.whole(table, "capacity.target_groups"),
            snat_addresses: reader.texts(table, "snat_addresses"),
        }
    }
}

impl RawRole {
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        Self {
            spot: table.spot.clone(),
            role: reader.word(table, "role"),
            users: reader.texts(table, "users"),
            groups: reader.texts(table, "groups"),
            certificates: reader.texts(table, "certificates"),
        }
    }
}

impl RawStatement {
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        Self {
            effect: reader.word(table, "effect"),
            users: reader.texts(table, "users"),
            groups: reader.texts(table, "groups"),
            certificates: reader.texts(table, "certificates"),
            actions: reader.texts(table, "actions"),
            resources: reader.texts(table, "resources"),
            tags: reader.texts(table, "tags"),
        }
    }
}

impl RawLoadBalancer {
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        // Only who reads the document over the API wants these two.
        drop(reader.word(table, "scheme"));
        reader.tags(table, "tags");
        Self {
            spot: table.spot.clone(),
            name: reader.text(table, "name"),
            addresses: reader.texts(table, "addresses"),
            icmp_echo: reader.switch(table, "icmp.echo.enabled"),
            listeners: reader
                .tables(table, "listener", protocol_and_port_of)
                .iter()
                .map(|table| RawListener::read(reader, table))
                .collect(),
            rules: reader
                .tables(table, "rule", |_| None)
                .iter()
                .map(|table| RawRule::read(reader, table))
                .collect(),
        }
    }
}

impl RawListener {
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        let shares = reader.tables(table, "target_groups", name_of);
        reader.tags(table, "tags");
        Self {
            spot: table.spot.clone(),
            protocol: reader.word(table, "protocol"),
            port: reader.whole(table, "port"),
            target_group: reader.text(table, "target_group"),
            target_groups: table.entries.get("target_groups").map(|value| {
                let spot = Spot {
                    span: value.span(),
                    field: format!("{}.target_groups", table.spot.field),
                    shown: false,
                };
                let several = value.get_ref().as_array();
                (spot, several.map_or(1, |several| several.len()))
            }),
            shares: shares
                .iter()
                .map(|table| RawShare {
                    name: reader.text(table, "name"),
                    weight: reader.whole(table, "weight"),
                })
                .collect(),
            forward_mistyped: table.has_mistyped("target_group")
                || table.has_mistyped("target_groups"),
            hash: reader.word(table, "hash"),
            pinning: reader.word(table, "pinning"),
            tcp_idle_timeout_seconds: reader.whole(table, "tcp.idle_timeout.seconds"),
            udp_idle_timeout_seconds: reader.whole(table, "udp.idle_timeout.seconds"),
            tcp_idle_timeout_action: reader.word(table, "tcp.idle_timeout.action"),
            tcp_stray_action: reader.word(table, "tcp.stray.action"),
            tcp_mss_clamp_bytes: reader.whole(table, "tcp.mss_clamp_bytes"),
            tcp_syn_cookies: reader.word(table, "tcp.syn_cookies"),
            tcp_syn_cookies_above_per_second: reader
                .whole(table, "tcp.syn_cookies_above_per_second"),
            limits: RawLimits::read(reader, table),
        }
    }
}

impl RawRule {
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        Self {
            action: reader.word(table, "action"),
            sources: reader.texts(table, "sources"),
            protocol: reader.word(table, "protocol"),
            from_port: reader.whole(table, "from_port"),
            to_port: reader.whole(table, "to_port"),
        }
    }
}

impl RawLimits {
    /// Reads the keys below `limits` of a listener's table.
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        Self {
            new_flows_per_second: reader.whole(table, "limits.new_flows_per_second"),
            active_flows: reader.whole(table, "limits.active_flows"),
            source_new_flows_per_second: reader.whole(table, "limits.source.new_flows_per_second"),
            source_active_flows: reader.whole(table, "limits.source.active_flows"),
            source_prefix_ipv4: reader.whole(table, "limits.source.prefix_length_ipv4"),
            source_prefix_ipv6: reader.whole(table, "limits.source.prefix_length_ipv6"),
            over: reader.word(table, "limits.over"),
        }
    }
}

impl RawTargetGroup {
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        // There is one word only.
        drop(reader.word(table, "stickiness.type"));
        reader.tags(table, "tags");
        Self {
            spot: table.spot.clone(),
            name: reader.text(table, "name"),
            protocol: reader.word(table, "protocol"),
            port: reader.whole(table, "port"),
            mode: reader.word(table, "mode"),
            tunnel_entropy: reader.switch(table, "tunnel.entropy.enabled"),
            tunnel_port: reader.whole(table, "tunnel.port"),
            tunnel_vni: reader.whole(table, "tunnel.vni"),
            deregistration_delay_seconds: reader
                .whole(table, "deregistration_delay.timeout_seconds"),
            terminates_deregistered: reader
                .switch(table, "deregistration_delay.connection_termination.enabled"),
            terminates_unhealthy: reader.switch(
                table,
                "target_health_state.unhealthy.connection_termination.enabled",
            ),
            unhealthy_draining_seconds: reader.whole(
                table,
                "target_health_state.unhealthy.draining_interval_seconds",
            ),
            preserve_client_ip: reader.switch(table, "preserve_client_ip.enabled"),
            stickiness: reader.switch(table, "stickiness.enabled"),
            slow_start_seconds: reader.whole(table, "slow_start.duration_seconds"),
            dns_failover: RawMinimum {
                count: reader.whole_or_off(
                    table,
                    "target_group_health.dns_failover.minimum_healthy_targets.count",
                ),
                percentage: reader.whole_or_off(
                    table,
                    "target_group_health.dns_failover.minimum_healthy_targets.percentage",
                ),
            },
            unhealthy_state_routing: RawMinimum {
                count: reader
                    .whole(
                        table,
                        "target_group_health.unhealthy_state_routing.minimum_healthy_targets.count",
                    )
                    .map(WholeOrOff::Number),
                percentage: reader.whole_or_off(
                    table,
                    "target_group_health.unhealthy_state_routing.minimum_healthy_targets.percentage",
                ),
            },
            health_check: RawHealthCheck::read(reader, table),
            quic: RawQuic {
                connection_id_length_bytes: reader.whole(table, "quic.connection_id_length_bytes"),
                server_id_offset_bytes: reader.whole(table, "quic.server_id_offset_bytes"),
                server_id_length_bytes: reader.whole(table, "quic.server_id_length_bytes"),
            },
            targets: reader
                .tables(table, "target", address_of)
                .iter()
                .map(|table| RawTarget::read(reader, table))
                .collect(),
        }
    }
}

impl RawHealthCheck {
    /// Reads the keys below `health_check` of a target group's table.
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        Self {
            enabled: reader.switch(table, "health_check.enabled"),
            protocol: reader.word(table, "health_check.protocol"),
            through: reader.word(table, "health_check.through"),
            port: reader.port_choice(table, "health_check.port"),
            path: reader.text(table, "health_check.path"),
            interval: reader.seconds(table, "health_check.interval_seconds"),
            timeout: reader.seconds(table, "health_check.timeout_seconds"),
            healthy_threshold: reader.whole(table, "health_check.healthy_threshold_count"),
            unhealthy_threshold: reader.whole(table, "health_check.unhealthy_threshold_count"),
            http_code: reader.text(table, "health_check.matcher.http_code"),
            tls_server_name: reader.text(table, "health_check.tls.server_name"),
            tls_ca_file: reader.text(table, "health_check.tls.ca_file"),
            udp_send: reader.text(table, "health_check.udp.send"),
            udp_expect: reader.text(table, "health_check.udp.expect"),
            udp_silence: reader.word(table, "health_check.udp.silence"),
            grpc_service: reader.text(table, "health_check.grpc.service"),
            command: reader.texts(table, "health_check.command"),
        }
    }
}

impl RawTarget {
    fn read(reader: &mut Reader<'_, '_>, table: &Table<'_>) -> Self {
        Self {
            spot: table.spot.clone(),
            address: reader.text(table, "address"),
            port: reader.whole(table, "port"),
            weight: reader.whole(table, "weight"),
            quic_server_id: reader.text(table, "quic_server_id"),
            health_check_port: reader.whole(table, "health_check_port"),
        }
    }
}

fn name_of(table: &DeTable<'_>) -> Option<String> {
    label(table.get("name")?.get_ref())
}

fn address_of(table: &DeTable<'_>) -> Option<String> {
    label(table.get("address")?.get_ref())
}

fn protocol_and_port_of(table: &DeTable<'_>) -> Option<String> {
    let protocol = label(table.get("protocol")?.get_ref())?;
    let port = match table.get("port")?.get_ref() {
        DeValue::Integer(number) => number.to_string(),
        other => label(other)?,
    };
    Some(format!("{protocol}/{port}"))
}

/// A string that can stand in a message as it is.
fn label(value: &DeValue<'_>) -> Option<String> {
    let text = value.as_str()?;
    let fits = !text.is_empty() && text.len() <= 64 && !text.contains(|c: char| c.is_control());
    fits.then(|| text.to_owned())
}
