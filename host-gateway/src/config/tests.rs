//! A sound configuration, and each of its faults.

use std::os::unix::fs::PermissionsExt as _;

use rcgen::{BasicConstraints, CertificateParams, ExtendedKeyUsagePurpose as Usage, IsCa, Issuer, KeyPair, SanType};
use viworks_signing::keys::SecretKey;

use super::*;

const AGENT: &str = "web-01";

/// A certificate authority for tests, of this module and of the link's.
pub(crate) struct Authority {
    pub(crate) pem: String,
    issuer: Issuer<'static, KeyPair>,
}

/// What was issued: certificate and key in PEM, and the pin of the key.
pub(crate) struct Issued {
    pub(crate) cert: String,
    pub(crate) key: String,
    pub(crate) pin: String,
}

impl Authority {
    pub(crate) fn new() -> Self {
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::new(Vec::new()).unwrap();
        params.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
        params.distinguished_name.push(rcgen::DnType::CommonName, "authority of tests");
        Self { pem: params.self_signed(&key).unwrap().pem(), issuer: Issuer::new(params, key) }
    }

    pub(crate) fn issue(
        &self,
        names: Vec<SanType>,
        usage: Usage,
        change: impl FnOnce(&mut CertificateParams),
    ) -> Issued {
        use base64::prelude::{BASE64_STANDARD, Engine as _};
        use sha2::{Digest as _, Sha256};
        let key = KeyPair::generate().unwrap();
        let mut params = CertificateParams::default();
        params.subject_alt_names = names;
        params.extended_key_usages = vec![usage];
        change(&mut params);
        let cert = params.signed_by(&key, &self.issuer).unwrap();
        let pin = format!(
            "sha256/{}",
            BASE64_STANDARD.encode(Sha256::digest(rcgen::PublicKeyData::subject_public_key_info(&key)))
        );
        Issued { cert: cert.pem(), key: key.serialize_pem(), pin }
    }

    pub(crate) fn agent(&self, id: &str) -> Issued {
        self.issue(vec![agent_name(id)], Usage::ClientAuth, |_| ())
    }
}

fn agent_name(id: &str) -> SanType {
    SanType::URI(format!("spiffe://viworks/agent/{id}").try_into().unwrap())
}

/// A directory with everything that a sound configuration names.
pub(crate) struct Bench {
    pub(crate) dir: tempfile::TempDir,
    pub(crate) authority: Authority,
    pub(crate) table: toml::Table,
}

impl Bench {
    pub(crate) fn new() -> Self {
        let dir = tempfile::tempdir().unwrap();
        let authority = Authority::new();
        let agent = authority.agent(AGENT);
        let mut bench = Self { dir, authority, table: toml::Table::new() };
        let public = SecretKey::generate().public().to_pem().unwrap();
        bench.set("backend_url", "wss://viworks.example.com:8081");
        bench.set("agent_id", AGENT);
        bench.set("backend_spki_pin", &agent.pin);
        bench.file("cert_path", &agent.cert);
        bench.file("key_path", &agent.key);
        let pem = bench.authority.pem.clone();
        bench.file("trust_bundle", &pem);
        bench.file("warrant_keys", &public);
        bench.file("release_keys", &public.repeat(2));
        bench.file("policy", "[capabilities.vpn]\n[limits]\nmemory_mib = 8\n");
        let state = bench.dir.path().join("state");
        bench.set("state_dir", state.to_str().unwrap());
        bench
    }

    pub(crate) fn set(&mut self, key: &str, value: &str) {
        self.table.insert(key.into(), toml::Value::String(value.into()));
    }

    /// Write the file that `key` names; private, as the strictest of them must be.
    pub(crate) fn file(&mut self, key: &str, content: &str) {
        let path = self.dir.path().join(key);
        std::fs::write(&path, content).unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(0o600)).unwrap();
        self.set(key, path.to_str().unwrap());
    }

    pub(crate) fn load(&self) -> Result<Config, Faults> {
        let path = self.dir.path().join("gateway.toml");
        std::fs::write(&path, self.table.to_string()).unwrap();
        Config::load(Some(&path), &Env::new(), time::OffsetDateTime::now_utc().unix_timestamp())
    }

    /// The one fault that it has.
    fn fault(&self) -> Fault {
        let Err(faults) = self.load() else { panic!("it has a fault") };
        let all: Vec<_> = faults.iter().cloned().collect();
        assert_eq!(all.len(), 1, "{faults}");
        assert!(!all[0].mend.is_empty());
        all[0].clone()
    }
}

