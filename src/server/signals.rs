//! Signals as readiness events: SIGTERM and SIGINT to stop, SIGHUP to read the settings again,
//! SIGQUIT to drain, SIGUSR2 to replace the program, SIGALRM to leave everything to the service
//! manager, which starts the next process. SIGUSR1 is ignored: log rotation sends it.
//!
//! A handler sets the signal's flag, then writes a byte to a socket pair that the poll watches.
//! A second SIGTERM or SIGINT ends the process at once, even when the loop is stuck.

use std::io::{self, Read, Write};
use std::os::unix::net::UnixStream as StdUnixStream;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use mio::net::UnixStream;
use nix::sys::signal::{SigSet, Signal};
use signal_hook::{flag, low_level};

/// Exit status of a second signal.
const SECOND_SIGNAL_STATUS: i32 = 1;

/// The request that a signal makes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Request {
    /// To stop. Once asked for, it stays so.
    Stop,
    /// To read the settings again.
    Reload,
    /// To open the log files again, of which there are none.
    ReopenLogs,
    /// To replace the program by the one that is now at its path.
    Replace,
    /// To leave the connections to the next process that the service manager starts, and to stop.
    Leave,
    /// To let what has begun come to its end, and then stop.
    Drain,
}

/// The signals, in the order in which their requests are handled.
const SIGNALS: [(Signal, Request); 7] = [
    (Signal::SIGTERM, Request::Stop),
    (Signal::SIGINT, Request::Stop),
    (Signal::SIGHUP, Request::Reload),
    (Signal::SIGUSR1, Request::ReopenLogs),
    (Signal::SIGUSR2, Request::Replace),
    (Signal::SIGALRM, Request::Leave),
    (Signal::SIGQUIT, Request::Drain),
];

/// All signals that the server handles.
fn all() -> SigSet {
    SIGNALS.into_iter().map(|(signal, _)| signal).collect()
}

/// Makes signals wait until the program that this process executes next has its handlers. Without
/// handlers they would end it. If nothing is executed, [`deliver`] is to follow.
pub fn hold() -> io::Result<()> {
    Ok(all().thread_block()?)
}

/// Delivers the signals that wait, now and from now on.
pub fn deliver() -> io::Result<()> {
    Ok(all().thread_unblock()?)
}

/// The requests that signals have made.
#[derive(Debug)]
pub struct Signals {
    /// The end that the poll watches.
    pub stream: UnixStream,
    /// Whether each [`Request`] has been made; handlers set these.
    flags: [Arc<AtomicBool>; 6],
}

/// Asks a server in the same process to stop.
#[derive(Debug)]
pub struct Remote {
    stop: Arc<AtomicBool>,
    writer: StdUnixStream,
}

impl Remote {
    /// Asks for a stop, as SIGTERM does; a second time changes nothing.
    pub fn stop(&self) {
        self.stop.store(true, Ordering::Relaxed);
        // Fails if the server has ended.
        _ = (&self.writer).write(&[0]);
    }
}

impl Signals {
    /// With the writing end, to which nothing writes yet.
    fn new() -> io::Result<(Signals, StdUnixStream)> {
        let (reader, writer) = StdUnixStream::pair()?;
        reader.set_nonblocking(true)?;
        Ok((Signals { stream: UnixStream::from_std(reader), flags: Default::default() }, writer))
    }

    /// Leaves the signals of the process alone; only the `Remote` asks for anything.
    pub fn remote() -> io::Result<(Signals, Remote)> {
        let (signals, writer) = Signals::new()?;
        let stop = signals.flag(Request::Stop);
        Ok((signals, Remote { stop, writer }))
    }

    /// Takes over the signals, and gets those that have waited for it.
    pub fn install() -> io::Result<Signals> {
        let (signals, writer) = Signals::new()?;
        for (signal, request) in SIGNALS {
            let signal = signal as i32;
            if request == Request::Stop {
                // Before the next: the first signal finds the flag unset, and sets it.
                let stop = signals.flag(request);
                flag::register_conditional_shutdown(signal, SECOND_SIGNAL_STATUS, stop)?;
            }
            // In this order: the byte that wakes the loop comes after what it is about.
            flag::register(signal, signals.flag(request))?;
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        deliver()?;
        Ok(signals)
    }

    fn flag(&self, request: Request) -> Arc<AtomicBool> {
        Arc::clone(&self.flags[request as usize])
    }

    /// Whether a stop has been asked for, handled yet or not.
    pub fn must_stop(&self) -> bool {
        self.flags[Request::Stop as usize].load(Ordering::Relaxed)
    }

    /// Whether there are requests that [`Signals::take`] has not returned.
    pub fn is_waiting(&self) -> bool {
        self.flags.iter().any(|flag| flag.load(Ordering::Relaxed))
    }

    /// The requests since the last call.
    pub fn take(&mut self) -> Vec<Request> {
        // To the last byte: the poll reports new ones only, and a full pipe takes none.
        let mut bytes = [0; 64];
        while self.stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
        let is_made = |request: &Request| match request {
            Request::Stop => self.must_stop(),
            _ => self.flags[*request as usize].swap(false, Ordering::Relaxed),
        };
        SIGNALS.into_iter().map(|(_, request)| request).filter(is_made).collect()
    }
}
