//! Certificates, revocation and the index, without a server. With one: `vpn/live.rs`.

use super::*;
use std::process::Command;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

struct Bench {
    dir: tempfile::TempDir,
    openvpn: Openvpn,
}

fn openssl(dir: &std::path::Path, args: &[&str]) -> bool {
    Command::new("openssl").args(args).current_dir(dir).output().unwrap().status.success()
}

fn bench(management: &str) -> Bench {
    let dir = tempfile::tempdir().unwrap();
    let d = dir.path();
    let request =
        "req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -keyout ca.key -subj /CN=CA -out ca.pem";
    assert!(openssl(d, &request.split(' ').collect::<Vec<_>>()));
    let at = |file: &str| d.join(file).display().to_string();
    let config = format!(
        "ca_cert = {:?}\nca_key = {:?}\ncrl_file = {:?}\ndatabase = {:?}\nremote_host = \"vpn.example.com\"\nproto = \"tcp\"\n\
         management = {:?}\nclient_directives = [\"cipher AES-256-GCM\"]\n",
        at("ca.pem"),
        at("ca.key"),
        at("crl.pem"),
        at(""),
        management.replace("DIR", &d.display().to_string())
    );
    let openvpn = Openvpn::new(&toml::from_str(&config).unwrap());
    Bench { dir, openvpn }
}

impl Bench {
    async fn add(&self, who: &str) -> Result<Issued, Failure> {
        self.openvpn.add(&name(who), &Serial::random()?, &key_pair()?.1).await
    }

    /// Whether openssl takes the certificate of that profile.
    fn verifies(&self, profile: &str) -> bool {
        std::fs::write(self.dir.path().join("c.pem"), inline(profile, "cert")).unwrap();
        openssl(self.dir.path(), &["verify", "-crl_check", "-CAfile", "ca.pem", "-CRLfile", "crl.pem", "c.pem"])
    }
}

fn name(text: &str) -> PeerName {
    PeerName::try_from(text.to_owned()).unwrap()
}

fn inline<'a>(profile: &'a str, tag: &str) -> &'a str {
    let (open, close) = (format!("<{tag}>\n"), format!("\n</{tag}>"));
    let start = profile.find(&open).unwrap() + open.len();
    &profile[start..start + profile[start..].find(&close).unwrap()]
}

#[tokio::test]
async fn a_peer_is_added_removed_restored_and_made_anew() {
    let bench = bench("off");
    let first = bench.add("road-1").await.unwrap();
    for line in
        ["client", "proto tcp-client", "remote vpn.example.com 1194", "cipher AES-256-GCM", "remote-cert-tls server"]
    {
        assert!(first.template.lines().any(|l| l == line), "{line}: {}", first.template);
    }
    assert_eq!(inline(&first.template, "key"), PRIVATE_KEY);
    assert!(bench.verifies(&first.template));
    assert_eq!(bench.openvpn.list(&[]).await.unwrap(), std::slice::from_ref(&first.peer));
    assert!(matches!(bench.add("road-1").await, Err(Failure::Conflict(_))));

    let serial = &first.peer.identity;
    assert_eq!(bench.openvpn.remove(&name("road-1"), serial).await.unwrap(), first.peer);
    assert!(!bench.verifies(&first.template));
    assert!(bench.openvpn.list(&[]).await.unwrap().is_empty());
    assert!(matches!(bench.openvpn.remove(&name("road-1"), serial).await, Err(Failure::NotFound(_))));
    assert_eq!(bench.openvpn.restore(&name("road-1"), serial).await.unwrap(), first.peer);
    assert!(bench.verifies(&first.template));

    bench.openvpn.remove(&name("road-1"), serial).await.unwrap();
    let second = bench.add("road-1").await.unwrap();
    assert_ne!(second.peer.identity, *serial);
    assert!(bench.verifies(&second.template) && !bench.verifies(&first.template));
    assert!(matches!(bench.openvpn.restore(&name("road-1"), serial).await, Err(Failure::Conflict(_))));
    let wrong = Serial::random().unwrap().to_string();
    assert!(matches!(bench.openvpn.remove(&name("road-1"), &wrong).await, Err(Failure::NotFound(_))));
    assert!(matches!(bench.openvpn.remove(&name("road-1"), "../x").await, Err(Failure::InvalidArgument(_))));
}

#[tokio::test]
async fn an_unreachable_management_socket_leaves_the_revocation_and_says_so() {
    let bench = bench("unix:DIR/m.sock");
    let issued = bench.add("road-1").await.unwrap();
    let serial = &issued.peer.identity;
    let failed = bench.openvpn.remove(&name("road-1"), serial).await;
    assert!(matches!(failed, Err(Failure::Unavailable(ref why)) if why.contains("may still stand")), "{failed:?}");
    assert!(!bench.verifies(&issued.template), "no new connection is taken");
    assert!(bench.openvpn.list(&[]).await.unwrap().is_empty());
    assert_eq!(
        bench.openvpn.find(&name("road-1"), &[]).await.unwrap(),
        Some(issued.peer.clone()),
        "so that it can be tried again"
    );

    let listener = tokio::net::UnixListener::bind(bench.dir.path().join("m.sock")).unwrap();
    let server = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        stream.write_all(b">INFO:x\r\n").await.unwrap();
        let mut said = Vec::new();
        while !said.contains(&b'\n') && stream.read_buf(&mut said).await.unwrap() > 0 {}
        stream.write_all(b"SUCCESS: common name 'road-1' found, 1 client(s) killed\r\n").await.unwrap();
        said
    });
    assert_eq!(bench.openvpn.remove(&name("road-1"), serial).await.unwrap(), issued.peer);
    assert_eq!(server.await.unwrap(), b"kill road-1\n");
    assert_eq!(bench.openvpn.find(&name("road-1"), &[]).await.unwrap(), None);
}

#[test]
fn configurations_are_checked_when_read() {
    for bad in ["", "a b", "a\nb"] {
        assert!(Word::try_from(bad.to_owned()).is_err(), "{bad:?}");
    }
    for bad in ["", "<ca>", "a\nscript-security 2", "a\0"] {
        assert!(Directive::try_from(bad.to_owned()).is_err(), "{bad:?}");
    }
    for bad in ["", "00", &"f".repeat(32), &"4".repeat(31), &"4A".repeat(16), &"4/".repeat(16)] {
        assert!(Serial::try_from(bad.to_owned()).is_err(), "{bad:?}");
    }
    assert!(Serial::try_from(Serial::random().unwrap().to_string()).is_ok());
}
