//! Attacks on a gateway's admission: the real one, with its store, its compiled code and its
//! memory on a disk. What it refuses, it refuses as [`Plugins`] tells its operators.

use sha2::{Digest as _, Sha256};
use std::fs;
use std::os::unix::fs::symlink;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, SystemTime};
use tempfile::TempDir;
use viworks_gateway::config::Policy;
use viworks_gateway::plugins::{Plugins, Registry, Rules};
use viworks_gateway::runtime::{Runtime, RuntimeConfig};
use viworks_gateway::trust::{Anchor, Repository};
use viworks_protocol::frame::{PluginOffer, PluginState, PluginStatus};
use viworks_signing::keys::SecretKey;
use viworks_signing::manifest::Manifest;
use viworks_signing::tuf::Action;
use viworks_signing::tuf::repo::Release;
use viworks_signing::{build_release, sign_release};

use super::release::{guest, manifest};
use super::repository::Site;
use super::{ACCEPTED, Answer, Row};

type Tried<T> = Result<T, Box<dyn std::error::Error + Send + Sync>>;

pub(super) const ROWS: &[Row] = &[
    Row::new("release-that-the-repository-does-not-name", "E_TUF_TARGET", || run(unnamed)),
    Row::new("statements-of-another-signing", "E_TUF_MIXED", || run(other_statements)),
    Row::new("bytes-that-were-not-offered", "E_DIGEST", || run(not_offered)),
    Row::new("import-without-a-grant", "E_IMPORT", || run(ungranted)),
    Row::new("file-replaced-after-verification", "E_DIGEST", || run(file_replaced)),
    Row::new("compiled-code-swapped", REFUSED_CODE, || run(async |host: &mut Host| compiled(host, swapped).await)),
    Row::new("compiled-code-of-another-engine", REFUSED_CODE, || {
        run(async |host: &mut Host| compiled(host, other_engine).await)
    }),
    Row::new("compiled-code-by-a-symlink", REFUSED_CODE, || {
        run(async |host: &mut Host| compiled(host, by_symlink).await)
    }),
    Row::new("mutated-compiled-code-x1000", REFUSED_CODE, || run(mutated)),
    Row::new("older-release", "E_ROLLBACK", || run(older)),
    Row::new("state-deleted", "E_ROLLBACK", || run(state_deleted)),
    Row::new("power-cut-in-mid-write", "E_REVOKED_DIGEST", || run(power_cut)),
    Row::new("failed-update-that-poisons-the-cache", "E_SIGNATURE", || run(poisoned)),
    Row::new("release-by-a-revoked-key", "E_REVOKED_KEY", || run(revoked_key)),
    Row::new("release-with-a-revoked-digest", "E_REVOKED_DIGEST", || run(revoked_digest)),
    Row::new("release-below-a-revoked-sequence", "E_REVOKED_SEQUENCE", || run(revoked_sequence)),
];

/// Compiled code has no code of its own: it is not used, removed, and made anew.
const REFUSED_CODE: &str = "E_AOT";

/// A host with a release repository.
struct Host {
    dir: TempDir,
    runtime: Arc<Runtime>,
    plugins: Plugins,
    repository: Repository,
    anchor: Anchor,
    site: Site,
    key: SecretKey,
}

/// A signed release, as it is offered and fetched.
#[derive(Clone)]
struct Bundle {
    offer: PluginOffer,
    component: Vec<u8>,
    statements: String,
}

impl Host {
    fn new() -> Tried<Self> {
        let (dir, site) = (tempfile::tempdir()?, Site::empty()?);
        let anchor = Anchor::new(&site.root())?;
        let runtime = Arc::new(Runtime::new(RuntimeConfig::default()).map_err(|e| e.to_string())?);
        let key = SecretKey::generate();
        let (plugins, repository) = open(dir.path(), &runtime, &anchor, &key)?;
        Ok(Self { dir, runtime, plugins, repository, anchor, site, key })
    }

    /// What a restart finds.
    async fn restart(&mut self) -> Tried<Vec<PluginStatus>> {
        (self.plugins, self.repository) = open(self.dir.path(), &self.runtime, &self.anchor, &self.key)?;
        Ok(self.plugins.load().await)
    }

