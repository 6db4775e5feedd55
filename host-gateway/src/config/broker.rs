//! What the broker takes from the configuration: the same file as the gateway, so that both
//! mean the same host, and nothing of the environment. Refuses a file, or anything that the
//! file names, that somebody else than root could have written.

use std::os::unix::fs::MetadataExt as _;
use std::path::{Path, PathBuf};

use sha2::{Digest as _, Sha256};
use viworks_signing::keys::PublicKey;

use super::fault::Faults;
use super::keys::{Env, Values};
use super::{DEFAULT_ENGINE, DEFAULT_FILE, Policy, PolicyFile, files, keys_of, providers, read_file};
use crate::host::HostConfig;
use crate::log::Format;

const DEFAULT_STATE_DIR: &str = "/var/lib/viworks-broker";
const DEFAULT_USER: &str = "viworks-gateway";
const PASSWD: &str = "/etc/passwd";

/// Sound by its making, as [`super::Config`].
#[derive(Debug, Clone)]
pub struct BrokerConfig {
    /// The gateway's uid: nobody else's requests are taken.
    pub uid: u32,
    pub state_dir: PathBuf,
    pub audit_log: PathBuf,
    pub policy_file: PolicyFile,
    pub providers: HostConfig,
    pub log_format: Option<Format>,
}

impl BrokerConfig {
    /// Read the file and check all that it names.
    ///
    /// # Errors
    /// Every fault that there is.
    pub fn load(path: Option<&Path>) -> Result<Self, Faults> {
        let mut faults = Faults::default();
        let path = path.unwrap_or(Path::new(DEFAULT_FILE));
        owned("config", path, &mut faults);
        let table = read_file(Some(path), &Env::new(), &mut faults);
        let values = Values::merge(table, &Env::new(), &mut faults);
        let config = build(&values, &mut faults);
        if faults.is_empty() { Ok(config) } else { Err(faults) }
    }

    /// The policy as it is now, and the SHA-256 of its file.
    ///
    /// # Errors
    /// Every fault of it.
    pub fn policy(&self) -> Result<(Policy, String), Faults> {
        let mut faults = Faults::default();
        let path = self.policy_file.path();
        owned("policy", path, &mut faults);
        let digest = digest_of(path);
        let policy = self.policy_file.load(&mut faults);
        if faults.is_empty() { Ok((policy, digest)) } else { Err(faults) }
    }
}

/// Lowercase hex SHA-256 of a policy file, by which both sides see that they mean the same.
#[must_use]
pub fn digest_of(policy: &Path) -> String {
    hex::encode(Sha256::digest(std::fs::read(policy).unwrap_or_default()))
}

fn build(values: &Values, faults: &mut Faults) -> BrokerConfig {
    let path = |key: &str, faults: &mut Faults| values.text(key, faults).map(PathBuf::from);
    let user = values.text("broker_user", faults).unwrap_or_else(|| DEFAULT_USER.to_owned());
    let uid = uid_of(&user, faults);
    let state_dir = path("broker_state_dir", faults).unwrap_or_else(|| DEFAULT_STATE_DIR.into());
    files::writable_dir("broker_state_dir", &state_dir, faults);
    owned("broker_state_dir", &state_dir, faults);
    let audit_log = path("broker_audit_log", faults).unwrap_or_else(|| state_dir.join("audit.jsonl"));
    files::writable_parent("broker_audit_log", &audit_log, faults);

    let known: Vec<PublicKey> =
        path("release_keys", faults).map_or_else(Vec::new, |path| keys_of("release_keys", &path, faults));
    let policy = values.required("policy", "the host owner's policy file", faults).map(PathBuf::from);
    let policy_file = PolicyFile::new(policy.unwrap_or_default(), known);
    if !policy_file.path().as_os_str().is_empty() {
        owned("policy", policy_file.path(), faults);
        let _ = policy_file.load(faults);
    }

    let mut providers = providers(values, faults);
    let engine = super::container_engine(values, faults).or(providers.containers.socket.take());
    providers.containers.socket = Some(engine.unwrap_or_else(|| DEFAULT_ENGINE.into()));
    providers.scripts.root = path("scripts_root", faults).or(providers.scripts.root.take());
    // Not below the gateway's own directory, where its user could put another in its place.
    providers.accounts.quarantine.get_or_insert_with(|| state_dir.join("quarantine"));
    for (key, path) in named(&providers) {
        owned(key, path, faults);
    }
    if providers.vpn.openvpn.as_ref().is_some_and(|vpn| !vpn.management.is_unix()) {
        let mend = "let OpenVPN manage by a unix socket: management = \"unix:/run/openvpn/server.sock\"";
        faults.add("providers.vpn.openvpn", "management", "needs a network, which the broker does not have", mend);
    }
    let log_format = values.text("log_format", faults).and_then(|word| Format::of(&word));
    BrokerConfig { uid, state_dir, audit_log, policy_file, providers, log_format }
}

