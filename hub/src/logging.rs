//! JSON lines on standard output; tenant, agent, method and correlation id come from the request's span. A thread of its own writes them: whoever
//! reads them may stand still, and the hub goes on. What it does not take is dropped beyond a bound, and counted.

use std::{
    io::{self, Write},
    mem,
    sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError},
    thread,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, fmt::MakeWriter};

/// Bytes of lines that wait to be written.
const MOST_BYTES: usize = 1 << 20;
/// How long the process waits at its end until all of them are.
const FLUSH: Duration = Duration::from_secs(1);

/// The log of this process. Clones share it.
#[derive(Clone, Debug, Default)]
pub(crate) struct LogLines(Arc<Shared>);

#[derive(Debug, Default)]
struct Shared {
    lines: Mutex<Lines>,
    came: Condvar,
    written: Condvar,
}

#[derive(Debug, Default)]
struct Lines {
    waiting: Vec<u8>,
    /// Bytes that are being written.
    leaving: usize,
    lost: u64,
}

/// From now on. `RUST_LOG` says what is wanted; `info` where it is unset.
pub(crate) fn start() -> io::Result<LogLines> {
    let log = LogLines::default();
    log.write_to(io::stdout())?;
    let filter = EnvFilter::try_from_default_env().unwrap_or_else(|_| EnvFilter::new("info"));
    tracing_subscriber::fmt()
        .json()
        .flatten_event(true)
        .with_current_span(true)
        .with_span_list(false)
        .with_env_filter(filter)
        .with_writer(log.clone())
        .init();
    Ok(log)
}

impl LogLines {
    fn write_to(&self, mut output: impl Write + Send + 'static) -> io::Result<()> {
        let shared = self.0.clone();
        thread::Builder::new().name("log".to_owned()).spawn(move || {
            loop {
                let batch = shared.next();
                // Where nobody reads any more there is nowhere to tell it.
                let _ = output.write_all(&batch).and_then(|()| output.flush());
                shared.lines().leaving = 0;
                shared.written.notify_all();
            }
        })?;
        Ok(())
    }

    /// Lines that were dropped since the start.
    pub(crate) fn lost(&self) -> u64 {
        self.0.lines().lost
    }

    /// What waits until all is written when it is dropped.
    pub(crate) fn flushed_at_end(&self) -> FlushAtEnd {
        FlushAtEnd(self.clone())
    }

    /// Waits until all is written, for a while.
    fn flush(&self) {
        let is_left = |lines: &mut Lines| lines.leaving > 0 || !lines.waiting.is_empty();
        drop(self.0.written.wait_timeout_while(self.0.lines(), FLUSH, is_left));
    }
}

/// To be held until the process ends. Also where a panic ends it: the last lines say what led to that.
pub(crate) struct FlushAtEnd(LogLines);

impl Drop for FlushAtEnd {
    fn drop(&mut self) {
        self.0.flush();
    }
}

impl Shared {
    fn lines(&self) -> MutexGuard<'_, Lines> {
        self.lines.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// All that waits, as soon as there is something.
    fn next(&self) -> Vec<u8> {
        let waiting = self.came.wait_while(self.lines(), |lines| lines.waiting.is_empty());
        let mut lines = waiting.unwrap_or_else(PoisonError::into_inner);
        let batch = mem::take(&mut lines.waiting);
        lines.leaving = batch.len();
        batch
    }
}

impl<'a> MakeWriter<'a> for LogLines {
    type Writer = Line<'a>;

    fn make_writer(&'a self) -> Line<'a> {
        Line { shared: &self.0, bytes: Vec::new() }
    }
}

/// A line, on its way into the log. It is there as a whole, or not at all.
pub(crate) struct Line<'a> {
    shared: &'a Shared,
    bytes: Vec<u8>,
}

impl Write for Line<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.bytes.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl Drop for Line<'_> {
    fn drop(&mut self) {
        let mut lines = self.shared.lines();
        if lines.leaving + lines.waiting.len() + self.bytes.len() > MOST_BYTES {
            lines.lost += 1;
            return;
        }
        lines.waiting.extend_from_slice(&self.bytes);
        drop(lines);
        self.shared.came.notify_one();
    }
}

#[cfg(test)]
mod tests {
    use std::{
        io::Read as _,
        time::{Duration, Instant},
    };

    use super::*;

    fn say(log: &LogLines, line: &[u8]) {
        log.make_writer().write_all(line).unwrap();
    }

    #[test]
    fn what_a_reader_that_stands_still_does_not_take_is_dropped_and_counted() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = LogLines::default();
        log.write_to(writer).unwrap();
        let line = |number: usize| format!("{number:07} {}\n", "x".repeat(1000));
        // More than is kept and than a pipe takes.
        let said = 3 * MOST_BYTES / line(0).len();
        let began = Instant::now();
        for number in 0..said {
            say(&log, line(number).as_bytes());
        }
        assert!(began.elapsed() < Duration::from_secs(5), "nobody waits for a reader");
        let lost = usize::try_from(log.lost()).unwrap();
        assert!(lost > said / 2, "{lost} of {said}");
        log.flush();
        assert!(began.elapsed() < Duration::from_secs(10), "nor does the end");
        // The rest comes as it was, in whole lines and in order.
        let mut read = vec![0; (said - lost) * line(0).len()];
        reader.read_exact(&mut read).unwrap();
        let read = String::from_utf8(read).unwrap();
        let numbers: Vec<usize> = read.lines().map(|line| line[..7].parse().unwrap()).collect();
        assert!(numbers.is_sorted() && read.lines().all(|line| line.len() == 1008), "{numbers:?}");
        // And it goes on.
        say(&log, b"again\n");
        let mut again = [0; 6];
        reader.read_exact(&mut again).unwrap();
        assert_eq!(&again, b"again\n");
    }

    /// Takes its time.
    struct Slow(io::PipeWriter);

    impl Write for Slow {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            thread::sleep(Duration::from_millis(200));
            self.0.write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            self.0.flush()
        }
    }

    #[test]
    fn at_the_end_all_is_written_also_where_a_panic_is_the_end() {
        let (mut reader, writer) = io::pipe().unwrap();
        let log = LogLines::default();
        log.write_to(Slow(writer)).unwrap();
        let ending = log.clone();
        let ended = thread::spawn(move || {
            let _flushed = ending.flushed_at_end();
            say(&ending, b"the last line\n");
            panic!("the end");
        });
        ended.join().unwrap_err();
        let lines = log.0.lines();
        assert!(lines.waiting.is_empty() && lines.leaving == 0 && lines.lost == 0, "{lines:?}");
        let mut read = [0; 14];
        reader.read_exact(&mut read).unwrap();
        assert_eq!(&read, b"the last line\n");
    }
}
