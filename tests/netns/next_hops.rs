//! Targets that move.

use anyhow::Result;
use nlb_tests::lab::wait::wait_until;

use super::{
    SOON, ask_http, connection_to, http_vips, is_host, targets, text, who_answers, with_nlb,
};

#[test]
fn a_targets_new_mac_address_is_followed() -> Result<()> {
    with_nlb("new_mac", |lab, daemon| {
        let mut kept = Vec::new();
        for vip in http_vips() {
            kept.push((vip, connection_to(lab, vip, "target1")?));
        }
        let target = &lab.target(0).host;
        // As after a failover: the host announces its new address.
        target.sysctl(&[
            "ipv4/conf/eth0/arp_notify=1",
            "ipv6/conf/eth0/ndisc_notify=1",
        ])?;
        let mac = "02:00:00:00:00:99";
        target.run(&format!("ip link set eth0 address {mac}"))?;
        wait_until("status shows the new MAC", SOON, || {
            daemon.status().is_ok_and(|status| {
                targets(&status)
                    .filter(|target| is_host(&text(&target["address"]), 0))
                    .all(|target| target["next_hop"]["mac"] == mac)
            })
        })?;
        for (vip, connection) in &mut kept {
            assert_eq!(connection.get("/")?.target, "target1", "{vip}");
            let who = who_answers(|| ask_http(lab, *vip))?;
            assert!(who.contains("target1"), "{vip}: {who:?}");
        }
        Ok(())
    })
}