    /// The same, with a compiler that compiles nothing: what is active then came from the
    /// compiled code.
    async fn restart_without_compiler(&mut self) -> Tried<Vec<PluginStatus>> {
        (self.plugins, self.repository) = open(self.dir.path(), &self.runtime, &self.anchor, &self.key)?;
        self.plugins.compile_by("/bin/false");
        Ok(self.plugins.load().await)
    }

    /// The `n`th release of a guest, signed but not in the repository.
    fn bundle(&self, name: &str, n: u32) -> Tried<Bundle> {
        let mut component = guest(name)?;
        component.extend_from_slice(&[0, 3, 1, b'n', u8::try_from(n)?]);
        self.sign(name, n, component, &self.key)
    }

    fn sign(&self, name: &str, n: u32, component: Vec<u8>, key: &SecretKey) -> Tried<Bundle> {
        let manifest = self.manifest(name, n)?;
        let statements = sign_release(&build_release(&component, &manifest)?, &[key])?;
        let offer = PluginOffer {
            plugin: manifest.id.clone(),
            version: manifest.version.to_string(),
            digest: hex::encode(Sha256::digest(&component)),
            component_size: u32::try_from(component.len())?,
            statements_size: u32::try_from(statements.len())?,
            shadow: false,
        };
        Ok(Bundle { offer, component, statements })
    }

    fn manifest(&self, name: &str, n: u32) -> Tried<Manifest> {
        let text = manifest(name)?
            .replace("sequence = 1", &format!("sequence = {n}"))
            .replace("version = \"1.0.0\"", &format!("version = \"1.0.{n}\""));
        Ok(Manifest::parse(&text)?)
    }

    /// The same, in the repository, which the host knows.
    async fn released(&mut self, name: &str, n: u32) -> Tried<Bundle> {
        let (bundle, manifest) = (self.bundle(name, n)?, self.manifest(name, n)?);
        self.site.release(&Release {
            plugin: &manifest.id,
            version: &manifest.version,
            epoch: manifest.epoch,
            sequence: manifest.sequence,
            component: &bundle.component,
            statements: bundle.statements.as_bytes(),
        })?;
        self.update().await?;
        Ok(bundle)
    }

    async fn update(&self) -> Tried<()> {
        let files = self.site.files();
        let Some(mut update) = self.repository.update(u64::MAX, SystemTime::now()) else {
            return Err("nothing to update".into());
        };
        while let Some(name) = update.wanted().map(str::to_owned) {
            let text = files.get(&name).map(|bytes| String::from_utf8_lossy(bytes).into_owned());
            update.take(&name, text.as_deref()).map_err(|error| error.code())?;
        }
        self.repository.keep(&update)?;
        self.plugins.review().await;
        Ok(())
    }

    async fn install(&self, bundle: &Bundle) -> PluginStatus {
        self.plugins.install(bundle.offer.clone(), bundle.component.clone(), bundle.statements.clone()).await
    }

    /// Released, installed and active.
    async fn active(&mut self, name: &str, n: u32) -> Tried<Bundle> {
        let bundle = self.released(name, n).await?;
        let status = self.install(&bundle).await;
        active(&status)?;
        Ok(bundle)
    }

    fn path(&self, name: &str) -> PathBuf {
        self.dir.path().join(name)
    }

    /// The compiled code of a component.
    fn compiled(&self, digest: &str) -> Tried<PathBuf> {
        for entry in fs::read_dir(self.path("aot"))? {
            let path = entry?.path();
            let name = path.file_name().and_then(|name| name.to_str()).unwrap_or_default();
            if name.starts_with(digest) && name.ends_with(".cwasm") {
                return Ok(path);
            }
        }
        Err("no compiled code".into())
    }
}

fn open(dir: &Path, runtime: &Arc<Runtime>, anchor: &Anchor, key: &SecretKey) -> Tried<(Plugins, Repository)> {
    let rules = Rules { release_keys: vec![key.public()], policy: Policy::default() };
    let repository = Repository::open(dir, Some(anchor.clone()), Duration::from_secs(3_600))?;
    let plugins = Plugins::open(dir, rules, repository.clone(), runtime.clone(), Arc::new(Registry::default()))?;
    Ok((plugins, repository))
}

