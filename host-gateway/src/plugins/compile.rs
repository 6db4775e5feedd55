//! Compiling, in a process of its own: what the compiler takes is given back when it
//! ends, and what a component does to the compiler, it does not do to the gateway. The
//! process is this very program; it reads a component and writes compiled code, and has
//! bounds on memory, time and priority.

use std::io::{self, Read as _, Write as _};
use std::path::PathBuf;
use std::sync::OnceLock;
use std::time::Duration;

use rustix::process::{Resource, Rlimit, nice, setrlimit};
use viworks_signing::verify::MAX_COMPONENT;

use super::aot::MAX_ENTRY;
use crate::process::{ProcessError, Program};
use crate::runtime;

/// The command of this program that [`serve`] answers.
pub const COMMAND: &str = "compile";

const DEADLINE: Duration = Duration::from_secs(120);
const MEMORY: u64 = 4 << 30;
/// A tenth of the time of whatever else wants a core: less (19 is a seventieth) and a release
/// that mends a host under load would not become active there. The kernel derives the
/// priority of reads and writes from it as well.
const NICE: i32 = 10;

/// Where to compile: in the program that was named, else here.
#[derive(Debug, Default)]
pub(super) struct Compiler {
    program: OnceLock<PathBuf>,
}

#[derive(Debug, thiserror::Error)]
pub enum CompileError {
    #[error("the component is not valid")]
    Component(#[source] wasmtime::Error),
    #[error("the compiler did not run")]
    Process(#[from] ProcessError),
    #[error("the compiler ended with {code}: {complaint}")]
    Ended { code: i32, complaint: String },
    #[error("the compiled code has more than {MAX_ENTRY} bytes")]
    TooLarge,
    #[error("the component could not be read or the code not written")]
    Io(#[from] io::Error),
}

impl Compiler {
    /// Only the first call counts.
    pub(super) fn set(&self, program: PathBuf) {
        let _ = self.program.set(program);
    }

    /// To be called off the async threads of a tokio runtime.
    pub(super) fn compile(&self, component: &[u8]) -> Result<Vec<u8>, CompileError> {
        let Some(program) = self.program.get() else {
            return runtime::compile(component).map_err(CompileError::Component);
        };
        let cap = usize::try_from(MAX_ENTRY).unwrap_or(usize::MAX);
        let run = Program::new(program).arg(COMMAND).input(component).deadline(DEADLINE).output_cap(cap).run();
        let output = tokio::runtime::Handle::current().block_on(run)?;
        match output.code() {
            0 if output.truncated => Err(CompileError::TooLarge),
            0 => Ok(output.stdout),
            code => Err(CompileError::Ended { code, complaint: output.complaint() }),
        }
    }
}

/// The other side: a component on stdin to compiled code on stdout.
///
/// # Errors
/// When it can't be read, compiled or written.
pub fn serve() -> Result<(), CompileError> {
    let bound = |resource, most| setrlimit(resource, Rlimit { current: Some(most), maximum: Some(most) });
    bound(Resource::As, MEMORY).and(bound(Resource::Cpu, DEADLINE.as_secs())).map_err(io::Error::from)?;
    // Best effort: at normal priority it is only less polite.
    let _ = nice(NICE);
    let mut component = Vec::new();
    io::stdin().lock().take(MAX_COMPONENT as u64 + 1).read_to_end(&mut component)?;
    let compiled = runtime::compile(&component).map_err(CompileError::Component)?;
    let mut out = io::stdout().lock();
    out.write_all(&compiled)?;
    Ok(out.flush()?)
}
