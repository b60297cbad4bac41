//! Real QUIC connections whose clients move: the servers put their numbers into connection IDs, and
//! a connection goes on with its server from an address that no server has seen.

use std::{
    net::{SocketAddr, UdpSocket},
    sync::Arc,
    time::Duration,
};

use anyhow::{Context as _, Result, ensure};
use nlb_tests::lab::{
    Lab,
    addresses::{DSR_VIP_V4, NAT_VIP_V4, target_v4},
    daemon::Daemon,
};
use quinn::{
    ClientConfig, Connection, ConnectionId, ConnectionIdGenerator, Endpoint, EndpointConfig,
    ServerConfig, TokioRuntime,
    rustls::{
        RootCertStore,
        pki_types::{CertificateDer, PrivatePkcs8KeyDer},
    },
};

use super::{listeners, targets, text, wait_for_states, with_nlb};

/// Where the listener and, behind NAT, the servers are.
const PORT: u16 = 443;
const NAT_PORT: u16 = 4433;
/// The name in the servers' certificate.
const NAME: &str = "nlb.test";
/// The client's second address.
const SECOND: &str = "10.1.0.77";
/// Hosts with a server.
const SERVERS: usize = 2;
/// Connections that move: that each new endpoint's hash led to the right server by chance has a
/// probability of 2^-16.
const CONNECTIONS: usize = 16;

/// NLB's connection IDs.
#[derive(Debug)]
struct Numbered {
    server_id: u64,
    issued: u64,
}

impl ConnectionIdGenerator for Numbered {
    fn generate_cid(&mut self) -> ConnectionId {
        self.issued += 1;
        let id = [
            &[0][..],
            &self.server_id.to_be_bytes(),
            &self.issued.to_be_bytes(),
        ];
        ConnectionId::new(&id.concat())
    }

    fn cid_len(&self) -> usize {
        17
    }

    fn cid_lifetime(&self) -> Option<Duration> {
        None
    }
}

const fn server_id(index: usize) -> u64 {
    0xa100_0000_0000_0001 + ((index as u64) << 32)
}

/// What both ends know of each other.
struct Trust {
    server: ServerConfig,
    client: ClientConfig,
}

fn trust() -> Result<Trust> {
    let own = rcgen::generate_simple_self_signed(vec![NAME.to_owned()])?;
    let certificate = CertificateDer::from(own.cert);
    let key = PrivatePkcs8KeyDer::from(own.signing_key.serialize_der());
    let mut roots = RootCertStore::empty();
    roots.add(certificate.clone())?;
    Ok(Trust {
        server: ServerConfig::with_single_cert(vec![certificate], key.into())?,
        client: ClientConfig::with_root_certificates(Arc::new(roots))?,
    })
}

/// Starts a server on a target; it answers each stream with its host's name and with who asked.
fn serve(lab: &Lab, index: usize, at: SocketAddr, config: ServerConfig) -> Result<Endpoint> {
    let host = &lab.target(index).host;
    let socket = host
        .enter(|| UdpSocket::bind(at))?
        .with_context(|| format!("binding {at} on {}", host.name()))?;
    let mut endpoint = EndpointConfig::default();
    endpoint.cid_generator(move || {
        Box::new(Numbered {
            server_id: server_id(index),
            issued: 0,
        })
    });
    let endpoint = Endpoint::new(endpoint, Some(config), socket, Arc::new(TokioRuntime))?;
    let (accepting, name) = (endpoint.clone(), host.name().to_owned());
    tokio::spawn(async move {
        while let Some(incoming) = accepting.accept().await {
            let name = name.clone();
            tokio::spawn(async move {
                let connection = incoming.await?;
                answer(&connection, &name).await
            });
        }
    });
    Ok(endpoint)
}

async fn answer(connection: &Connection, name: &str) -> Result<()> {
    loop {
        let (mut send, mut receive) = connection.accept_bi().await?;
        receive.read_to_end(64).await?;
        let answer = format!("{name} {}", connection.remote_address());
        send.write_all(answer.as_bytes()).await?;
        send.finish()?;
    }
}

/// One request: who answers, and whom the server sees.
async fn ask(connection: &Connection) -> Result<(String, String)> {
    let (mut send, mut receive) = connection.open_bi().await?;
    send.write_all(b"who are you?").await?;
    send.finish()?;
    let answer = String::from_utf8(receive.read_to_end(256).await?)?;
    let (name, client) = answer.split_once(' ').context("not an answer")?;
    Ok((name.to_owned(), client.to_owned()))
}

/// A client's socket with a fresh port.
fn socket(lab: &Lab, address: &str) -> Result<UdpSocket> {
    let at = format!("{address}:0");
    lab.client()
        .enter(|| UdpSocket::bind(&at))?
        .with_context(|| format!("binding {at} on the client"))
}

