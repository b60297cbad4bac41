//! Capabilities: four while the data plane is loaded, three while the daemon runs.

use rustix::thread::{
    CapabilitiesSecureBits, CapabilitySet, CapabilitySets, capabilities,
    remove_capability_from_bounding_set, set_capabilities, set_capabilities_secure_bits,
};

use super::PrivilegesError;

/// What the daemon needs while it runs: maps and their pins, links and neighbours, and raw sockets
/// for the ends of expired connections.
const RUNNING: CapabilitySet = CapabilitySet::BPF
    .union(CapabilitySet::NET_ADMIN)
    .union(CapabilitySet::NET_RAW);

/// And while it starts: the verifier lets only PERFMON compute with packet pointers as we do.
const STARTING: CapabilitySet = RUNNING.union(CapabilitySet::PERFMON);

/// Keeps what the start takes, for this process and whatever it executes.
pub(super) fn narrow() -> Result<(), PrivilegesError> {
    let now = capabilities(None).map_err(PrivilegesError::because("read capabilities"))?;
    if now.effective.contains(CapabilitySet::SETPCAP) {
        // Root that executes something would get everything that the bounding set has.
        for capability in CapabilitySet::all().difference(STARTING).iter() {
            match remove_capability_from_bounding_set(capability) {
                // A capability that this kernel does not know.
                Ok(()) | Err(rustix::io::Errno::INVAL) => {}
                Err(error) => {
                    return Err(PrivilegesError::because("narrow the bounding set")(error));
                }
            }
        }
        set_capabilities_secure_bits(
            CapabilitiesSecureBits::NO_ROOT | CapabilitiesSecureBits::NO_ROOT_LOCKED,
        )
        .map_err(PrivilegesError::because("take capabilities from root"))?;
    }
    keep(now, STARTING)
}

/// Keeps what the loop takes.
pub(super) fn settle() -> Result<(), PrivilegesError> {
    let now = capabilities(None).map_err(PrivilegesError::because("read capabilities"))?;
    keep(now, RUNNING)
}

/// Keeps these, as far as they are there.
fn keep(now: CapabilitySets, these: CapabilitySet) -> Result<(), PrivilegesError> {
    let kept = now.permitted.intersection(these);
    set_capabilities(
        None,
        CapabilitySets {
            effective: kept,
            permitted: kept,
            inheritable: CapabilitySet::empty(),
        },
    )
    .map_err(PrivilegesError::because("give capabilities up"))
}
