//! What a hub's process takes of memory and CPU, and how much of both it may take.

use std::sync::atomic::AtomicU64;

use prometheus_client::{
    metrics::{
        counter::Counter,
        family::Family,
        gauge::{Atomic, Gauge},
    },
    registry::Registry,
};

/// What was read of a process at one time. What could not be read is `None`.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct ProcessUse {
    /// Bytes of memory that it has.
    pub memory: Option<u64>,
    /// Bytes of memory that it may have, where there is a limit.
    pub memory_limit: Option<u64>,
    /// Seconds of CPU that it has had since it began.
    pub cpu_seconds: Option<f64>,
    /// Seconds of CPU that it may have in a second.
    pub cpu_limit: Option<f64>,
}

/// There is one process in a scrape, which needs no label.
type NoLabels = [(&'static str, &'static str); 0];
type Measured<N> = Family<NoLabels, Gauge<N, AtomicU64>>;

/// Gauges and counters of the process. Clones share them. What is not known is in no scrape: as a zero it would be a limit that is always reached.
#[derive(Clone, Debug, Default)]
pub struct ProcessMetrics {
    memory: Measured<u64>,
    memory_limit: Measured<u64>,
    cpu: Counter<f64, AtomicU64>,
    cpu_limit: Measured<f64>,
    log_lines_lost: Counter,
}

impl ProcessMetrics {
    /// Makes them visible in a registry.
    pub(super) fn register(&self, registry: &mut Registry) {
        let help = "Bytes of memory that this process has";
        registry.register("process_resident_memory_bytes", help, self.memory.clone());
        let help = "Bytes of memory that this process may have; absent where it has no limit";
        registry.register("acb_memory_limit_bytes", help, self.memory_limit.clone());
        registry.register("process_cpu_seconds", "Seconds of CPU that this process has had", self.cpu.clone());
        let help = "Seconds of CPU that this process may have in a second: its limit, or else the processors of its node";
        registry.register("acb_cpu_limit_cores", help, self.cpu_limit.clone());
        let help = "Lines of the log of this process that nobody read in time, and that were dropped";
        registry.register("acb_log_lines_lost", help, self.log_lines_lost.clone());
    }

    /// So many lines of the log were dropped until now.
    pub fn lost_log_lines(&self, lines: u64) {
        self.log_lines_lost.inc_by(lines.saturating_sub(self.log_lines_lost.get()));
    }

    /// This was read last.
    pub fn read(&self, found: ProcessUse) {
        set(&self.memory, found.memory);
        set(&self.memory_limit, found.memory_limit);
        set(&self.cpu_limit, found.cpu_limit);
        if let Some(seconds) = found.cpu_seconds {
            self.cpu.inc_by((seconds - self.cpu.get()).max(0.0));
        }
    }
}

fn set<N: Clone>(gauge: &Measured<N>, found: Option<N>)
where
    AtomicU64: Atomic<N>,
{
    match found {
        Some(found) => {
            let _before = gauge.get_or_create(&[]).set(found);
        }
        None => {
            gauge.remove(&[]);
        }
    }
}
