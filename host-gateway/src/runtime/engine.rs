//! The one wasmtime engine of the process: which WebAssembly it accepts, its pool of
//! instances and its clock. Refuses proposals that no plugin needs.

use viworks_signing::release::Limits;
use wasmtime::{Config, Enabled, Engine, InstanceAllocationStrategy, OptLevel, PoolingAllocationConfig};

use super::ticker::{Running, Ticker};

/// Linear memories of one component, all core modules together.
pub(crate) const MAX_MEMORIES: u32 = 10;
/// Tables of one component.
pub(crate) const MAX_TABLES: u32 = 16;
/// Elements of one table. Address space only; what is held counts as memory.
const TABLE_ELEMENTS: usize = 1_000_000;

/// Stack that guest code may use; deeper recursion traps.
const WASM_STACK: usize = 512 * 1024;
/// The whole stack of an invocation: guest code and the host functions that it calls.
const ASYNC_STACK: usize = 1024 * 1024;
/// Pages of a slot that stay resident between invocations instead of being given back
/// and faulted in again. Measured: without, two threads are slower than one.
const MEMORY_RESIDENT: usize = 512 * 1024;
const TABLE_RESIDENT: usize = 16 * 1024;

/// Releases that are planned beside others at the same time.
pub const SHADOWS: u32 = 2;

/// What the pool must hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct RuntimeConfig {
    /// Invocations at the same time.
    pub max_concurrency: u32,
    /// The most of one linear memory, whatever a release asks for.
    pub memory_mib: u32,
    /// The most core instances in one component.
    pub instances: u32,
}

impl Default for RuntimeConfig {
    fn default() -> Self {
        Self { max_concurrency: 4, memory_mib: 256, instances: 200 }
    }
}

/// The engine and its clock. One a process.
#[derive(Debug)]
pub struct Runtime {
    engine: Engine,
    ticker: Ticker,
    config: RuntimeConfig,
}

#[derive(Debug, thiserror::Error)]
pub enum EngineError {
    #[error("the WebAssembly engine could not be made")]
    Engine(#[source] wasmtime::Error),
    #[error("no thread for the engine's clock")]
    Ticker(#[source] std::io::Error),
}

impl Runtime {
    /// # Errors
    /// When neither a pooling nor an on-demand engine can be made, or no thread.
    pub fn new(config: RuntimeConfig) -> Result<Self, EngineError> {
        let mut pooling = base();
        pooling.allocation_strategy(InstanceAllocationStrategy::Pooling(pool(config)));
        let engine = match Engine::new(&pooling) {
            Ok(engine) => engine,
            Err(error) => {
                // Short of address space (ulimit -v, small VMs): slower, but it works.
                tracing::warn!(%error, "no instance pool; instances are allocated on demand");
                Engine::new(&base()).map_err(EngineError::Engine)?
            }
        };
        let ticker = Ticker::start(engine.weak()).map_err(EngineError::Ticker)?;
        Ok(Self { engine, ticker, config })
    }

    /// For compiling and for benchmarks that measure the engine alone.
    #[must_use]
    pub fn engine(&self) -> &Engine {
        &self.engine
    }

    /// The limits that this engine was made for. A policy that allows more later holds from
    /// the next start on.
    #[must_use]
    pub fn most(&self) -> Limits {
        let RuntimeConfig { memory_mib, instances, .. } = self.config;
        let any = u32::MAX;
        Limits { memory_mib, instances, cpu_ms: any, host_calls: any, output_kib: any, log_kib: any }
    }

    /// Keep the epoch advancing until the answer is dropped.
    pub(crate) fn running(&self) -> Running {
        self.ticker.running()
    }
}

/// Compile a component as every engine made here would, without making a pool.
///
/// # Errors
/// When it is not a valid component, or wants a proposal that is off.
pub fn compile(component: &[u8]) -> wasmtime::Result<Vec<u8>> {
    Engine::new(&base())?.precompile_component(component)
}

fn base() -> Config {
    let mut config = Config::new();
    config
        .concurrency_support(false)
        .epoch_interruption(true)
        .max_wasm_stack(WASM_STACK)
        .async_stack_size(ASYNC_STACK)
        .cranelift_opt_level(OptLevel::Speed)
        .memory_init_cow(true)
        // A host has work of its own; and one thread's memory is given back after it.
        .parallel_compilation(false)
        // What no plugin needs is surface that no plugin gets.
        .wasm_threads(false)
        .wasm_shared_everything_threads(false)
        .wasm_function_references(false)
        .wasm_gc(false)
        .wasm_exceptions(false)
        .wasm_memory64(false)
        .wasm_custom_page_sizes(false)
        .wasm_wide_arithmetic(false)
        .wasm_stack_switching(false)
        .wasm_relaxed_simd(false);
    config
}

fn pool(config: RuntimeConfig) -> PoolingAllocationConfig {
    // And one for the self-test of a plugin, and those of shadows, which take nobody's place.
    let concurrency = config.max_concurrency.max(1).saturating_add(1 + SHADOWS);
    let mut pool = PoolingAllocationConfig::new();
    pool.total_component_instances(concurrency)
        .total_core_instances(concurrency.saturating_mul(config.instances))
        .total_memories(concurrency.saturating_mul(MAX_MEMORIES))
        .total_tables(concurrency.saturating_mul(MAX_TABLES))
        .total_stacks(concurrency)
        .total_gc_heaps(concurrency)
        .max_core_instances_per_component(config.instances)
        .max_memories_per_component(MAX_MEMORIES)
        .max_tables_per_component(MAX_TABLES)
        .table_elements(TABLE_ELEMENTS)
        .max_memory_size((config.memory_mib as usize) << 20)
        .max_unused_warm_slots(concurrency)
        .linear_memory_keep_resident(MEMORY_RESIDENT)
        .table_keep_resident(TABLE_RESIDENT)
        .pagemap_scan(Enabled::Auto);
    pool
}
