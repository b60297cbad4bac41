//! What would be right: the second half of a fault's message.

use super::schema::seconds;

/// What would be right.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
pub enum Remedy {
    /// Name a readable file.
    #[error("give the path of a TOML file that this user may read")]
    ReadableFile,
    /// Save as UTF-8.
    #[error("save the file as UTF-8")]
    SaveAsUtf8,
    /// Mend the syntax.
    #[error("mend this first, the rest of the file is judged after that")]
    MendSyntax,
    /// The key that was probably meant, of the same table.
    #[error("did you mean `{0}`?")]
    DidYouMean(String),
    /// The key exists in another table.
    #[error("it belongs in `{0}`")]
    BelongsIn(String),
    /// The keys there are.
    #[error("known here: {}", .0.join(", "))]
    KnownHere(Vec<&'static str>),
    /// An example line.
    #[error("write `{0}`")]
    Write(String),
    /// A whole number in a range.
    #[error("write a whole number from {min} to {max}")]
    WriteWhole {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A whole number in a range, or `off`.
    #[error("write \"off\" or a whole number from {min} to {max}")]
    WriteWholeOrOff {
        /// Smallest.
        min: u64,
        /// Largest.
        max: u64,
    },
    /// A number of seconds in a range.
    #[error("write seconds from {} to {}", seconds(*.min_millis), seconds(*.max_millis))]
    WriteSeconds {
        /// Shortest, in milliseconds.
        min_millis: u64,
        /// Longest, in milliseconds.
        max_millis: u64,
    },
    /// The key of a tag.
    #[error("write 1 to 128 letters, digits, spaces and `_.:/=+-@`")]
    WriteTagKey,
    /// The value of a tag.
    #[error("write at most 256 letters, digits, spaces and `_.:/=+-@`")]
    WriteTagValue,
    /// Fewer tags.
    #[error("remove some")]
    RemoveSome,
    /// A string.
    #[error("write a string in quotes")]
    WriteText,
    /// A list of strings.
    #[error("write a list of strings, such as {0}")]
    WriteTexts(&'static str),
    /// `true` or `false`.
    #[error("write true or false")]
    WriteSwitch,
    /// One of these words.
    #[error("write {}", choice(.0))]
    WriteWord(Vec<&'static str>),
    /// A table.
    #[error("write a table, such as `[{0}]`, or keys that begin with `{0}.`")]
    WriteTable(String),
    /// `[[x]]`.
    #[error("write `[[{0}]]`")]
    WriteTables(String),
    /// A health check port.
    #[error("write \"traffic-port\" or a whole number from 1 to 65535")]
    WritePort,
    /// A valid name.
    #[error(
        "write 1 to 32 letters, digits and `-`, not first or last a `-`, and not beginning with \
         `internal-`"
    )]
    WriteName,
    /// Another name.
    #[error("give each {0} a name of its own")]
    OwnName(&'static str),
    /// A valid interface name.
    #[error("write a name as `ip link` shows it: 1 to 15 bytes without `/`, `:` and spaces")]
    WriteInterface,
    /// Users, groups or certificates.
    #[error("add `users`, `groups` or `certificates`")]
    NameUsers,
    /// A name of a certificate.
    #[error(
        "write one such as \"URI:spiffe://example.org/ops\", \"DNS:ops.example.org\" or \"CN:alice\""
    )]
    WriteCertificateName,
    /// An address with a port.
    #[error("write one such as \"192.0.2.5:8443\" or \"[2001:db8::5]:8443\"")]
    WriteSocketAddress,
    /// An action.
    #[error("write one such as \"targets:drain\", \"targets:*\" or \"*\"")]
    WriteAction,
    /// A tag and its value.
    #[error("write the tag and its value, such as \"team=web\" or \"team=*\"")]
    WriteTag,
    /// A user's name.
    #[error("write a name as `getent passwd` shows it")]
    WriteUser,
    /// Once is enough.
    #[error("list it once")]
    Once,
    /// A path from the root.
    #[error("write a path that begins with `/`")]
    WriteAbsolute,
    /// A shorter path.
    #[error("write a shorter path, such as \"/run/nlb/nlb.sock\"")]
    WriteShorterPath,
    /// One of the two.
    #[error("keep one of the two")]
    KeepOne,
    /// 64 digits.
    #[error("write 64 hexadecimal digits, as `openssl rand -hex 32` prints them")]
    WriteHashKey,
    /// The power of two next to it.
    #[error("write a power of two, such as {0}")]
    WritePowerOfTwo(u64),
    /// Raise the capacity.
    #[error("write at least {0}")]
    AtLeast(usize),
    /// One address.
    #[error("write an address such as \"192.0.2.10\" or \"2001:db8::10\"")]
    WriteAddress,
    /// Only the address.
    #[error("write only the address, \"{0}\"")]
    OnlyAddress(String),
    /// The address alone; the port has a key.
    #[error("write the address alone, \"{0}\"; a port has a key of its own")]
    PortApart(String),
    /// An address clients can reach.
    #[error("write a unicast address that clients can reach")]
    WriteVip,
    /// An address of ours.
    #[error(
        "write a unicast address that is routed to this node and that nothing else uses, no VIP \
         and no target"
    )]
    WriteSource,
    /// `mode = "full-nat"`, or no such wish.
    #[error("write `mode = \"full-nat\"`, or remove it")]
    FullNatOrRemove,
    /// A pool.
    #[error("add one, or use the mode `nat`")]
    AddSource,
    /// An address of a server.
    #[error("write the unicast address of a server")]
    WriteTarget,
    /// A prefix.
    #[error("write a prefix such as \"192.0.2.0/24\" or \"2001:db8::/32\", or an address")]
    WritePrefix,
    /// The beginning of a range of ports.
    #[error("add `from_port`")]
    AddFromPort,
    /// What works with translation, or another mode.
    #[error("write \"drop\", or use groups of a `dsr-…` mode")]
    DropOrDsr,
    /// The IPv4 form.
    #[error("write it as \"{0}\"")]
    WriteAs(std::net::IpAddr),
    /// Once in the file.
    #[error("keep it in one place")]
    OnePlace,
    /// A group for each version.
    #[error("make one target group for each IP version, and a listener for each group")]
    GroupPerVersion,
    /// Other port, or remove.
    #[error("remove one, or give it another port")]
    OtherTarget,
    /// The groups there are.
    #[error("{}", groups(.0))]
    KnownGroups(Vec<String>),
    /// The protocols that fit.
    #[error("use a {} group", or(.0))]
    UseGroup(Vec<&'static str>),
    /// One way to forward.
    #[error("write `target_group = \"web\"`, or `target_groups` for several")]
    WriteForward,
    /// At most five groups.
    #[error("write one to five groups")]
    OneToFiveGroups,
    /// A weight that takes flows.
    #[error("give at least one of them a weight of 1 to 999")]
    SomeWeight,
    /// Groups that are alike.
    #[error("use groups that are alike in this")]
    AlikeGroups,
    /// Any time that slow start may take.
    #[error("write 0, or 30 to 900")]
    WriteSlowStart,
    /// Not below a number.
    #[error("write at least {0}, or \"off\"")]
    AtLeastOrOff(u64),
    /// One group for each load balancer.
    #[error("make a target group for each load balancer; they may hold the same targets")]
    GroupPerBalancer,
    /// Add an address.
    #[error("add an address of that version, or use a group with other targets")]
    AddAddress,
    /// Another port, or another version.
    #[error(
        "use another port; listeners share one only if their groups have targets of different IP \
         versions"
    )]
    OtherPort,
    /// An action at a flow's expiry.
    #[error(
        "write \"reset\", \"silent\" or \"forward\", or use groups of mode \"nat\" or \"full-nat\""
    )]
    OtherIdleAction,
    /// Pin every flow.
    #[error("write \"always\", or leave that out")]
    Always,
    /// Pin every flow, or let targets answer themselves.
    #[error("write \"always\", or use groups of a `dsr-…` mode")]
    AlwaysOrDsr,
    /// A server ID.
    #[error("write \"0x\" and {0} hexadecimal digits, such as \"0x{example}\"", example = server_id(*.0))]
    WriteServerId(u8),
    /// A server ID that nobody has.
    #[error("give each target a number of its own")]
    OwnServerId,
    /// A server ID that fits.
    #[error(
        "make `server_id_offset_bytes` and `server_id_length_bytes` together at most `connection_id_length_bytes`"
    )]
    FitServerId,
    /// Remove the line.
    #[error("remove it")]
    Remove,
    /// Remove, or turn to a protocol that has the key.
    #[error("remove it, or make the protocol {}", choice(.0))]
    RemoveOrProtocol(Vec<&'static str>),
    /// A host name.
    #[error("write a name such as \"web.example.com\", or leave it out")]
    WriteHostName,
    /// A payload.
    #[error("write a text, or `0x` and two hexadecimal digits for each byte, such as \"0x00ff\"")]
    WritePayload,
    /// A shorter payload.
    #[error("write at most {0} bytes")]
    AtMostBytes(usize),
    /// A request path.
    #[error("write a path such as \"/healthz\", of 1 to 1024 printable ASCII characters")]
    WriteRequestPath,
    /// The listener's port, or NAT.
    #[error("write {0}, or use the mode `nat`")]
    PortOrNat(u16),
    /// A source for tunnels.
    #[error("give the node one with `{0}` in [node]")]
    NodeKey(&'static str),
    /// An address, or an address with a prefix length.
    #[error("write an address of this node, such as \"{0}\"")]
    WriteTunnelSource(&'static str),
    /// Not above the interval.
    #[error("write at most {}, or raise the interval", seconds(*.0))]
    AtMostInterval(u64),
    /// A matcher.
    #[error("write statuses from 200 to 599, such as \"200\" or \"200,202,300-399\"")]
    WriteMatcher,
}

/// An example of so many digits.
fn server_id(digits: u8) -> String {
    format!("{:0>1$}", "a1", digits.into())
}

fn quoted(words: &[&'static str]) -> Vec<String> {
    words.iter().map(|word| format!("\"{word}\"")).collect()
}

fn choice(words: &[&'static str]) -> String {
    join_or(&quoted(words))
}

fn or(words: &[&'static str]) -> String {
    join_or(
        &words
            .iter()
            .map(|word| (*word).to_owned())
            .collect::<Vec<_>>(),
    )
}

fn join_or(words: &[String]) -> String {
    match words {
        [] => String::new(),
        [one] => one.clone(),
        [first @ .., last] => format!("{} or {last}", first.join(", ")),
    }
}

fn groups(names: &[String]) -> String {
    if names.is_empty() {
        return "add a [[target_group]] of that name".to_owned();
    }
    let names: Vec<_> = names.iter().map(|name| format!("\"{name}\"")).collect();
    format!(
        "use {}, or add a [[target_group]] of that name",
        join_or(&names)
    )
}
