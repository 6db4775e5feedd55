//! A broker over a prefix root, asked by its own client and by hostile ones: what is refused
//! is refused with its own code and filed, and nothing of it happens.

use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::net::{UnixListener, UnixStream};
use tokio_util::sync::CancellationToken;
use tracing_subscriber::layer::SubscriberExt as _;

use super::client::{AskError, Client};
use super::handle::Broker;
use super::seal::Seal;
use super::serve::Server;
use super::wire::{self, Behalf, Hello, MAX_REPLY, MAX_REQUEST, Reply, Request};
use crate::audit::Audit;
use crate::capabilities::accounts::{Change, Home, NewAccount};
use crate::capabilities::{scripts, state, vpn};
use crate::config::BrokerConfig;
use crate::effects::{Effect, Inverse, Trace, Unapplied};
use crate::failure::Failure;
use crate::host::{Host, HostConfig, Reach};
use crate::vault::Vault;

const POLICY: &str = r#"
[capabilities.accounts]
groups = ["docker"]
uids = { min = 20000, max = 20999 }
names = ["viwtest-*"]
[capabilities.vpn]
names = ["road-*"]
[capabilities.scripts]
pins = { "hello.sh" = "0000000000000000000000000000000000000000000000000000000000000000" }
"#;

/// A broker that runs, and where it is.
struct Bench {
    dir: tempfile::TempDir,
    host: Host,
    stop: CancellationToken,
    _log: tracing::subscriber::DefaultGuard,
    audit: Audit,
}

impl Bench {
    async fn new(uid: u32, idle: Option<Duration>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let at = |name: &str| dir.path().join(name);
        std::fs::write(at("policy.toml"), POLICY).unwrap();
        std::fs::write(
            at("wg.conf"),
            "[Interface]\nAddress = 198.51.100.1/24\nPrivateKey = YAnz5TF+lXXJte14tji3zlMNq+hd2rYUIgJBgB3fBmk=\n",
        )
        .unwrap();
        std::fs::set_permissions(at("wg.conf"), std::os::unix::fs::PermissionsExt::from_mode(0o600)).unwrap();
        let text = format!(
            "policy = {:?}\nbroker_user = \"61234\"\nbroker_state_dir = {:?}\n[providers.accounts]\nroot = {:?}\n\
             [providers.vpn.wireguard]\nconfig_file = {:?}\nendpoint = \"192.0.2.1:51820\"\n\
             pool = \"198.51.100.0/24\"\nlive = \"off\"\n",
            at("policy.toml"),
            at("state"),
            at("root"),
            at("wg.conf")
        );
        std::fs::write(at("gateway.toml"), text).unwrap();
        let mut config = BrokerConfig::load(Some(&at("gateway.toml"))).unwrap();
        config.uid = uid;
        let (providers, seal) =
            (config.providers.clone(), Seal::open(&Vault::open(&config.state_dir).unwrap()).unwrap());
        let audit = Audit::open(&config.audit_log).unwrap();
        let log = tracing::subscriber::set_default(tracing_subscriber::registry().with(audit.layer()));
        let stop = CancellationToken::new();
        let server = Server {
            listener: UnixListener::bind(at("broker.sock")).unwrap(),
            uid,
            idle,
            audit: audit.clone(),
            broker: Arc::new(Broker::new(config, seal)),
        };
        tokio::spawn(server.run(stop.clone(), Duration::from_secs(5)));
        let host = gateway(&providers, &at("broker.sock"));
        Self { dir, host, stop, _log: log, audit }
    }

    async fn mine() -> Self {
        Self::new(rustix::process::geteuid().as_raw(), None).await
    }

    fn socket(&self) -> PathBuf {
        self.dir.path().join("broker.sock")
    }

    async fn audit(&self) -> String {
        self.audit.flush(Duration::from_secs(5)).await;
        std::fs::read_to_string(self.dir.path().join("state/audit.jsonl")).unwrap()
    }

    async fn foreseen(&self, effect: &Effect) -> Result<Effect, Failure> {
        Ok(effect.clone().foresee(&self.host, &[]).await?.effect)
    }

    async fn apply(&self, effect: &Effect) -> Result<Value, Unapplied> {
        let broker = Client::new(&self.socket());
        broker.apply(effect, behalf()).await
    }

    fn passwd(&self) -> String {
        std::fs::read_to_string(self.dir.path().join("root/etc/passwd")).unwrap_or_default()
    }

    /// What a client of the right uid is told for these bytes.
    async fn raw(&self, bytes: &[u8]) -> Reply {
        let mut stream = UnixStream::connect(self.socket()).await.unwrap();
        let _: Hello = wire::read(&mut stream, MAX_REPLY).await.unwrap();
        stream.write_all(bytes).await.unwrap();
        wire::read(&mut stream, MAX_REPLY).await.unwrap()
    }

