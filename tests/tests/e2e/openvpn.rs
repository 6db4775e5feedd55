//! A real OpenVPN server and client in network namespaces: the user that `add_vpn_user`
//! made gets a tunnel and a ping through it; after `delete_vpn_user` the live session is
//! gone and can't come back.

use std::fs;
use std::io::Error;
use std::time::Duration;

use serde_json::json;
use viworks_tests::cluster::{Cluster, write_secret};
use viworks_tests::gateway::Setup;
use viworks_tests::netns::Wire;
use viworks_tests::pki::Ca;
use viworks_tests::program::eventually;

use crate::Result;

const SOON: Duration = Duration::from_secs(40);

#[test]
fn a_tunnel_stands_until_its_user_is_deleted() -> Result {
    stands_until_deleted(false)
}

#[test]
fn a_gateway_without_rights_opens_tunnels_by_its_broker() -> Result {
    stands_until_deleted(true)
}

fn stands_until_deleted(brokered: bool) -> Result {
    let cluster = Cluster::start()?;
    cluster.publish("vpn")?;
    let site = Ca::new("vpn site").map_err(Error::other)?;
    let server = site.server().map_err(Error::other)?;
    let dir = cluster.path("openvpn");
    fs::create_dir_all(dir.join("database"))?;
    let at = |name: &str| dir.join(name).display().to_string();
    fs::write(at("ca.pem"), site.cert_pem())?;
    fs::write(at("server.pem"), &server.cert_pem)?;
    write_secret(at("ca.key").as_ref(), &site.key_pem())?;
    write_secret(at("server.key").as_ref(), &server.key_pem)?;

    let mut setup = Setup::new(&cluster, "vpn-01")?;
    setup.brokered = brokered;
    setup.providers = format!(
        "[providers.vpn.openvpn]\nca_cert = {:?}\nca_key = {:?}\ncrl_file = {:?}\ndatabase = {:?}\n\
         remote_host = \"192.0.2.1\"\nmanagement = \"unix:{}\"\n",
        at("ca.pem"),
        at("ca.key"),
        at("crl.pem"),
        at("database"),
        at("management.sock"),
    );
    let _gateway = setup.start(&cluster)?;
    cluster.ready("vpn-01", 1)?;

    let ada = json!({"name": "ada"});
    let (plan, planned) = cluster.plan("vpn-01", "add_vpn_user", &ada)?;
    assert_eq!(planned["effects"][0]["state"], "planned", "{planned}");
    let issued = fs::read_dir(at("database"))?.count();
    assert!(issued == 0 && !dir.join("crl.pem").exists(), "a plan issues nothing");
    let (_, added) = cluster.apply("vpn-01", "add_vpn_user", &ada, &plan)?;
    assert_eq!(added["state"], "succeeded", "{added}");
    let profile = added["result"]["configuration"].as_str().unwrap_or_default();
    write_secret(at("ada.ovpn").as_ref(), profile)?;

    let wire = Wire::new("ov")?;
    let server_conf = format!(
        "dev tun\nproto udp\nport 1194\ntopology subnet\nserver 198.51.100.0 255.255.255.0\nca {}\ncert {}\nkey {}\n\
         dh none\ncrl-verify {}\nmanagement {} unix\nkeepalive 1 4\nverb 3\n",
        at("ca.pem"),
        at("server.pem"),
        at("server.key"),
        at("crl.pem"),
        at("management.sock"),
    );
    fs::write(at("server.conf"), server_conf)?;
    let openvpn = |config: &str| ["openvpn".to_owned(), "--config".to_owned(), at(config)];
    let start = |ns: &str, config: &str, log: &str| {
        let args = openvpn(config);
        wire.start(ns, &args.iter().map(String::as_str).collect::<Vec<_>>(), log.as_ref())
    };
    let _server = start(&wire.left, "server.conf", &at("server.log"))?;
    eventually("the server's management socket", SOON, || Ok(dir.join("management.sock").exists().then_some(())))?;
    let mut client = start(&wire.right, "ada.ovpn", &at("client.log"))?;
    eventually("a ping through the tunnel", SOON, || wire.ping(&wire.right, "198.51.100.1").map(Some))?;

    let (plan, _) = cluster.plan("vpn-01", "delete_vpn_user", &ada)?;
    let (command, deleted) = cluster.apply("vpn-01", "delete_vpn_user", &ada, &plan)?;
    assert_eq!(deleted["state"], "succeeded", "{deleted}");
    eventually("the live session is gone", SOON, || Ok(wire.ping(&wire.right, "198.51.100.1").is_err().then_some(())))?;
    // The client tries again and again, and is refused each time.
    client.kill()?;
    let _again = start(&wire.right, "ada.ovpn", &at("client-again.log"))?;
    eventually("the server refuses the revoked certificate", SOON, || {
        let log = fs::read_to_string(at("server.log"))?;
        Ok((log.contains("certificate revoked") || log.contains("VERIFY ERROR")).then_some(()))
    })?;
    assert!(wire.ping(&wire.right, "198.51.100.1").is_err(), "a revoked user has a tunnel");
    let listed = cluster.run("vpn-01", "list_vpn_users", &json!({}))?;
    assert_eq!(listed["result"], json!([]), "{listed}");

    // Undone, the same certificate is let in again.
    let undone = cluster.undo(&command, "apply")?;
    assert_eq!(undone["effects"][0]["kind"], "vpn.restore-peer", "{undone}");
    let _restored = start(&wire.right, "ada.ovpn", &at("client-restored.log"))?;
    eventually("a ping with the same certificate", SOON, || wire.ping(&wire.right, "198.51.100.1").map(Some))?;
    Ok(())
}
