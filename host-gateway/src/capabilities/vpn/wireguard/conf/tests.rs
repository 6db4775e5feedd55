//! Edits of WireGuard configurations, of ours and of arbitrary ones.

use super::*;
use proptest::prelude::*;

const KEY: &str = "AAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";
const OTHER: &str = "AQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=";

fn name(text: &str) -> PeerName {
    PeerName::try_from(text.to_owned()).unwrap()
}

fn ours(who: &str) -> Zeroizing<String> {
    block(&name(who), "2026-01-02T03:04:05Z", OTHER, KEY, &[Cidr::parse("10.8.0.2").unwrap()])
}

fn server() -> String {
    format!(
        "# by hand\r\n[interface]\nprivatekey={KEY}\nAddress = 10.8.0.1/24, fd00::1/64 # both\nPostUp = iptables -A x\n\
         ListenPort = 51820\n\n# Bob's laptop\n[Peer]\nPublicKey = {KEY}\nAllowedIPs = 10.8.0.7/32\n\n\n[Other]\nx = y\nstray"
    )
}

#[test]
fn reads_what_matters() {
    let text = server();
    let conf = Conf::parse(text.as_bytes()).unwrap();
    assert_eq!(conf.addresses.len(), 2);
    assert_eq!(conf.allowed, [Cidr::parse("10.8.0.7/32").unwrap()]);
    assert_eq!((conf.keys.len(), conf.peers.len(), conf.save_config), (1, 0, false));
    assert!(conf.private_key.is_some());
}

#[test]
fn adds_finds_and_removes_one_peer() {
    let text = server();
    let with = Conf::parse(text.as_bytes()).unwrap().with(ours("road-1").as_bytes());
    assert!(with.starts_with(text.as_bytes()));
    let conf = Conf::parse(&with).unwrap();
    let peer = conf.find(&name("road-1")).unwrap();
    assert_eq!((peer.public_key.as_str(), peer.created.as_str()), (OTHER, "2026-01-02T03:04:05Z"));
    let (without, block) = conf.without(peer);
    assert_eq!(*without, format!("{text}\n").into_bytes());
    assert_eq!(*block, ours("road-1").as_bytes());
}

#[test]
fn comments_behind_a_peer_belong_to_the_next() {
    let text = format!("[Interface]\n\n{}PersistentKeepalive = 25\n\n# Eve\n[Peer]\nPublicKey = {KEY}\n", *ours("a"));
    let conf = Conf::parse(text.as_bytes()).unwrap();
    let (without, block) = conf.without(&conf.peers[0]);
    assert_eq!(*without, format!("[Interface]\n\n# Eve\n[Peer]\nPublicKey = {KEY}\n").into_bytes());
    assert!(block.ends_with(b"PersistentKeepalive = 25\n"), "what was added to the peer goes and comes back with it");
}

#[test]
fn strips_what_only_wg_quick_knows() {
    let text = format!(
        "[Interface]\nPrivateKey = {KEY}\n Address=10.8.0.1/24\nDNS = 1.1.1.1\nSaveConfig = true\nMTU=1420\n[Peer]\nPublicKey = {KEY}\n"
    );
    let conf = Conf::parse(text.as_bytes()).unwrap();
    assert!(conf.save_config);
    assert_eq!(*conf.stripped(), format!("[Interface]\nPrivateKey = {KEY}\n[Peer]\nPublicKey = {KEY}\n").into_bytes());
}

#[test]
fn damaged_marks_are_refused() {
    let peer = |mark: &str| format!("[Peer]\n{mark}\nPublicKey = {KEY}\n");
    let good = "# viworks: name=a created=2026-01-02T03:04:05Z";
    let doubled = format!("{good}\n{good}");
    let cases = [
        (format!("{good}\n"), 1),
        (peer("# viworks: name=A created=2026-01-02T03:04:05Z"), 2),
        (peer("# viworks: name=a"), 2),
        (peer("# viworks: name=a created=yesterday"), 2),
        (peer("# viworks: name=a created=2026-01-02T03:04:05Z x=1"), 2),
        (peer(&doubled), 3),
        (format!("{}{}", peer(good), peer(good)), 4),
        (format!("[Peer]\n{good}\n"), 1),
        ("[Interface]\nPrivateKey = short\n".to_owned(), 2),
        ("[Peer]\nAllowedIPs = host.example\n".to_owned(), 2),
    ];
    for (text, line) in cases {
        assert_eq!(Conf::parse(text.as_bytes()).err().map(|e| e.line), Some(line), "{text}");
    }
}

/// Lines as they are found in such files, and lines that are not.
fn line() -> impl Strategy<Value = Vec<u8>> {
    let known = prop::sample::select(vec![
        "[Interface]",
        "[Peer]",
        "[peer] # x",
        "[WireGuard]",
        "",
        "  ",
        "# note",
        "#",
        "Address = 10.8.0.1/24",
        "AllowedIPs = 10.8.0.9/32, fd00::9/128",
        "AllowedIPs =",
        "ListenPort = 51820",
        "PostUp = a = b # c",
        "PersistentKeepalive=25",
        "FwMark = 0x1",
        "nonsense",
    ]);
    let end = prop::sample::select(vec!["\n", "\r\n"]);
    prop_oneof![
        4 => (known, end).prop_map(|(line, end)| format!("{line}{end}").into_bytes()),
        1 => prop::collection::vec(any::<u8>(), 0..40),
    ]
}

proptest! {
    #[test]
    fn foreign_bytes_stay(lines in prop::collection::vec(line(), 0..30), others in 0_usize..3) {
        let mut text = lines.concat();
        prop_assume!(Conf::parse(&text).is_ok());
        for n in 0..others {
            text = Conf::parse(&text).unwrap().with(ours(&format!("other{n}")).as_bytes()).to_vec();
        }
        let with = Conf::parse(&text).unwrap().with(ours("mine").as_bytes());
        prop_assert!(with.starts_with(&text));
        let conf = Conf::parse(&with).unwrap();
        prop_assert_eq!(conf.peers.len(), others + 1);
        let (without, block) = conf.without(conf.find(&name("mine")).unwrap());
        let mut expected = text.clone();
        if expected.last().is_some_and(|b| *b != b'\n') {
            expected.push(b'\n');
        }
        prop_assert_eq!(&*without, &expected);

        // Removing another one from the middle leaves ours and every foreign line.
        if others > 0 {
            let (rest, _) = conf.without(conf.find(&name("other0")).unwrap());
            let rest = Conf::parse(&rest).unwrap();
            let (_, again) = rest.without(rest.find(&name("mine")).unwrap());
            prop_assert_eq!(&*again, &*block);
        }
    }
}
