//! Every way in which a packet that is ours leaves early: one reason, one counter, one sentence.

/// What becomes of a packet that is stopped.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StopVerdict {
    /// To the host's own stack, untouched.
    Pass,
    /// Dropped.
    Drop,
    /// Answered by us, to the neighbour that it came from; the only stop that changes a packet.
    Answer,
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
                match self { $(Self::$name => concat!($($meaning,)+).trim_ascii_start(),)+ }
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
    /// A fragment of neither TCP nor UDP nor of an echo request that can be answered, addressed to a VIP.
    Fragment "fragment" Drop,
    /// ICMP addressed to a VIP that we do not act on; left to the host's stack.
    Icmp "icmp" Pass,
    /// The listener's target group has no target that takes new flows.
    NoTarget "no_target" Drop,
    /// The index names a listener without a record: a fault of the daemon.
    UnwrittenListener "unwritten_listener" Drop,
    /// A ring or a flow names a target without a record: a fault of the daemon.
    UnwrittenTarget "unwritten_target" Drop,
    /// Both buckets of a new translated flow are full of live flows; it cannot be translated back.
    FlowTableFull "flow_table_full" Drop,
    /// The TTL or hop limit would reach zero here; the sender is told (ICMP time exceeded).
    TtlExpired "ttl_expired" Drop,
    /// The packet is larger than the next hop's MTU; the sender is told (ICMP fragmentation needed,
    /// packet too big), unless it is IPv4 and may be fragmented, which nlb does not do.
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
    /// An echo request addressed to a VIP; answered from here.
    IcmpEcho "icmp_echo" Answer,
    /// An ICMP error addressed to a VIP whose quote is cut short, contradicts itself, or is not of TCP or UDP; left to the host's stack.
    IcmpUnreadable "icmp_unreadable" Pass,
    /// An ICMP error addressed to a VIP about no flow that is known here; left to the host's stack.
    IcmpUnknownFlow "icmp_unknown_flow" Pass,
    /// A fragment addressed to a VIP that came before its datagram's first one, or long after it; if the
    /// first one comes within a second, it is sent in once more.
    NoFirstFragment "no_first_fragment" Drop,
    /// A fragment addressed to a VIP that splits the TCP or UDP header (RFC 1858, RFC 8200).
    TinyFragment "tiny_fragment" Drop,
    /// A TCP segment that opens nothing and belongs to no remembered flow; dropped or, by default,
    /// answered with an RST (`tcp.stray.action`).
    Stray "stray" Drop,
    /// A TCP segment of a flow whose idle time-out has run out; dropped or, by default, answered
    /// with an RST (`tcp.idle_timeout.action`).
    IdleExpired "idle_expired" Drop,
    /// A TCP segment of a flow whose target's connections are terminated; answered with an RST.
    Terminated "terminated" Drop,
    /// An ICMP error that was not sent because there were too many in this second; counted beside
    /// the reason that the error would have told.
    ErrorLimit "error_limit" Drop,
    /// The target's group has no tunnel, or it is just being changed.
    UnwrittenTunnel "unwritten_tunnel" Drop,
    /// A TCP flow that may not begin: the load balancer's rules block its source.
    BlockedTcp "blocked_tcp" Drop,
    /// A UDP flow that may not begin: the load balancer's rules block its source.
    BlockedUdp "blocked_udp" Drop,
    /// A flow more than the listener's `limits.new_flows_per_second` lets begin.
    NewFlowLimit "new_flow_limit" Drop,
    /// A flow more than the listener's `limits.source.new_flows_per_second` lets begin from one source.
    SourceFlowLimit "source_flow_limit" Drop,
    /// A flow more than the listener's `limits.active_flows` lets be remembered.
    ActiveFlowLimit "active_flow_limit" Drop,
    /// A flow more than the listener's `limits.source.active_flows` lets be remembered of one source.
    SourceActiveLimit "source_active_limit" Drop,
    /// None of the 64 ports of the pool that a new flow tries is free towards its target: the pool is nearly used up (NLB: `PortAllocationErrorCount`).
    PortAllocationError "port_allocation_error" Drop,
    /// A target is a client of itself, and there is no pool (`node.snat_addresses`) that could tell both apart.
    HairpinWithoutPool "hairpin_without_pool" Drop,
    /// The client's port has a flow to the same target through another listener, and there is no pool (`node.snat_addresses`) to tell both apart.
    CollisionWithoutPool "collision_without_pool" Drop,
    /// An RST of no remembered flow to a target that would have to see a source of ours, or, in mode `nat`, in
    /// fragments.
    ResetWithoutFlow "reset_without_flow" Drop,
    /// The flow of the packet, whose source is translated, gave way to another while the packet was looked at.
    FlowReplaced "flow_replaced" Drop,
    /// A fragment that came before its datagram's first one, and that there was no room to keep until
    /// that comes; counted beside `no_first_fragment`.
    EarlyLimit "early_limit" Drop,
    /// An ICMP error about a tunnel's outer packet that quotes too little of the client's packet to tell the
    /// client; left to the host's stack.
    OuterErrorUnreadable "outer_error_unreadable" Pass,
    /// An ICMP error about a tunnel's outer packet of which there is nothing to tell a client; left to the
    /// host's stack.
    OuterErrorUntold "outer_error_untold" Pass,
    /// A SYN that was answered with a cookie (`syn_cookies`); its flow begins when the cookie comes back.
    SynCookie "syn_cookie" Answer,
    /// A SYN that was to be answered with a cookie, which this kernel does not make (`CONFIG_SYN_COOKIES`).
    SynCookieUnavailable "syn_cookie_unavailable" Drop,
    /// A target's segment for a connection that began with a SYN cookie and that the target has not
    /// accepted, such as one of an older connection; the target is answered with an RST.
    Unaccepted "unaccepted" Drop,
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
