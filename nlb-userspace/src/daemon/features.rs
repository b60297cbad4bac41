//! What a configuration wants of the program that only its loading can give, and what it does not get
//! because the maps were there before.

use crate::{
    config::{Desired, SynCookies},
    dataplane::load::{Features, Loaded},
};

/// What a configuration wants.
pub(super) fn wanted(desired: &Desired) -> Features {
    let any = |is: fn(&crate::config::Listener) -> bool| {
        let balancers = desired.load_balancers.iter();
        balancers.flat_map(|balancer| &balancer.listeners).any(is)
    };
    Features {
        translates_sources: !desired.node.snat_addresses.is_empty(),
        pins_on_change: any(|listener| listener.pins_on_change),
        makes_cookies: any(|listener| listener.tcp_syn_cookies != SynCookies::Off),
    }
}

/// Tells the operator what takes effect only with new maps.
pub(super) fn warn_of_what_is_kept(loaded: &Loaded, wanted: Features) {
    for size in &loaded.kept_sizes {
        tracing::warn!(
            "node.capacity.{}: the pinned map has {} entries and keeps them; {} take effect after \
             `nlb detach`",
            size.key,
            size.kept,
            size.asked
        );
    }
    if wanted.translates_sources && !loaded.features.translates_sources {
        tracing::error!(
            "node.snat_addresses: the pinned maps were made without a pool and have no room for \
             translated sources: no flow can have one until `nlb detach` and a new start"
        );
    }
    if wanted.makes_cookies && !loaded.features.makes_cookies {
        tracing::error!(
            "load_balancer.listener.tcp.syn_cookies: the pinned maps were made without such a \
             listener and have no room for its flows: no SYN is answered with a cookie until \
             `nlb detach` and a new start"
        );
    }
}
