//! The status as text for people.

use std::{
    fmt::{self, Write as _},
    net::SocketAddr,
};

use super::{ForwardShare, Interface, LoadBalancer, Status, Target, TargetGroup};
use crate::table::Table;

impl Status {
    /// The answer for a person.
    pub fn to_text(&self) -> String {
        let mut text = String::new();
        // Writing to a string cannot fail.
        let _infallible = self.write(&mut text);
        text
    }

    fn write(&self, text: &mut String) -> fmt::Result {
        writeln!(
            text,
            "nlb {}   generation {}   up {}   {}{}",
            self.version,
            self.generation,
            duration(self.uptime_seconds),
            self.config,
            if self.adopted {
                "   (data plane adopted)"
            } else {
                ""
            },
        )?;
        for interface in &self.interfaces {
            write_interface(interface, text)?;
        }
        writeln!(
            text,
            "flows {} of {}",
            self.flows.active, self.flows.capacity
        )?;
        for balancer in &self.load_balancers {
            write_balancer(balancer, text)?;
        }
        for group in &self.target_groups {
            write_group(group, text)?;
        }
        let early = &self.early_fragments;
        if early.kept > 0 {
            writeln!(
                text,
                "\nfragments before their first one: {} kept, {} sent on, {} given up",
                early.kept, early.sent_on, early.given_up,
            )?;
        }
        self.write_stops(text);
        if !self.warnings.is_empty() {
            text.push_str("\nwarnings\n");
            for warning in &self.warnings {
                writeln!(text, "  {warning}")?;
            }
        }
        Ok(())
    }

    fn write_stops(&self, text: &mut String) {
        let mut table = Table::default();
        for stop in self.stops.iter().filter(|stop| stop.count > 0) {
            table.row([
                &stop.name,
                &stop.verdict,
                &stop.count.to_string(),
                &stop.meaning,
            ]);
        }
        if !table.is_empty() {
            text.push_str("\nstopped packets\n");
            table.write(2, usize::MAX, text);
        }
    }
}

fn write_interface(interface: &Interface, text: &mut String) -> fmt::Result {
    let forwarding = match (interface.forwarding_v4, interface.forwarding_v6) {
        (Some(false), Some(false)) => "   forwarding off",
        (Some(false), _) => "   IPv4 forwarding off",
        (_, Some(false)) => "   IPv6 forwarding off",
        _ => "",
    };
    writeln!(
        text,
        "interface {} (index {})   XDP {}{forwarding}",
        interface.name, interface.index, interface.xdp_mode
    )
}

fn write_balancer(balancer: &LoadBalancer, text: &mut String) -> fmt::Result {
    let addresses: Vec<String> = balancer.addresses.iter().map(ToString::to_string).collect();
    writeln!(
        text,
        "\nload balancer {}   {}",
        balancer.name,
        addresses.join(" ")
    )?;
    let mut table = Table::default();
    table.row([
        "listener",
        "target groups",
        "new flows",
        "packets",
        "bytes",
        "returned",
        "bytes",
    ]);
    for listener in &balancer.listeners {
        let counters = &listener.counters;
        table.row([
            &listener.name,
            &forward(&listener.target_groups),
            &counters.new_flows.to_string(),
            &counters.packets.to_string(),
            &bytes(counters.bytes),
            &counters.return_packets.to_string(),
            &bytes(counters.return_bytes),
        ]);
    }
    table.write(2, 2, text);
    Ok(())
}

fn write_group(group: &TargetGroup, text: &mut String) -> fmt::Result {
    writeln!(
        text,
        "\ntarget group {}   {} {}{}{}",
        group.name,
        group.protocol,
        group.mode,
        if group.fail_open {
            "   FAIL OPEN: too few targets are healthy"
        } else {
            ""
        },
        if group.available {
            ""
        } else {
            "   UNAVAILABLE"
        },
    )?;
    let mut table = Table::default();
    table.row([
        "target",
        "state",
        "next hop",
        "weight",
        "new flows",
        "packets",
        "bytes",
        "returned",
        "bytes",
    ]);
    for target in &group.targets {
        let hop = match (&target.next_hop.interface, &target.next_hop.mac) {
            (Some(interface), Some(mac)) => format!("{interface} {mac}"),
            _ => target.next_hop.state.clone(),
        };
        let counters = &target.counters;
        table.row([
            &SocketAddr::new(target.address, target.port).to_string(),
            &target.state,
            &hop,
            &weight(target),
            &counters.new_flows.to_string(),
            &counters.packets.to_string(),
            &bytes(counters.bytes),
            &counters.return_packets.to_string(),
            &bytes(counters.return_bytes),
        ]);
    }
    table.write(2, 3, text);
    for target in &group.targets {
        let notes = notes(target);
        if !notes.is_empty() {
            writeln!(text, "  {}: {}", target.address, notes.join("; "))?;
        }
    }
    Ok(())
}

/// A listener's groups, with their weights if there are several.
fn forward(shares: &[ForwardShare]) -> String {
    match shares {
        [one] => one.name.clone(),
        several => several
            .iter()
            .map(|share| format!("{} {}", share.name, share.weight))
            .collect::<Vec<_>>()
            .join(", "),
    }
}

/// A target's weight as it is now, and as it is configured if that differs.
fn weight(target: &Target) -> String {
    let configured = f64::from(target.weight);
    if (target.effective_weight - configured).abs() < 0.05 {
        target.weight.to_string()
    } else {
        format!("{:.1} of {}", target.effective_weight, target.weight)
    }
}

/// Why a target is not simply well.
fn notes(target: &Target) -> Vec<&str> {
    let failure = target
        .last_failure
        .as_deref()
        .filter(|_| target.state != "healthy");
    [
        target.description.as_deref(),
        failure,
        target.next_hop.reason.as_deref(),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a duration in whole seconds"
)]
fn duration(seconds: f64) -> String {
    let seconds = seconds.max(0.0) as u64;
    match seconds {
        0..60 => format!("{seconds} s"),
        60..3600 => format!("{} min {} s", seconds / 60, seconds % 60),
        3600..86_400 => format!("{} h {} min", seconds / 3600, seconds / 60 % 60),
        _ => format!("{} d {} h", seconds / 86_400, seconds / 3600 % 24),
    }
}

#[expect(clippy::cast_precision_loss, reason = "one decimal is shown")]
fn bytes(count: u64) -> String {
    const UNITS: [&str; 5] = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut value = count as f64;
    let mut unit = 0;
    while value >= 1024.0 && unit + 1 < UNITS.len() {
        value /= 1024.0;
        unit += 1;
    }
    let name = UNITS.get(unit).copied().unwrap_or_default();
    if unit == 0 {
        format!("{count} B")
    } else {
        format!("{value:.1} {name}")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn sizes_and_durations_read_well() {
        assert_eq!(bytes(999), "999 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
        assert_eq!(duration(59.9), "59 s");
        assert_eq!(duration(3_725.0), "1 h 2 min");
    }
}
