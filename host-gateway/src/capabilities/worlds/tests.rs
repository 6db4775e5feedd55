//! Versions side by side: a plugin of 1.0 on a host that serves a made-up 1.1, and a
//! made-up 2.0 beside them. Both live here alone: the product serves what `wit/` holds.

use std::path::Path;
use std::sync::Arc;

use viworks_protocol::outcome::{Outcome, Report};
use viworks_signing::grant::Grant;
use viworks_signing::release::Limits;
use wasmtime::component::{Component, HasSelf};

use super::super::{Call, INTERFACES, Interface};
use super::*;
use crate::runtime::{PrepareError, Prepared, Runtime, RuntimeConfig, nobody};

/// The next minor: the same package with one function more.
mod v1_1 {
    wasmtime::component::bindgen!({
        path: "../tests/guests/versions/wit-1.1",
        world: "viworks:gateway/capabilities",
        imports: { default: async | trappable },
    });
}

/// The next major: generated code of its own, on the same [`Call`].
mod v2_0 {
    wasmtime::component::bindgen!({
        path: "../tests/guests/versions/wit-2.0",
        world: "viworks:gateway/capabilities",
        imports: { default: async | trappable },
    });
}

use v1_1::viworks::gateway as minor;
use v2_0::viworks::gateway as major;

impl minor::types::Host for Call {}
impl minor::log::Host for Call {
    async fn write(&mut self, _: minor::log::Level, message: String) -> wasmtime::Result<()> {
        self.enter()?;
        self.log.write("info", &message);
        Ok(())
    }

    async fn mark(&mut self, number: u32) -> wasmtime::Result<()> {
        self.enter()?;
        self.log.write("info", &format!("mark {number}"));
        Ok(())
    }
}

impl major::types::Host for Call {}
impl major::log::Host for Call {
    async fn write(&mut self, line: major::log::Line) -> wasmtime::Result<()> {
        self.enter()?;
        self.log.write("info", &format!("{} (severity {})", line.message, line.severity));
        Ok(())
    }
}

const V1_1: World = World {
    major: 1,
    minor: 1,
    interfaces: &[
        ("types", |_| true, |l| minor::types::add_to_linker::<_, HasSelf<_>>(l, |s| s)),
        ("log", |_| true, |l| minor::log::add_to_linker::<_, HasSelf<_>>(l, |s| s)),
    ],
    failure: WORLDS[0].failure,
};

const V2_0: World = World {
    major: 2,
    minor: 0,
    interfaces: &[
        ("types", |_| true, |l| major::types::add_to_linker::<_, HasSelf<_>>(l, |s| s)),
        ("log", |_| true, |l| major::log::add_to_linker::<_, HasSelf<_>>(l, |s| s)),
    ],
    failure: &["invalid-argument", "denied", "conflict", "not-found", "unavailable", "failed", "busy", "other"],
};

struct Host {
    runtime: Arc<Runtime>,
}

impl Host {
    fn new() -> Self {
        let config = RuntimeConfig { max_concurrency: 1, memory_mib: 8, instances: 10 };
        Self { runtime: Arc::new(Runtime::new(config).unwrap()) }
    }

    fn prepare(&self, worlds: &[World], text: &str) -> Result<Prepared, PrepareError> {
        let bytes = wat::parse_str(text).unwrap();
        let component = Component::from_binary(self.runtime.engine(), &bytes).unwrap();
        Prepared::against(worlds, &self.runtime, &component, &Grant::default())
    }

    async fn say(&self, worlds: &[World], guest: &str) -> Result<Report, PrepareError> {
        let prepared = self.prepare(worlds, &read(guest))?;
        Ok(prepared.invoke("say", &serde_json::Map::new(), nobody(Limits::default()).unwrap()).await)
    }
}

fn read(guest: &str) -> String {
    let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("../tests/guests/versions");
    std::fs::read_to_string(dir.join(guest)).unwrap()
}

fn said(report: Result<Report, PrepareError>, line: &str) {
    let report = report.unwrap();
    assert_eq!(report.outcome, Outcome::Succeeded, "{report:?}");
    assert_eq!(report.result.as_ref().map(|raw| raw.get()), Some("7"));
    assert_eq!(report.log.iter().map(|l| l.message.as_str()).collect::<Vec<_>>(), [line]);
}

#[tokio::test]
async fn a_minor_serves_the_plugins_of_all_minors_before_it() {
    let host = Host::new();
    said(host.say(WORLDS, "v1_0.wat").await, "a line from 1.0.0");
    said(host.say(&[V1_1], "v1_0.wat").await, "a line from 1.0.0");
    said(host.say(&[V1_1], "v1_1.wat").await, "mark 11");
    let refused = host.say(WORLDS, "v1_1.wat").await.unwrap_err();
    assert!(matches!(&refused, PrepareError::NoSuchImport { import, .. } if import.ends_with("@1.1.0")), "{refused}");
}

#[tokio::test]
async fn majors_live_side_by_side() {
    let host = Host::new();
    let both = [V1_1, V2_0];
    said(host.say(&both, "v1_0.wat").await, "a line from 1.0.0");
    said(host.say(&both, "v1_1.wat").await, "mark 11");
    said(host.say(&both, "v2_0.wat").await, "a line from 2.0.0 (severity 2)");
    let refused = host.say(WORLDS, "v2_0.wat").await.unwrap_err();
    let PrepareError::NoSuchImport { import, mend, .. } = &refused else { panic!("{refused}") };
    assert!(import.ends_with("@2.0.0") && mend.contains("1.0"), "{refused}");
}

#[test]
fn a_plugin_is_written_against_one_major() {
    let mixed = read("v1_0.wat").replace("viworks:gateway/log@1.0.0", "viworks:gateway/log@2.0.0");
    let refused = Host::new().prepare(&[V1_1, V2_0], &mixed).unwrap_err();
    assert!(matches!(refused, PrepareError::TwoMajors { .. }), "{refused}");
    // A 2.0 plugin with the failure of 1.0 would lose a case on its way.
    let old = read("v2_0.wat").replace("      (case \"busy\" string)\n", "");
    let refused = Host::new().prepare(&[V1_1, V2_0], &old).unwrap_err();
    assert!(matches!(refused, PrepareError::Signature { .. }), "{refused}");
}

#[test]
fn the_product_serves_what_its_wit_holds() {
    let names = |interfaces: &[Interface]| interfaces.iter().map(|(name, ..)| *name).collect::<Vec<_>>();
    assert_eq!(WORLDS.len(), 1);
    assert_eq!((WORLDS[0].version().as_str(), names(WORLDS[0].interfaces)), ("1.0", names(INTERFACES)));
}

#[test]
fn an_older_or_equal_minor_of_the_same_major_fits() {
    let fits = |wanted: &str| WORLDS.iter().any(|world| world.fits(wanted));
    assert!(fits("1.0"));
    for bad in ["1.1", "2.0", "0.9", "1", "1.0.0", "", "1.x"] {
        assert!(!fits(bad), "{bad}");
    }
    assert!(V1_1.fits("1.0") && V1_1.fits("1.1") && !V1_1.fits("1.2"));
}
