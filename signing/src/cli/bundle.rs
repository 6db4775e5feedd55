//! A bundle's two files, and the public keys to hold them against.

use std::path::{Path, PathBuf};
use std::time::SystemTime;
use viworks_signing::keys::PublicKey;
use viworks_signing::trust::Trust;
use viworks_signing::verify::{MAX_COMPONENT, MAX_STATEMENTS, Refusal, VerifiedRelease, verify_with};

use super::{Error, files};

/// A component and its statements, unverified.
pub(crate) struct Bundle {
    pub(crate) component: Vec<u8>,
    pub(crate) statements: String,
    /// Where the statements are.
    pub(crate) path: PathBuf,
}

impl Bundle {
    /// A file over its cap is refused as a gateway refuses it: not an error of reading.
    pub(crate) fn read(component: &Path, statements: Option<&Path>) -> Result<Result<Self, Refusal>, Error> {
        let path = statements.map_or_else(|| beside(component), Path::to_owned);
        let size = |what, max| Refusal::Size { what, bytes: max + 1, max };
        let component = match files::read(component, MAX_COMPONENT) {
            Err(Error::TooLarge { max, .. }) => return Ok(Err(size("component", max))),
            read => read?,
        };
        let statements = match files::read_text(&path, MAX_STATEMENTS) {
            Err(Error::TooLarge { max, .. }) => return Ok(Err(size("statements", max))),
            read => read?,
        };
        Ok(Ok(Self { component, statements, path }))
    }

    /// A bundle that is to be signed further, so it must verify.
    pub(crate) fn verified(
        component: &Path,
        statements: Option<&Path>,
        trust: &Trust,
        plugin: &str,
    ) -> Result<(Self, VerifiedRelease), Error> {
        let refused = |source| Error::Refused { path: component.to_owned(), source };
        let bundle = Self::read(component, statements)?.map_err(refused)?;
        let verified = bundle.verify(trust, plugin).map_err(refused)?;
        Ok((bundle, verified))
    }

    pub(crate) fn verify(&self, trust: &Trust, plugin: &str) -> Result<VerifiedRelease, Refusal> {
        verify_with(&self.component, &self.statements, trust, Some(plugin), SystemTime::now())
    }
}

/// Every public key of the files.
pub(crate) fn public_keys(paths: &[PathBuf]) -> Result<Vec<PublicKey>, Error> {
    let mut keys = Vec::new();
    for path in paths {
        let pem = files::read_text(path, files::MAX_TEXT)?;
        keys.extend(PublicKey::all_from_pem(&pem).map_err(|source| Error::Public { path: path.clone(), source })?);
    }
    Ok(keys)
}

/// `NAME.wasm.intoto.jsonl` beside `NAME.wasm`.
pub(crate) fn beside(component: &Path) -> PathBuf {
    let mut path = component.as_os_str().to_owned();
    path.push(".intoto.jsonl");
    path.into()
}
