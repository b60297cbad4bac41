//! Real connections.
use nlb_tests::lab::{Lab, http::HttpConnection, udp::UdpClient, addresses::*};
use std::time::{Duration, Instant};

#[test]
fn by_hand() {
    let t = Instant::now();
    let lab = Lab::new("hand").unwrap();
    println!("{:?}", t.elapsed());
    let c = lab.client();
    for i in 0..3 {
        println!("{:?}", HttpConnection::from(c, (target_v4(i), 8080).into(), Duration::from_secs(1)).unwrap().get("/x").unwrap());
        println!("{:?}", HttpConnection::from(c, (target_v6(i), 8080).into(), Duration::from_secs(1)).unwrap().get("/large").unwrap());
        println!("{:?}", UdpClient::new(c, (target_v4(i), 5353).into(), Duration::from_secs(1)).unwrap().ask().unwrap());
    }
    // DSR by hand: the gateway's stack sends the VIPs to a target.
    lab.gateway().ip("route add 192.0.2.20 via 10.2.0.12\nroute add 2001:db8::20 via fd00:2::12\n").unwrap();
    let before = lab.gateway().run("cat /proc/net/dev").unwrap();
    for vip in [DSR_VIP_V4.into(), std::net::IpAddr::from(DSR_VIP_V6)] {
        println!("{:?}", HttpConnection::from(c, (vip, 80).into(), Duration::from_secs(1)).unwrap().get("/large").unwrap());
        println!("{:?}", UdpClient::new(c, (vip, 53).into(), Duration::from_secs(1)).unwrap().ask().unwrap());
    }
    println!("{before}\n{}", lab.gateway().run("cat /proc/net/dev").unwrap());
    println!("{:?}", lab.target(1).access_log().unwrap());
    println!("{}", lab.client().run("ip -d link show dev eth0").unwrap());
    println!("{}", lab.switch().run("ip link").unwrap());
    println!("{:?}", t.elapsed());
    drop(lab);
    println!("{:?}", t.elapsed());
}
