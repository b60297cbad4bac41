//! What is wrong: the first half of a fault's message, one variant for each kind of mistake.

use std::io;

use super::{
    desired::{IpVersion, Mode, Protocol},
    schema::seconds,
};

/// The shape of a TOML value, for messages.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum Shape {
    /// A string.
    #[error("a string")]
    Text,
    /// An integer.
    #[error("a whole number")]
    Whole,
    /// A float, or either kind of number where both are taken.
    #[error("a number")]
    Number,
    /// A boolean.
    #[error("a boolean")]
    Switch,
    /// A date or time.
    #[error("a date")]
    Date,
    /// An array.
    #[error("a list")]
    List,
    /// A table.
    #[error("a table")]
    Table,
}

/// What is wrong. Each variant reads on after the value as written.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Problem {
    // The file as a whole.
    /// The file could not be read.
    #[error("cannot be read: {0}")]
    Unreadable(io::ErrorKind),
    /// The file is not UTF-8 from here on.
    #[error("is not UTF-8 text from here on")]
    NotText,
    /// Not TOML; the words are the TOML parser's.
    #[error("is not TOML: {0}")]
    Syntax(String),

    // Keys and shapes.
    /// A key that means nothing in this table.
    #[error("is not a known key")]
    UnknownKey,
    /// A required key or table is absent.
    #[error("is missing")]
    Missing,
    /// A value of another shape.
    #[error("is {found} where {wanted} belongs")]
    WrongShape {
        /// The shape as written.
        found: Shape,
        /// The shape that belongs here.
        wanted: Shape,
    },
    /// `[x]` for `[[x]]`.
    #[error("is a single table, but there may be several")]
    SingleTable,
    /// A number outside its range.
    #[error("is out of range")]
    OutOfRange,
    /// A word that means nothing here.
    #[error("is not one of the known words")]
    UnknownWord,
    /// A planned word or key.
    #[error("is not supported yet")]
    NotYet,
    /// `preserve_client_ip.enabled = false` in another mode.
    #[error("needs the mode `full-nat`")]
    NeedsFullNat,
    /// `preserve_client_ip.enabled = true` in mode `full-nat`.
    #[error("cannot be with the mode `full-nat`, in which targets see an address of this node")]
    FullNatHidesClients,
    /// More addresses than have a number.
    #[error("is the 32nd of its IP version, and the pool takes 31")]
    TooManySources,
    /// A target that is an address of the pool.
    #[error("is itself one of node.snat_addresses")]
    TargetIsSource,
    /// A `full-nat` group without a pool.
    #[error("needs an {version} address in node.snat_addresses, which targets will see")]
    NoSourceOfVersion {
        /// The group's IP version.
        version: super::IpVersion,
    },
    /// Nothing in a list that must not be empty.
    #[error("is empty")]
    Empty,

    // Tags.
    /// More tags than NLB takes.
    #[error("has {0} tags, and a resource takes 50")]
    TooManyTags(usize),
    /// A key that NLB does not take.
    #[error("is not the key of a tag")]
    TagKey,
    /// A value that NLB does not take.
    #[error("is not the value of a tag")]
    TagValue,

    // Names and paths.
    /// A name with a character NLB does not take.
    #[error("has the character {0:?}, which a name cannot have")]
    NameCharacter(char),
    /// A name longer than 32 characters.
    #[error("is {0} characters long")]
    NameLength(usize),
    /// A name that begins or ends with `-`.
    #[error("begins or ends with `-`")]
    NameHyphen,
    /// A name that begins with `internal-`.
    #[error("begins with `internal-`, which NLB keeps to itself")]
    NameInternal,
    /// A name that is already taken.
    #[error("is already the name of another {kind} (line {line})")]
    NameTaken {
        /// `load balancer` or `target group`.
        kind: &'static str,
        /// Line of the first.
        line: usize,
    },
    /// A name no Linux interface can have.
    #[error("cannot be the name of a network interface")]
    InterfaceName,
    /// A role that nobody has.
    #[error("names neither users, groups nor certificates")]
    RoleOfNobody,
    /// A word that no certificate has for a name.
    #[error("is not the name of a client's certificate")]
    CertificateName,
    /// Not an address with a port.
    #[error("is not an IP address with a port")]
    NotSocketAddress,
    /// A word that is like no action.
    #[error("is like no action")]
    ActionForm,
    /// A condition without a value.
    #[error("is no condition on a tag")]
    TagForm,
    /// A name no user has.
    #[error("cannot be the name of a user")]
    UserName,
    /// An interface listed again.
    #[error("is listed twice (line {line})")]
    ListedTwice {
        /// Line of the first.
        line: usize,
    },
    /// A path that depends on a working directory.
    #[error("is not an absolute path")]
    RelativePath,
    /// Neither a path nor an address with a port.
    #[error("is neither an absolute path nor an address with a port")]
    NoEndpoint,
    /// A socket path that does not fit `sockaddr_un`.
    #[error("is {0} bytes long, and the kernel takes at most 107 for a socket")]
    SocketPathLength(usize),

    // The hash key.
    /// Both ways of giving the key.
    #[error("is given as well as `hash_key_file`")]
    TwoHashKeys,
    /// Not 64 digits.
    #[error("has {0} characters (the value is not shown)")]
    HashKeyLength(usize),
    /// Not hexadecimal.
    #[error("has a character that is not a hexadecimal digit (the value is not shown)")]
    HashKeyDigit,

    // Sizes.
    /// A number of flows that is not a power of two.
    #[error("is not a power of two")]
    NotPowerOfTwo,
    /// More than a map will hold.
    #[error("is less than the {needed} {what} of this file")]
    CapacityExceeded {
        /// How many the file needs.
        needed: usize,
        /// Of what.
        what: &'static str,
    },

    // Addresses.
    /// Not an address at all.
    #[error("is not an IP address")]
    NotAddress,
    /// A name where an address belongs.
    #[error("is a host name, and names are not looked up")]
    HostName,
    /// `10.0.0.1:80`.
    #[error("has a port")]
    AddressWithPort,
    /// `10.0.0.0/24`.
    #[error("has a prefix length")]
    AddressWithPrefix,
    /// `fe80::1%eth0`.
    #[error("has a zone")]
    AddressWithZone,
    /// An address that cannot be a VIP or a target.
    #[error("is {0}")]
    AddressClass(AddressClass),
    /// An address that another load balancer, or the same one, has already.
    #[error("is already an address of load balancer {owner:?} (line {line})")]
    AddressTaken {
        /// The load balancer that has it.
        owner: String,
        /// Line of the first.
        line: usize,
    },
    /// A target that would be the balancer itself.
    #[error("is itself an address of load balancer {owner:?} (line {line}), so flows would loop")]
    TargetIsVip {
        /// The load balancer that has it.
        owner: String,
        /// Line of it.
        line: usize,
    },
    /// A target of the other IP version.
    #[error("is {found}, while the group's first target (line {line}) is {wanted}")]
    MixedVersions {
        /// Its IP version.
        found: super::IpVersion,
        /// The group's.
        wanted: super::IpVersion,
        /// Line of the first target.
        line: usize,
    },
    /// The same address and port again.
    #[error("with port {port} is already a target of this group (line {line})")]
    TargetTwice {
        /// The port of both.
        port: u16,
        /// Line of the first.
        line: usize,
    },

    // Source rules and limits.
    /// Neither an address nor a prefix.
    #[error("is not an IP address or prefix")]
    NotPrefix,
    /// A prefix longer than an address.
    #[error("has no prefix length from 0 to {most}")]
    PrefixLength {
        /// Bits of an address.
        most: u8,
    },
    /// Bits behind the prefix.
    #[error("has bits behind its prefix")]
    PrefixBits,
    /// A range of ports without its beginning.
    #[error("is set without `from_port`")]
    ToPortAlone,
    /// A range of ports that ends before it begins.
    #[error("is below the `from_port` of {from}")]
    PortsBackwards {
        /// Its first port.
        from: u16,
    },
    /// Forwarding without an entry where there is a way back to be found.
    #[error(
        "needs a target group that does not translate: answers of `nat` find back by the flow's entry"
    )]
    UnpinnedNat,

    // Listeners.
    /// Both ways of naming groups.
    #[error("is given as well as `target_group`")]
    TwoForwards,
    /// More groups than NLB takes.
    #[error("names {0} groups")]
    TooManyGroups(usize),
    /// A group again.
    #[error("is already a group of this listener (line {line})")]
    GroupTwice {
        /// Line of the first.
        line: usize,
    },
    /// No group takes flows.
    #[error("has weights of 0 only, so that no group would take flows")]
    NoGroupWeight,
    /// A group that is not like the listener's first.
    #[error("has {found}, while the listener's first group (line {line}) has {wanted}")]
    GroupsDiffer {
        /// What it has.
        found: GroupTrait,
        /// What the first has.
        wanted: GroupTrait,
        /// Line of the first.
        line: usize,
    },
    /// A hash that a UDP listener cannot use.
    #[error("is set on a {0} listener, whose packets have no sequence number")]
    SequenceOfUdp(Protocol),
    /// No such group.
    #[error("is not a target group of this file")]
    UnknownGroup,
    /// A group that cannot serve the listener.
    #[error("is a {group} group, which a {listener} listener cannot use")]
    ProtocolMismatch {
        /// The listener's protocol.
        listener: Protocol,
        /// The group's protocol.
        group: Protocol,
    },
    /// A group of another load balancer.
    #[error("is already used by load balancer {owner:?} (line {line})")]
    GroupOfAnother {
        /// The load balancer that uses it first.
        owner: String,
        /// Line of that use.
        line: usize,
    },
    /// No address of the version of the group.
    #[error("has {version} targets, but its load balancer has no {version} address")]
    NoAddressOfVersion {
        /// The group's IP version.
        version: super::IpVersion,
    },
    /// Two listeners for the same packets.
    #[error("is already listened on with {protocol} at {address} (line {line})")]
    ListenerTaken {
        /// Protocol of the first.
        protocol: Protocol,
        /// An address both would answer on.
        address: std::net::IpAddr,
        /// Line of the first.
        line: usize,
    },
    /// A timeout of the other protocol.
    #[error("is set on a {0} listener, where it means nothing")]
    TimeoutOfOther(Protocol),
    /// Telling targets that answer past us.
    #[error("tells both ends, and targets of mode \"{0}\" answer past this node")]
    ResetAtExpiryOf(Mode),
    /// `pinning = "on_change"` with a group that translates.
    #[error("needs groups of a `dsr-…` mode: answers of `{0}` find back by the flow's entry")]
    OnChangeOf(Mode),
    /// `pinning = "on_change"` with QUIC.
    #[error("cannot be with {0}: a connection ID may lead past the ring")]
    OnChangeOfQuic(Protocol),
    /// `pinning = "on_change"` with a hash that later packets cannot repeat.
    #[error(
        "cannot be with hash = \"five_tuple_and_sequence\", which only the first packet of a flow has"
    )]
    OnChangeWithSequence,
    /// `pinning = "on_change"` with something that takes an entry for every flow.
    #[error("cannot be with {0}, which takes an entry for every flow")]
    OnChangeWith(&'static str),
    /// `tcp.syn_cookies` with a group whose answers take another way.
    #[error("needs groups of mode \"nat\": in mode \"{0}\" no connection begins with us")]
    CookiesOf(Mode),
    /// `tcp.syn_cookies` with something that goes past it.
    #[error("cannot be with {0}")]
    CookiesWith(&'static str),
    /// A number of SYNs that decides nothing.
    #[error("is set, but decides nothing where `tcp.syn_cookies` is not \"under_attack\"")]
    CookiesAbove,

    // Target groups.
    /// A draining interval that connection termination leaves no room for.
    #[error("is set, but the flows of an unhealthy target end at once")]
    DrainingOfTerminated,
    /// A slow start too short to be one.
    #[error("is shorter than the 30 seconds that slow start takes at least")]
    SlowStartShort,
    /// A threshold of `dns_failover` below that of `unhealthy_state_routing`.
    #[error("is below the {0} of `unhealthy_state_routing`")]
    BelowRouting(u64),
    /// A QUIC key in a group without QUIC.
    #[error("is set in a {0} group, where it means nothing")]
    QuicOfOther(Protocol),
    /// Stickiness in a QUIC group.
    #[error("is set in a QUIC group, whose connections stay with their target by themselves")]
    StickyQuic,
    /// A server ID that does not fit into its connection ID.
    #[error("does not fit: the server ID ends at byte {end} of connection IDs of {length} bytes")]
    ServerIdBeyondId {
        /// Where the server's number ends.
        end: u64,
        /// How long a connection ID is.
        length: u64,
    },
    /// Not a server ID.
    #[error("is not `0x` and {0} hexadecimal digits")]
    ServerIdForm(u8),
    /// A server ID again.
    #[error("is already the server ID of another target (line {line})")]
    ServerIdTwice {
        /// Line of the first.
        line: usize,
    },
    /// `dsr-l2` with two ports.
    /// A DSR mode with two ports.
    #[error(
        "differs from port {listener_port} of listener \"{listener}\", and {mode} cannot change \
         the port"
    )]
    DsrPort {
        /// The mode.
        mode: Mode,
        /// The listener.
        listener: String,
        /// Its port.
        listener_port: u16,
    },
    /// A tunnel's key where there is no such tunnel.
    #[error("is set, but means nothing in the mode {0}")]
    TunnelOfOther(Mode),
    /// No outer source.
    #[error(
        "wraps packets to {0} targets, and this node has no {0} address for the outer packets to \
         come from"
    )]
    NoTunnelSource(IpVersion),
    /// Not an address with or without a prefix length.
    #[error("is not an {0} address, alone or with a prefix length")]
    NotTunnelSource(IpVersion),
    /// A prefix of which the flow's hash cannot fill the rest.
    #[error("has a prefix length outside {min} to {max}")]
    TunnelPrefix {
        /// Shortest.
        min: u8,
        /// Longest.
        max: u8,
    },
    /// A key of another kind of check.
    #[error("is set, but the health check's protocol is {0}")]
    KeyOfOtherCheck(String),
    /// A check through the data path of a mode that leaves no VIP in packets.
    #[error(
        "is \"data_path\", but targets in the mode {0} are reached at their own address, which \
         \"route\" checks"
    )]
    DataPathOfMode(Mode),
    /// A port for a check that goes to listeners' ports.
    #[error("is set, but a check through the data path goes to the listeners' ports")]
    PortOfDataPath,
    /// A COMMAND check without a command.
    #[error("is COMMAND, but there is no `command`")]
    NoCommand,
    /// What cannot be a host name.
    #[error("is not a host name")]
    NotHostName,
    /// An odd number of digits, or something else behind `0x`.
    #[error("begins with `0x`, but is not two hexadecimal digits for each byte")]
    NotHexadecimal,
    /// A payload that does not fit.
    #[error("is {0} bytes long")]
    PayloadLength(usize),
    /// A path without `/`.
    #[error("does not begin with `/`")]
    PathStart,
    /// A path with a character a request line cannot carry.
    #[error("has the character {0:?}, which a request line cannot carry")]
    PathCharacter(char),
    /// A path longer than 1024 characters.
    #[error("is {0} characters long")]
    PathLength(usize),
    /// A timeout longer than the interval.
    #[error("is longer than the interval of {} seconds", seconds(*.interval_millis))]
    TimeoutAboveInterval {
        /// The interval.
        interval_millis: u64,
    },
    /// A part of a matcher that is neither a number nor a range.
    #[error("has the part {0:?}, which is neither a status nor a range of statuses")]
    MatcherPart(String),
    /// A status outside 200 to 599.
    #[error("has the status {0}, which is outside 200 to 599")]
    MatcherStatus(u16),
    /// A range that ends before it begins.
    #[error("has the range {first}-{last}, which ends before it begins")]
    MatcherBackwards {
        /// Its first status.
        first: u16,
        /// Its last status.
        last: u16,
    },
}

