//! Every page of docs/runbooks, tried: its blocks run in order, as root of a sandbox.

use std::fs;
use std::io::Error;
use std::time::Duration;

use viworks_tests::packages::debs;
use viworks_tests::program::workspace;
use viworks_tests::runbook::{Environment, Runbook};
use viworks_tests::sandbox::Given;

use crate::Result;

/// What one page may take, its environment included.
const WITHIN: Duration = Duration::from_secs(240);

/// A test for each page.
macro_rules! tried {
    ($($test:ident: $page:literal),* $(,)?) => {
        const PAGES: &[&str] = &[$($page),*];
        $(
            #[test]
            fn $test() -> Result {
                tried($page)
            }
        )*
    };
}

tried! {
    install: "install",
    backup_restore: "backup-restore",
    import_postgresql: "import-postgresql",
    lost_database: "lost-database",
    revoke_plugin: "revoke-plugin",
    rollback: "rollback",
    upgrade: "upgrade",
    several_backends: "several-backends",
}

fn tried(page: &str) -> Result {
    let book = Runbook::read(page)?;
    let debs = if book.environment == Environment::Site { None } else { Some(debs()?) };
    book.try_it(&Given { debs }, WITHIN).map(drop)
}

#[test]
fn no_page_is_forgotten() -> Result {
    for entry in fs::read_dir(workspace().join("docs/runbooks"))? {
        let name = entry?.file_name().to_string_lossy().into_owned();
        let page = name.strip_suffix(".md").ok_or_else(|| Error::other(format!("{name} is no page")))?;
        assert!(page == "README" || PAGES.contains(&page), "{name} is not tried: add it to this file");
    }
    Ok(())
}

#[test]
fn a_page_whose_command_fails_is_told_with_its_line() -> Result {
    let page = "<!-- runbook: site -->\n```sh run\ntrue\n```\n\n```sh run\nviworks agents show web-01\nviworks agents show \
                nobody\n```\n";
    let Err(error) = Runbook::parse("page", page)?.try_it(&Given::default(), WITHIN) else {
        panic!("a failing command passed")
    };
    assert!(error.to_string().contains("FAILED at page.md:7"), "{error}");
    Ok(())
}
