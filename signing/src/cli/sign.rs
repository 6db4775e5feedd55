//! `viworks-sign sign`: component and `plugin.toml` in, the bundle's two files out.
//! Refuses to write what it would not verify itself.

use clap::Args;
use std::path::PathBuf;
use std::time::SystemTime;
use viworks_signing::keys::PublicKey;
use viworks_signing::manifest::Manifest;
use viworks_signing::publish::{build_release, sign_provenance, sign_release};
use viworks_signing::signer::Signer;
use viworks_signing::verify::{MAX_COMPONENT, verify};
use viworks_signing::{pack::pack, provenance};

use super::built::Built;
use super::keyref::Password;
use super::{Error, Exit, files, output};

/// Sign a component as a release of its plugin: writes ID.wasm and ID.wasm.intoto.jsonl.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign sign accounts.wasm --manifest plugin.toml --wit wit --wit ../wit --key file:keys/release.key.pem --out dist
  viworks-sign sign accounts.wasm --key env:RELEASE_KEY --builder https://ci.example.com/runner \\
    --source git+https://git.example.com/plugins@COMMIT --material Cargo.lock --invocation run-7   # with provenance
  PW=… viworks-sign sign vpn.wasm --manifest plugin.toml --key env:RELEASE_KEY --password-env PW
Signing the same bytes twice with the same --not-before gives the same files.")]
pub(crate) struct Sign {
    /// The component, as the plugin's build made it
    component: PathBuf,
    /// What the plugin's author says: id, version, effects, constraints, scopes, limits
    #[arg(long, value_name = "FILE", default_value = "plugin.toml")]
    manifest: PathBuf,
    /// Private key: file:PATH, a path, env:VAR or a pkcs11: URI; may be given for each of several keys
    #[arg(long = "key", value_name = "REF", required = true)]
    keys: Vec<String>,
    /// WIT package whose doc comments go into the component: the plugin's own, and those that it uses
    #[arg(long, value_name = "DIR")]
    wit: Vec<PathBuf>,
    /// Where the two files go
    #[arg(long, value_name = "DIR", default_value = ".")]
    out: PathBuf,
    /// RFC 3339 time in UTC before which no gateway loads the release; now when absent here and in plugin.toml
    #[arg(long, value_name = "TIME")]
    not_before: Option<String>,
    #[command(flatten)]
    built: Built,
    #[command(flatten)]
    password: Password,
}

impl Sign {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let path = || self.component.clone();
        let manifest = self.manifest()?;
        let keys = self.password.signers(&self.keys)?;

        let mut component = files::read(&self.component, MAX_COMPONENT)?;
        if !self.wit.is_empty() {
            component = pack(&component, &self.wit).map_err(|source| Error::Pack { path: path(), source })?;
        }
        let publish = |source| Error::Publish { path: path(), source };
        let statement = build_release(&component, &manifest).map_err(publish)?;
        let signers: Vec<&dyn Signer> = keys.iter().map(AsRef::as_ref).collect();
        let mut lines = sign_release(&statement, &signers).map_err(publish)?;
        if let Some(predicate) = self.built.provenance()? {
            let subject = &statement.subject[0];
            let made = provenance::statement(&subject.name, &subject.digest.sha256, predicate);
            lines += &sign_provenance(&made, &signers).map_err(publish)?;
        }

        let trusted: Vec<PublicKey> = keys.iter().map(|key| key.public()).collect();
        // A release for later is signed now, so it is judged as of its own time.
        let start = humantime::parse_rfc3339(&statement.predicate.not_before).unwrap_or(SystemTime::UNIX_EPOCH);
        let verified = verify(&component, &lines, &trusted, Some(&manifest.id), start)
            .map_err(|source| Error::Unverified { source })?;

        let file = self.out.join(format!("{}.wasm", manifest.id));
        let statements = self.out.join(format!("{}.wasm.intoto.jsonl", manifest.id));
        std::fs::create_dir_all(&self.out).map_err(|source| Error::Io {
            verb: "make",
            path: self.out.clone(),
            source,
        })?;
        files::replace(&file, &component)?;
        files::replace(&statements, lines.as_bytes())?;

        let verbs = verified.release().verbs.keys().cloned().collect::<Vec<_>>().join(", ");
        output::lines([
            format!("signed    {} {} ({verbs})", manifest.id, manifest.version),
            format!("component {} ({} bytes, sha256 {})", file.display(), component.len(), verified.digest()),
            format!("statement {}", statements.display()),
            format!("key ids   {}", verified.signers().join(", ")),
        ])?;
        Ok(Exit::Done)
    }

    fn manifest(&self) -> Result<Manifest, Error> {
        let text = files::read_text(&self.manifest, files::MAX_TEXT)?;
        let mut manifest =
            Manifest::parse(&text).map_err(|source| Error::Manifest { path: self.manifest.clone(), source })?;
        if let Some(time) = &self.not_before {
            humantime::parse_rfc3339(time).map_err(|_| Error::Time { time: time.clone() })?;
            manifest.not_before = Some(time.clone());
        }
        manifest.not_before.get_or_insert_with(|| humantime::format_rfc3339_seconds(SystemTime::now()).to_string());
        Ok(manifest)
    }
}
