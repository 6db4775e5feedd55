//! Real servers and clients in two network namespaces over a veth: tunnel up, a ping
//! through it, gone after removal and not coming back.

use super::*;
use crate::effects::bench::Applied;
use crate::effects::{Effect, Inverse};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Output, Stdio};
use std::time::{Duration, Instant};

/// Two hosts, 192.0.2.1 (the server) and 192.0.2.2, and what runs on them.
struct Lab {
    tag: String,
    dir: tempfile::TempDir,
    running: Vec<Child>,
    sockets: Vec<PathBuf>,
}

const PATIENCE: Duration = Duration::from_secs(30);

fn output(program: &str, args: &[&str]) -> Output {
    Command::new(program).args(args).stdin(Stdio::null()).output().unwrap()
}

fn done(program: &str, args: &[&str]) -> String {
    let output = output(program, args);
    assert!(output.status.success(), "{program} {args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

fn wait(what: &str, state: impl Fn() -> bool, evidence: impl Fn() -> String) {
    let until = Instant::now() + PATIENCE;
    while !state() {
        assert!(Instant::now() < until, "{what}: {}", evidence());
        std::thread::sleep(Duration::from_millis(50));
    }
}

impl Lab {
    fn new(kind: &str) -> Self {
        assert!(rustix::process::geteuid().is_root(), "this test makes network namespaces: run it as root");
        let lab = Self {
            tag: format!("viw{kind}{}", std::process::id()),
            dir: tempfile::Builder::new().prefix("viwvpn").tempdir().unwrap(),
            running: Vec::new(),
            sockets: Vec::new(),
        };
        let (server, client) = (lab.ns("s"), lab.ns("c"));
        for ns in [&server, &client] {
            done("ip", &["netns", "add", ns]);
            done("ip", &["-n", ns, "link", "set", "lo", "up"]);
        }
        done(
            "ip",
            &["link", "add", "veth0", "netns", &server, "type", "veth", "peer", "name", "veth0", "netns", &client],
        );
        for (ns, address) in [(&server, "192.0.2.1/24"), (&client, "192.0.2.2/24")] {
            done("ip", &["-n", ns, "addr", "add", address, "dev", "veth0"]);
            done("ip", &["-n", ns, "link", "set", "veth0", "up"]);
        }
        lab
    }

    fn ns(&self, side: &str) -> String {
        format!("{}{side}", self.tag)
    }

    fn at(&self, file: &str) -> PathBuf {
        self.dir.path().join(file)
    }

    fn write(&self, file: &str, text: &str) -> String {
        std::fs::write(self.at(file), text).unwrap();
        self.at(file).display().to_string()
    }

    fn read(&self, file: &str) -> String {
        std::fs::read_to_string(self.at(file)).unwrap_or_default()
    }

    /// Start a program on a side; what it says goes to `log`.
    fn start(&mut self, side: &str, log: &str, program: &[&str]) {
        let file = std::fs::File::create(self.at(log)).unwrap();
        let child = Command::new("ip")
            .args(["netns", "exec", &self.ns(side)])
            .args(program)
            .env("WG_PROCESS_FOREGROUND", "1")
            .current_dir(self.dir.path())
            .stdin(Stdio::null())
            .stdout(file.try_clone().unwrap())
            .stderr(file)
            .spawn()
            .unwrap();
        self.running.push(child);
    }

    fn pings(&self, address: &str) -> bool {
        let (ns, args) = (self.ns("c"), ["-c", "1", "-W", "1", "-n", address]);
        output("ip", &[&["netns", "exec", ns.as_str(), "ping"], &args[..]].concat()).status.success()
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        for child in &mut self.running {
            let _ = child.kill();
            let _ = child.wait();
        }
        for socket in &self.sockets {
            let _ = std::fs::remove_file(socket);
        }
        for side in ["s", "c"] {
            output("ip", &["netns", "del", &self.ns(side)]);
        }
    }
}

fn name() -> PeerName {
    PeerName::try_from("road-1".to_owned()).unwrap()
}

/// Foreseen first, as the recorder does.
async fn apply(provider: &Provider, change: &Change) -> Applied {
    let effect = provider.foresee(change.clone(), &[]).await.unwrap().effect;
    let Effect::Vpn(change) = &effect else { panic!("{effect:?}") };
    let answer = provider.apply(change).await.unwrap();
    Applied { answer, inverse: effect.inverse(), effect }
}

fn inverse(applied: &Applied) -> Change {
    let Inverse::Effect(effect) = &applied.inverse else { panic!("it can be undone") };
    let Effect::Vpn(change) = effect.as_ref() else { panic!("by this capability") };
    change.clone()
}

fn credentials(applied: &Applied, private: &str) -> String {
    let issued: Issued = serde_json::from_value(applied.answer.clone()).unwrap();
    assert!(!applied.answer.to_string().contains(private));
    host::credentials(issued, private).configuration
}

/// Everything of `configuration` that `wg setconf` knows, and the addresses.
fn for_wg(configuration: &str) -> (String, Vec<String>) {
    let quick = ["Address", "DNS"];
    let (skipped, kept): (Vec<&str>, Vec<&str>) =
        configuration.lines().partition(|l| quick.iter().any(|key| l.starts_with(key)));
    let addresses = skipped.iter().filter_map(|l| l.strip_prefix("Address = ")).flat_map(|l| l.split(", "));
    (kept.join("\n") + "\n", addresses.map(str::to_owned).collect())
}

fn wireguard_go(lab: &mut Lab, side: &str) -> String {
    let interface = format!("viwg{side}{}", std::process::id() % 1_000_000);
    lab.sockets.push(PathBuf::from(format!("/var/run/wireguard/{interface}.sock")));
    lab.start(side, &format!("wg-{side}.log"), &["wireguard-go", &interface]);
    let socket = lab.sockets[lab.sockets.len() - 1].clone();
    wait("wireguard-go", || socket.exists(), || lab.read(&format!("wg-{side}.log")));
    interface
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_wireguard_peer_connects_until_it_is_removed() {
    let mut lab = Lab::new("w");
    let (server, client) = (wireguard_go(&mut lab, "s"), wireguard_go(&mut lab, "c"));
    let (private, _) = wireguard::key_pair().unwrap();
    let core = format!("[Interface]\nPrivateKey = {}\nListenPort = 51820\n", *private);
    let file = lab.write("server.conf", &format!("{core}Address = 10.77.0.1/24\n"));
    done("wg", &["setconf", &server, &lab.write("core.conf", &core)]);
    done("ip", &["-n", &lab.ns("s"), "addr", "add", "10.77.0.1/24", "dev", &server]);
    done("ip", &["-n", &lab.ns("s"), "link", "set", &server, "up"]);

    let config = format!(
        "[wireguard]\ninterface = {server:?}\nconfig_file = {file:?}\nendpoint = \"192.0.2.1:51820\"\npool = \"10.77.0.0/24\"\n\
         allowed_ips = [\"10.77.0.0/24\"]\nkeepalive_secs = 1\n"
    );
    let provider = Provider::new(&toml::from_str(&config).unwrap());
    let (private, public) = wireguard::key_pair().unwrap();
    let add = Change::AddWireguard {
        name: name(),
        public_key: WireguardKey::try_from(public.clone()).unwrap(),
        addresses: Vec::new(),
    };
    assert!(!serde_json::to_string(&add).unwrap().contains(private.as_str()));
    let added = apply(&provider, &add).await;

    let (core, addresses) = for_wg(&credentials(&added, &private));
    done("wg", &["setconf", &client, &lab.write("client.conf", &core)]);
    for address in &addresses {
        done("ip", &["-n", &lab.ns("c"), "addr", "add", address, "dev", &client]);
    }
    done("ip", &["-n", &lab.ns("c"), "link", "set", &client, "up"]);
    done("ip", &["-n", &lab.ns("c"), "route", "add", "10.77.0.0/24", "dev", &client]);
    let shown = || done("wg", &["show", &server]);
    wait("ping through the tunnel", || lab.pings("10.77.0.1"), shown);

    let removed = apply(&provider, &inverse(&added)).await;
    assert!(!shown().contains(&public), "the interface forgot it at once");
    assert!(!lab.pings("10.77.0.1"));
    assert!(!lab.pings("10.77.0.1"), "it does not come back");

    apply(&provider, &inverse(&removed)).await;
    wait("ping after the removal was undone", || lab.pings("10.77.0.1"), shown);
    assert_eq!(provider.list(Kind::Wireguard, &[]).await.unwrap().len(), 1);
}

/// An authority and a server's certificate, as a site makes them.
fn site(dir: &Path) {
    let ec = ["-newkey", "ec", "-pkeyopt", "ec_paramgen_curve:P-256", "-nodes"];
    let file = |name: &str| dir.join(name).display().to_string();
    let mut ca = vec!["req", "-x509"];
    ca.extend(ec);
    let (ca_key, ca_pem, key, pem) = (file("ca.key"), file("ca.pem"), file("server.key"), file("server.pem"));
    ca.extend(["-keyout", &ca_key, "-out", &ca_pem, "-subj", "/O=Example/CN=VPN CA", "-days", "9"]);
    done("openssl", &ca);
    let mut server = vec!["req", "-x509", "-CA", &ca_pem, "-CAkey", &ca_key];
    server.extend(ec);
    server.extend(["-keyout", &key, "-out", &pem, "-subj", "/CN=server", "-days", "9"]);
    server.extend([
        "-addext",
        "extendedKeyUsage=serverAuth",
        "-addext",
        "keyUsage=digitalSignature",
        "-addext",
        "basicConstraints=critical,CA:FALSE",
    ]);
    done("openssl", &server);
    done("openvpn", &["--genkey", "secret", &file("ta.key")]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_openvpn_peer_connects_until_it_is_removed() {
    let mut lab = Lab::new("o");
    site(lab.dir.path());
    let d = lab.dir.path().display().to_string();
    let config = format!(
        "[openvpn]\nca_cert = \"{d}/ca.pem\"\nca_key = \"{d}/ca.key\"\ncrl_file = \"{d}/crl.pem\"\ndatabase = {d:?}\n\
         remote_host = \"192.0.2.1\"\ntls_crypt = \"{d}/ta.key\"\nmanagement = \"unix:{d}/m.sock\"\n\
         management_password_file = \"{d}/m.password\"\nclient_directives = [\"connect-retry 1 1\", \"ping 1\", \"hand-window 5\"]\n"
    );
    lab.write("m.password", "a password\n");
    let provider = Provider::new(&toml::from_str(&config).unwrap());
    let (private, public_key) = openvpn::key_pair().unwrap();
    let add = Change::AddOpenvpn { name: name(), serial: Serial::random().unwrap(), public_key, days: 0 };
    let added = apply(&provider, &add).await;
    let profile = credentials(&added, private.trim_end());
    lab.write("client.ovpn", &profile);

    let server = format!(
        "dev tun\nproto udp\nlocal 192.0.2.1\nport 1194\ntopology subnet\nserver 10.66.0.0 255.255.255.0\nca ca.pem\n\
         cert server.pem\nkey server.key\ndh none\ntls-crypt ta.key\ncrl-verify crl.pem\nkeepalive 1 10\n\
         management {d}/m.sock unix {d}/m.password\nverb 3\n"
    );
    lab.write("server.conf", &server);
    lab.start("s", "server.log", &["openvpn", "--config", "server.conf"]);
    wait("server", || lab.read("server.log").contains("Initialization Sequence Completed"), || lab.read("server.log"));
    lab.start("c", "client.log", &["openvpn", "--config", "client.ovpn"]);
    let logs = || format!("{}\n---\n{}", lab.read("server.log"), lab.read("client.log"));
    wait("ping through the tunnel", || lab.pings("10.66.0.1"), logs);

    let removed = apply(&provider, &inverse(&added)).await;
    wait("a new connection refused", || lab.read("server.log").contains("certificate revoked"), logs);
    assert!(!lab.pings("10.66.0.1"), "the session that was up is gone");
    assert!(provider.list(Kind::Openvpn, &[]).await.unwrap().is_empty());

    apply(&provider, &inverse(&removed)).await;
    wait("ping after the removal was undone", || lab.pings("10.66.0.1"), logs);
}
