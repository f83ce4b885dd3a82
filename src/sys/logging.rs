//! The log: simple_logger to stderr, behind a guard.
//!
//! simple_logger panics when stderr cannot be written, and waits when it is a pipe that nobody
//! empties. Neither may stop the server: a line that cannot be written at once is dropped.

use std::io;
use std::panic::{self, AssertUnwindSafe};

use log::{LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use simple_logger::SimpleLogger;

struct Guarded(SimpleLogger);

impl Log for Guarded {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        self.0.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if self.enabled(record.metadata()) && stderr_is_writable() {
            // What is left to go wrong is a full disk under a redirected stderr.
            _ = panic::catch_unwind(AssertUnwindSafe(|| self.0.log(record)));
        }
    }

    fn flush(&self) {}
}

fn stderr_is_writable() -> bool {
    let stderr = io::stderr();
    let mut descriptors = [PollFd::new(&stderr, PollFlags::OUT)];
    let at_once = Timespec { tv_sec: 0, tv_nsec: 0 };
    matches!(poll(&mut descriptors, Some(&at_once)), Ok(1))
        && descriptors[0].revents() == PollFlags::OUT
}

/// Starts logging to stderr. Only the first call has an effect.
pub fn start(level: LevelFilter) {
    // The libraries underneath have nothing to say below a warning that an operator could use.
    let others = level.min(LevelFilter::Warn);
    let logger = SimpleLogger::new()
        .with_level(level)
        .with_module_level("tungstenite", others)
        .with_module_level("mio", others);
    if log::set_boxed_logger(Box::new(Guarded(logger))).is_ok() {
        log::set_max_level(level);
        panic::set_hook(Box::new(|panic| log::error!("internal error, please report: {panic}")));
    }
}
