//! The kernel's routes, asked as the packet path asks them, for packets that nobody sends.
//!
//! `ip route get` would answer another question: it looks at the source, too, as the host's own stack
//! does. So the question goes to a small program that calls what the packet program calls.

use aya::{
    Ebpf,
    programs::{TestRun as _, TestRunOptions, Xdp},
};
use nlb_common::{
    address::Address,
    next_hop::{MacPair, NextHop, VlanId, VlanLink},
    route::RouteFrame,
    stop::Stop,
};
use nlb_ebpf::tables::{Route, RouteQuery};
use zerocopy::IntoBytes as _;

use super::{ASK_OBJECT, DataplaneError, stages};

/// The name of the program.
const PROGRAM: &str = "ask";

/// Where routes are asked.
pub struct Routes(Ebpf);

impl std::fmt::Debug for Routes {
    fn fmt(&self, out: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        out.write_str("Routes(..)")
    }
}

impl Routes {
    /// Loads the program that asks.
    pub fn load() -> Result<Self, DataplaneError> {
        let mut object = Ebpf::load(ASK_OBJECT)?;
        let program = stages::program(&mut object, PROGRAM)?;
        program.load().map_err(DataplaneError::Program)?;
        Ok(Self(object))
    }

    /// The way of a packet, in the network namespace of who asks.
    pub fn ask(
        &self,
        query: &RouteQuery,
        vlan_link: impl FnOnce(u32) -> Option<VlanLink>,
    ) -> Result<Result<Route, Stop>, DataplaneError> {
        let question = RouteFrame {
            destination: query.destination.v6_bytes(),
            source: query.source.v6_bytes(),
            interface: query.interface.into(),
            traffic_class: query.traffic_class,
            protocol: query.protocol,
            outcome: RouteFrame::UNANSWERED,
            ..RouteFrame::default()
        };
        let program = self.0.program(PROGRAM);
        let program: &Xdp = program
            .and_then(|program| program.try_into().ok())
            .ok_or(DataplaneError::NoProgram(PROGRAM))?;
        let mut answer = question;
        let mut options = TestRunOptions::new();
        options.data_in = Some(question.as_bytes());
        options.data_out = Some(answer.as_mut_bytes());
        let _ran = program.test_run(options).map_err(DataplaneError::Program)?;
        Ok(outcome(&answer, vlan_link))
    }
}

/// What an answered question says.
fn outcome(
    answer: &RouteFrame,
    vlan_link: impl FnOnce(u32) -> Option<VlanLink>,
) -> Result<Route, Stop> {
    if answer.outcome != RouteFrame::FOUND {
        let stop = Stop::ALL.get(usize::from(answer.outcome)).copied();
        return Err(stop.unwrap_or(Stop::NoRoute));
    }
    let interface = answer.leaves_by.get();
    let link = vlan_link(interface).unwrap_or(VlanLink {
        carrier: interface,
        vlan: VlanId::NONE,
    });
    if link.carrier == 0 {
        return Err(Stop::NoRoute);
    }
    Ok(Route {
        next_hop: NextHop {
            macs: MacPair {
                head: answer.macs_head.get(),
                tail: answer.macs_tail.get(),
            },
            interface: link.carrier,
            mtu_bytes: answer.mtu_bytes.get(),
            vlan: link.vlan,
        },
        neighbour: Address::from_v6_bytes(answer.neighbour),
        interface,
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn found() -> RouteFrame {
        RouteFrame {
            outcome: RouteFrame::FOUND,
            leaves_by: 7.into(),
            mtu_bytes: 1500.into(),
            ..RouteFrame::default()
        }
    }

    #[test]
    fn a_vlans_frames_leave_by_what_carries_it_and_one_in_another_cannot_be_sent() {
        let link = |carrier| {
            move |interface| {
                assert_eq!(interface, 7);
                let vlan = VlanId(42);
                Some(VlanLink { carrier, vlan })
            }
        };
        let route = outcome(&found(), link(3)).unwrap();
        assert_eq!((route.interface, route.next_hop.interface), (7, 3));
        assert_eq!(route.next_hop.vlan, VlanId(42));
        assert_eq!(outcome(&found(), link(0)), Err(Stop::NoRoute));
        let route = outcome(&found(), |_| None).unwrap();
        assert_eq!((route.interface, route.next_hop.interface), (7, 7));
    }

    #[test]
    fn a_refusal_says_why() {
        let refused = RouteFrame {
            outcome: Stop::NeighbourUnknown as u8,
            ..found()
        };
        assert_eq!(outcome(&refused, |_| None), Err(Stop::NeighbourUnknown));
    }
}
