//! Names in a repository: flat lower-case ASCII, so that no two look alike, none is a path,
//! and every implementation reads them alike.

use super::TufError;
use crate::names::is_plugin_id;

/// The target that lists what was taken back.
pub const REVOCATIONS: &str = "revocations.json";
const MAX_NAME: usize = 160;

/// Where a file of the repository lies.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum Place {
    /// `metadata/NAME`
    Metadata,
    /// `targets/NAME`: the list of revocations, the one target that a client asks for by
    /// the name that [`super::Client::next`] gives.
    Targets,
}

/// Where the file `name`, as a client asks for it, lies; `None` for anything that a client
/// does not ask for, and for whatever could be a path.
#[must_use]
pub fn place(name: &str) -> Option<Place> {
    if name == "timestamp.json" {
        return Some(Place::Metadata);
    }
    let (head, rest) = name.split_once('.')?;
    if rest == REVOCATIONS {
        return is_sha256(head).then_some(Place::Targets);
    }
    let version = !head.is_empty() && head.len() <= 16 && head.bytes().all(|b| b.is_ascii_digit());
    (version && rest.strip_suffix(".json").is_some_and(is_plugin_id)).then_some(Place::Metadata)
}

/// Whether `name` may be a target's: `[a-z0-9]` and single `.`, `-` between, no path.
#[must_use]
pub fn is_target(name: &str) -> bool {
    let plain = |b: u8| b.is_ascii_lowercase() || b.is_ascii_digit();
    let bytes = name.as_bytes();
    name.len() <= MAX_NAME
        && bytes.first().copied().is_some_and(plain)
        && bytes.last().copied().is_some_and(plain)
        && bytes.iter().all(|&b| plain(b) || b == b'.' || b == b'-')
        && !name.contains("..")
}

/// The two targets of a release: the component's and its statements'.
///
/// # Errors
/// [`TufError::Name`] where id or version make no safe name (`1.4.2+a`, for example).
pub fn target_names(plugin: &str, version: &semver::Version) -> Result<(String, String), TufError> {
    let component = format!("{plugin}-{version}.wasm");
    if is_plugin_id(plugin) && version.build.is_empty() && is_target(&component) {
        let statements = format!("{component}.intoto.jsonl");
        Ok((component, statements))
    } else {
        Err(TufError::Name { name: component })
    }
}

/// The platform of this build, as targets of programs name it.
pub const PROGRAM_TARGET: &str = if cfg!(target_arch = "aarch64") { "linux-arm64" } else { "linux-amd64" };
/// Targets of programs, for the role that speaks for them.
pub(super) const PROGRAMS: &str = "viworks-gateway-*-linux-*";
const PROGRAM: &str = "viworks-gateway-";

/// The target of the gateway's program of this version and platform.
///
/// # Errors
/// [`TufError::Name`] where version or platform make no safe name.
pub fn program_name(version: &semver::Version, platform: &str) -> Result<String, TufError> {
    let name = format!("{PROGRAM}{version}-{platform}");
    let fits = version.build.is_empty() && platform.starts_with("linux-") && is_target(&name);
    if fits && program_version(&name).is_some() { Ok(name) } else { Err(TufError::Name { name }) }
}

/// Version and platform of a program's target; `None` for every other target.
#[must_use]
pub fn program_version(name: &str) -> Option<(semver::Version, &str)> {
    let rest = name.strip_prefix(PROGRAM)?;
    let at = rest.rfind("-linux-")?;
    let platform = &rest[at + 1..];
    let plain = platform["linux-".len()..].bytes().all(|b| b.is_ascii_alphanumeric());
    (plain && platform.len() > "linux-".len()).then_some((semver::Version::parse(&rest[..at]).ok()?, platform))
}

pub(super) fn is_sha256(text: &str) -> bool {
    text.len() == 64 && text.bytes().all(|b| matches!(b, b'0'..=b'9' | b'a'..=b'f'))
}

/// `*` stands for any text; names hold no `/`.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    match pattern.split_once('*') {
        None => pattern == name,
        Some((head, tail)) => {
            let Some(rest) = name.strip_prefix(head) else { return false };
            (0..=rest.len()).any(|at| rest.is_char_boundary(at) && matches(tail, &rest[at..]))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_a_client_asks_for_has_a_place() {
        let digest = "a".repeat(64);
        for name in ["timestamp.json", "1.root.json", "12.releases.json", "3.my-role.json"] {
            assert_eq!(place(name), Some(Place::Metadata), "{name}");
        }
        assert_eq!(place(&format!("{digest}.revocations.json")), Some(Place::Targets));
        for bad in
            ["", "root.json", ".json", "1..json", "1.../x.json", "../timestamp.json", "1.a/b.json", "-1.root.json"]
        {
            assert_eq!(place(bad), None, "{bad}");
        }
        assert_eq!(place(&format!("{}.root.json", "1".repeat(17))), None);
        assert_eq!(place(&format!("{digest}.accounts-1.0.0.wasm")), None);
    }

    #[test]
    fn targets_are_flat_lower_case_ascii() {
        for good in ["accounts-1.0.0.wasm", "vpn-2-1.0.0-rc.1.wasm.intoto.jsonl", "revocations.json"] {
            assert!(is_target(good), "{good}");
        }
        for bad in ["", "a/b", "../a", "a..b", "A-1.0.0.wasm", "аccounts-1.0.0.wasm", "a\0b", "a+b", ".a", "a.", "a b"]
        {
            assert!(!is_target(bad), "{bad:?}");
        }
        let version = |text: &str| semver::Version::parse(text).unwrap();
        assert!(target_names("accounts", &version("1.4.2")).is_ok());
        for bad in ["1.4.2+a", "1.4.2-RC1"] {
            assert!(target_names("accounts", &version(bad)).is_err(), "{bad}");
        }
        assert!(target_names("../accounts", &version("1.0.0")).is_err());
    }

    #[test]
    fn programs_have_a_name_of_their_own() {
        let version = |text: &str| semver::Version::parse(text).unwrap();
        let name = program_name(&version("0.2.0-rc.1"), "linux-amd64").unwrap();
        assert_eq!(name, "viworks-gateway-0.2.0-rc.1-linux-amd64");
        assert_eq!(program_version(&name), Some((version("0.2.0-rc.1"), "linux-amd64")));
        assert!(matches(PROGRAMS, &name) && is_target(&name));
        for bad in
            ["viworks-gateway-0.2.0.wasm", "viworks-gateway-0.2-linux-amd64", "viworks-gateway-1.0.0-linux-", "x"]
        {
            assert_eq!(program_version(bad), None, "{bad}");
        }
        for (bad, platform) in [("1.0.0+a", "linux-amd64"), ("1.0.0", "darwin-arm64"), ("1.0.0", "linux-a/b")] {
            assert!(program_name(&version(bad), platform).is_err(), "{bad} {platform}");
        }
    }

    #[test]
    fn a_star_stands_for_any_text() {
        assert!(matches("*.wasm", "a-1.0.0.wasm") && !matches("*.wasm", "a.wasm.intoto.jsonl"));
        assert!(matches("a*c*", "abcd") && !matches("a*c*", "abd") && matches("*", ""));
    }
}