#[test]
fn a_sound_one_loads_with_the_contracts_defaults() {
    let config = Bench::new().load().unwrap();
    assert_eq!((config.max_concurrency, config.queue), (4, 64));
    assert_eq!((config.cmd_timeout.as_secs(), config.telemetry.as_secs(), config.drain.as_secs()), (45, 30, 20));
    assert_eq!(config.status_socket, config.state_dir.join("status.sock"));
    assert_eq!(config.audit_log, config.state_dir.join("audit.jsonl"));
    assert_eq!(config.policy.scopes.names(), ["vpn"]);
    assert_eq!(config.policy.limits.memory_mib, 8);
    assert_eq!(config.release_keys.len(), 2);
    assert_eq!(config.providers.containers.socket, Some(DEFAULT_ENGINE.into()));
    assert_eq!(config.providers.state.file, Some(config.state_dir.join("plugin-state.db")));
    assert!(!config.state_dir.exists(), "checking changes nothing");
}

#[test]
fn everything_is_told_at_once() {
    let empty = toml::Table::new();
    let mut faults = Faults::default();
    let values = Values::merge(empty, &Env::new(), &mut faults);
    assert!(build(&values, 0, &mut faults).is_none());
    let keys: Vec<_> = faults.iter().map(|f| f.key.as_str()).collect();
    for key in "backend_url agent_id cert_path key_path trust_bundle backend_spki_pin warrant_keys release_keys policy"
        .split(' ')
    {
        assert!(keys.contains(&key), "{key} in {keys:?}");
    }
    assert_eq!(faults.to_json()["ok"], false);
}

#[test]
fn faults_of_texts_and_numbers_name_their_key() {
    for (key, value, problem) in [
        ("backend_url", "https://viworks.example.com", "wss://"),
        ("agent_id", "web 01", "agent id"),
        ("backend_spki_pin", "", "missing or empty"),
        ("backend_spki_pin", "sha256/abc", "32 bytes"),
        ("max_concurrency", "0", "from 1 to 256"),
        ("queue", "many", "whole number"),
        ("log_format", "xml", "none of"),
        ("container_engine", "tcp://192.0.2.1", "socket"),
        ("labels", "novalue", "table"),
        ("state_dir", "relative", "absolute"),
        ("status_socket", &format!("/tmp/{}", "s".repeat(120)), "107"),
        ("scripts_root", "/nonexistent/scripts", "can't be read"),
        ("cert_path", "/nonexistent/cert", "can't be read"),
        ("key_path", "/nonexistent/key", "can't be read"),
        ("warrant_keys", "/nonexistent/keys", "can't be read"),
        ("policy", "/nonexistent/policy", "can't be read"),
    ] {
        let mut bench = Bench::new();
        bench.set(key, value);
        if key == "state_dir" {
            bench.set("status_socket", "/tmp/s.sock");
            bench.set("audit_log", "/tmp/a.jsonl");
        }
        let fault = bench.fault();
        assert_eq!(fault.key, key);
        assert!(fault.problem.contains(problem), "{fault:?}");
    }
}

#[test]
fn faults_of_files_name_their_key() {
    let weak = "-----BEGIN PUBLIC KEY-----\nMCowBQYDK2VwAyEAAQAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAAA=\n-----END PUBLIC KEY-----\n";
    for (key, content, problem) in [
        ("cert_path", "", "no certificate"),
        ("key_path", "x", "no private key"),
        ("trust_bundle", "", "holds no certificate"),
        ("warrant_keys", "", "PUBLIC KEY"),
        ("release_keys", weak, "weak"),
        ("policy", "[capabilities.vpm]", "an unknown capability"),
        ("policy", "[limits]\noutput_kib = 90000", "output_kib"),
        ("policy", "[capabilities.scripts]\npins = { a = \"AB\" }", "pins.a is \"AB\""),
        ("policy", "[capabilities.accounts]\nuids = { min = 10, max = 20 }", "accounts.uids is { min = 10"),
    ] {
        let mut bench = Bench::new();
        bench.file(key, content);
        let fault = bench.fault();
        assert_eq!(fault.key, key);
        assert!(fault.problem.contains(problem), "{fault:?}");
    }
}

