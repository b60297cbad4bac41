//! What an operator reads who asks why: `nlb explain`, `nlb flows` and `nlb stops`, against what real hosts
//! meet.

use std::{fs, net::SocketAddr, process::Output};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab, addresses::client_for, daemon, http::HttpConnection, udp::UdpClient, wait::wait_until,
};
use serde_json::Value;

use super::{
    PATIENCE, SOON, ask_http, configuration, http_vips, pinning::pinning_on_change, udp_vips,
    with_configuration, with_nlb,
};

/// `nlb` on the gateway, with the lab's bpffs.
fn nlb(lab: &Lab, words: &[&str]) -> Result<Output> {
    let output = lab
        .gateway()
        .command(daemon::binary()?)
        .args(words)
        .arg("--bpffs")
        .arg(lab.bpffs())
        .output()?;
    Ok(output)
}

/// What it prints if it succeeds.
fn says(lab: &Lab, words: &[&str]) -> Result<String> {
    let output = nlb(lab, words)?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "{words:?}: {errors}");
    Ok(String::from_utf8(output.stdout)?)
}

/// The same with the daemon's socket, for names.
fn says_with_names(lab: &Lab, words: &[&str]) -> Result<String> {
    let socket = lab.socket();
    let socket = socket.to_str().context("a path of letters")?;
    says(lab, &[words, &["--socket", socket]].concat())
}

fn json(lab: &Lab, words: &[&str]) -> Result<Value> {
    let text = says_with_names(lab, &[words, &["--json"]].concat())?;
    serde_json::from_str(&text).with_context(|| format!("{words:?} printed {text}"))
}

/// A client's end that nobody has used.
fn fresh(vip: SocketAddr) -> SocketAddr {
    (client_for(vip.ip()), 1025).into()
}

#[test]
fn what_is_explained_of_a_connection_is_what_becomes_of_it() -> Result<()> {
    with_nlb("explain", |lab, daemon| {
        for vip in http_vips() {
            let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
            let from = connection.local()?.to_string();
            let answered = connection.get("/")?.target;
            let host = answered.trim_start_matches("target");
            let target = if vip.is_ipv4() {
                format!("/10.2.0.1{host}:")
            } else {
                format!("/[fd00:2::1{host}]:")
            };
            let words = ["explain", "--from", &from, "--to", &vip.to_string()];
            // The connection's flow is remembered, and goes where it went.
            let text = says_with_names(lab, &words)?;
            for part in [
                ": established",
                "=> sent on through eth1, to target ",
                &target,
                "bytes after",
                "in through eth0",
            ] {
                ensure!(text.contains(part), "{vip}: no `{part}` in\n{text}");
            }
        }
        let vip = http_vips()[0];
        let (from, to) = (fresh(vip).to_string(), vip.to_string());
        let words = ["explain", "--from", &from, "--to", &to];
        let before = says_with_names(lab, &["flows", "--count"])?;
        let explained = json(lab, &[&words[..], &["--syn"]].concat())?;
        let packet = &explained["packets"][0];
        ensure!(packet["verdict"] == "redirect", "{packet:#}");
        ensure!(packet["leaves_by"] == "eth1", "{packet:#}");
        let outcome = packet["outcome"].as_str().unwrap_or_default();
        ensure!(
            outcome.contains("to target nat-web-v4/10.2.0.1"),
            "{outcome}"
        );
        ensure!(
            outcome.contains("the flow is new, and would be remembered"),
            "{outcome}"
        );
        let headers = packet["headers_after"].to_string();
        ensure!(
            headers.contains("> 10.2.0.1") && headers.contains("> 8080"),
            "{headers}"
        );
        // Nothing was remembered of it: asked again, the flow is as new as before.
        let again = json(lab, &[&words[..], &["--syn"]].concat())?;
        assert_eq!(again["packets"], explained["packets"]);
        let after = says_with_names(lab, &["flows", "--count"])?;
        assert_eq!(before.lines().next(), after.lines().next());

        // The kernel's run of the program on the same packets agrees, and leaves no trace either.
        for more in [&["--syn", "--live"][..], &["--live"]] {
            let text = says_with_names(lab, &[&words[..], more].concat())?;
            let agrees =
                "live: the program that is loaded comes to the same verdict and the same bytes";
            ensure!(text.contains(agrees), "{text}");
        }
        let again = json(lab, &[&words[..], &["--syn"]].concat())?;
        assert_eq!(again["packets"], explained["packets"]);

        // A segment of no known flow, and what is not nlb's at all.
        let stray = says_with_names(lab, &words)?;
        ensure!(
            stray.contains("answered from here") && stray.contains("stray: "),
            "{stray}"
        );
        let elsewhere =
            says_with_names(lab, &["explain", "--from", &from, "--to", "10.2.0.11:22"])?;
        ensure!(
            elsewhere.contains("left to this host's own stack, untouched"),
            "{elsewhere}"
        );
        let mixed = nlb(
            lab,
            &["explain", "--from", &from, "--to", "[2001:db8::10]:80"],
        )?;
        let mixed = String::from_utf8(mixed.stderr)?;
        ensure!(mixed.contains("of different IP versions"), "{mixed}");

        // Without a daemon it is the same, with numbers in place of names.
        daemon.terminate()?;
        let text = says(lab, &[&words[..], &["--syn"]].concat())?;
        ensure!(
            text.contains("- the listener at TCP 192.0.2.10:80"),
            "{text}"
        );
        ensure!(
            text.contains("=> sent on through eth1, to target "),
            "{text}"
        );
        ensure!(text.contains(" at 10.2.0.1"), "{text}");
        Ok(())
    })
}

