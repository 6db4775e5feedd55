//! The gateway's WIT package, as this program was built with it.

use std::fs;
use std::path::Path;

use crate::error::Error;

macro_rules! files {
    ($($name:literal),*) => { [$(($name, include_str!(concat!("../../../wit/", $name)))),*] };
}

const FILES: [(&str, &str); 12] = files![
    "accounts.wit",
    "containers.wit",
    "invocation.wit",
    "log.wit",
    "progress.wit",
    "scripts.wit",
    "secrets.wit",
    "state.wit",
    "system.wit",
    "types.wit",
    "vpn.wit",
    "world.wit"
];

/// Write the package into `dir`.
pub(super) fn write(dir: &Path) -> Result<(), Error> {
    fs::create_dir_all(dir).map_err(Error::file("make the folder", dir))?;
    FILES.iter().try_for_each(|(name, text)| {
        let path = dir.join(name);
        fs::write(&path, text).map_err(Error::file("write it", path))
    })
}

#[cfg(test)]
mod tests {
    #[test]
    fn every_file_of_the_package_is_here() {
        let dir = std::path::Path::new(env!("CARGO_MANIFEST_DIR")).join("../wit");
        let mut names: Vec<_> =
            std::fs::read_dir(dir).unwrap().map(|e| e.unwrap().file_name().into_string().unwrap()).collect();
        names.retain(|name| name.ends_with(".wit"));
        names.sort();
        assert_eq!(names, super::FILES.map(|(name, _)| name));
    }
}