/// Every path that decides what the broker does or trusts.
fn named(providers: &HostConfig) -> Vec<(&'static str, &Path)> {
    let accounts = &providers.accounts;
    let mut paths: Vec<(&str, Option<&PathBuf>)> = vec![
        ("providers.accounts.root", accounts.root.as_ref()),
        ("providers.accounts.quarantine", accounts.quarantine.as_ref()),
        ("providers.accounts.skeleton", accounts.skeleton.as_ref()),
        ("providers.accounts.useradd", accounts.useradd.as_ref()),
        ("providers.accounts.usermod", accounts.usermod.as_ref()),
        ("providers.accounts.userdel", accounts.userdel.as_ref()),
        ("providers.accounts.groupadd", accounts.groupadd.as_ref()),
        ("providers.accounts.chpasswd", accounts.chpasswd.as_ref()),
        ("scripts_root", providers.scripts.root.as_ref()),
        ("providers.secrets.directory", providers.secrets.directory.as_ref()),
        ("providers.vpn.wireguard.config_file", providers.vpn.wireguard.as_ref().map(|vpn| &vpn.config_file)),
    ];
    if let Some(vpn) = &providers.vpn.openvpn {
        paths.push(("providers.vpn.openvpn.ca_cert", Some(&vpn.ca_cert)));
        paths.push(("providers.vpn.openvpn.ca_key", Some(&vpn.ca_key)));
        paths.push(("providers.vpn.openvpn.crl_file", Some(&vpn.crl_file)));
        paths.push(("providers.vpn.openvpn.database", Some(&vpn.database)));
        paths.push(("providers.vpn.openvpn.tls_crypt", vpn.tls_crypt.as_ref()));
    }
    paths.into_iter().filter_map(|(key, path)| Some((key, path?.as_path()))).collect()
}

/// What is there, and every directory above it, is root's (or this process's own) and
/// nobody else's to write; a sticky directory lets nobody replace what is another's.
fn owned(key: &str, path: &Path, faults: &mut Faults) {
    let me = rustix::process::geteuid().as_raw();
    if !path.is_absolute() {
        faults.add(key, path.display(), "is not an absolute path", "begin it with /");
        return;
    }
    for (depth, there) in path.ancestors().enumerate() {
        let Ok(meta) = std::fs::symlink_metadata(there) else { continue };
        // What a link leads to is looked at where it is read; who may change the link, here.
        let sticky = depth > 0 && meta.mode() & 0o1000 != 0;
        let problem = if meta.uid() != 0 && meta.uid() != me {
            format!("{} belongs to uid {}, not to root", there.display(), meta.uid())
        } else if !meta.is_symlink() && meta.mode() & 0o022 != 0 && !sticky {
            format!("{} can be written by others (mode {:03o})", there.display(), meta.mode() & 0o777)
        } else {
            continue;
        };
        let mend = format!("chown root: {0} and chmod go-w {0}, after seeing who wrote there", there.display());
        faults.add(key, path.display(), problem, mend);
        return;
    }
}

/// A number, or the name of a local account.
fn uid_of(user: &str, faults: &mut Faults) -> u32 {
    let passwd = std::fs::read_to_string(PASSWD).unwrap_or_default();
    let named = passwd.lines().find_map(|line| {
        let mut fields = line.split(':');
        let uid = (fields.next() == Some(user)).then(|| fields.nth(1))??;
        uid.parse().ok()
    });
    match user.parse().ok().or(named) {
        None => faults.add("broker_user", user, "is no account of this host", "name the gateway's user, or its uid"),
        Some(0) => faults.add("broker_user", user, "is root", "run the gateway as a user of its own"),
        Some(uid) => return uid,
    }
    u32::MAX
}

#[cfg(test)]
mod tests {
    use super::*;
    use std::os::unix::fs::PermissionsExt as _;

    #[test]
    fn what_others_could_have_written_is_a_fault() {
        let dir = tempfile::tempdir().unwrap();
        let policy = dir.path().join("policy.toml");
        std::fs::write(&policy, "[capabilities.accounts]\n").unwrap();
        let config = dir.path().join("gateway.toml");
        let text = format!(
            "policy = {policy:?}\nbroker_user = \"61234\"\nbroker_state_dir = {:?}\n",
            dir.path().join("state")
        );
        std::fs::write(&config, text).unwrap();
        let mode = |path: &Path, mode| {
            std::fs::set_permissions(path, std::fs::Permissions::from_mode(mode)).unwrap();
        };
        for path in [&config, &policy] {
            mode(path, 0o644);
        }
        let sound = BrokerConfig::load(Some(&config)).unwrap();
        assert_eq!((sound.uid, sound.policy().unwrap().1), (61_234, digest_of(&policy)));

        for (path, bad, good) in
            [(&config, 0o664, 0o644), (&policy, 0o646, 0o644), (&dir.path().to_owned(), 0o777, 0o755)]
        {
            mode(path, bad);
            let faults = BrokerConfig::load(Some(&config)).unwrap_err().to_string();
            assert!(faults.contains("can be written by others"), "{faults}");
            mode(path, good);
        }
        mode(&policy, 0o666);
        assert!(sound.policy().is_err(), "it is looked at each time");
    }

    #[test]
    fn root_and_nobody_are_no_gateway() {
        for user in ["root", "0", "viwtest-nobody-of-that-name"] {
            let mut faults = Faults::default();
            uid_of(user, &mut faults);
            assert!(!faults.is_empty(), "{user}");
        }
    }
}
