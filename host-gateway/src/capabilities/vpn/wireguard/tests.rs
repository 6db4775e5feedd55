//! The server's configuration under adds, removals and failures. What runs live is tested
//! beside, in `vpn/live.rs`.

use super::*;
use std::os::unix::fs::PermissionsExt;

struct Bench {
    dir: tempfile::TempDir,
    wireguard: Wireguard,
}

fn bench(more: &str, interface: &str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("wg0.conf");
    let (private, _) = key_pair().unwrap();
    std::fs::write(&path, format!("[Interface]\nPrivateKey = {}\nAddress = 10.8.0.1/29\n{more}", *private)).unwrap();
    let config = format!(
        "config_file = {path:?}\nendpoint = \"vpn.example.com:51820\"\npool = \"10.8.0.0/29\"\npool6 = \"fd00:8::/64\"\n\
         dns = [\"10.8.0.1\"]\n{interface}"
    );
    let wireguard = Wireguard::new(&toml::from_str(&config).unwrap());
    Bench { dir, wireguard }
}

const OFF: &str = "live = \"off\"";

impl Bench {
    fn text(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("wg0.conf")).unwrap()
    }

    async fn add(&self, who: &str) -> Result<(Issued, String), Failure> {
        let (_, public) = key_pair()?;
        let key = WireguardKey::try_from(public.clone()).unwrap();
        let (addresses, _) = self.wireguard.foresee_add(&name(who), &key, Vec::new(), &[]).await?;
        Ok((self.wireguard.add(&name(who), &key, &addresses).await?, public))
    }
}

fn name(text: &str) -> PeerName {
    PeerName::try_from(text.to_owned()).unwrap()
}

#[tokio::test]
async fn a_peer_is_added_listed_removed_and_restored() {
    let bench = bench(
        "\n# Eve\n[Peer]\nPublicKey = AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\nAllowedIPs = 10.8.0.2/32\n",
        OFF,
    );
    let before = bench.text();
    let (issued, key) = bench.add("road-1").await.unwrap();
    assert_eq!(issued.peer.address.as_deref(), Some("10.8.0.3/32, fd00:8::2/128"), "the lowest that is free");
    assert_eq!(issued.peer.identity, key);
    for line in [
        "DNS = 10.8.0.1",
        "Endpoint = vpn.example.com:51820",
        "AllowedIPs = 0.0.0.0/0, ::/0",
        "PersistentKeepalive = 25",
    ] {
        assert!(issued.template.lines().any(|l| l == line), "{line}: {}", issued.template);
    }
    assert_eq!(issued.template.matches(PRIVATE_KEY_LINE).count(), 1);
    assert!(bench.text().starts_with(&before));
    let mode = std::fs::metadata(bench.dir.path().join("wg0.conf")).unwrap().permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let with = bench.text();
    assert_eq!(bench.wireguard.list(&[]).await.unwrap(), std::slice::from_ref(&issued.peer));
    assert!(matches!(bench.add("road-1").await, Err(Failure::Conflict(_))));

    let other = bench.wireguard.remove(&name("road-1"), "another key").await;
    assert!(matches!(other, Err(Failure::NotFound(_))));
    assert_eq!(bench.wireguard.remove(&name("road-1"), &key).await.unwrap(), issued.peer);
    assert_eq!(bench.text(), before);
    assert_eq!(bench.wireguard.restore(&name("road-1"), &key).await.unwrap(), issued.peer);
    assert_eq!(bench.text(), with, "with its preshared key");
    assert!(matches!(bench.wireguard.restore(&name("road-1"), &key).await, Err(Failure::Conflict(_))));
    assert!(matches!(bench.wireguard.restore(&name("road-2"), &key).await, Err(Failure::NotFound(_))));
}

const PRIVATE_KEY_LINE: &str = super::super::PRIVATE_KEY;

#[tokio::test]
async fn an_address_given_away_is_not_restored() {
    let bench = bench("", OFF);
    let (first, key) = bench.add("a").await.unwrap();
    bench.wireguard.remove(&name("a"), &key).await.unwrap();
    let (second, _) = bench.add("b").await.unwrap();
    assert_eq!(first.peer.address, second.peer.address);
    assert!(matches!(bench.wireguard.restore(&name("a"), &key).await, Err(Failure::Conflict(_))));
}

#[tokio::test]
async fn a_pool_runs_out() {
    let bench = bench("", OFF);
    for n in 2..=6 {
        bench.add(&format!("n{n}")).await.unwrap();
    }
    let before = bench.text();
    assert!(matches!(bench.add("n7").await, Err(Failure::Unavailable(why)) if why.contains("10.8.0.0/29")));
    assert_eq!(bench.text(), before);
}

#[tokio::test]
async fn the_file_is_put_back_where_the_interface_refuses() {
    // The loopback exists and is no WireGuard interface.
    let bench = bench("", "interface = \"lo\"");
    let before = bench.text();
    let refused = bench.add("a").await;
    assert!(matches!(refused, Err(Failure::Failed(ref why)) if why.contains("wg syncconf lo")), "{:?}", refused.err());
    assert_eq!(bench.text(), before);
}

#[tokio::test]
async fn files_that_would_lose_peers_are_refused() {
    let saving = bench("SaveConfig = true\n", OFF);
    assert!(matches!(saving.add("a").await, Err(Failure::Unavailable(why)) if why.contains("SaveConfig")));
    let damaged = bench("\n[Peer]\n# viworks: name=\n", OFF);
    assert!(matches!(damaged.wireguard.list(&[]).await, Err(Failure::Unavailable(why)) if why.contains("line 6")));
    let gone = bench("", OFF);
    std::fs::remove_file(gone.dir.path().join("wg0.conf")).unwrap();
    assert!(matches!(gone.add("a").await, Err(Failure::Unavailable(_))));
    assert!(!gone.dir.path().join("wg0.conf").exists());
}

#[test]
fn configurations_are_checked_when_read() {
    let parse = |text: &str| toml::from_str::<Config>(text);
    let good = "config_file = \"/x\"\nendpoint = \"[2001:db8::1]:51820\"\npool = \"10.8.0.0/24\"\n";
    assert!(parse(good).is_ok_and(|c| c.live == Live::Auto && c.keepalive_secs == 25 && c.interface.0 == "wg0"));
    for bad in [
        good.replace("10.8.0.0/24", "10.8.0.0/33"),
        good.replace("[2001:db8::1]:51820", "vpn.example.com"),
        good.replace("[2001:db8::1]:51820", "a\\nb:1"),
        format!("{good}interface = \"../wg0\"\n"),
        format!("{good}live = \"yes\"\n"),
        format!("{good}unknown = 1\n"),
    ] {
        assert!(parse(&bad).is_err(), "{bad}");
    }
}

#[tokio::test]
async fn a_dead_interface_does_not_hold_changes_up() {
    // What a userspace WireGuard that was killed leaves behind.
    let name = format!("viwtest{}", std::process::id() % 1_000_000);
    let socket = PathBuf::from(format!("/var/run/wireguard/{name}.sock"));
    std::fs::create_dir_all("/var/run/wireguard").unwrap();
    drop(std::os::unix::net::UnixListener::bind(&socket).unwrap());
    let bench = bench("", &format!("interface = {name:?}"));
    let added = bench.add("a").await;
    std::fs::remove_file(&socket).unwrap();
    assert!(added.is_ok(), "{:?}", added.err());
}
