//! The one file that carries a repository where no network goes, as `viworks-sign repo
//! export` writes it: the line `viworks-repository 1`, then for each file a line `PATH
//! LENGTH` and its bytes, then the line `end`. Refuses names that are none of a
//! repository's, and lengths that the file does not have.

use bytes::Bytes;
use std::collections::BTreeMap;
use viworks_signing::tuf::{Place, is_target, place};

const HEAD: &[u8] = b"viworks-repository 1\n";
const END: &[u8] = b"end\n";
const MAX_LINE: usize = 256;
const MAX_FILES: usize = 20_000;

/// The files by path; they share the container's bytes.
///
/// # Errors
/// What is wrong with it.
pub fn read(container: &Bytes) -> Result<BTreeMap<String, Bytes>, &'static str> {
    let mut rest = container.clone();
    if !rest.starts_with(HEAD) {
        return Err("it does not begin as one");
    }
    drop(rest.split_to(HEAD.len()));
    let mut files = BTreeMap::new();
    while rest != END {
        let line = rest.iter().take(MAX_LINE).position(|byte| *byte == b'\n').ok_or("a line is too long, or cut")?;
        let head = rest.split_to(line + 1);
        let text = std::str::from_utf8(&head[..line]).map_err(|_| "a name is not UTF-8")?;
        let (path, length) = text.split_once(' ').ok_or("a line has no length")?;
        let length: usize = length.parse().map_err(|_| "a length is no number")?;
        let named = match path.split_once('/') {
            Some(("metadata", name)) => place(name) == Some(Place::Metadata),
            Some(("targets", name)) => is_target(name),
            _ => false,
        };
        if !named || length > rest.len() || files.len() >= MAX_FILES {
            return Err("a name is none of a repository's, or it ends too early");
        }
        if files.insert(path.to_owned(), rest.split_to(length)).is_some() {
            return Err("a name is there twice");
        }
    }
    Ok(files)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn container(body: &str) -> Bytes {
        Bytes::from(format!("viworks-repository 1\n{body}"))
    }

    #[test]
    fn files_are_found_by_path() {
        let files = read(&container("metadata/timestamp.json 2\n{}targets/ab.x.wasm 0\nend\n")).expect("read");
        assert_eq!(files.keys().collect::<Vec<_>>(), ["metadata/timestamp.json", "targets/ab.x.wasm"]);
        assert_eq!(files["metadata/timestamp.json"], "{}");
    }

    #[test]
    fn what_is_no_repository_is_refused() {
        for bad in [
            "",
            "end",
            "metadata/timestamp.json 3\n{}end\n",
            "metadata/timestamp.json x\nend\n",
            "metadata/../passwd 0\nend\n",
            "metadata/passwd 0\nend\n",
            "targets/../x 0\nend\n",
            "other/timestamp.json 0\nend\n",
            "metadata/timestamp.json 0\nmetadata/timestamp.json 0\nend\n",
            "metadata/timestamp.json 99999999999999999999\nend\n",
        ] {
            assert!(read(&container(bad)).is_err(), "{bad}");
        }
        assert!(read(&Bytes::from_static(b"PK")).is_err());
    }
}