#[test]
fn packets_of_a_capture_file_are_explained_by_the_interface_that_they_came_in_through() -> Result<()>
{
    with_nlb("explain_pcap", |lab, _| {
        let file = lab.directory().join("two.pcap");
        let vip = udp_vips()[0];
        let frame = |to: SocketAddr| {
            let from = fresh(vip);
            let packet = datagram(from, to);
            let length = u32::try_from(packet.len()).expect("a frame").to_le_bytes();
            [&[0; 8], &length[..], &length[..], &packet[..]].concat()
        };
        let header: Vec<u8> = [0xa1b2_c3d4u32, 0x0004_0002, 0, 0, 65_535, 1]
            .iter()
            .flat_map(|word| word.to_le_bytes())
            .collect();
        let elsewhere = SocketAddr::from(([10, 2, 0, 11], 9));
        fs::write(&file, [header, frame(vip), frame(elsewhere)].concat())?;
        let file = file.to_str().context("a path of letters")?;
        let text = says_with_names(lab, &["explain", "--pcap", file, "--interface", "eth0"])?;
        let (first, second) = text.split_once("packet 2 of 2").context("two packets")?;
        ensure!(first.contains("to target nat-dns-v4/10.2.0.1"), "{first}");
        ensure!(second.contains("untouched"), "{second}");
        let nowhere = nlb(lab, &["explain", "--pcap", file, "--interface", "eth9"])?;
        let nowhere = String::from_utf8(nowhere.stderr)?;
        ensure!(nowhere.contains("no interface `eth9`"), "{nowhere}");
        Ok(())
    })
}

/// A datagram in a frame.
fn datagram(from: SocketAddr, to: SocketAddr) -> Vec<u8> {
    let wanted = nlb_userspace::explain::frames::Wanted {
        from,
        to,
        protocol: nlb_common::wire::protocol::UDP,
        is_syn: false,
        sequence: 0,
        payload_bytes: 4,
    };
    nlb_userspace::explain::frames::make(&wanted, [2; 6], [2; 6]).expect("both are IPv4")
}