fn run(attack: impl AsyncFnOnce(&mut Host) -> Answer) -> Answer {
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(2).enable_all().build()?;
    runtime.block_on(async { attack(&mut Host::new()?).await })
}

/// The control.
fn active(status: &PluginStatus) -> Tried<()> {
    if status.state == PluginState::Active {
        Ok(())
    } else {
        Err(format!("the unattacked thing is refused: {status:?}").into())
    }
}

/// `E_CODE: …` to `E_CODE`.
fn answer(status: &PluginStatus) -> Answer {
    let detail = status.detail.as_deref().unwrap_or_default();
    let code = detail.split_once(": ").map_or(detail, |(code, _)| code);
    Ok(if status.state == PluginState::Refused { code.to_owned() } else { ACCEPTED.to_owned() })
}

fn of<'a>(statuses: &'a [PluginStatus], plugin: &str) -> Tried<&'a PluginStatus> {
    statuses.iter().find(|status| status.plugin == plugin).ok_or_else(|| "no status".into())
}

async fn unnamed(host: &mut Host) -> Answer {
    host.active("echo", 1).await?;
    answer(&host.install(&host.bundle("echo", 2)?).await)
}

/// The component that the repository names, with another statement of a trusted key.
async fn other_statements(host: &mut Host) -> Answer {
    let bundle = host.released("echo", 1).await?;
    let mut other = bundle.clone();
    let mut statement = build_release(&bundle.component, &host.manifest("echo", 1)?)?;
    statement.predicate.description = "Other words".to_owned();
    other.statements = sign_release(&statement, &[&host.key])?;
    let refused = answer(&host.install(&other).await);
    active(&host.install(&bundle).await)?;
    refused
}

async fn not_offered(host: &mut Host) -> Answer {
    let (first, second) = (host.active("echo", 1).await?, host.released("echo", 2).await?);
    let lie = Bundle { offer: second.offer, ..first };
    answer(&host.install(&lie).await)
}

async fn ungranted(host: &mut Host) -> Answer {
    host.active("echo", 1).await?;
    let bundle = host.released("undeclared", 1).await?;
    answer(&host.install(&bundle).await)
}

/// The stored file is another one when it is loaded again.
async fn file_replaced(host: &mut Host) -> Answer {
    let bundle = host.active("echo", 1).await?;
    active(of(&host.restart().await?, "echo")?)?;
    let path = host.path(&format!("plugins/{}.wasm", bundle.offer.digest));
    let mut bytes = fs::read(&path)?;
    if let Some(last) = bytes.last_mut() {
        *last ^= 1;
    }
    fs::write(&path, bytes)?;
    answer(of(&host.restart().await?, "echo")?)
}

/// Something happens to the compiled code of `echo`; `nap`'s lies beside it.
async fn compiled(host: &mut Host, change: fn(&Path, &Path) -> Tried<()>) -> Answer {
    let (echo, nap) = (host.active("echo", 1).await?, host.active("nap", 1).await?);
    host.restart().await?;
    if host.plugins.metrics().cache_hits.load(Ordering::Relaxed) != 2 {
        return Err("unattacked compiled code is not used".into());
    }
    change(&host.compiled(&echo.offer.digest)?, &host.compiled(&nap.offer.digest)?)?;
    active(of(&host.restart().await?, "echo")?)?;
    let metrics = host.plugins.metrics();
    let counts = (metrics.cache_hits.load(Ordering::Relaxed), metrics.compiled.load(Ordering::Relaxed));
    Ok(if counts == (1, 1) { REFUSED_CODE.to_owned() } else { ACCEPTED.to_owned() })
}

fn mac(path: &Path) -> PathBuf {
    let mut name = path.as_os_str().to_owned();
    name.push(".mac");
    name.into()
}

/// Put other bytes in a file's place. The file itself is mapped by the gateway that runs.
fn replace(path: &Path, bytes: &[u8]) -> Tried<()> {
    let new = path.with_extension("attack");
    fs::write(&new, bytes)?;
    Ok(fs::rename(new, path)?)
}

fn swapped(echo: &Path, nap: &Path) -> Tried<()> {
    replace(echo, &fs::read(nap)?)?;
    replace(&mac(echo), &fs::read(mac(nap))?)
}