fn file(mode: &str, vip: &str, protocol: &str, port: u16) -> String {
    let example = super::configuration();
    let node = example
        .split("[[load_balancer]]")
        .next()
        .unwrap_or_default();
    let targets: Vec<String> = (0..SERVERS)
        .map(|index| {
            format!(
                "[[target_group.target]]\naddress = \"{}\"\nquic_server_id = \"{:#018x}\"\n",
                target_v4(index),
                server_id(index)
            )
        })
        .collect();
    format!(
        "{node}\n[[load_balancer]]\nname = \"edge\"\naddresses = [\"{vip}\"]\n\
         [[load_balancer.listener]]\nprotocol = \"{protocol}\"\nport = {PORT}\n\
         target_group = \"h3\"\n\
         [[target_group]]\nname = \"h3\"\nprotocol = \"{protocol}\"\nport = {port}\n\
         mode = \"{mode}\"\n\
         health_check.port = 8080\nhealth_check.interval_seconds = 0.2\n\
         health_check.timeout_seconds = 0.2\nhealth_check.healthy_threshold_count = 2\n{}",
        targets.concat()
    )
}

/// Connections through a listener whose clients move to another address and port.
async fn connections_move(lab: &Lab, vip: SocketAddr, trust: &Trust) -> Result<()> {
    let mut who = std::collections::BTreeSet::new();
    for _ in 0..CONNECTIONS {
        let first = socket(lab, "10.1.0.10")?;
        let mut endpoint = Endpoint::new(
            EndpointConfig::default(),
            None,
            first,
            Arc::new(TokioRuntime),
        )?;
        endpoint.set_default_client_config(trust.client.clone());
        let connection = endpoint.connect(vip, NAME)?.await?;
        let (before, client) = ask(&connection).await?;
        ensure!(
            client == endpoint.local_addr()?.to_string(),
            "{before} saw {client}"
        );
        endpoint.rebind(socket(lab, SECOND)?)?;
        let (after, client) = ask(&connection).await?;
        ensure!(after == before, "{before} began, {after} went on");
        // The server believes a new address only after a packet of its own was answered from there.
        let (again, moved) = ask(&connection).await?;
        let now = endpoint.local_addr()?.to_string();
        ensure!(
            again == before && moved == now,
            "{again} saw {client}, then {moved}, not {now}"
        );
        connection.close(0u8.into(), b"");
        endpoint.wait_idle().await;
        who.insert(before);
    }
    ensure!(
        who.len() == SERVERS,
        "all connections went to {who:?}, which proves nothing"
    );
    Ok(())
}

fn moves(lab: &Lab, daemon: &Daemon, mode: &str, protocol: &str) -> Result<()> {
    let (vip, port) = if mode == "nat" {
        (NAT_VIP_V4, NAT_PORT)
    } else {
        (DSR_VIP_V4, PORT)
    };
    lab.write_config(&file(mode, &vip.to_string(), protocol, port))?;
    ensure!(daemon.reload()?.status.success(), "a {protocol} listener");
    wait_for_states(daemon, |_, state| state == "healthy")?;
    lab.client()
        .ip(&format!("addr add {SECOND}/24 dev eth0\n"))?;
    let trust = trust()?;
    let runtime = tokio::runtime::Builder::new_current_thread()
        .enable_all()
        .build()?;
    runtime.block_on(async {
        let mut servers = Vec::new();
        for index in 0..SERVERS {
            let address = if mode == "nat" { target_v4(index) } else { vip };
            let at = (address, port).into();
            servers.push(serve(lab, index, at, trust.server.clone())?);
        }
        connections_move(lab, (vip, PORT).into(), &trust).await
    })?;
    let status = daemon.status()?;
    let (_, listener) = listeners(&status)
        .find(|(_, listener)| text(&listener["name"]).contains("QUIC"))
        .with_context(|| format!("no QUIC listener: {status}"))?;
    for index in 0..SERVERS {
        let number = format!("{:#018x}", server_id(index));
        ensure!(
            targets(&status).any(|target| target["quic_server_id"] == number.as_str()),
            "no target {number}: {status}"
        );
    }
    // Each connection came from two endpoints.
    ensure!(
        listener["new_flows"].as_u64() >= Some(2 * CONNECTIONS as u64),
        "{listener}"
    );
    Ok(())
}

#[test]
fn a_quic_connection_behind_nat_keeps_its_server_when_its_client_moves() -> Result<()> {
    with_nlb("quic_nat", |lab, daemon| {
        moves(lab, daemon, "nat", "TCP_QUIC")
    })
}

#[test]
fn a_quic_connection_behind_dsr_keeps_its_server_when_its_client_moves() -> Result<()> {
    with_nlb("quic_dsr", |lab, daemon| {
        moves(lab, daemon, "dsr-l2", "QUIC")
    })
}