#[test]
fn flows_are_listed_counted_followed_and_killed_and_a_killed_connection_is_told() -> Result<()> {
    with_nlb("flows", |lab, daemon| {
        let vip = http_vips()[0];
        let told = lab.directory().join("told");
        let mut follower = lab
            .gateway()
            .command(daemon::binary()?)
            .args(["flows", "--follow", "--socket"])
            .arg(lab.socket())
            .arg("--bpffs")
            .arg(lab.bpffs())
            .stdout(fs::File::create(&told)?)
            .spawn()?;
        let mut connection = HttpConnection::from(lab.client(), vip, PATIENCE)?;
        connection.get("/")?;
        let client = connection.local()?.to_string();
        let mut socket = UdpClient::new(lab.client(), udp_vips()[0], PATIENCE)?;
        socket.ask().or_else(|_| socket.ask())?;

        let began = wait_until("the follower tells of the connection", SOON, || {
            let told = fs::read_to_string(&told).unwrap_or_default();
            told.lines()
                .any(|line| line.starts_with("+ ") && line.contains(&client))
        });
        follower.kill()?;
        follower.wait()?;
        began?;

        let text = says_with_names(
            lab,
            &["flows", "--client", "10.1.0.10", "--protocol", "tcp"],
        )?;
        let line = text.lines().find(|line| line.contains(&client));
        let line = line.with_context(|| format!("no {client} in\n{text}"))?;
        for part in [
            "TCP",
            &vip.to_string(),
            "nat-web-v4/10.2.0.1",
            "established",
        ] {
            ensure!(line.contains(part), "no `{part}` in {line}");
        }
        let datagrams = json(
            lab,
            &[
                "flows",
                "--protocol",
                "udp",
                "--vip",
                &udp_vips()[0].to_string(),
            ],
        )?;
        assert_eq!(datagrams["count"], 1, "{datagrams:#}");
        assert_eq!(datagrams["flows"][0]["client"], socket.local()?.to_string());
        let count = says_with_names(lab, &["flows", "--count", "--target-group", "nat-dns-v4"])?;
        ensure!(
            count.starts_with("1 flows; the table has room for 65536"),
            "{count}"
        );
        let nothing = says_with_names(lab, &["flows", "--client", "198.51.100.0/24"])?;
        ensure!(nothing.starts_with("no flows"), "{nothing}");

        let refused = daemon.nlb(&["flows", "--kill"])?;
        let refused = String::from_utf8(refused.stderr)?;
        ensure!(refused.contains("--all"), "{refused}");
        let unknown = daemon.nlb(&["flows", "--kill", "--listener", "nowhere"])?;
        let unknown = String::from_utf8(unknown.stderr)?;
        ensure!(
            unknown.contains("no listener or load balancer `nowhere`"),
            "{unknown}"
        );
        let killed = daemon.nlb(&[
            "flows",
            "--kill",
            "--listener",
            "nat",
            "--protocol",
            "tcp",
            "--state",
            "established",
        ])?;
        let killed = String::from_utf8(killed.stdout)?;
        ensure!(
            killed.starts_with("killed ") && !killed.starts_with("killed 0"),
            "{killed}"
        );
        // The next segment is one of no known flow, and is answered so.
        let ended = connection.get("/").expect_err("the connection was killed");
        assert_eq!(ended.kind(), std::io::ErrorKind::ConnectionReset, "{ended}");
        // All other flows go on, and so do new ones.
        socket.ask().or_else(|_| socket.ask())?;
        ask_http(lab, vip)?;
        Ok(())
    })
}

#[test]
fn listeners_that_remember_no_flows_are_named_where_flows_are_listed() -> Result<()> {
    let text = pinning_on_change(&configuration());
    with_configuration("flows_change", &text, |lab, _| {
        let listed = says_with_names(lab, &["flows"])?;
        let note = listed.lines().last().unwrap_or_default();
        ensure!(note.contains("pin flows on change"), "{listed}");
        ensure!(note.contains("dsr/") && !note.contains("nat/"), "{note}");
        Ok(())
    })
}

#[test]
fn stops_are_told_with_count_rate_and_meaning() -> Result<()> {
    with_nlb("stops", |lab, _| {
        let vip = http_vips()[0].ip();
        lab.client().run(&format!("ping -c 1 -W 3 {vip}"))?;
        let stops: Value = serde_json::from_str(&says(lab, &["stops", "--json"])?)?;
        let stop = stops["stops"]
            .as_array()
            .and_then(|stops| stops.iter().find(|stop| stop["name"] == "icmp_echo"))
            .with_context(|| format!("{stops:#}"))?;
        assert_eq!(stop["count"], 1, "{stop:#}");
        ensure!(stop["per_second"].as_f64().is_some(), "{stop:#}");
        assert_eq!(stop["verdict"], "answered");
        let meaning = "An echo request addressed to a VIP; answered from here.";
        ensure!(stop["meaning"].to_string().contains(meaning), "{stop:#}");
        let counted = says(lab, &["stops"])?;
        ensure!(counted.contains("icmp_echo"), "{counted}");
        ensure!(!counted.contains("port_allocation_error"), "{counted}");
        let every = says(lab, &["stops", "--all"])?;
        ensure!(every.contains("port_allocation_error"), "{every}");
        Ok(())
    })
}
