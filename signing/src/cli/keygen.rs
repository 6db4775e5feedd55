//! `viworks-sign keygen`: a new key pair in two files, or in a token. Refuses to overwrite
//! either. `viworks-sign public`: the public half of a key that is there.

use clap::Args;
use std::ffi::OsString;
use std::path::{Path, PathBuf};
use viworks_signing::at_rest;
use viworks_signing::keyref;
use viworks_signing::keys::{PublicKey, SecretKey};
use viworks_signing::pkcs11::{TokenKey, Uri};
use viworks_signing::signer::Signer as _;

use super::keyref::Password;
use super::{Error, Exit, files, output};

/// Make a key: PREFIX.key.pem (private, mode 0600) and PREFIX.pub.pem, or one in a token.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign keygen --out keys/release
  PW=… viworks-sign keygen --out keys/release --password-env PW   # encrypted at rest
  viworks-sign keygen --out 'pkcs11:token=releases;object=release?module-path=/usr/lib/softhsm/libsofthsm2.so&pin-source=file:pin' \\
    --public keys/release.pub.pem                                 # never leaves the token
  openssl pkey -in keys/release.key.pem -noout -text              # plain PKCS#8")]
pub(crate) struct Keygen {
    /// Path and beginning of the two files' names, or a pkcs11: URI; nothing is overwritten
    #[arg(long, value_name = "PREFIX|URI")]
    out: String,
    /// Where the public key goes; PREFIX.pub.pem if absent
    #[arg(long, value_name = "FILE")]
    public: Option<PathBuf>,
    #[command(flatten)]
    password: Password,
}

impl Keygen {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        if self.out.starts_with("pkcs11:") { self.in_token() } else { self.in_files() }
    }

    fn in_files(&self) -> Result<Exit, Error> {
        let prefix = Path::new(self.out.strip_prefix("file:").unwrap_or(&self.out));
        let private = with_suffix(prefix, ".key.pem");
        let public = self.public.clone().unwrap_or_else(|| with_suffix(prefix, ".pub.pem"));
        absent(&private)?;
        absent(&public)?;
        let fault = |source: at_rest::Error| Error::Encode { path: private.clone(), source };
        let key = SecretKey::generate();
        let pem = match self.password.source() {
            Some(source) => at_rest::seal(&key, source.read_line()?.as_bytes()).map_err(fault)?,
            None => key.to_pem().map_err(|error| fault(error.into()))?,
        };
        files::create(&private, 0o600, pem.as_bytes())?;
        written(&private.display().to_string(), &public, &key.public())
    }

    /// The public half is written last: if that fails, `viworks-sign public` gives it.
    fn in_token(&self) -> Result<Exit, Error> {
        let public = self.public.clone().ok_or(Error::NoPublic)?;
        if self.password.source().is_some() {
            return Err(keyref::Error::UnneededPassword.into());
        }
        absent(&public)?;
        let uri = Uri::parse(&self.out).map_err(keyref::Error::from)?;
        let key = TokenKey::generate(&uri).map_err(keyref::Error::from)?;
        written(&format!("in token {}", uri.token), &public, &key.public())
    }
}

/// Print the public half of a key as SPKI PEM.
#[derive(Debug, Args)]
#[command(after_help = "\
Examples:
  viworks-sign public --key file:keys/release.key.pem
  viworks-sign public --key 'pkcs11:token=releases;object=release?module-path=/usr/lib/hsm.so&pin-source=env:PIN'")]
pub(crate) struct Public {
    /// Private key: file:PATH, a path, env:VAR or a pkcs11: URI
    #[arg(long, value_name = "REF")]
    key: String,
    #[command(flatten)]
    password: Password,
}

impl Public {
    pub(crate) fn run(&self) -> Result<Exit, Error> {
        let key = keyref::signer(&self.key, self.password.source().as_ref())?;
        output::lines([pem(&key.public(), Path::new(&self.key))?.trim_end().to_owned()])?;
        Ok(Exit::Done)
    }
}

fn absent(path: &Path) -> Result<(), Error> {
    match path.symlink_metadata() {
        Ok(_) => Err(Error::Exists { path: path.to_owned() }),
        Err(_) => Ok(()),
    }
}

fn pem(key: &PublicKey, path: &Path) -> Result<String, Error> {
    key.to_pem().map_err(|error| Error::Encode { path: path.to_owned(), source: error.into() })
}

fn written(private: &str, public: &Path, key: &PublicKey) -> Result<Exit, Error> {
    files::create(public, 0o644, pem(key, public)?.as_bytes())?;
    output::lines([
        format!("private key  {private}"),
        format!("public key   {}", public.display()),
        format!("key id       {}", key.id()),
    ])?;
    Ok(Exit::Done)
}

fn with_suffix(prefix: &Path, suffix: &str) -> PathBuf {
    let mut path = OsString::from(prefix);
    path.push(suffix);
    path.into()
}
