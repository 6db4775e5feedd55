//! `viworks-bench`: every figure as a ratio beside its limit, both measured in this run.
//! Prints a table and writes `target/bench.json`; exits 1 when a bound is missed.

mod bare;
mod invocation;
mod journey;
mod parts;
mod planned;
mod receipts;
mod reconnect;
mod release;
mod report;
mod swaps;

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> std::io::Result<ExitCode> {
    let only: Vec<String> = std::env::args().skip(1).collect();
    let wanted = |name: &str| only.is_empty() || only.iter().any(|o| o == name);
    let runtime = tokio::runtime::Runtime::new()?;
    let mut table = report::Table::default();
    let say = |what: &str| {
        let _ = writeln!(std::io::stderr(), "bench: {what}");
    };

    say("invocation");
    let invocation = invocation::measure(&mut table, wanted("hot_load"))?;
    if wanted("plan_of_a_change") {
        say("plan_of_a_change");
        planned::measure(&mut table)?;
    }
    if wanted("admit_1mib") {
        say("admit_1mib");
        swaps::admit(&mut table)?;
    }
    if wanted("swap_under_load") {
        say("swap_under_load");
        swaps::under_load(&mut table)?;
    }
    if wanted("post_to_result") {
        say("post_to_result");
        journey::post_to_result(&mut table, &runtime, &invocation)?;
    }
    if wanted("commands_per_second") {
        say("commands_per_second");
        journey::commands_per_second(&mut table, 1)?;
        journey::commands_per_second(&mut table, 50)?;
    }
    if wanted("fleet") {
        say("fan_out_5000 and memory_per_agent");
        journey::fleet(&mut table, &runtime, 5_000)?;
    }
    if wanted("release_to_1000") {
        say("release_to_1000");
        release::to_fleet(&mut table, 1_000)?;
    }
    if wanted("reconnect_10000") {
        say("reconnect_10000");
        reconnect::reconnect(&mut table, 10_000)?;
    }
    if wanted("gateway") {
        say("start_to_connected and gateway_rss");
        journey::gateway(&mut table, &runtime)?;
    }
    if wanted("verify_receipts_100000") {
        say("verify_receipts_100000");
        receipts::verify(&mut table)?;
    }
    let target = viworks_tests::program::workspace().join("target");
    std::fs::create_dir_all(&target)?;
    table.finish(&target.join("bench.json"))?;
    if table.broken().is_empty() {
        return Ok(ExitCode::SUCCESS);
    }
    let _ = writeln!(std::io::stderr(), "bench: bounds missed: {}", table.broken().join(", "));
    Ok(ExitCode::FAILURE)
}
