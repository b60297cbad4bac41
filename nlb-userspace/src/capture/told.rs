//! What became of a packet, in a sentence: the comment that Wireshark shows beside it.

use super::{Action, Packet, whose::Whose};
use crate::explain::stopped;

/// What became of a packet, said of it as it came in; `exit` is the name of the interface that it left by.
pub fn came(packet: &Packet<'_>, whose: &Whose, exit: &str) -> String {
    let becomes = match stopped(packet.action == Action::Drop, &packet.stops) {
        Some(text) => text,
        None => match (packet.action, whose.is_answer) {
            (Action::Drop, _) => "dropped".to_owned(),
            (Action::Abort, _) => "aborted, which is a fault of the packet program".to_owned(),
            (Action::Pass, _) => {
                "left to this host's own stack, untouched: it is not for a listener, and of no \
                 flow that nlb knows"
                    .to_owned()
            }
            (Action::Transmit | Action::Redirect, true) => {
                format!("sent on through {exit}, to the client")
            }
            (Action::Transmit | Action::Redirect, false) => format!("sent on through {exit}"),
        },
    };
    format!("{becomes}{}", named(whose))
}

/// The same, said of it as it left.
pub fn left(packet: &Packet<'_>, whose: &Whose) -> String {
    let what = match packet.stops.first() {
        Some(stop) => format!("nlb's own answer: {}", stop.name()),
        None => "the same packet, as nlb sent it on".to_owned(),
    };
    format!("{what}{}", named(whose))
}

fn named(whose: &Whose) -> String {
    let listener = whose.listener.as_ref();
    let target = whose.target.as_ref();
    [
        listener.map(|name| format!("; listener {name}")),
        target.map(|name| format!("; target {name}")),
    ]
    .into_iter()
    .flatten()
    .collect()
}

#[cfg(test)]
mod tests {
    use nlb_common::stop::Stop;

    use super::*;
    use crate::capture::Piece;

    fn packet(action: Action, stops: &[Stop]) -> Packet<'static> {
        Packet {
            at_ns: 0,
            interface: 1,
            action,
            stops: stops.to_vec(),
            came: Piece {
                bytes: &[],
                frame_bytes: 0,
            },
            left: None,
        }
    }

    fn whose() -> Whose {
        Whose {
            listener: Some("edge/TCP/80".to_owned()),
            target: Some("web/10.0.0.11:8080".to_owned()),
            is_answer: false,
        }
    }

    #[test]
    fn a_comment_says_what_became_of_a_packet_and_why() {
        let nobody = Whose::default();
        let cases = [
            (Action::Redirect, &[][..], "sent on through eth1"),
            (
                Action::Pass,
                &[],
                "left to this host's own stack, untouched",
            ),
            (
                Action::Pass,
                &[Stop::Icmp],
                "left to this host's own stack: icmp: ICMP addressed",
            ),
            (
                Action::Drop,
                &[Stop::NoTarget],
                "dropped: no_target: The listener's",
            ),
            (
                Action::Transmit,
                &[Stop::Stray],
                "answered from here, to the neighbour it came from: stray: ",
            ),
        ];
        for (action, stops, begin) in cases {
            let packet = packet(action, stops);
            let text = came(&packet, &nobody, "eth1");
            assert!(text.starts_with(begin), "{text}");
            assert!(
                came(&packet, &whose(), "eth1")
                    .ends_with("; listener edge/TCP/80; target web/10.0.0.11:8080")
            );
        }
        let answer = left(&packet(Action::Transmit, &[Stop::IcmpEcho]), &nobody);
        assert_eq!(answer, "nlb's own answer: icmp_echo");
        let to_client = Whose {
            is_answer: true,
            ..whose()
        };
        let text = came(&packet(Action::Redirect, &[]), &to_client, "eth0");
        assert!(
            text.starts_with("sent on through eth0, to the client; listener "),
            "{text}"
        );
    }
}
