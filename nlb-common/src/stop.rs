//! Every way in which a packet that is ours leaves early: one reason, one counter, one sentence.

/// What becomes of a packet that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopVerdict {
    /// To the host's own stack, untouched.
    Pass,
    /// Dropped.
    Drop,
}

macro_rules! stops {
    (enum $stop:ident; $($(#[doc = $meaning:literal])+ $name:ident $text:literal $verdict:ident,)+) => {
        /// A reason. The number is its index in the counters' map.
        #[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
        #[repr(u8)]
        pub enum $stop {
            $($(#[doc = $meaning])+ $name,)+
        }

        impl $stop {
            /// How many reasons there are.
            pub const COUNT: usize = Self::ALL.len();

            /// All reasons, in the order of their numbers.
            pub const ALL: &[Self] = &[$(Self::$name,)+];

            /// The name in CLI, API and metrics.
            pub const fn name(self) -> &'static str {
                match self { $(Self::$name => $text,)+ }
            }

            /// What it means, for an operator.
            pub const fn meaning(self) -> &'static str {
                match self { $(Self::$name => concat!($($meaning,)+),)+ }
            }

            /// What becomes of the packet.
            #[inline(always)]
            pub const fn verdict(self) -> $crate::stop::StopVerdict {
                match self { $(Self::$name => $crate::stop::StopVerdict::$verdict,)+ }
            }
        }
    };
}
pub(crate) use stops;

stops! {
    enum Stop;
    /// Not addressed to a listener and no packet of a flow; passed on untouched and not counted.
    NotOurs "not_ours" Pass,
    /// Addressed to a VIP with a protocol header that is cut short or contradicts itself.
    Malformed "malformed" Drop,
    /// A fragment addressed to a VIP; fragments carry no ports and are not followed yet.
    Fragment "fragment" Drop,
    /// ICMP addressed to a VIP; left to the host's stack, which answers echo if it owns the VIP.
    Icmp "icmp" Pass,
    /// The listener's target group has no target that takes new flows.
    NoTarget "no_target" Drop,
    /// The index names a listener without a record: a fault of the daemon.
    UnwrittenListener "unwritten_listener" Drop,
    /// A ring or a flow names a target without a record: a fault of the daemon.
    UnwrittenTarget "unwritten_target" Drop,
    /// Both buckets of a new translated flow are full of live flows; it cannot be translated back.
    FlowTableFull "flow_table_full" Drop,
    /// The TTL or hop limit would reach zero here.
    TtlExpired "ttl_expired" Drop,
    /// The packet is larger than the next hop's MTU.
    TooBig "too_big" Drop,
    /// The kernel has no route to the target or the client, or the route forbids it, or leads through a VLAN inside of another.
    NoRoute "no_route" Drop,
    /// IP forwarding is off on the interface, so the kernel's routes cannot be asked.
    ForwardingOff "forwarding_off" Drop,
    /// The next hop's MAC address is not known yet; the daemon was asked to have it resolved.
    NeighbourUnknown "neighbour_unknown" Drop,
    /// The target of a dsr-l2 group is behind a router, where a MAC address cannot reach it.
    NotOnLink "not_on_link" Drop,
    /// The driver leaves too little room around the packet for the headers that it needs.
    NoRoom "no_room" Drop,
    /// A stage of the packet program is not in its place: a fault of the daemon.
    MissingStage "missing_stage" Drop,
    /// No free port of the pool was found for a new flow to its target (NLB: PortAllocationErrorCount).
    PortAllocationError "port_allocation_error" Drop,
    /// A target is a client of itself, and there is no pool (node.snat_addresses) that could tell both apart.
    HairpinWithoutPool "hairpin_without_pool" Drop,
    /// The client's port has a flow to the same target through another listener, and there is no pool (node.snat_addresses) to tell both apart.
    CollisionWithoutPool "collision_without_pool" Drop,
    /// An RST of no remembered flow to a target that would have to see a source of ours.
    ResetWithoutFlow "reset_without_flow" Drop,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_stop_is_found_under_its_own_number_and_has_a_name_of_its_own() {
        for (index, stop) in Stop::ALL.iter().enumerate() {
            assert_eq!(*stop as usize, index);
            assert!(stop.meaning().ends_with('.'));
            assert!(
                Stop::ALL[..index]
                    .iter()
                    .all(|other| other.name() != stop.name())
            );
        }
    }
}
