//! A connection as both of its ends see it, and the frames with which we answer them ourselves.

use nlb_common::{stop::Stop, wire::protocol::TCP};
use nlb_ebpf::tables::PassageKind::{Known, New, Return};
use nlb_tests::{
    packet::{Sentence, eth},
    world::{
        CLIENT, CLIENT_V6, MAC0, MAC1, VIP, VIP_V6, from_client, from_target, neighbour_of, on_to,
        port_to, tables,
    },
};

use crate::row::Row;

/// The flags of TCP, as a client sets them.
pub(crate) const SYN: u8 = 2;
pub(crate) const RST: u8 = 4;
pub(crate) const ACK: u8 = 0x10;

/// A frame from us to the client, through the interface that it came in by.
pub(crate) fn to_client() -> Sentence {
    eth().to(neighbour_of(CLIENT).mac()).from(MAC0)
}

/// A frame from us back to a target.
pub(crate) fn to_target(target: &str) -> Sentence {
    eth().to(neighbour_of(target).mac()).from(MAC1)
}

/// A connection through us, as both ends see it.
#[derive(Clone, Copy)]
pub(crate) struct Connection {
    pub(crate) client: &'static str,
    pub(crate) vip: &'static str,
    pub(crate) target: &'static str,
    pub(crate) port: u16,
    pub(crate) ids: (u16, u32),
}

impl Connection {
    pub(crate) fn v4() -> Self {
        Self {
            client: CLIENT,
            vip: VIP,
            target: "10.0.0.11",
            port: port_to(&tables(), CLIENT, (VIP, 80), TCP, 11, 0),
            ids: (1, 11),
        }
    }

    pub(crate) fn v6() -> Self {
        Self {
            client: CLIENT_V6,
            vip: VIP_V6,
            target: "fd00::12",
            port: port_to(&tables(), CLIENT_V6, (VIP_V6, 80), TCP, 17, 0),
            ids: (3, 17),
        }
    }

    fn ip(sentence: Sentence, from: &str, to: &str) -> Sentence {
        let parse = |text: &str| text.parse().expect("an address");
        sentence.ip(parse(from), parse(to))
    }

    /// From the client.
    pub(crate) fn request(self) -> Sentence {
        Self::ip(from_client(), self.client, self.vip).tcp(self.port, 80)
    }

    /// The same, behind us.
    pub(crate) fn translated(self) -> Sentence {
        Self::ip(on_to(self.target), self.client, self.target)
            .ttl(63)
            .tcp(self.port, 8080)
    }

    /// From the target.
    pub(crate) fn answer(self) -> Sentence {
        Self::ip(from_target(self.target), self.target, self.client).tcp(8080, self.port)
    }

    /// The same, behind us.
    pub(crate) fn answer_translated(self) -> Sentence {
        Self::ip(on_to(self.client), self.vip, self.client)
            .ttl(63)
            .tcp(80, self.port)
    }

    /// Our reset to the client.
    pub(crate) fn reset(self) -> Sentence {
        Self::ip(to_client(), self.vip, self.client)
            .tcp(80, self.port)
            .made_by_nlb()
    }

    /// Our reset to the target.
    pub(crate) fn target_reset(self) -> Sentence {
        Self::ip(to_target(self.target), self.client, self.target)
            .tcp(self.port, 8080)
            .made_by_nlb()
    }

    pub(crate) fn opens(self, row: Row) -> Row {
        row.sends(
            &self.request().syn(),
            &self.translated().syn(),
            self.ids,
            New,
        )
        .sends(
            &self.answer().syn_ack(),
            &self.answer_translated().syn_ack(),
            self.ids,
            Return,
        )
        .sends(&self.request(), &self.translated(), self.ids, Known)
    }

    /// Every segment that may be reset, and its reset.
    pub(crate) fn is_reset(self, mut row: Row, stop: Stop) -> Row {
        let request = self.request().sequence(1000, 7000);
        let of_ack = self.reset().flags(RST).sequence(7000, 0);
        for frame in [
            request.clone(),
            request.clone().payload(b"data"),
            request.clone().fin(),
            request.clone().tcp_options(&[1; 12]).payload(&[1; 1400]),
            request.clone().syn_ack(),
            request.clone().padded(),
        ] {
            row = row.answers(&frame, &of_ack, stop);
        }
        let of_none = |next| self.reset().flags(RST | ACK).sequence(0, next);
        row.answers(&request.clone().flags(0), &of_none(1000), stop)
            .answers(
                &request.clone().flags(1).payload(b"odd"),
                &of_none(1004),
                stop,
            )
            .answers(
                &request
                    .clone()
                    .flags(0)
                    .sequence(u32::MAX, 0)
                    .payload(b"12"),
                &of_none(1),
                stop,
            )
            // Nobody resets a reset.
            .stops(&request.clone().rst(), stop)
            .stops(&request.flags(RST | ACK), stop)
    }
}