fn other_engine(echo: &Path, _: &Path) -> Tried<()> {
    let engine = wasmtime::Engine::default();
    let other = engine.precompile_component(b"\0asm\x0d\0\x01\0").map_err(|error| error.to_string())?;
    replace(echo, &other)
}

fn by_symlink(echo: &Path, _: &Path) -> Tried<()> {
    let elsewhere = echo.with_extension("elsewhere");
    fs::rename(echo, &elsewhere)?;
    Ok(symlink(elsewhere, echo)?)
}

/// Loads again and again, with one byte of the compiled code changed each time.
async fn mutated(host: &mut Host) -> Answer {
    let bundle = host.active("nap", 1).await?;
    active(of(&host.restart_without_compiler().await?, "nap")?)?;
    let path = host.compiled(&bundle.offer.digest)?;
    let (good, good_mac) = (fs::read(&path)?, fs::read(mac(&path))?);
    let mut changes = super::mutations::Changes::new();
    for round in 0..super::mutations::COUNT {
        let mut bytes = good.clone();
        let (at, by) = changes.change(&mut bytes);
        replace(&path, &bytes)?;
        replace(&mac(&path), &good_mac)?;
        let statuses = host.restart_without_compiler().await?;
        let status = of(&statuses, "nap")?;
        let loaded = host.plugins.metrics().cache_hits.load(Ordering::Relaxed);
        if (loaded, status.state) != (0, PluginState::Refused) || answer(status)? != "E_COMPILE" {
            return Err(format!("round {round}: byte {at} xor {by}: loaded {loaded}, {status:?}").into());
        }
    }
    Ok(REFUSED_CODE.to_owned())
}

async fn older(host: &mut Host) -> Answer {
    let first = host.active("echo", 1).await?;
    host.active("echo", 2).await?;
    answer(&host.install(&first).await)
}

/// What is active, and what was, is deleted.
async fn state_deleted(host: &mut Host) -> Answer {
    let first = host.active("echo", 1).await?;
    let second = host.active("echo", 2).await?;
    fs::remove_dir_all(host.path("plugins"))?;
    host.restart().await?;
    let refused = answer(&host.install(&first).await);
    active(&host.install(&second).await)?;
    refused
}

/// Metadata and index are half written; what was revoked stays so.
async fn power_cut(host: &mut Host) -> Answer {
    let bundle = host.active("echo", 1).await?;
    let digest = bundle.offer.digest.clone();
    host.site.revoke(|list| list.revoke_digest(digest, Action::Stop, "bad".to_owned()))?;
    host.update().await?;
    let path = host.path("trust/metadata.json");
    let whole = fs::read(&path)?;
    fs::write(&path, &whole[..whole.len() / 2])?;
    answer(of(&host.restart().await?, "echo")?)
}

/// An update that is refused leaves what runs, and no compiled code of its own.
async fn poisoned(host: &mut Host) -> Answer {
    let first = host.active("echo", 1).await?;
    let second = host.released("echo", 2).await?;
    let forged = host.sign("echo", 2, second.component.clone(), &SecretKey::generate())?;
    let refused = answer(&host.install(&forged).await);
    if host.compiled(&forged.offer.digest).is_ok() {
        return Ok(ACCEPTED.to_owned());
    }
    let statuses = host.restart().await?;
    active(of(&statuses, "echo")?)?;
    if of(&statuses, "echo")?.digest != first.offer.digest {
        return Ok(ACCEPTED.to_owned());
    }
    refused
}

async fn revoked_key(host: &mut Host) -> Answer {
    let bundle = host.active("echo", 1).await?;
    let id = host.key.public().id();
    host.site.revoke(|list| list.revoke_key(id))?;
    host.update().await?;
    answer(&host.install(&bundle).await)
}

async fn revoked_digest(host: &mut Host) -> Answer {
    let bundle = host.active("echo", 1).await?;
    let digest = bundle.offer.digest.clone();
    host.site.revoke(|list| list.revoke_digest(digest, Action::Drain, "bad".to_owned()))?;
    host.update().await?;
    answer(&host.install(&bundle).await)
}

async fn revoked_sequence(host: &mut Host) -> Answer {
    let bundle = host.active("echo", 1).await?;
    host.site.revoke(|list| list.raise_floor("echo".to_owned(), 0, 1))?;
    host.update().await?;
    answer(&host.install(&bundle).await)
}
