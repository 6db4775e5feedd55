//! Any sequence of effects, followed by their inverses in reverse, leaves the host as it
//! was; and planning the sequence first, on the overlay, foresees each of them exactly.

use proptest::prelude::*;
use viworks_signing::grant::UidRange;

use super::bench::Bench;
use super::{Effect, Inverse};
use crate::capabilities::accounts::{Change as Accounts, Home, NewAccount};
use crate::capabilities::state::{Change as State, Expect};
use crate::capabilities::vpn::name::PeerName;
use crate::capabilities::vpn::wireguard::WireguardKey;
use crate::capabilities::vpn::{Change as Vpn, Kind};

/// What is tried next, of few names, so that they meet.
#[derive(Debug, Clone)]
enum Move {
    Create(u8),
    Remove(u8, bool),
    Groups(u8, bool),
    AddPeer(u8),
    RemovePeer(u8),
    Set(u8, u8),
    Delete(u8),
}

fn moves() -> impl Strategy<Value = Vec<Move>> {
    let one = prop_oneof![
        2 => (0..3_u8).prop_map(Move::Create),
        1 => (0..3_u8, any::<bool>()).prop_map(|(n, keep)| Move::Remove(n, keep)),
        1 => (0..3_u8, any::<bool>()).prop_map(|(n, on)| Move::Groups(n, on)),
        2 => (0..3_u8).prop_map(Move::AddPeer),
        2 => (0..3_u8).prop_map(Move::RemovePeer),
        2 => (0..3_u8, 0..3_u8).prop_map(|(key, value)| Move::Set(key, value)),
        1 => (0..3_u8).prop_map(Move::Delete),
    ];
    prop::collection::vec(one, 1..14)
}

fn bench() -> Bench {
    Bench::new(|dir, config| {
        config.accounts.root = Some(dir.join("root"));
        let conf = dir.join("wg0.conf");
        let written = std::fs::write(&conf, format!("[Interface]\nPrivateKey = {}=\n", "A".repeat(43)));
        assert!(written.is_ok());
        let text = format!(
            "[wireguard]\nconfig_file = {conf:?}\nendpoint = \"vpn.example.com:1\"\npool = \"10.8.0.0/29\"\nlive = \"off\"\n"
        );
        match toml::from_str(&text) {
            Ok(vpn) => config.vpn = vpn,
            Err(e) => panic!("{e}"),
        }
    })
}

/// A value as a guest's call would make it; `None` where there is nothing to call it on.
async fn effect(bench: &Bench, planned: &[Effect], step: &Move) -> Option<Effect> {
    let account = |n: u8| format!("user{n}");
    let peer = |n: u8| PeerName::try_from(format!("peer{n}")).ok();
    let known = async |n: u8| bench.host.accounts.tried(&account(n), planned).await;
    Some(match *step {
        Move::Create(n) => Effect::Accounts(Accounts::Create(NewAccount {
            name: account(n),
            comment: format!("number {n}"),
            shell: "/bin/sh".into(),
            home_root: "/home".into(),
            groups: if n == 1 { vec!["docker".into()] } else { Vec::new() },
            ssh_keys: Vec::new(),
            password_hash: None,
            uid: None,
            uids: UidRange { min: 20_000, max: 20_100 },
        })),
        Move::Remove(n, keep) => {
            let home = if keep { Home::Keep } else { Home::Quarantine };
            Effect::Accounts(Accounts::Remove { name: account(n), uid: known(n).await?.0, home, record: None })
        }
        Move::Groups(n, on) => {
            let (uid, before) = known(n).await?;
            let after = if on { vec!["developers".to_owned(), "docker".to_owned()] } else { Vec::new() };
            Effect::Accounts(Accounts::SetGroups { name: account(n), uid, before, after })
        }
        Move::AddPeer(n) => {
            let public_key = WireguardKey::try_from(format!("{}{n}A=", "B".repeat(41))).ok()?;
            Effect::Vpn(Vpn::AddWireguard { name: peer(n)?, public_key, addresses: Vec::new() })
        }
        Move::RemovePeer(n) => {
            let name = peer(n)?;
            let there = bench.host.vpn.list(Kind::Wireguard, planned).await.ok()?;
            let identity = there.into_iter().find(|p| p.name == name)?.identity;
            Effect::Vpn(Vpn::Remove { provider: Kind::Wireguard, name, identity, address: None })
        }
        Move::Set(key, value) => Effect::State(State::set("tried", &format!("k{key}"), &format!("v{value}"))),
        Move::Delete(key) => {
            let (plugin, key) = ("tried".to_owned(), format!("k{key}"));
            Effect::State(State::Delete { plugin, key, expect: Expect::Anything })
        }
    })
}

