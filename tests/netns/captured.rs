//! What an operator sees in Wireshark: `nlb capture` of what real hosts send, read back by `tshark`.

use std::{
    fs,
    io::{BufRead as _, BufReader},
    net::SocketAddr,
    path::{Path, PathBuf},
    process::{Child, ChildStderr, Command, Stdio},
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{Lab, daemon, wait::wait_until};
use rustix::process::{Pid, Signal, kill_process};

use super::{SOON, ask_http, daemon_life::attached, http_vips, with_nlb};

/// `nlb capture` while it runs.
struct Capture {
    child: Child,
    told: BufReader<ChildStderr>,
    file: PathBuf,
}

impl Capture {
    /// Starts it on the gateway, and waits until it has begun.
    fn start(lab: &Lab, words: &[&str]) -> Result<Self> {
        let file = lab.directory().join("captured.pcapng");
        let mut child = lab
            .gateway()
            .command(daemon::binary()?)
            .arg("capture")
            .args(words)
            .arg("--write")
            .arg(&file)
            .arg("--bpffs")
            .arg(lab.bpffs())
            .arg("--socket")
            .arg(lab.socket())
            .stderr(Stdio::piped())
            .spawn()?;
        let told = child.stderr.take().context("its words are piped")?;
        let mut capture = Self {
            child,
            told: BufReader::new(told),
            file,
        };
        capture.says("capturing")?;
        Ok(capture)
    }

    /// The next line that it says.
    fn says(&mut self, what: &str) -> Result<String> {
        let mut line = String::new();
        self.told.read_line(&mut line)?;
        ensure!(line.contains(what), "no `{what}` in {line}");
        Ok(line)
    }

    fn signal(&self, signal: Signal) -> Result<()> {
        let pid = Pid::from_child(&self.child);
        kill_process(pid, signal).context("sending a signal")
    }

    /// Ends it as Ctrl-C does; what it says in the end.
    fn interrupt(mut self) -> Result<String> {
        self.signal(Signal::INT)?;
        self.end()
    }

    /// Waits until it has ended by itself; what it says in the end.
    fn end(&mut self) -> Result<String> {
        let summary = self.says("captured; ")?;
        let status = self.child.wait()?;
        ensure!(status.success(), "{status}: {summary}");
        Ok(summary)
    }
}

impl Drop for Capture {
    fn drop(&mut self) {
        // It has ended already, unless the test failed.
        let _gone = self.child.kill();
        let _status = self.child.wait();
    }
}

/// A frame as `tshark` shows it.
#[derive(Debug)]
struct Frame {
    interface: String,
    is_outbound: bool,
    comment: String,
    source: String,
    destination: String,
    bytes: String,
}

/// All frames of a file.
fn frames(file: &Path) -> Result<Vec<Frame>> {
    let fields = [
        "frame.interface_name",
        "frame.packet_flags_direction",
        "frame.comment",
        "ip.src",
        "ipv6.src",
        "tcp.srcport",
        "ip.dst",
        "ipv6.dst",
        "tcp.dstport",
        "tcp.payload",
    ];
    let output = Command::new("tshark")
        .arg("-r")
        .arg(file)
        .args(["-T", "fields", "-E", "separator=|", "-E", "occurrence=f"])
        .args(fields.iter().flat_map(|field| ["-e", field]))
        .output()
        .context("running tshark")?;
    let errors = String::from_utf8_lossy(&output.stderr);
    ensure!(output.status.success(), "tshark: {errors}");
    let text = String::from_utf8(output.stdout)?;
    text.lines()
        .map(|line| {
            let cells: Vec<&str> = line.split('|').collect();
            let [
                interface,
                direction,
                comment,
                v4,
                v6,
                port,
                to_v4,
                to_v6,
                to_port,
                bytes,
            ] = cells[..]
            else {
                anyhow::bail!("tshark shows {line}");
            };
            let end = |v4: &str, v6: &str, port: &str| {
                if v6.is_empty() {
                    format!("{v4}:{port}")
                } else {
                    format!("[{v6}]:{port}")
                }
            };
            Ok(Frame {
                interface: interface.to_owned(),
                is_outbound: matches!(direction, "2" | "0x00000002"),
                comment: comment.to_owned(),
                source: end(v4, v6, port),
                destination: end(to_v4, to_v6, to_port),
                bytes: bytes.to_owned(),
            })
        })
        .collect()
}

/// The number in front of a comment, which the two frames of a packet share.
fn number(frame: &Frame) -> &str {
    frame.comment.split(':').next().unwrap_or_default()
}

#[test]
fn a_connection_is_captured_as_it_came_in_and_as_it_left_with_listener_and_target() -> Result<()> {
    with_nlb("capture", |lab, _| {
        let program = attached(lab.gateway(), "eth0")?;
        for vip in http_vips() {
            let capture = Capture::start(lab, &["--vip", &vip.to_string()])?;
            let answered = ask_http(lab, vip)?;
            let file = capture.file.clone();
            let is_there = || frames(&file).is_ok_and(|frames| frames.iter().any(is_answer(vip)));
            wait_until("the answer is in the file", SOON, is_there)?;
            ensure!(
                attached(lab.gateway(), "eth0")? != program,
                "nothing stands in its place"
            );
            let summary = capture.interrupt()?;
            assert_eq!(attached(lab.gateway(), "eth0")?, program);
            ensure!(summary.contains("; 0 more were lost"), "{summary}");

            let frames = frames(&file)?;
            let host = answered.trim_start_matches("target");
            let target = if vip.is_ipv4() {
                format!("/10.2.0.1{host}:")
            } else {
                format!("/[fd00:2::1{host}]:")
            };
            let request = hex("GET ");
            let came = (frames.iter())
                .find(|frame| frame.bytes.starts_with(&request) && !frame.is_outbound)
                .with_context(|| format!("no request in {frames:#?}"))?;
            assert_eq!(came.interface, "eth0");
            assert_eq!(came.destination, vip.to_string());
            for part in ["sent on through eth1; listener ", &target] {
                ensure!(
                    came.comment.contains(part),
                    "{vip}: no `{part}` in {came:#?}"
                );
            }
            // The same packet as it left: other ends where the mode changes them, the same bytes.
            let left = (frames.iter())
                .find(|frame| frame.is_outbound && number(frame) == number(came))
                .with_context(|| format!("{came:#?} did not leave"))?;
            assert_eq!(left.interface, "eth1");
            assert_eq!(left.bytes, came.bytes);
            assert_eq!(left.source, came.source);
            if came.comment.contains("nat-web") {
                ensure!(
                    target.contains(left.destination.split(':').next().unwrap_or_default()),
                    "{left:#?}"
                );
                let answer = frames.iter().find(|frame| is_answer(vip)(frame));
                let answer = answer.context("the answer was there")?;
                assert_eq!((&*answer.interface, answer.is_outbound), ("eth0", true));
            }
        }
        Ok(())
    })
}

/// Whether a frame brings the client bytes from this VIP; none does where targets answer by themselves, and
/// then a request will do.
fn is_answer(vip: SocketAddr) -> impl Fn(&Frame) -> bool {
    let vip = vip.to_string();
    let request = hex("GET ");
    move |frame| {
        let is_direct = frame.comment.contains("dsr") && frame.bytes.starts_with(&request);
        is_direct || frame.is_outbound && frame.source == vip && !frame.bytes.is_empty()
    }
}

fn hex(text: &str) -> String {
    text.bytes()
        .fold(String::new(), |hex, byte| hex + &format!("{byte:02x}"))
}

#[test]
fn a_stopped_packet_is_captured_with_its_reason_and_others_are_not() -> Result<()> {
    with_nlb("capture_stops", |lab, _| {
        let vip = http_vips()[0];
        let mut capture = Capture::start(lab, &["--stop", "icmp_echo", "--count", "1"])?;
        // Forwarded, and not meant.
        let _target = ask_http(lab, vip)?;
        let _answered = lab.client().run(&format!("ping -c 1 {}", vip.ip()))?;
        let summary = capture.end()?;
        ensure!(summary.contains(" 1 packet captured"), "{summary}");
        let frames = frames(&capture.file)?;
        let [came, left] = &frames[..] else {
            anyhow::bail!("one packet, and its answer, and not {frames:#?}");
        };
        for part in ["answered from here", "icmp_echo: An echo request"] {
            ensure!(came.comment.contains(part), "no `{part}` in {came:#?}");
        }
        assert_eq!(left.comment, "packet 1: nlb's own answer: icmp_echo");
        assert_eq!((came.is_outbound, left.is_outbound), (false, true));
        assert_eq!(
            (&came.source, &came.destination),
            (&left.destination, &left.source)
        );

        let refused = lab
            .gateway()
            .command(daemon::binary()?)
            .args([
                "capture",
                "--stop",
                "no_reason",
                "-w",
                "/dev/null",
                "--bpffs",
            ])
            .arg(lab.bpffs())
            .output()?;
        let words = String::from_utf8(refused.stderr)?;
        ensure!(words.contains("`no_reason` is no reason"), "{words}");
        Ok(())
    })
}

#[test]
fn a_capture_goes_on_over_a_restart_and_when_it_is_killed_nothing_is_left() -> Result<()> {
    with_nlb("capture_killed", |lab, daemon| {
        let vip = http_vips()[0];
        let mut capture = Capture::start(lab, &["--vip", &vip.to_string(), "--snaplen", "128"])?;
        // Another daemon puts another program in the place of the one that is looked at.
        daemon.terminate()?;
        *daemon = lab.start_nlb()?;
        capture.says("has replaced the packet program")?;
        let taken = attached(lab.gateway(), "eth0")?;
        let before = fs::metadata(&capture.file)?.len();
        let _target = ask_http(lab, vip)?;
        let file = capture.file.clone();
        wait_until("packets of the new program are there", SOON, || {
            fs::metadata(&file).is_ok_and(|file| file.len() > before)
        })?;
        capture.signal(Signal::KILL)?;
        let status = capture.child.wait()?;
        ensure!(!status.success(), "{status}");
        // What it left behind calls the packet program, until the daemon takes its place back.
        let _target = ask_http(lab, vip)?;
        let is_back = || attached(lab.gateway(), "eth0").is_ok_and(|program| program != taken);
        wait_until("the daemon takes the place back", SOON * 2, is_back)?;
        // What was written is whole, and packets go on.
        ensure!(!frames(&file)?.is_empty(), "nothing was captured");
        let _target = ask_http(lab, vip)?;
        Ok(())
    })
}