    async fn said(&self, request: &Value) -> Reply {
        let mut bytes = vec![0_u8; 4];
        serde_json::to_writer(&mut bytes, request).unwrap();
        let length = u32::try_from(bytes.len() - 4).unwrap();
        bytes[..4].copy_from_slice(&length.to_be_bytes());
        self.raw(&bytes).await
    }
}

fn gateway(providers: &HostConfig, socket: &Path) -> Host {
    Host::reached(providers, Reach::Brokered(Client::new(socket)))
}

fn behalf() -> Behalf {
    let invocation = format!("inv-{}", "a".repeat(32)).try_into().unwrap();
    Behalf { invocation, seq: 0, back: false }
}

fn account(change: impl FnOnce(&mut NewAccount)) -> Effect {
    let mut new: NewAccount = serde_json::from_value(json!({
        "name": "viwtest-a", "comment": "", "shell": "/bin/sh", "home_root": "/home", "groups": ["docker"],
        "ssh_keys": [], "password_hash": null, "uid": null, "uids": {"min": 20000, "max": 20999},
    }))
    .unwrap();
    change(&mut new);
    Effect::Accounts(Change::Create(new))
}

fn code(reply: &Reply) -> &str {
    match reply {
        Reply::Refused(refusal) => &refusal.code,
        Reply::Failed(_) => "failed",
        Reply::Done(_) => "done",
    }
}

#[tokio::test]
async fn an_account_comes_goes_and_comes_back_and_no_hash_crosses() {
    let bench = Bench::mine().await;
    std::fs::create_dir_all(bench.dir.path().join("root/home")).unwrap();
    let create = bench.foreseen(&account(|_| {})).await.unwrap();
    let made = bench.apply(&create).await.unwrap();
    assert_eq!((made["uid"].as_u64(), made["groups"][0].as_str()), (Some(20_000), Some("docker")));
    // Somebody sets a password meanwhile.
    let shadow = bench.dir.path().join("root/etc/shadow");
    let hashed =
        std::fs::read_to_string(&shadow).unwrap().replace("viwtest-a:*:", "viwtest-a:!$y$j9T$salt$secrethash:");
    std::fs::write(&shadow, hashed).unwrap();

    let remove = Change::Remove { name: "viwtest-a".into(), uid: 20_000, home: Home::Quarantine, record: None };
    let remove = bench.foreseen(&Effect::Accounts(remove)).await.unwrap();
    let seen = serde_json::to_string(&remove).unwrap();
    assert!(seen.contains("!sealed:v1:") && !seen.contains("secrethash"), "{seen}");
    bench.apply(&remove).await.unwrap();
    assert!(!bench.passwd().contains("viwtest-a"));
    let Trace::Present(Inverse::Effect(back)) = remove.trace(&bench.host).await.unwrap() else { panic!("no trace") };
    assert!(!serde_json::to_string(&back).unwrap().contains("secrethash"));
    let Inverse::Effect(restore) = remove.inverse() else { panic!("no inverse") };

    // Nobody but the broker can say what is restored.
    let mut forged = restore.clone();
    let Effect::Accounts(Change::Restore(record)) = &mut *forged else { panic!("{forged:?}") };
    record.groups = vec!["root".into()];
    let refused = bench.foreseen(&forged).await.unwrap_err();
    assert!(refused.to_string().contains("unsealed"), "{refused}");

    let restore = bench.foreseen(&restore).await.unwrap();
    bench.apply(&restore).await.unwrap();
    assert!(std::fs::read_to_string(&shadow).unwrap().contains("viwtest-a:!$y$j9T$salt$secrethash:"));
    assert!(bench.dir.path().join("root/home/viwtest-a").is_dir());
    let audit = bench.audit().await;
    assert_eq!(audit.matches("\"decision\":\"applied\"").count(), 3, "{audit}");
    assert!(!audit.contains("secrethash"));
    bench.stop.cancel();
}

