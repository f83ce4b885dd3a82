//! SIGTERM and SIGINT as readiness events; SIGXFSZ as nothing at all.
//!
//! The handler writes a byte to a socket pair that the poll watches. A second signal ends the
//! process at once, even when the loop is stuck.

use std::io::{self, Read};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::AtomicBool;

use mio::net::UnixStream;
use signal_hook::consts::{SIGINT, SIGTERM, SIGXFSZ};
use signal_hook::{flag, low_level};

/// Exit status of a second signal.
const SECOND_SIGNAL_STATUS: i32 = 1;

/// The reading end.
#[derive(Debug)]
pub struct Signals {
    stream: UnixStream,
}

impl Signals {
    /// Takes over SIGTERM and SIGINT.
    pub fn install() -> io::Result<Signals> {
        let (reader, writer) = StdUnixStream::pair()?;
        reader.set_nonblocking(true)?;
        let stopping = Arc::new(AtomicBool::new(false));
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, and sets it.
            flag::register_conditional_shutdown(
                signal,
                SECOND_SIGNAL_STATUS,
                Arc::clone(&stopping),
            )?;
            flag::register(signal, Arc::clone(&stopping))?;
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        // A write beyond a file-size limit shall fail, as one on a full disk does, and not end the
        // process.
        flag::register(SIGXFSZ, Arc::default())?;
        Ok(Signals { stream: UnixStream::from_std(reader) })
    }

    /// To register it with the poll.
    pub fn stream_mut(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Whether a signal has come since the last call.
    pub fn take(&mut self) -> bool {
        let mut bytes = [0; 16];
        self.stream.read(&mut bytes).is_ok_and(|count| count > 0)
    }
}
