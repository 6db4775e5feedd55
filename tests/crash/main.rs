//! `viworks-crash`: kills a real gateway at every step of its journal and at random
//! instants, over all mutating verbs, and checks after each kill what the host and the
//! backend say. Ends with one line, and with 1 if an effect happened twice, a change was
//! left half done, or a result was lost.
//!
//! - `site`: the backend, one gateway a worker, and what they change
//! - `world`: everything that a verb could have changed, as plain facts
//! - `verbs`: what is run, and what may be different afterwards
//! - `round`: run, kill, start again, check
//! - `receipts`: the chains that are left at the end

mod receipts;
mod round;
mod site;
mod verbs;
mod world;

use std::io::{Error, Result, Write as _};
use std::process::ExitCode;
use std::sync::Mutex;
use std::sync::atomic::{AtomicU32, Ordering};

use clap::Parser;

/// Kills that are tried at the same time, each of a gateway of its own.
const WORKERS: u32 = 3;

/// Kill a gateway over and over, and check what is left.
#[derive(Debug, Parser)]
struct Args {
    /// How many kills.
    #[arg(long, default_value_t = 500)]
    kills: u32,
    /// Makes the same choices again, as far as the machine lets it.
    #[arg(long)]
    seed: Option<u64>,
}

/// What was found so far.
#[derive(Debug, Default)]
pub struct Tally {
    wanted: u32,
    pub kills: AtomicU32,
    pub doubles: AtomicU32,
    pub torn: AtomicU32,
    pub lost: AtomicU32,
    pub unknown: AtomicU32,
    pub commands: AtomicU32,
    pub interrupted: AtomicU32,
    pub rolled_back: AtomicU32,
    failure: Mutex<Option<Error>>,
}

impl Tally {
    fn goes_on(&self) -> bool {
        let failed = self.failure.lock().map_or(true, |failure| failure.is_some());
        self.kills.load(Ordering::Relaxed) < self.wanted && !failed
    }

    pub fn add(&self, counter: &AtomicU32) {
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

fn main() -> ExitCode {
    let args = Args::parse();
    match run(&args) {
        Ok(true) => ExitCode::SUCCESS,
        Ok(false) => ExitCode::FAILURE,
        Err(error) => {
            say(&format!("crash: {error}"));
            ExitCode::FAILURE
        }
    }
}

fn run(args: &Args) -> Result<bool> {
    let seed = args.seed.unwrap_or_else(|| u64::from(std::process::id()));
    say(&format!("seed {seed}, {WORKERS} gateways"));
    let shared = site::Shared::start()?;
    let tally = Tally { wanted: args.kills, ..Tally::default() };
    let began = std::time::Instant::now();
    std::thread::scope(|scope| {
        for worker in 0..WORKERS {
            let (shared, tally) = (&shared, &tally);
            scope.spawn(move || {
                if let Err(error) = work(shared, worker, seed, tally)
                    && let Ok(mut failure) = tally.failure.lock()
                {
                    failure.get_or_insert(error);
                }
            });
        }
    });
    if let Some(error) = tally.failure.lock().ok().and_then(|mut failure| failure.take()) {
        return Err(error);
    }
    let count = |counter: &AtomicU32| counter.load(Ordering::Relaxed);
    let torn = count(&tally.torn);
    say(&format!(
        "{} commands in {} s: {} interrupted, {} of them with effects taken back; {torn} left half done",
        count(&tally.commands),
        began.elapsed().as_secs(),
        count(&tally.interrupted),
        count(&tally.rolled_back)
    ));
    say(&format!(
        "kills {}, double effects {}, lost results {}, unknown {}",
        count(&tally.kills),
        count(&tally.doubles),
        count(&tally.lost),
        count(&tally.unknown)
    ));
    Ok(count(&tally.doubles) == 0 && count(&tally.lost) == 0 && torn == 0)
}

fn work(shared: &site::Shared, worker: u32, seed: u64, tally: &Tally) -> Result<()> {
    let mut site = site::Site::start(shared, worker)?;
    let mut dice = Dice(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) ^ (u64::from(worker) + 1));
    let mut last = None;
    while tally.goes_on() {
        last = round::play(&mut site, &mut dice, tally, last)?;
    }
    site.quiet()?;
    receipts::check(&site)
}

/// Choices that can be made again (xorshift64*).
#[derive(Debug)]
pub struct Dice(u64);

impl Dice {
    /// From 0 to `sides` − 1.
    pub fn roll(&mut self, sides: u64) -> u64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) % sides.max(1)
    }

    pub fn pick<'a, T>(&mut self, from: &'a [T]) -> Option<&'a T> {
        from.get(usize::try_from(self.roll(from.len() as u64)).unwrap_or(0))
    }
}

pub fn say(line: &str) {
    let _ = writeln!(std::io::stdout(), "{line}");
}
