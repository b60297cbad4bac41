//! ICMP where it matters: paths with a smaller MTU, refusals, hops that run out, and pings.

use std::{
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    thread,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{NAT_UDP_PORT, NAT_VIP_V4, NAT_VIP_V6},
    daemon::Daemon,
    host::Host,
    http::HttpConnection,
    nginx::LARGE_BYTES,
    udp::UdpClient,
    wait::wait_until,
};

use super::{
    PATIENCE, SOON, configuration, http_vips, listeners, text, udp_vips, wait_for_states, with_nlb,
};

/// What the narrow link takes: no less than IPv6 asks of every link, and no more than IPv4 does.
const NARROW_BYTES: u16 = 1300;
/// The load balancer whose only target is behind another target.
pub(crate) const FAR_VIPS: [IpAddr; 2] = [
    IpAddr::V4(Ipv4Addr::new(192, 0, 2, 30)),
    IpAddr::V6(Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0x30)),
];
/// Where that target counts what it gets.
pub(crate) const COUNTER_PORT: u16 = 8080;
/// What is sent to it: many packets of full size.
pub(crate) const UPLOAD_BYTES: usize = 1 << 20;

#[test]
fn a_large_answer_arrives_over_a_narrow_path_in_every_mode() -> Result<()> {
    with_nlb("narrow_down", |lab, daemon| {
        let far = lab.add_behind_client(NARROW_BYTES)?;
        for vip in http_vips() {
            let before = packets_of(daemon)?;
            let answer = HttpConnection::from(&far, vip, PATIENCE)?
                .get("/large")
                .with_context(|| format!("the answer of {vip}"))?;
            ensure!(answer.body_bytes == LARGE_BYTES as u64, "{vip}: {answer:?}");
            ensure!(packets_of(daemon)? > before, "{vip}");
        }
        // None of the errors was left to the host.
        for stop in ["icmp", "icmp_unreadable", "icmp_unknown_flow"] {
            assert_eq!(stops_of(daemon, stop)?, 0, "{stop}");
        }
        Ok(())
    })
}

#[test]
fn a_large_request_arrives_over_a_narrow_path() -> Result<()> {
    with_far_target("narrow_up", |lab| {
        for vip in FAR_VIPS {
            let received = upload(lab.client(), (vip, 80).into())
                .with_context(|| format!("an upload to {vip}"))?;
            assert_eq!(received, UPLOAD_BYTES, "{vip}");
        }
        Ok(())
    })
}

#[test]
fn a_hop_that_runs_out_behind_us_is_told_to_the_client() -> Result<()> {
    with_far_target("last_hop", |lab| {
        // We take one, and the router behind us has none left to give.
        lab.client()
            .sysctl(&["ipv4/ip_default_ttl=2", "ipv6/conf/eth0/hop_limit=2"])?;
        for vip in FAR_VIPS {
            let connected = lab
                .client()
                .enter(|| TcpStream::connect_timeout(&(vip, 80).into(), PATIENCE))?;
            let kind = connected.err().map(|error| error.kind());
            assert_eq!(kind, Some(io::ErrorKind::HostUnreachable), "{vip}");
        }
        Ok(())
    })
}

#[test]
fn a_translated_targets_closed_port_is_told_to_the_client() -> Result<()> {
    with_nlb("refused", |lab, daemon| {
        let closed = configuration().replace(&format!("port = {NAT_UDP_PORT}\n"), "port = 5399\n");
        ensure!(closed != configuration(), "the example has datagram groups");
        lab.write_config(&closed)?;
        ensure!(daemon.reload()?.status.success(), "another port");
        wait_for_states(daemon, |_, state| state == "healthy" || state == "draining")?;
        for vip in [NAT_VIP_V4.into(), NAT_VIP_V6.into()] {
            let vip: IpAddr = vip;
            let to = udp_vips().into_iter().find(|udp| udp.ip() == vip);
            let mut socket = UdpClient::new(lab.client(), to.context("a VIP")?, PATIENCE)?;
            let error = socket.ask().expect_err("nobody serves there");
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused, "{vip}");
        }
        Ok(())
    })
}