/// The host as far as effects reach: accounts without the order of their lines and the date
/// of their last password change, homes, peers, state.
async fn look(bench: &Bench) -> Vec<String> {
    let root = bench.dir.path().join("root");
    let lines = |name: &str| std::fs::read_to_string(root.join("etc").join(name)).unwrap_or_default();
    let mut seen: Vec<String> =
        ["passwd", "group"].iter().flat_map(|n| lines(n).lines().map(str::to_owned).collect::<Vec<_>>()).collect();
    seen.extend(lines("shadow").lines().map(|l| {
        let fields: Vec<&str> = l.split(':').collect();
        format!("{}:{}:{}", fields[0], fields[1], fields.get(7).copied().unwrap_or_default())
    }));
    let homes = std::fs::read_dir(root.join("home")).into_iter().flatten().flatten();
    seen.extend(homes.map(|e| e.path().display().to_string()));
    seen.sort();
    seen.push(std::fs::read_to_string(bench.dir.path().join("wg0.conf")).unwrap_or_default());
    for key in 0..3 {
        seen.push(format!("{:?}", bench.host.state.tried("tried", &format!("k{key}")).await));
    }
    seen
}

async fn there_and_back(moves: Vec<Move>) -> Result<(), TestCaseError> {
    let bench = bench();
    let first = {
        // The prefix root is made at first use.
        let _ = bench.host.accounts.tried("nobody", &[]).await;
        look(&bench).await
    };
    // The plan of all of it: nothing may happen.
    let mut planned = Vec::new();
    for step in &moves {
        let Some(effect) = effect(&bench, &planned, step).await else { continue };
        if let Ok(foreseen) = effect.foresee(&bench.host, &planned).await {
            planned.push(foreseen.effect);
        }
    }
    prop_assert_eq!(&look(&bench).await, &first);
    prop_assert!(!bench.dir.path().join("root/home").exists());

    let mut done: Vec<Effect> = Vec::new();
    for step in &moves {
        let Some(effect) = effect(&bench, &[], step).await else { continue };
        if let Ok(applied) = bench.apply(&effect).await {
            done.push(applied.effect);
        }
    }
    let lines = |effects: &[Effect]| effects.iter().map(|e| (e.summary(), e.diff())).collect::<Vec<_>>();
    prop_assert_eq!(lines(&planned), lines(&done), "the plan foresaw every effect");

    for effect in done.iter().rev() {
        let Inverse::Effect(inverse) = effect.inverse() else { panic!("{effect:?} can be taken back") };
        let undone = bench.apply(&inverse).await;
        prop_assert!(undone.is_ok(), "{:?} by {:?}: {:?}", effect, inverse, undone);
    }
    prop_assert_eq!(&look(&bench).await, &first);
    Ok(())
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 12, max_shrink_iters: 20, ..ProptestConfig::default() })]
    #[test]
    fn effects_and_their_inverses_leave_nothing(moves in moves()) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build();
        let Ok(runtime) = runtime else { panic!("no runtime") };
        runtime.block_on(there_and_back(moves))?;
    }
}
