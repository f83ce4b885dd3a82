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
use signal_hook::consts::{SIGALRM, SIGHUP, SIGINT, SIGQUIT, SIGTERM, SIGUSR1, SIGUSR2};
use signal_hook::{flag, low_level};

/// Exit status of a second signal.
const SECOND_SIGNAL_STATUS: i32 = 1;

/// All that [`Signals::install`] takes over.
const TAKEN_OVER: [Signal; 7] = [
    Signal::SIGTERM,
    Signal::SIGINT,
    Signal::SIGHUP,
    Signal::SIGQUIT,
    Signal::SIGUSR1,
    Signal::SIGUSR2,
    Signal::SIGALRM,
];

/// Makes signals wait until the program that this process executes next has its handlers. Without
/// handlers they would end it. If nothing is executed, [`deliver`] is to follow.
pub fn hold() -> io::Result<()> {
    Ok(SigSet::from_iter(TAKEN_OVER).thread_block()?)
}

/// Delivers the signals that wait, now and from now on.
pub fn deliver() -> io::Result<()> {
    Ok(SigSet::from_iter(TAKEN_OVER).thread_unblock()?)
}

/// The reading end.
#[derive(Debug)]
pub struct Signals {
    stream: UnixStream,
    flags: Flags,
}

/// What [`Asked`] is made from; handlers set these.
#[derive(Debug, Default)]
struct Flags {
    stop: Arc<AtomicBool>,
    reload: Arc<AtomicBool>,
    drain: Arc<AtomicBool>,
    reopen_logs: Arc<AtomicBool>,
    replace: Arc<AtomicBool>,
    leave: Arc<AtomicBool>,
}

/// What signals have asked for.
#[derive(Clone, Copy, Debug)]
pub struct Asked {
    /// To stop. Once asked for, it stays so.
    pub stop: bool,
    /// To read the settings again.
    pub reload: bool,
    /// To let what has begun come to its end, and then stop.
    pub drain: bool,
    /// To open the log files again, of which there are none.
    pub reopen_logs: bool,
    /// To replace the program by the one that is now at its path.
    pub replace: bool,
    /// To leave the connections to the next process that the service manager starts, and to stop.
    pub leave: bool,
}

/// Asks a server in the same process to stop.
#[derive(Debug)]
pub struct Remote {
    stop: Arc<AtomicBool>,
    writer: StdUnixStream,
}

impl Remote {
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
        Ok((Signals { stream: UnixStream::from_std(reader), flags: Flags::default() }, writer))
    }

    /// Leaves the signals of the process alone; only the `Remote` asks for anything.
    pub fn remote() -> io::Result<(Signals, Remote)> {
        let (signals, writer) = Signals::new()?;
        let stop = Arc::clone(&signals.flags.stop);
        Ok((signals, Remote { stop, writer }))
    }

    /// Takes over the signals, and gets those that have waited for it.
    pub fn install() -> io::Result<Signals> {
        let (signals, writer) = Signals::new()?;
        let flags = &signals.flags;
        for signal in [SIGTERM, SIGINT] {
            // In this order: the first signal finds the flag unset, and sets it.
            let stop = Arc::clone(&flags.stop);
            flag::register_conditional_shutdown(signal, SECOND_SIGNAL_STATUS, stop)?;
        }
        for (signal, asked) in [
            (SIGTERM, &flags.stop),
            (SIGINT, &flags.stop),
            (SIGHUP, &flags.reload),
            (SIGQUIT, &flags.drain),
            (SIGUSR1, &flags.reopen_logs),
            (SIGUSR2, &flags.replace),
            (SIGALRM, &flags.leave),
        ] {
            // In this order: the byte that wakes the loop comes after what it is about.
            flag::register(signal, Arc::clone(asked))?;
            low_level::pipe::register(signal, writer.try_clone()?)?;
        }
        deliver()?;
        Ok(signals)
    }

    /// To register it with the poll.
    pub fn stream_mut(&mut self) -> &mut UnixStream {
        &mut self.stream
    }

    /// Whether a stop has been asked for, handled yet or not.
    pub fn must_stop(&self) -> bool {
        self.flags.stop.load(Ordering::Relaxed)
    }

    /// What signals have asked for since the last call.
    pub fn take(&mut self) -> Asked {
        // To the last byte: the poll reports new ones only, and a full pipe takes none.
        let mut bytes = [0; 64];
        while self.stream.read(&mut bytes).is_ok_and(|count| count > 0) {}
        let take = |flag: &AtomicBool| flag.swap(false, Ordering::Relaxed);
        Asked {
            stop: self.must_stop(),
            reload: take(&self.flags.reload),
            drain: take(&self.flags.drain),
            reopen_logs: take(&self.flags.reopen_logs),
            replace: take(&self.flags.replace),
            leave: take(&self.flags.leave),
        }
    }
}
