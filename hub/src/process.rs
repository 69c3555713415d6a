//! What this process takes of memory and CPU, and how much it may: asked of the kernel, again and again, for the metrics. Where the kernel does not
//! tell (no Linux, no control group of its own), the metrics lack it, and the hub goes on.

use std::{fs, thread, time::Duration};

use acb_hub_core::metrics::process::{ProcessMetrics, ProcessUse};
use tokio::time::sleep;

use crate::logging::LogLines;

/// Between two looks: more often than anybody scrapes.
const EVERY: Duration = Duration::from_secs(5);
/// In what fractions of a second Linux tells programs their CPU time (`USER_HZ`).
const TICKS: f64 = 100.0;
/// Where a container sees its own control group (v2).
const GROUP: &str = "/sys/fs/cgroup";

/// Measures for as long as it is polled.
pub(crate) async fn measure(metrics: ProcessMetrics, log: LogLines) {
    loop {
        metrics.read(look());
        metrics.lost_log_lines(log.lost());
        sleep(EVERY).await;
    }
}

fn look() -> ProcessUse {
    let text = |path: &str| fs::read_to_string(path).unwrap_or_default();
    let processors = thread::available_parallelism().ok().and_then(|count| u32::try_from(count.get()).ok());
    ProcessUse {
        memory: memory(&text("/proc/self/status")),
        memory_limit: memory_limit(&text(&format!("{GROUP}/memory.max"))),
        cpu_seconds: cpu_seconds(&text("/proc/self/stat")),
        cpu_limit: cpu_limit(&text(&format!("{GROUP}/cpu.max"))).or(processors.map(f64::from)),
    }
}

/// `VmRSS:     5120 kB`, in bytes.
fn memory(status: &str) -> Option<u64> {
    let value = status.lines().find_map(|line| line.strip_prefix("VmRSS:"))?;
    value.trim().strip_suffix("kB")?.trim().parse::<u64>().ok()?.checked_mul(1024)
}

/// Fields 14 and 15, of which field 2 is the program's name in parentheses, with whatever is in it.
fn cpu_seconds(stat: &str) -> Option<f64> {
    let (_, fields) = stat.rsplit_once(')')?;
    let mut ticks = fields.split_whitespace().skip(11).map(|field| field.parse::<f64>().ok());
    Some((ticks.next()?? + ticks.next()??) / TICKS)
}

/// `1073741824`, or `max`.
fn memory_limit(max: &str) -> Option<u64> {
    max.trim().parse().ok()
}

/// `50000 100000`, microseconds of CPU in so many microseconds, or `max 100000`.
fn cpu_limit(max: &str) -> Option<f64> {
    let (quota, period) = max.trim().split_once(' ')?;
    let (quota, period) = (quota.parse::<f64>().ok()?, period.parse::<f64>().ok()?);
    (quota > 0.0 && period > 0.0).then(|| quota / period)
}

#[cfg(test)]
mod tests {
    use acb_hub_core::metrics::Metrics;

    use super::*;

    #[test]
    fn what_the_kernel_tells_is_read() {
        assert_eq!(memory("Name:\tacb-hub\nVmHWM:\t    9000 kB\nVmRSS:\t    5120 kB\n"), Some(5_242_880));
        let stat = "7 (a) b (c)) S 1 7 7 0 -1 4194560 2000 0 0 0 250 50 0 0 20 0 9 0 100 1 2";
        assert_eq!(cpu_seconds(stat), Some(3.0));
        assert_eq!((memory_limit("1073741824\n"), memory_limit("max\n")), (Some(1 << 30), None));
        assert_eq!((cpu_limit("50000 100000\n"), cpu_limit("max 100000\n")), (Some(0.5), None));
        assert_eq!((memory(""), cpu_seconds(""), memory_limit(""), cpu_limit("")), (None, None, None, None));
    }

    #[test]
    fn this_process_is_measured() {
        let found = look();
        // The least that a test can have, and the most.
        assert!(found.memory.is_some_and(|bytes| (1 << 20..1 << 40).contains(&bytes)), "{found:?}");
        assert!(found.cpu_seconds.is_some_and(|seconds| seconds < 1e6), "{found:?}");
        assert!(found.cpu_limit.is_some_and(|cores| cores > 0.0), "{found:?}");
    }

    #[test]
    fn what_is_not_known_is_in_no_scrape() {
        let metrics = Metrics::new("acme");
        for name in ["process_resident_memory_bytes", "acb_memory_limit_bytes", "acb_cpu_limit_cores"] {
            assert!(!metrics.render().contains(&format!("\n{name}{{")), "{}", metrics.render());
        }
        let found = ProcessUse { memory: Some(9), memory_limit: Some(10), cpu_seconds: Some(1.5), cpu_limit: Some(0.5) };
        metrics.process().read(found);
        let text = metrics.render();
        for line in [
            "process_resident_memory_bytes{} 9",
            "acb_memory_limit_bytes{} 10",
            "process_cpu_seconds_total 1.5",
            "acb_cpu_limit_cores{} 0.5",
        ] {
            assert!(text.contains(&format!("\n{line}\n")), "{line} is not in {text}");
        }
        metrics.process().read(ProcessUse { memory_limit: None, cpu_seconds: Some(2.0), ..found });
        let text = metrics.render();
        assert!(!text.contains("\nacb_memory_limit_bytes{"), "{text}");
        assert!(text.contains("\nprocess_cpu_seconds_total 2.0\n"), "{text}");
    }
}
