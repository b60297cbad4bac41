//! What cards do, as ethtool's netlink family says: features and queues.

use ethtool::{
    EthtoolAttr, EthtoolChannelAttr as Channel, EthtoolFeatureAttr, EthtoolFeatureBit,
    EthtoolHandle,
};
use futures_util::TryStreamExt as _;

use super::facts::Offloads;

/// Asks about an interface; what the kernel does not say stays unknown.
pub(super) async fn look(interface: &str) -> Offloads {
    let Ok((connection, mut handle, _)) = ethtool::new_connection() else {
        return Offloads::default();
    };
    let driver = tokio::spawn(connection);
    let mut offloads = features(&mut handle, interface).await.unwrap_or_default();
    queues(&mut handle, interface, &mut offloads).await;
    driver.abort();
    offloads
}

async fn features(handle: &mut EthtoolHandle, interface: &str) -> Option<Offloads> {
    let answers = handle.feature().get(Some(interface)).execute().await;
    let answers: Vec<_> = answers.ok()?.try_collect().await.ok()?;
    let attributes = answers.into_iter().flat_map(|answer| answer.payload.nlas);
    let mut offloads = None;
    for attribute in attributes {
        if let EthtoolAttr::Feature(EthtoolFeatureAttr::Active(active)) = attribute {
            offloads = Some(of(&active));
        }
    }
    offloads
}

/// Features that are on are listed, others are off.
fn of(active: &[EthtoolFeatureBit]) -> Offloads {
    let is_on = |name: &str| {
        let bit = active.iter().find(|bit| bit.name == name);
        Some(bit.is_some_and(|bit| bit.value))
    };
    let sums = [
        "tx-checksum-ip-generic",
        "tx-checksum-ipv4",
        "tx-checksum-ipv6",
    ];
    Offloads {
        gro: is_on("rx-gro"),
        lro: is_on("rx-lro"),
        tso: is_on("tx-tcp-segmentation"),
        rx_checksum: is_on("rx-checksum"),
        tx_checksum: Some(sums.into_iter().any(|name| is_on(name) == Some(true))),
        rx_vlan: is_on("rx-vlan-hw-parse"),
        ..Offloads::default()
    }
}

async fn queues(handle: &mut EthtoolHandle, interface: &str, offloads: &mut Offloads) {
    let answers = handle.channel().get(Some(interface)).execute().await;
    let Ok(answers) = answers else {
        return;
    };
    let Ok(answers) = answers.try_collect::<Vec<_>>().await else {
        return;
    };
    let (mut receive, mut combined) = ((0, 0), (0, 0));
    for attribute in answers.into_iter().flat_map(|answer| answer.payload.nlas) {
        match attribute {
            EthtoolAttr::Channel(Channel::RxCount(count)) => receive.0 = count,
            EthtoolAttr::Channel(Channel::RxMax(most)) => receive.1 = most,
            EthtoolAttr::Channel(Channel::CombinedCount(count)) => combined.0 = count,
            EthtoolAttr::Channel(Channel::CombinedMax(most)) => combined.1 = most,
            _ => {}
        }
    }
    offloads.queues_are_combined = combined.1 > 0;
    let (count, most) = if combined.1 > 0 { combined } else { receive };
    if most > 0 {
        offloads.queues = Some(count);
        offloads.most_queues = Some(most);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_not_listed_is_off() {
        let bit = |name: &str, value| EthtoolFeatureBit {
            index: 0,
            name: name.to_owned(),
            value,
        };
        let offloads = of(&[
            bit("rx-gro", true),
            bit("rx-lro", false),
            bit("tx-checksum-ipv6", true),
        ]);
        assert_eq!(offloads.gro, Some(true));
        assert_eq!((offloads.lro, offloads.tso), (Some(false), Some(false)));
        assert_eq!(offloads.tx_checksum, Some(true));
    }
}
