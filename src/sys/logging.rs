//! The log (manual: command_line 7). simple_logger decides which lines of the libraries are in
//! it.
//!
//! Logging never blocks, panics or ends the process. A line that stderr does not take at once, or
//! at all (a full disk, a file size limit, a pipe that is not read), is lost and counted; the next
//! line that can be written is preceded by one that says how many were lost.

use std::fmt;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::fs::MetadataExt;
use std::panic;
use std::sync::atomic::{AtomicUsize, Ordering};

use log::{Level, LevelFilter, Log, Metadata, Record};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use simple_logger::SimpleLogger;

use crate::limits::LOG_LINE_BYTES_MAX;
use crate::sys::clock::{self, Clock, Timestamp};

/// Lines lost since the start. A `usize`: MIPS has no atomic of 64 bits.
static LINES_LOST: AtomicUsize = AtomicUsize::new(0);

/// Writes a line. Not where each line is logged: what log's own macros note there of the source
/// makes the program 160 bytes larger for each.
pub fn write(level: Level, text: fmt::Arguments<'_>) {
    log::log!(level, "{text}");
}

macro_rules! log_debug {
    ($($text:tt)+) => { $crate::sys::logging::write(log::Level::Debug, format_args!($($text)+)) };
}
macro_rules! log_info {
    ($($text:tt)+) => { $crate::sys::logging::write(log::Level::Info, format_args!($($text)+)) };
}
macro_rules! log_warn {
    ($($text:tt)+) => { $crate::sys::logging::write(log::Level::Warn, format_args!($($text)+)) };
}
macro_rules! log_error {
    ($($text:tt)+) => { $crate::sys::logging::write(log::Level::Error, format_args!($($text)+)) };
}
pub(crate) use {log_debug as debug, log_error as error, log_info as info, log_warn as warn};

/// Log lines that could not be written since the start.
pub fn lines_lost() -> u64 {
    LINES_LOST.load(Ordering::Relaxed) as u64
}

/// How a line begins.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Prefix {
    /// Time and level.
    TimeAndLevel,
    /// `<N>`, the priority as syslog numbers it; the journal has a time of its own.
    Priority,
}

impl Prefix {
    /// systemd names the journal's socket in `JOURNAL_STREAM`, so that a program can see whether
    /// its stderr is still connected to it.
    fn of_stderr() -> Prefix {
        let journal = std::env::var("JOURNAL_STREAM").unwrap_or_default();
        let stderr = io::stderr().as_fd().try_clone_to_owned().map(File::from);
        match stderr.and_then(|file| file.metadata()) {
            Ok(stderr) if format!("{}:{}", stderr.dev(), stderr.ino()) == journal => {
                Prefix::Priority
            }
            _ => Prefix::TimeAndLevel,
        }
    }
}

/// Prints a line of a run that logs nothing.
pub fn print(level: Level, text: &str) {
    let priority = match Prefix::of_stderr() {
        Prefix::Priority => format!("<{}>", priority(level)),
        Prefix::TimeAndLevel => String::new(),
    };
    // If it cannot be written, the exit status remains.
    _ = io::stderr().write_all(one_line(&format!("{priority}wormhole-mailbox: {text}")).as_bytes());
}

struct Logger {
    libraries: SimpleLogger,
    prefix: Prefix,
    /// Lines lost that a line has reported.
    reported: AtomicUsize,
}

impl Log for Logger {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_own = metadata.target().starts_with(env!("CARGO_CRATE_NAME"));
        is_own || self.libraries.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if !self.enabled(record.metadata()) {
            return;
        }
        let lost = LINES_LOST.load(Ordering::Relaxed);
        let unreported = lost - self.reported.load(Ordering::Relaxed);
        let report = format_args!("{unreported} log lines could not be written");
        if unreported > 0 && self.write(Level::Warn, report) {
            self.reported.store(lost, Ordering::Relaxed);
        }
        if !self.write(record.level(), *record.args()) {
            LINES_LOST.fetch_add(1, Ordering::Relaxed);
        }
    }

    fn flush(&self) {}
}

