//! Listeners that answer SYNs with cookies: unmodified clients and servers, and a flood.

use std::{
    fmt::Write as _,
    io::{self, Read as _, Write as _},
    net::{IpAddr, Ipv4Addr, Ipv6Addr, Shutdown, SocketAddr, TcpListener, TcpStream},
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::{
    hostile::Random,
    lab::{
        Lab,
        addresses::{target_v4, target_v6},
        daemon::Daemon,
        http::HttpConnection,
        nginx::LARGE_BYTES,
        wait::wait_until,
    },
    packet::eth,
};
use rustix::net::{AddressFamily, SendFlags, sendto};

use super::{
    PATIENCE, SOON, ask_http, configuration, decap::raw, http_vips, icmp::stops_of, listeners,
    with_configuration, with_nlb,
};

/// Where a server of ours listens, which speaks first and then repeats what it hears.
const ECHO_PORT: u16 = 7000;
/// What it says first.
const GREETING: &[u8] = b"220 who are you?\r\n";
/// SYNs of a flood that are answered.
const FLOOD: u64 = 20_000;

/// The example, whose translated TCP listeners answer SYNs with cookies; and one more of them, for
/// the server that speaks first, on the first target.
fn with_cookies() -> String {
    let mut text = configuration();
    for version in ["v4", "v6"] {
        let group = format!("  target_group = \"nat-web-{version}\"\n");
        let cookies = "  tcp.syn_cookies = \"on\"\n";
        let echo = format!(
            "{group}{cookies}\n  [[load_balancer.listener]]\n  protocol = \"TCP\"\n  \
             port = {ECHO_PORT}\n  target_group = \"echo-{version}\"\n{cookies}"
        );
        assert!(text.contains(&group), "the example has that");
        text = text.replace(&group, &echo);
    }
    for (version, target) in [
        ("v4", IpAddr::from(target_v4(0))),
        ("v6", target_v6(0).into()),
    ] {
        write!(
            text,
            "\n[[target_group]]\nname = \"echo-{version}\"\nprotocol = \"TCP\"\n\
             port = {ECHO_PORT}\nmode = \"nat\"\n\n  [target_group.health_check]\n  \
             protocol = \"HTTP\"\n  port = 8080\n  path = \"/health\"\n  \
             interval_seconds = 0.2\n  timeout_seconds = 0.2\n\n  \
             [[target_group.target]]\n  address = \"{target}\"\n"
        )
        .unwrap();
    }
    text
}

/// The VIPs with cookies, at this port.
fn guarded(port: u16) -> [SocketAddr; 2] {
    let [v4, v6, ..] = http_vips();
    [v4, v6].map(|vip| SocketAddr::new(vip.ip(), port))
}

/// What was counted of all listeners with cookies.
fn counted(daemon: &Daemon, name: &str) -> Result<u64> {
    let status = daemon.status()?;
    let counts = listeners(&status)
        .filter(|(balancer, listener)| balancer == "nat" && listener["protocol"] == "TCP");
    Ok(counts
        .filter_map(|(_, listener)| listener[name].as_u64())
        .sum())
}

/// Serves one connection on the first target: greets, and then repeats all that comes.
fn serve_echo(lab: &Lab, at: IpAddr) -> Result<std::thread::JoinHandle<Result<io::Result<()>>>> {
    let host = &lab.target(0).host;
    let listener = host.enter(|| TcpListener::bind((at, ECHO_PORT)))??;
    Ok(host.thread(move || {
        let (stream, _) = listener.accept()?;
        stream.set_read_timeout(Some(PATIENCE))?;
        (&stream).write_all(GREETING)?;
        io::copy(&mut &stream, &mut &stream)?;
        stream.shutdown(Shutdown::Write)
    }))
}

/// Hears the greeting, and then sends so many bytes, which must come back.
fn is_repeated(vip: SocketAddr, bytes: usize) -> io::Result<()> {
    let stream = TcpStream::connect_timeout(&vip, PATIENCE)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    let mut greeting = [0; GREETING.len()];
    (&stream).read_exact(&mut greeting)?;
    assert_eq!(greeting, GREETING);
    let sent = Random::new(7).bytes(bytes);
    let mut came = Vec::new();
    std::thread::scope(|scope| {
        let writer = scope.spawn(|| {
            (&stream).write_all(&sent)?;
            stream.shutdown(Shutdown::Write)
        });
        (&stream).read_to_end(&mut came)?;
        writer.join().expect("the writer")
    })?;
    assert!(came == sent, "{} bytes came back otherwise", came.len());
    Ok(())
}

#[test]
fn curl_has_small_and_large_answers_of_nginx_through_cookies() -> Result<()> {
    with_configuration("cookies", &with_cookies(), |lab, daemon| {
        for (asked, vip) in (1..).zip(guarded(80)) {
            for _ in 0..10 {
                ask_http(lab, vip)?;
            }
            let file = lab.directory().join("answer");
            let line = format!("curl -sS -g -o {} http://{vip}/large", file.display());
            lab.client().run(&line)?;
            let (answer, large) = (std::fs::read(&file)?, std::fs::read(lab.large_file())?);
            ensure!(answer == large, "{vip}: {} bytes", answer.len());
            let cookies = stops_of(daemon, "syn_cookie")?;
            ensure!(cookies >= asked * 11, "{cookies} cookies, {vip}");
        }
        // A connection is a flow, counted when it begins.
        assert_eq!(counted(daemon, "new_flows")?, 2 * 11);
        assert_eq!(stops_of(daemon, "unaccepted")?, 0);
        Ok(())
    })
}

#[test]
fn a_server_that_speaks_first_is_heard_and_hears_much_through_cookies() -> Result<()> {
    with_configuration("cookies_echo", &with_cookies(), |lab, daemon| {
        let targets = [IpAddr::from(target_v4(0)), target_v6(0).into()];
        for (vip, target) in guarded(ECHO_PORT).into_iter().zip(targets) {
            for bytes in [0, 1, 5 << 20] {
                let server = serve_echo(lab, target)?;
                lab.client()
                    .enter(|| is_repeated(vip, bytes))?
                    .with_context(|| format!("{bytes} bytes through {vip}"))?;
                server.join().expect("the server")??;
            }
        }
        assert_eq!(counted(daemon, "new_flows")?, 6);
        Ok(())
    })
}

#[test]
fn a_target_that_refuses_is_heard_through_cookies() -> Result<()> {
    with_configuration("cookies_rst", &with_cookies(), |lab, _| {
        for vip in guarded(ECHO_PORT) {
            // Nobody listens there. The handshake with us succeeds; what follows does not.
            let ended = lab.client().enter(|| {
                let mut stream = TcpStream::connect_timeout(&vip, PATIENCE)?;
                stream.set_read_timeout(Some(PATIENCE))?;
                stream.read(&mut [0])
            })?;
            let kind = ended.err().map(|error| error.kind());
            assert_eq!(kind, Some(io::ErrorKind::ConnectionReset), "{vip}");
        }
        Ok(())
    })
}

#[test]
fn a_large_answer_arrives_over_a_narrow_path_through_cookies() -> Result<()> {
    with_configuration("cookies_mtu", &with_cookies(), |lab, _| {
        let far = lab.add_behind_client(1300)?;
        for vip in guarded(80) {
            let answer = HttpConnection::from(&far, vip, PATIENCE)?
                .get("/large")
                .with_context(|| format!("the answer of {vip}"))?;
            ensure!(answer.body_bytes == LARGE_BYTES as u64, "{vip}: {answer:?}");
        }
        Ok(())
    })
}

/// Sends SYNs from everywhere to the VIPs with cookies, until it is told to end.
fn flood(vips: [SocketAddr; 2], end: &AtomicBool) -> io::Result<()> {
    // `IPPROTO_RAW`: packets as they are, with sources that are nobody's.
    let sockets = (
        raw(AddressFamily::INET, 255)?,
        raw(AddressFamily::INET6, 255)?,
    );
    let mut random = Random::new(0x5eed);
    while !end.load(Ordering::Relaxed) {
        for vip in vips {
            let [a, b, c, ..] = random.next().to_be_bytes();
            let (low, port) = (random.word(), random.word() | 1);
            let (socket, from) = match vip.ip() {
                IpAddr::V4(_) => (&sockets.0, Ipv4Addr::new(100, 64 | a & 63, b, c).into()),
                IpAddr::V6(_) => (
                    &sockets.1,
                    Ipv6Addr::new(0x2001, 0xdb8, 0xf100, 0, 0, 0, low, port).into(),
                ),
            };
            let frame = eth().ip(from, vip.ip()).tcp(port, vip.port()).syn().build();
            // A queue that is full takes no more for a moment.
            let to = SocketAddr::new(vip.ip(), 0);
            sendto(socket, &frame[14..], SendFlags::empty(), &to).ok();
        }
    }
    Ok(())
}

#[test]
fn a_flood_of_syns_is_remembered_nowhere_and_real_connections_get_through() -> Result<()> {
    with_configuration("cookies_syn", &with_cookies(), |lab, daemon| {
        let vips = guarded(80);
        // One that lives through it.
        let mut before = HttpConnection::from(lab.client(), vips[0], PATIENCE)?;
        before.get("/")?;
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let flood = lab.client().thread(move || flood(vips, &told));
        let (mut tried, mut asked) = (1, 1);
        let asking = wait_until("so many SYNs are answered", SOON, || {
            for vip in vips {
                tried += 1;
                asked += u64::from(ask_http(lab, vip).is_ok());
            }
            stops_of(daemon, "syn_cookie").is_ok_and(|count| count >= FLOOD)
        });
        end.store(true, Ordering::Relaxed);
        flood.join().expect("the flood")??;
        asking?;
        before.get("/")?;
        ensure!(asked > 2, "no connection got through");
        // A flow for each real connection, and none more; nor has a target heard of any other.
        let begun = counted(daemon, "new_flows")?;
        ensure!((asked..=tried).contains(&begun), "{begun}, not {asked}");
        for target in lab.targets() {
            let known = target.host.run("ss -tanH dst 100.64.0.0/10")?;
            ensure!(known.is_empty(), "{known}");
            let known = target.host.run("ss -tanH")?;
            ensure!(!known.contains("2001:db8:f100:"), "{known}");
        }
        Ok(())
    })
}

#[test]
fn an_attack_brings_cookies_and_connections_of_before_and_during_live_on() -> Result<()> {
    let text = with_cookies().replace(
        "tcp.syn_cookies = \"on\"",
        "tcp.syn_cookies = \"under_attack\"\n  tcp.syn_cookies_above_per_second = 200",
    );
    with_configuration("cookies_attack", &text, |lab, daemon| {
        let vips = guarded(80);
        let open = || -> Result<Vec<HttpConnection>> {
            let mut connections = Vec::new();
            for vip in vips {
                let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
                connection.get("/")?;
                connections.push(connection);
            }
            Ok(connections)
        };
        let mut before = open()?;
        assert_eq!(stops_of(daemon, "syn_cookie")?, 0, "in peace");
        let end = Arc::new(AtomicBool::new(false));
        let told = Arc::clone(&end);
        let flood = lab.client().thread(move || flood(vips, &told));
        let mut during = Vec::new();
        let begun = wait_until("connections begin during the attack", SOON, || {
            let is_on = stops_of(daemon, "syn_cookie").is_ok_and(|count| count >= FLOOD);
            is_on
                && open().is_ok_and(|connections| {
                    during = connections;
                    true
                })
        });
        end.store(true, Ordering::Relaxed);
        flood.join().expect("the flood")??;
        begun?;
        for connection in before.iter_mut().chain(&mut during) {
            connection.get("/")?;
        }
        Ok(())
    })
}

#[test]
fn the_first_listener_with_cookies_takes_maps_with_room_for_them() -> Result<()> {
    with_nlb("cookies_late", |lab, daemon| {
        lab.write_config(&with_cookies())?;
        let reload = daemon.reload()?;
        let said = String::from_utf8_lossy(&reload.stderr).into_owned();
        ensure!(
            !reload.status.success() && said.contains("load_balancer.listener.tcp.syn_cookies"),
            "{said}"
        );
        Ok(())
    })
}

#[test]
fn connections_survive_that_their_listener_stops_answering_with_cookies() -> Result<()> {
    with_configuration("cookies_off", &with_cookies(), |lab, daemon| {
        let mut connections = Vec::new();
        for vip in guarded(80) {
            let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
            connection.get("/")?;
            connections.push(connection);
        }
        let off = with_cookies().replace("syn_cookies = \"on\"", "syn_cookies = \"off\"");
        lab.write_config(&off)?;
        ensure!(daemon.reload()?.status.success(), "cookies are off");
        let before = stops_of(daemon, "syn_cookie")?;
        for (vip, connection) in guarded(80).into_iter().zip(&mut connections) {
            connection.get("/")?;
            ask_http(lab, vip)?;
        }
        assert_eq!(stops_of(daemon, "syn_cookie")?, before);
        Ok(())
    })
}