#[test]
fn keys_that_others_read_and_trust_that_others_write_are_faults() {
    for (key, mode, problem) in [
        ("key_path", 0o644, "everyone"),
        ("key_path", 0o640, "more than its owner"),
        ("policy", 0o602, "written by everyone"),
    ] {
        let bench = Bench::new();
        let path = bench.dir.path().join(key);
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let fault = bench.fault();
        assert_eq!(fault.key, key);
        assert!(fault.problem.contains(problem), "{fault:?}");
    }
}

#[test]
fn certificates_that_the_backend_would_refuse_are_faults() {
    let past = |p: &mut CertificateParams| p.not_after = rcgen::date_time_ymd(2020, 1, 1);
    let future = |p: &mut CertificateParams| {
        p.not_before = rcgen::date_time_ymd(2500, 1, 1);
        p.not_after = rcgen::date_time_ymd(2600, 1, 1);
    };
    type Change = fn(&mut CertificateParams);
    let cases: [(Vec<SanType>, Usage, Change, &str); 5] = [
        (vec![agent_name(AGENT)], Usage::ClientAuth, past, "expired"),
        (vec![agent_name(AGENT)], Usage::ClientAuth, future, "not valid before"),
        (vec![agent_name(AGENT)], Usage::ServerAuth, |_| (), "not for clients"),
        (vec![agent_name("web-02")], Usage::ClientAuth, |_| (), "web-02"),
        (vec![agent_name(AGENT), agent_name("web-02")], Usage::ClientAuth, |_| (), "alone"),
    ];
    for (names, usage, change, problem) in cases {
        let mut bench = Bench::new();
        let issued = bench.authority.issue(names, usage, change);
        bench.file("cert_path", &issued.cert);
        bench.file("key_path", &issued.key);
        let fault = bench.fault();
        assert_eq!(fault.key, "cert_path");
        assert!(fault.problem.contains(problem), "{fault:?}");
    }
    let mut bench = Bench::new();
    let other = bench.authority.agent(AGENT);
    bench.file("key_path", &other.key);
    assert_eq!(bench.fault().problem, "does not match the certificate");
    let leaf = bench.authority.agent(AGENT);
    let mut bench = Bench::new();
    bench.file("trust_bundle", &leaf.cert);
    assert!(bench.fault().problem.contains("not a certificate authority's"));
}

#[test]
fn required_scripts_are_there_and_as_pinned() {
    let mut bench = Bench::new();
    bench.table.insert("required_scripts".into(), toml::Value::Array(vec!["hello.sh".into()]));
    assert_eq!(bench.fault().key, "scripts_root");
    let root = bench.dir.path().join("scripts");
    std::fs::create_dir(&root).unwrap();
    bench.set("scripts_root", root.to_str().unwrap());
    assert_eq!(bench.fault().key, "required_scripts");
    std::fs::write(root.join("hello.sh"), "#!/bin/sh\n").unwrap();
    assert!(bench.load().is_ok());
    bench.file("policy", &format!("[capabilities.scripts]\npins = {{ \"hello.sh\" = \"{}\" }}", "ab".repeat(32)));
    assert!(bench.fault().problem.contains("pins"));
}

#[test]
fn unknown_keys_and_provider_keys_are_faults_side_by_side() {
    let mut bench = Bench::new();
    bench.set("agnt_id", "x");
    let providers: toml::Table = "[system]\nbogus = 1\n[nothing]\n".parse().unwrap();
    bench.table.insert("providers".into(), toml::Value::Table(providers));
    let Err(faults) = bench.load() else { panic!("faults") };
    let keys: Vec<_> = faults.iter().map(|f| f.key.as_str()).collect();
    assert_eq!(keys, ["agnt_id", "providers.nothing", "providers.system"]);
}