#[tokio::test]
async fn a_gateway_that_was_taken_over_gains_nothing_beyond_the_policy() {
    let bench = Bench::mine().await;
    let beyond: Vec<(Effect, &str, &str)> = vec![
        (account(|a| a.uid = Some(0)), "gateway: accounts.system", ""),
        (account(|a| a.uid = Some(1_000)), "policy: accounts.uids", ""),
        (account(|a| a.uids.max = 40_000), "policy: accounts.uids", ""),
        (account(|a| a.name = "sudo".into()), "gateway: accounts.system", ""),
        (account(|a| a.name = "ada".into()), "policy: accounts.names", ""),
        (account(|a| a.name = "viwtest-x;reboot".into()), "", "invalid"),
        (account(|a| a.name = "../viwtest-a".into()), "", "invalid"),
        (account(|a| a.shell = "/tmp/evil".into()), "policy: accounts.shells", ""),
        (account(|a| a.shell = "/bin/sh\nroot::0:0::/:/bin/sh".into()), "", "invalid"),
        (account(|a| a.home_root = "/etc".into()), "policy: accounts.home_root", ""),
        (account(|a| a.home_root = "/home/../etc".into()), "", "invalid"),
        (account(|a| a.home_root = "/home/deeper".into()), "policy: accounts.home_root", ""),
        (account(|a| a.comment = "x:0:0".into()), "", "invalid"),
        (account(|a| a.groups = vec!["staff".into()]), "policy: accounts.groups", ""),
        (account(|a| a.groups = vec!["root".into()]), "gateway: accounts.system", ""),
        (account(|a| a.groups = vec!["docker,root".into()]), "", "invalid"),
        (
            account(|a| a.password_hash = Some(format!("$5$salt${}", "a".repeat(43)))),
            "policy: accounts.password_hashes",
            "",
        ),
        (account(|a| a.ssh_keys = vec!["command=\"id\" ssh-ed25519 AAAA".into()]), "", "invalid"),
        (
            Effect::Accounts(Change::Remove { name: "root".into(), uid: 0, home: Home::Keep, record: None }),
            "gateway: accounts.system",
            "",
        ),
        (
            Effect::Vpn(vpn::Change::Remove {
                provider: vpn::Kind::Wireguard,
                name: "rail-1".to_owned().try_into().unwrap(),
                identity: "x".into(),
                address: None,
            }),
            "policy: vpn.names",
            "",
        ),
        (peer("road-1", "0.0.0.0/0"), "", "invalid"),
        (peer("road-1", "203.0.113.9/32"), "", "invalid"),
        (script("other.sh", "0"), "policy: scripts.pins", ""),
        (script("hello.sh", "1"), "policy: scripts.pins", ""),
        (script("../../bin/sh", "0"), "", "invalid"),
        (
            Effect::State(state::Change::Delete {
                plugin: "p".into(),
                key: "k".into(),
                expect: state::Expect::Anything,
            }),
            "",
            "invalid",
        ),
    ];
    for (effect, rule, code) in &beyond {
        for request in [
            Request::Apply { behalf: behalf(), effect: Box::new(effect.clone()) },
            Request::Foresee { effect: Box::new(effect.clone()), planned: vec![] },
            Request::Trace { effect: Box::new(effect.clone()) },
            Request::Foresee { effect: Box::new(account(|_| {})), planned: vec![effect.clone()] },
        ] {
            let reply = bench.said(&serde_json::to_value(&request).unwrap()).await;
            let Reply::Refused(refusal) = &reply else { panic!("{effect:?}: {reply:?}") };
            let want = if code.is_empty() { "policy" } else { code };
            assert_eq!(
                (refusal.code.as_str(), refusal.rule.as_deref().unwrap_or_default()),
                (want, *rule),
                "{effect:?}"
            );
        }
    }
    assert!(!bench.passwd().contains("viwtest"), "{}", bench.passwd());
    let audit = bench.audit().await;
    assert_eq!(audit.matches("\"decision\":\"refused\"").count(), beyond.len() * 4);
    assert!(!audit.contains("applied") && !audit.contains("begun"), "{audit}");

    // Reads are judged too.
    for (request, want) in [
        (json!({"keys": {"name": "root", "uid": 0}}), "policy"),
        (json!({"keys": {"name": "viwtest-a", "uid": 20_000}}), "failed"),
        (json!({"script": {"name": "/etc/shadow", "sha256": "00"}}), "invalid"),
        (json!({"secret": {"name": "anything"}}), "policy"),
        (json!({"engine": {}}), "policy"),
        (json!({"containers": {}}), "policy"),
        (json!({"container": {"id": "../images/json"}}), "policy"),
        (json!({"peer": {"kind": "wireguard", "name": "rail-1", "planned": []}}), "policy"),
        (json!({"peers": {"kind": "openvpn", "planned": []}}), "failed"),
        (json!({"locks": {}}), "done"),
    ] {
        assert_eq!(code(&bench.said(&request).await), want, "{request}");
    }
}

