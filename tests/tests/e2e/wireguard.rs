//! A real WireGuard server (`wireguard-go`: no kernel module is needed) and client in
//! network namespaces: a peer gets through as soon as it is added, live, and no more once
//! it is deleted.

use std::fs;
use std::io::Error;
use std::path::Path;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::{Cluster, write_secret};
use viworks_tests::gateway::Setup;
use viworks_tests::netns::Wire;
use viworks_tests::program::{eventually, run};

use crate::Result;

const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_peer_gets_through_until_it_is_deleted() -> Result {
    through_until_deleted(false)
}

#[test]
fn a_gateway_without_rights_adds_peers_by_its_broker() -> Result {
    through_until_deleted(true)
}

fn through_until_deleted(brokered: bool) -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("vpn")?;
    let wire = Wire::new("wg")?;
    // Its sockets are shared by all namespaces: the names must be this process's own.
    let (server, client) = (format!("viws{}", std::process::id()), format!("viwc{}", std::process::id()));
    let key = run(Path::new("/usr/bin/wg"), ["genkey"])?;
    let conf = cluster.path("wg.conf");
    write_secret(
        &conf,
        &format!("# the site's own\n[Interface]\nAddress = 198.51.100.1/24\nListenPort = 51820\nPrivateKey = {key}\n"),
    )?;

    let _server = wire.start(&wire.left, &["wireguard-go", "-f", &server], &cluster.path("wg-server.log"))?;
    let _client = wire.start(&wire.right, &["wireguard-go", "-f", &client], &cluster.path("wg-client.log"))?;
    let up = |ns: &str, name: &str| wire.run(ns, &["ip", "link", "set", name, "up"]).map(Some);
    eventually("the server's interface", SOON, || up(&wire.left, &server))?;
    eventually("the client's interface", SOON, || up(&wire.right, &client))?;
    wire.run(&wire.left, &["ip", "addr", "add", "198.51.100.1/24", "dev", &server])?;
    let stripped = cluster.path("wg-stripped.conf");
    let text: String =
        fs::read_to_string(&conf)?.lines().filter(|l| !l.starts_with("Address")).map(|l| format!("{l}\n")).collect();
    write_secret(&stripped, &text)?;
    wire.run(&wire.left, &["wg", "setconf", &server, &stripped.to_string_lossy()])?;

    let mut setup = Setup::new(&cluster, "vpn-01")?;
    setup.brokered = brokered;
    setup.providers = format!(
        "[providers.vpn.wireguard]\ninterface = {server:?}\nconfig_file = {conf:?}\nendpoint = \"192.0.2.1:51820\"\n\
         pool = \"198.51.100.0/24\"\nallowed_ips = [\"198.51.100.0/24\"]\n"
    );
    // The gateway shares the server's network, as on a real host; its link goes by the
    // loopback of the machine, which a namespace does not have: it runs outside, and wg's
    // sockets are files.
    let _gateway = setup.start(&cluster)?;
    cluster.ready("vpn-01", 1)?;

    // A plan shows the address and makes no key; what is applied is what it showed.
    let before = fs::read_to_string(&conf)?;
    let ada = json!({"name": "ada-phone"});
    let (plan, planned) = cluster.plan("vpn-01", "add_vpn_user", &ada)?;
    assert_eq!(planned["effects"][0]["state"], "planned", "{planned}");
    assert!(planned["result"]["configuration"].as_str().is_some_and(|c| c.contains("PrivateKey = (made when")));
    assert_eq!(fs::read_to_string(&conf)?, before, "a plan changes nothing");
    let (_, added) = cluster.apply("vpn-01", "add_vpn_user", &ada, &plan)?;
    assert_eq!(added["effects"][0]["diff"], planned["effects"][0]["diff"], "{added}");
    assert_eq!(added["state"], "succeeded", "{added}");
    assert!(added["result"]["qr_svg"].is_string() || added["result"]["qr-svg"].is_string(), "a QR code: {added}");
    let profile = added["result"]["configuration"].as_str().unwrap_or_default();
    let address = profile
        .lines()
        .find_map(|line| line.strip_prefix("Address = "))
        .ok_or_else(|| Error::other(format!("no address in {profile}")))?;
    let address = address.split(['/', ',']).next().unwrap_or_default();
    wire.run(&wire.right, &["ip", "addr", "add", &format!("{address}/24"), "dev", &client])?;
    let usable: String = profile
        .lines()
        .filter(|l| !l.starts_with("Address") && !l.starts_with("DNS"))
        .map(|l| format!("{l}\n"))
        .collect();
    let file = cluster.path("client.conf");
    write_secret(&file, &usable)?;
    wire.run(&wire.right, &["wg", "setconf", &client, &file.to_string_lossy()])?;
    eventually("a ping through the tunnel", SOON, || wire.ping(&wire.right, "198.51.100.1").map(Some))?;

    // Deleted and undone: the same key is let in again at the same address.
    let (plan, _) = cluster.plan("vpn-01", "delete_vpn_user", &ada)?;
    let (deleted, ended) = cluster.apply("vpn-01", "delete_vpn_user", &ada, &plan)?;
    assert_eq!(ended["state"], "succeeded", "{ended}");
    assert!(wire.ping(&wire.right, "198.51.100.1").is_err(), "a deleted peer gets through");
    let undone = cluster.undo(&deleted, "apply")?;
    assert_eq!(undone["effects"][0]["kind"], "vpn.restore-peer", "{undone}");
    eventually("a ping with the same key", SOON, || wire.ping(&wire.right, "198.51.100.1").map(Some))?;

    let deleted = cluster.run("vpn-01", "delete_vpn_user", &ada)?;
    assert_eq!(deleted["state"], "succeeded", "{deleted}");
    assert!(wire.ping(&wire.right, "198.51.100.1").is_err(), "a deleted peer gets through");
    let text = fs::read_to_string(&conf)?;
    assert!(text.contains("# the site's own") && !text.contains("[Peer]"), "{text}");
    Ok(())
}