impl Logger {
    /// Writes one line, if stderr takes it.
    fn write(&self, level: Level, text: fmt::Arguments<'_>) -> bool {
        let line = line(self.prefix, level, Clock::read().wall, text);
        // The whole line in one write: a pipe that is writable takes it without blocking, and
        // nothing of another process comes in between.
        stderr_is_writable()
            && io::stderr().write(line.as_bytes()).is_ok_and(|written| written == line.len())
    }
}

fn line(prefix: Prefix, level: Level, wall: Timestamp, text: fmt::Arguments<'_>) -> String {
    one_line(&match prefix {
        Prefix::TimeAndLevel => format!("{} {level} {text}", clock::rfc3339(wall)),
        Prefix::Priority => format!("<{}>{text}", priority(level)),
    })
}

/// A line of up to [`LOG_LINE_BYTES_MAX`] bytes. What is too long for it is left out in the middle,
/// where the words of an operator stand: before them is what it is about, after them what is right.
fn one_line(text: &str) -> String {
    const LEFT_OUT: &str = "…";
    let mut line = text.replace(char::is_control, " ");
    let room = LOG_LINE_BYTES_MAX - "\n".len();
    if line.len() > room {
        let is_boundary = |at: &usize| line.is_char_boundary(*at);
        let begin = (0..room / 2).rev().find(is_boundary).unwrap_or(0);
        let rest = room - begin - LEFT_OUT.len();
        let end = (line.len() - rest..line.len()).find(is_boundary).unwrap_or(line.len());
        line.replace_range(begin..end, LEFT_OUT);
    }
    line + "\n"
}

/// The level as syslog(3) numbers it.
fn priority(level: Level) -> u8 {
    match level {
        Level::Error => 3,
        Level::Warn => 4,
        Level::Info => 6,
        Level::Debug | Level::Trace => 7,
    }
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
    // The libraries log nothing below a warning that an operator could use.
    let libraries = SimpleLogger::new().with_level(level.min(LevelFilter::Warn));
    let logger = Logger { libraries, prefix: Prefix::of_stderr(), reported: AtomicUsize::new(0) };
    if log::set_boxed_logger(Box::new(logger)).is_ok() {
        log::set_max_level(level);
        panic::set_hook(Box::new(|panic| log::error!("internal error, please report: {panic}")));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn text(prefix: Prefix, level: Level, text: &str) -> String {
        let wall = Timestamp(1_735_689_600.25);
        line(prefix, level, wall, format_args!("{text}"))
    }

    #[test]
    fn a_line_has_time_and_level_or_the_journals_priority() {
        for (prefix, level, expected) in [
            (Prefix::TimeAndLevel, Level::Info, "2025-01-01T00:00:00.250Z INFO up\n"),
            (Prefix::TimeAndLevel, Level::Error, "2025-01-01T00:00:00.250Z ERROR up\n"),
            (Prefix::Priority, Level::Warn, "<4>up\n"),
            (Prefix::Priority, Level::Debug, "<7>up\n"),
        ] {
            assert_eq!(text(prefix, level, "up"), expected);
        }
    }

    #[test]
    fn an_event_is_one_line_of_bounded_length() {
        assert_eq!(text(Prefix::Priority, Level::Info, "a\nb\tc"), "<6>a b c\n");
        for char in ["x", "€"] {
            let long = format!("unknown {} is no option", char.repeat(5_000));
            let line = text(Prefix::Priority, Level::Info, &long);
            let room = LOG_LINE_BYTES_MAX - char.len() + 1;
            assert!((room..=LOG_LINE_BYTES_MAX).contains(&line.len()), "{}", line.len());
            assert_eq!(line.matches('\n').count(), 1);
            assert!(line.starts_with("<6>unknown ") && line.ends_with(" is no option\n"), "{line}");
        }
    }
}
