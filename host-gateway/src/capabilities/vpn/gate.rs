//! The gate of `vpn`, with real grants and a real journal: what is refused, what is
//! answered, what is written down.

use viworks_signing::grant::{Patterns, Scopes, VpnScope};
use viworks_signing::release::EffectClass;

use super::super::wit::viworks::gateway::types;
use super::super::wit::viworks::gateway::vpn::{self as wit, Host as _};
use super::*;
use crate::capabilities::Call;
use crate::effects::bench::Bench;

fn bench() -> Bench {
    Bench::new(|dir, config| {
        let (private, _) = wireguard::key_pair().unwrap();
        let file = dir.join("wg0.conf");
        std::fs::write(&file, format!("[Interface]\nPrivateKey = {}\n", *private)).unwrap();
        let text = format!(
            "[wireguard]\nconfig_file = {file:?}\nendpoint = \"vpn.example.com:51820\"\npool = \"10.8.0.0/24\"\nlive = \"off\"\n"
        );
        config.vpn = toml::from_str(&text).unwrap();
    })
}

fn scopes(providers: &[&str], names: &str) -> Scopes {
    let names = Patterns::parse([names]).unwrap();
    let providers = providers.iter().map(|p| (*p).to_owned()).collect();
    Scopes { vpn: Some(VpnScope { providers, names }), ..Scopes::default() }
}

async fn call(bench: &Bench, policy: &Scopes) -> Call {
    bench.call(&scopes(&["wireguard", "openvpn"], "*"), policy, EffectClass::Change).await
}

async fn add(call: &mut Call, name: &str) -> Result<wit::Credentials, types::Failure> {
    call.add_peer(name.into(), None).await.unwrap()
}

fn rule<T>(answer: Result<T, types::Failure>) -> String {
    match answer {
        Err(types::Failure::Denied(denial)) => denial.rule,
        Err(other) => panic!("{other:?}"),
        Ok(_) => panic!("it was allowed"),
    }
}

#[tokio::test]
async fn a_peer_is_given_its_configuration_and_the_journal_no_secret() {
    let bench = bench();
    let mut call = call(&bench, &scopes(&["wireguard"], "*")).await;
    assert!(matches!(call.providers().await.unwrap().unwrap()[..], [wit::Provider::Wireguard]));
    let given = add(&mut call, "road-1").await.unwrap();
    assert_eq!(given.peer.address.as_deref(), Some("10.8.0.2/32"), "the first is the server's");
    assert!(given.qr_svg.is_some_and(|svg| svg.contains("<svg")));
    let value = |key: &str| {
        let line = given.configuration.lines().find_map(|l| l.strip_prefix(key)).unwrap();
        line.trim_start_matches(" = ").to_owned()
    };
    assert!(!given.configuration.contains('\0'));
    let secrets = [value("PrivateKey"), value("PresharedKey")];

    call.remove_peer("road-1".into(), None).await.unwrap().unwrap();
    assert_eq!(call.recorder.reports().len(), 2);
    let mut journaled = Vec::new();
    for file in std::fs::read_dir(bench.dir.path()).unwrap() {
        let path = file.unwrap().path();
        if path.file_name().is_some_and(|n| n.to_string_lossy().starts_with("journal")) {
            journaled.extend(std::fs::read(path).unwrap());
        }
    }
    let holds = |text: &str| journaled.windows(text.len()).any(|w| w == text.as_bytes());
    assert!(holds(&given.peer.identity), "the public key is there");
    assert!(secrets.iter().all(|secret| secret.len() == 44 && !holds(secret)));
    let conf = std::fs::read_to_string(bench.dir.path().join("wg0.conf")).unwrap();
    assert!(!conf.contains(&secrets[0]), "the host keeps no client's private key");
}

#[tokio::test]
async fn what_is_not_granted_is_refused_by_its_rule() {
    let bench = bench();
    let mut named = call(&bench, &scopes(&["wireguard"], "road-*")).await;
    assert_eq!(rule(add(&mut named, "office").await), "policy: vpn.names");
    add(&mut named, "road-1").await.unwrap();

    let mut other = call(&bench, &scopes(&["openvpn"], "*")).await;
    let wireguard = Some(wit::Provider::Wireguard);
    assert_eq!(rule(other.add_peer("road-2".into(), wireguard).await.unwrap()), "policy: vpn.providers");
    assert!(matches!(add(&mut other, "road-2").await, Err(types::Failure::Unavailable(_))), "none is usable");
    assert!(other.list_peers().await.unwrap().unwrap().is_empty());

    // A peer outside the grant's names is neither shown nor removed.
    let mut office = call(&bench, &scopes(&["wireguard"], "office-*")).await;
    assert!(office.list_peers().await.unwrap().unwrap().is_empty());
    assert_eq!(rule(office.remove_peer("road-1".into(), None).await.unwrap()), "policy: vpn.names");
    assert_eq!(office.meter.denials, 1);

    let mut nothing = call(&bench, &Scopes::default()).await;
    assert_eq!(rule(nothing.list_peers().await.unwrap()), "grant: vpn");
    assert_eq!(bench.host.vpn.list(Kind::Wireguard, &[]).await.unwrap().len(), 1);
}

#[tokio::test]
async fn bad_names_and_read_verbs_change_nothing() {
    let bench = bench();
    let before = std::fs::read(bench.dir.path().join("wg0.conf")).unwrap();
    let mut call = call(&bench, &scopes(&["wireguard"], "*")).await;
    for bad in ["", "A", "a b", "a\n[Peer]", "a\"", "../a", &"a".repeat(33)] {
        assert!(matches!(add(&mut call, bad).await, Err(types::Failure::InvalidArgument(_))), "{bad:?}");
    }
    let other = Some(wit::Provider::Other("ipsec".into()));
    let answer = call.add_peer("a".into(), other).await.unwrap();
    assert!(matches!(answer, Err(types::Failure::InvalidArgument(_))));
    assert!(matches!(call.remove_peer("a".into(), None).await.unwrap(), Err(types::Failure::NotFound(_))));
    let all = scopes(&["wireguard"], "*");
    let mut read = bench.call(&all, &all, EffectClass::Read).await;
    assert_eq!(rule(add(&mut read, "a").await), "release: verb effect is read");
    assert_eq!(std::fs::read(bench.dir.path().join("wg0.conf")).unwrap(), before);
}

#[tokio::test]
async fn adds_side_by_side_get_addresses_of_their_own() {
    let bench = bench();
    let all = scopes(&["wireguard"], "*");
    let (mut a, mut b, mut c) = (call(&bench, &all).await, call(&bench, &all).await, call(&bench, &all).await);
    let (a, b, c) = tokio::join!(add(&mut a, "a"), add(&mut b, "b"), add(&mut c, "c"));
    let mut addresses: Vec<_> = [a, b, c].into_iter().map(|added| added.unwrap().peer.address).collect();
    addresses.sort();
    addresses.dedup();
    assert_eq!((addresses.len(), bench.host.vpn.list(Kind::Wireguard, &[]).await.unwrap().len()), (3, 3));
}