#[tokio::test]
async fn what_is_no_request_ends_the_connection_with_its_code() {
    let bench = Bench::mine().await;
    for request in [
        json!({"exec": {"program": "/bin/sh"}}),
        json!({"read": {"path": "/etc/shadow"}}),
        json!({"keys": {"name": "a", "uid": 1, "path": "/etc/shadow"}}),
        json!({"keys": {"name": "a", "uid": -1}}),
        json!({"apply": {"behalf": {"invocation": "../x", "seq": 0, "back": false}, "effect": account(|_| {})}}),
        json!({"foresee": {"effect": {"capability": "shell", "change": "id"}, "planned": []}}),
        json!({"peer": {"kind": "wireguard", "name": "a\nkill x", "planned": []}}),
        json!("locks"),
        json!([]),
        json!(null),
    ] {
        assert_eq!(code(&bench.said(&request).await), "malformed", "{request}");
    }
    assert_eq!(code(&bench.raw(b"\0\0\0\x04\xff\xff\xff\xff").await), "malformed");
    // A length alone is refused before a byte of it is waited for.
    let large = u32::try_from(MAX_REQUEST + 1).unwrap().to_be_bytes();
    assert_eq!(code(&bench.raw(&large).await), "too-large");
    assert_eq!(code(&bench.raw(b"GET / HTTP/1.1\r\n\r\n").await), "too-large");
    let audit = bench.audit().await;
    assert_eq!(audit.matches("\"code\":\"malformed\"").count(), 11, "{audit}");
    assert_eq!(audit.matches("\"code\":\"too-large\"").count(), 2, "{audit}");
    // A frame that never ends, and one that is cut off, keep nobody from asking.
    let mut slow = UnixStream::connect(bench.socket()).await.unwrap();
    slow.write_all(b"\0\0\x01\0half").await.unwrap();
    assert_eq!(code(&bench.said(&json!({"locks": {}})).await), "done");
}

#[tokio::test]
async fn a_stranger_is_told_nothing() {
    let bench = Bench::new(61_234, None).await;
    let mut stream = UnixStream::connect(bench.socket()).await.unwrap();
    let mut said = Vec::new();
    stream.read_to_end(&mut said).await.unwrap();
    assert!(said.is_empty());
    let client = Client::new(&bench.socket());
    assert!(matches!(client.hello().await, Err(AskError::Stranger)));
    assert!(bench.foreseen(&account(|_| {})).await.is_err());
    assert!(bench.audit().await.contains("\"code\":\"peer\""));
}

#[tokio::test]
async fn a_broken_policy_lets_nothing_happen() {
    let bench = Bench::mine().await;
    let policy = bench.dir.path().join("policy.toml");
    let client = Client::new(&bench.socket());
    let digest = client.hello().await.unwrap().policy.unwrap();
    assert_eq!(digest, crate::config::digest_of(&policy));
    std::fs::write(&policy, "[capabilities.accounts]\nuids = 7\n").unwrap();
    assert!(client.hello().await.unwrap().policy.is_err());
    assert_eq!(code(&bench.said(&json!({"locks": {}})).await), "unavailable");
    std::fs::write(&policy, "").unwrap();
    let refused = bench.foreseen(&account(|_| {})).await.unwrap_err();
    assert!(matches!(refused, Failure::Denied { .. }), "a narrower one counts at once: {refused}");
}

#[tokio::test]
async fn an_answer_that_never_comes_is_lost_and_one_never_asked_is_not() {
    let dir = tempfile::tempdir().unwrap();
    let socket = dir.path().join("b.sock");
    let client = Client::new(&socket);
    let effect = account(|_| {});
    assert!(matches!(client.apply(&effect, behalf()).await, Err(Unapplied::Failed(Failure::Unavailable(_)))));
    let listener = UnixListener::bind(&socket).unwrap();
    let dying = tokio::spawn(async move {
        let (mut stream, _) = listener.accept().await.unwrap();
        let hello = Hello { protocol: wire::PROTOCOL, version: "0".into(), policy: Ok(String::new()) };
        wire::write(&mut stream, &hello, MAX_REPLY).await.unwrap();
        let _: Request = wire::read(&mut stream, MAX_REQUEST).await.unwrap();
    });
    assert!(matches!(client.apply(&effect, behalf()).await, Err(Unapplied::Lost(_))));
    dying.await.unwrap();
}

#[tokio::test]
async fn one_that_was_handed_its_socket_ends_when_nobody_asks() {
    let uid = rustix::process::geteuid().as_raw();
    let bench = Bench::new(uid, Some(Duration::from_millis(300))).await;
    let client = Client::new(&bench.socket());
    assert!(client.hello().await.is_ok());
    let gone = async {
        while client.hello().await.is_ok() {
            tokio::time::sleep(Duration::from_millis(350)).await;
        }
    };
    tokio::time::timeout(Duration::from_secs(20), gone).await.unwrap();
}

fn peer(name: &str, address: &str) -> Effect {
    let key = "A".repeat(43) + "=";
    let change = json!({"add_wireguard": {"name": name, "public_key": key, "addresses": [address]}});
    Effect::Vpn(serde_json::from_value(change).unwrap())
}

fn script(name: &str, digit: &str) -> Effect {
    Effect::Scripts(scripts::Change::Run {
        name: name.into(),
        sha256: digit.repeat(64),
        args: vec![],
        secrets: vec![],
        invocation: "inv-1".into(),
        timeout_ms: 1_000,
    })
}
