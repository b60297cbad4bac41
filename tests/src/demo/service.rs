//! What the example offers, and how its targets fare in `nlb status --json`.

use std::net::{IpAddr, SocketAddr};

use nlb_tests::lab::addresses::{
    DSR_VIP_V4, DSR_VIP_V6, HTTP_PORT, NAT_VIP_V4, NAT_VIP_V6, TARGETS, UDP_PORT, target_v4,
    target_v6,
};
use serde_json::Value;

/// One VIP.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Service {
    /// Its load balancer and IP version, `nat v4`.
    pub(crate) name: &'static str,
    vip: IpAddr,
}

impl Service {
    pub(crate) const fn http(self) -> SocketAddr {
        SocketAddr::new(self.vip, HTTP_PORT)
    }

    pub(crate) const fn udp(self) -> SocketAddr {
        SocketAddr::new(self.vip, UDP_PORT)
    }
}

/// All VIPs.
pub(crate) fn all() -> [Service; 4] {
    let service = |name, vip| Service { name, vip };
    [
        service("nat v4", IpAddr::V4(NAT_VIP_V4)),
        service("nat v6", IpAddr::V6(NAT_VIP_V6)),
        service("dsr v4", IpAddr::V4(DSR_VIP_V4)),
        service("dsr v6", IpAddr::V6(DSR_VIP_V6)),
    ]
}

/// One target of one group.
#[derive(Clone, Debug)]
pub(crate) struct TargetStatus {
    /// Which host it is on, from 0.
    pub(crate) host: Option<usize>,
    pub(crate) state: String,
}

/// All targets of all groups.
pub(crate) fn targets(status: &Value) -> impl Iterator<Item = TargetStatus> {
    let groups = status["target_groups"].as_array().into_iter().flatten();
    groups
        .flat_map(|group| group["targets"].as_array().into_iter().flatten())
        .map(|target| {
            let address: Option<IpAddr> = target["address"]
                .as_str()
                .and_then(|text| text.parse().ok());
            let is_on = |host: &usize| {
                address == Some(target_v4(*host).into()) || address == Some(target_v6(*host).into())
            };
            TargetStatus {
                host: (0..TARGETS).find(is_on),
                state: target["state"].as_str().unwrap_or_default().to_owned(),
            }
        })
}

/// A counter summed over the listeners of a load balancer.
pub(crate) fn listeners_sum(status: &Value, load_balancer: &str, counter: &str) -> u64 {
    let balancers = status["load_balancers"].as_array().into_iter().flatten();
    balancers
        .filter(|balancer| balancer["name"] == load_balancer)
        .flat_map(|balancer| balancer["listeners"].as_array().into_iter().flatten())
        .map(|listener| listener[counter].as_u64().unwrap_or_default())
        .sum()
}