/// In what the groups of one listener must be alike.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum GroupTrait {
    /// Their protocol.
    #[error("the protocol {0}")]
    Protocol(Protocol),
    /// The IP version of their targets.
    #[error("{0} targets")]
    Version(super::IpVersion),
    /// How connection IDs are read.
    #[error(
        "connection IDs of {id_bytes} bytes with a server ID of {server_id_bytes} behind {offset_bytes}"
    )]
    ConnectionIds {
        /// Bytes of an ID.
        id_bytes: u8,
        /// Bytes in front of the server's number.
        offset_bytes: u8,
        /// Bytes of the server's number.
        server_id_bytes: u8,
    },
    /// `stickiness.enabled = true`.
    #[error("stickiness")]
    Stickiness,
    /// `stickiness.enabled = false`.
    #[error("no stickiness")]
    NoStickiness,
}

/// Classes of addresses that cannot be used.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum AddressClass {
    /// `0.0.0.0/8`, `::`.
    #[error("an unspecified address")]
    Unspecified,
    /// `127.0.0.0/8`, `::1`.
    #[error("a loopback address")]
    Loopback,
    /// `224.0.0.0/4`, `ff00::/8`.
    #[error("a multicast address")]
    Multicast,
    /// `255.255.255.255`.
    #[error("the broadcast address")]
    Broadcast,
    /// `169.254.0.0/16`, `fe80::/10`.
    #[error("a link-local address")]
    LinkLocal,
    /// `::ffff:0:0/96`.
    #[error("an IPv4 address inside an IPv6 address")]
    V4Mapped,
}
