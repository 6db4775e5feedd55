//! The Debian packages, built from the programs that are built already. Once for all tests of a
//! build; refuses to compile anything.

use std::fs::{self, File};
use std::io::{Error, Result};
use std::path::PathBuf;
use std::process::Command;
use std::time::SystemTime;

use crate::program::{program, workspace};

/// Crate, its directory, and its programs.
const PACKAGES: [(&str, &[(&str, &str)]); 3] = [
    ("viworks-backend", &[("viworks-backend", "viworks-backend")]),
    ("viworks-gateway", &[("viworks-gateway", "viworks-gateway")]),
    ("viworks", &[("viworks", "viworks"), ("viworks-signing", "viworks-sign")]),
];

/// The folder with the three packages of this build.
///
/// # Errors
/// When `cargo deb` is missing or refuses, with what it said.
pub fn debs() -> Result<PathBuf> {
    let source = fs::canonicalize(workspace())?;
    let programs = program("viworks")?;
    let programs = programs.parent().unwrap_or(&programs).to_owned();
    let out = programs.join("packages");
    fs::create_dir_all(&out)?;
    // Tests are processes of their own: one of them builds.
    let lock = File::create(out.join(".lock"))?;
    lock.lock()?;
    if is_current(&out, &source)? {
        return Ok(out);
    }
    for entry in fs::read_dir(&out)? {
        let path = entry?.path();
        if path.extension().is_some_and(|extension| extension == "deb") {
            fs::remove_file(path)?;
        }
    }
    let sbom = source.join("target/sbom");
    fs::create_dir_all(&sbom)?;
    let profile = if programs.ends_with("release") { "release" } else { "dev" };
    for (krate, parts) in PACKAGES {
        for (package, program) in parts {
            let made = said(Command::new(source.join("deploy/packaging/sbom.py")).args([package, program]), &source)?;
            fs::write(sbom.join(format!("{program}.cdx.json")), made)?;
        }
        let mut command = Command::new("cargo");
        command.args(["deb", "--no-build", "--fast", "--profile", profile, "-p", krate, "-o"]).arg(&out);
        said(&mut command, &source)?;
    }
    Ok(out)
}

/// All three are there, and newer than all that they are made of.
fn is_current(out: &std::path::Path, source: &std::path::Path) -> Result<bool> {
    let mut made = Vec::new();
    for entry in fs::read_dir(out)? {
        let entry = entry?;
        if entry.path().extension().is_some_and(|extension| extension == "deb") {
            made.push(entry.metadata()?.modified()?);
        }
    }
    let mut of = vec![source.join("Cargo.lock")];
    for name in ["viworks", "viworks-sign", "viworks-backend", "viworks-gateway"] {
        of.push(program(name)?);
    }
    for manifest in ["host-backend/Cargo.toml", "host-gateway/Cargo.toml", "cli/Cargo.toml"] {
        of.push(source.join(manifest));
    }
    for folder in ["deploy/systemd", "deploy/packaging", "deploy/packaging/backend", "deploy/packaging/gateway"] {
        for entry in fs::read_dir(source.join(folder))? {
            of.push(entry?.path());
        }
    }
    let newest = of.iter().map(|path| fs::metadata(path)?.modified()).collect::<Result<Vec<SystemTime>>>()?;
    Ok(made.len() == PACKAGES.len() && made.iter().min() > newest.iter().max())
}

fn said(command: &mut Command, within: &std::path::Path) -> Result<Vec<u8>> {
    let output = command.current_dir(within).output()?;
    if output.status.success() {
        return Ok(output.stdout);
    }
    let text = String::from_utf8_lossy(&output.stderr).into_owned();
    Err(Error::other(format!("{command:?}: {}\n{text}", output.status)))
}