#[test]
fn a_ping_of_a_vip_is_answered_unless_that_is_switched_off() -> Result<()> {
    with_nlb("ping", |lab, daemon| {
        let ping =
            |vip: SocketAddr, size| format!("ping -n -q -c 2 -i 0.2 -W 1 -s {size} {}", vip.ip());
        for vip in http_vips() {
            // In one piece, in two, in three, and in as many as there can be.
            for size in [0, 56, 1400, 1500, 4000, 65_507] {
                lab.client().run(&ping(vip, size))?;
            }
        }
        let pieces = 3 + 2 + 3 + 45;
        ensure!(
            stops_of(daemon, "icmp_echo")? >= 4 * 2 * pieces,
            "each piece is counted"
        );
        let quiet = configuration().replace(
            "name = \"nat\"\n",
            "name = \"nat\"\nicmp.echo.enabled = false\n",
        );
        lab.write_config(&quiet)?;
        ensure!(daemon.reload()?.status.success(), "no pings of one of them");
        for vip in http_vips() {
            for size in [56, 4000] {
                let is_answered = lab.client().output(&ping(vip, size))?.status.success();
                let is_nat = [IpAddr::from(NAT_VIP_V4), NAT_VIP_V6.into()].contains(&vip.ip());
                assert_eq!(is_answered, !is_nat, "{vip}");
            }
        }
        Ok(())
    })
}

/// Packets towards targets, over all listeners.
fn packets_of(daemon: &Daemon) -> Result<u64> {
    Ok(listeners(&daemon.status()?)
        .filter_map(|(_, listener)| listener["packets"].as_u64())
        .sum())
}

/// How often a stop was counted.
fn stops_of(daemon: &Daemon, name: &str) -> Result<u64> {
    let status = daemon.status()?;
    let stops = status["stops"].as_array().into_iter().flatten();
    stops
        .filter(|stop| text(&stop["name"]) == name)
        .find_map(|stop| stop["count"].as_u64())
        .with_context(|| format!("no stop {name} in {status}"))
}

/// Runs a claim in a lab with a load balancer whose target is behind another target's narrow link.
fn with_far_target(name: &str, claim: impl FnOnce(&Lab) -> Result<()>) -> Result<()> {
    with_nlb(name, |lab, daemon| {
        let far = lab.add_behind_target(NARROW_BYTES)?;
        serve_counts(&far)?;
        lab.write_config(&far_configuration())?;
        ensure!(daemon.reload()?.status.success(), "a far target");
        wait_until("the far target is healthy", SOON, || {
            wait_for_states(daemon, |_, state| state == "healthy").is_ok()
        })?;
        claim(lab)
    })
}

fn far_configuration() -> String {
    let mut text = configuration();
    text.push_str(
        "\n[[load_balancer]]\nname = \"far\"\naddresses = [\"192.0.2.30\", \"2001:db8::30\"]\n",
    );
    for version in ["v4", "v6"] {
        text.extend([format!(
            "\n[[load_balancer.listener]]\nprotocol = \"TCP\"\nport = 80\n\
             target_group = \"far-{version}\"\n"
        )]);
    }
    for (version, address) in [("v4", "10.4.0.10"), ("v6", "fd00:4::10")] {
        text.extend([format!(
            "\n[[target_group]]\nname = \"far-{version}\"\nprotocol = \"TCP\"\n\
             port = {COUNTER_PORT}\nmode = \"nat\"\n\
             health_check.interval_seconds = 0.2\nhealth_check.timeout_seconds = 0.2\n\
             health_check.healthy_threshold_count = 2\n\
             [[target_group.target]]\naddress = \"{address}\"\n"
        )]);
    }
    text
}

/// Serves, until this process ends: whoever has sent all is told how much that was.
pub(crate) fn serve_counts(host: &Host) -> Result<()> {
    let listener = host.enter(|| TcpListener::bind((Ipv6Addr::UNSPECIFIED, COUNTER_PORT)))??;
    thread::spawn(move || {
        for stream in listener.incoming().flatten() {
            thread::spawn(move || count(stream));
        }
    });
    Ok(())
}

fn count(mut stream: TcpStream) -> io::Result<()> {
    let received = io::copy(&mut stream, &mut io::sink())?;
    stream.write_all(&received.to_be_bytes())
}

/// Sends a lot; how much of it arrived, as the server says.
pub(crate) fn upload(from: &Host, to: SocketAddr) -> Result<usize> {
    let mut stream = from.enter(|| TcpStream::connect_timeout(&to, PATIENCE))??;
    stream.set_read_timeout(Some(PATIENCE * 2))?;
    stream.set_write_timeout(Some(Duration::from_secs(3)))?;
    stream.write_all(&vec![0x5a; UPLOAD_BYTES])?;
    stream.shutdown(Shutdown::Write)?;
    let mut received = [0; 8];
    stream.read_exact(&mut received)?;
    Ok(usize::try_from(u64::from_be_bytes(received))?)
}
