//! The demo, as `make demo` runs it, with this build's programs: every verb comes out as
//! it should, it ends by itself, and leaves what its users look for.

use std::fs;
use std::net::TcpListener;
use std::process::Command;

use viworks_tests::program::{program, workspace};

use crate::Result;

/// A port that was free a moment ago.
fn free_port() -> std::io::Result<String> {
    Ok(TcpListener::bind("127.0.0.1:0")?.local_addr()?.port().to_string())
}

#[test]
fn the_demo_runs_all_verbs_and_ends() -> Result {
    let bin = program("viworks")?;
    let output = Command::new(workspace().join("deploy/demo/run.sh"))
        .env("DEMO_BIN", bin.parent().unwrap_or(&bin))
        .env("DEMO_API_PORT", free_port()?)
        .env("DEMO_AGENT_PORT", free_port()?)
        .output()?;
    let text = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success(), "{text}{}", String::from_utf8_lossy(&output.stderr));
    for verb in ["get_system_health", "add_user", "delete_user", "add_vpn_user", "delete_vpn_user"] {
        assert!(text.lines().any(|line| line == format!("{verb} demo-01 succeeded")), "{verb} in:\n{text}");
    }
    assert!(text.lines().any(|line| line.starts_with("cleanup_containers demo-01 ")), "{text}");
    let demo = workspace().join("target/demo");
    for file in
        ["keys/release.pub.pem", "operator.token", "plugins/accounts.wasm", "plugins/accounts.wasm.intoto.jsonl"]
    {
        assert!(fs::metadata(demo.join(file))?.len() > 0, "{file}");
    }
    Ok(())
}
