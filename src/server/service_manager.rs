//! Notifies the service manager by systemd's protocol (`sd_notify`): ready, reloading, stopping, a
//! status line, a watchdog, and what it keeps for the next process.
//!
//! Called by the loop itself: if the loop hangs, the watchdog messages stop and the manager
//! restarts the service. A message that cannot be sent is dropped, as it must not delay the loop.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::fd::BorrowedFd;
#[cfg(target_os = "linux")]
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use crate::limits::{
    NOTIFY_READY, NOTIFY_RETRY, NOTIFY_STATUS, OPTION_SECONDS_MAX, OPTION_SECONDS_MIN,
};
use crate::net::handover;
use crate::sys::clock::{self, Clock, Timestamp};
use crate::sys::logging::warn;

/// Name under which the manager keeps a descriptor for the next process.
pub const STORED_NAME: &str = "wormhole-handover";

/// The state that the status line shows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Health {
    pub connections: usize,
    pub nameplates: usize,
    pub mailboxes: usize,
    /// Whether the storage is unavailable.
    pub is_degraded: bool,
}

/// The service manager's socket, and what it has been sent.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    watchdog: Option<Watchdog>,
    /// The status sent last; none until `READY=1` has been sent.
    last_sent: Option<Health>,
    /// No status is sent before then, unless the storage fails or recovers.
    quiet_until: Option<Instant>,
    degraded_since: Option<Timestamp>,
    /// The first message that cannot be sent is logged, later ones are not.
    error_logged: bool,
}

/// The messages without which the manager restarts the service.
#[derive(Clone, Copy, Debug)]
struct Watchdog {
    /// Half of the manager's timeout, so that one message may be late.
    interval: Duration,
    due: Instant,
}

impl Notifier {
    /// Reads `NOTIFY_SOCKET`, without which there is no notifier, and the watchdog's variables.
    pub fn from_environment(now: Clock) -> Option<Notifier> {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        let variable = |name| env::var(name).unwrap_or_default();
        let (usec, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        let interval = watchdog_interval(&usec, &pid, std::process::id());
        match Notifier::new(&address, interval, now) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                warn!(
                    "NOTIFY_SOCKET {}: {error}; the service manager is not notified",
                    address.to_string_lossy()
                );
                None
            }
        }
    }

    fn new(address: &OsStr, interval: Option<Duration>, now: Clock) -> io::Result<Notifier> {
        let manager = match address.as_bytes() {
            #[cfg(target_os = "linux")]
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a unix socket")),
        };
        let socket = UnixDatagram::unbound()?;
        // For the first message; later ones do not wait.
        socket.set_write_timeout(Some(NOTIFY_READY))?;
        Ok(Notifier {
            socket,
            manager,
            watchdog: interval.map(|interval| Watchdog { interval, due: now.instant + interval }),
            last_sent: None,
            quiet_until: None,
            degraded_since: None,
            error_logged: false,
        })
    }

    /// Sends what is due; called every tick. The first status, and the first one after
    /// [`Notifier::reloading`], comes with `READY=1`. A status is sent at most once every
    /// [`NOTIFY_STATUS`], unless the storage fails or recovers.
    pub fn update(&mut self, now: Clock, health: Health) {
        self.keep_alive(now);
        let is_quiet = self.quiet_until.is_some_and(|until| until > now.instant);
        let is_urgent = self.last_sent.is_some_and(|sent| sent.is_degraded != health.is_degraded);
        if is_quiet && !is_urgent {
            return;
        }
        if self.last_sent == Some(health) {
            self.quiet_until = None;
            return;
        }
        self.quiet_until = Some(now.instant + NOTIFY_STATUS);
        self.degraded_since = health.is_degraded.then(|| self.degraded_since.unwrap_or(now.wall));
        let ready = if self.last_sent.is_none() { "READY=1\n" } else { "" };
        let failure = self
            .degraded_since
            .map(|since| format!("storage unavailable since {}; ", clock::utc(since)))
            .unwrap_or_default();
        let Health { connections, nameplates, mailboxes, .. } = health;
        if self.send(&format!(
            "{ready}STATUS={failure}connections: {connections}, nameplates: {nameplates}, \
             mailboxes: {mailboxes}"
        )) {
            self.last_sent = Some(health); // else it is tried again
        }
    }

    /// When [`Notifier::update`] next has something to do.
    pub fn next_deadline(&self) -> Option<Instant> {
        let watchdog = self.watchdog.map(|watchdog| watchdog.due);
        [self.quiet_until, watchdog].into_iter().flatten().min()
    }

    /// The next [`Notifier::update`] ends the reload.
    pub fn reloading(&mut self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_microseconds()));
        self.last_sent = None;
        self.quiet_until = None;
    }

    /// The manager waits for the end, within its own timeout.
    pub fn stopping(&mut self) {
        self.send("STOPPING=1");
    }

    /// Leaves a descriptor with the manager for the next process, and waits until the manager takes
    /// the message. It closes the descriptor if it does not start one.
    pub fn store(&self, descriptor: BorrowedFd<'_>) -> io::Result<()> {
        let socket = UnixDatagram::unbound()?;
        socket.set_write_timeout(Some(NOTIFY_READY))?;
        socket.connect_addr(&self.manager)?;
        let text = format!("FDSTORE=1\nFDNAME={STORED_NAME}");
        handover::send_with(&socket, text.as_bytes(), &[descriptor])
    }

    /// Removes the descriptor of an earlier process, to make room for the next.
    pub fn remove_stored(&mut self) {
        self.send(&format!("FDSTOREREMOVE=1\nFDNAME={STORED_NAME}"));
    }

    fn keep_alive(&mut self, now: Clock) {
        let due = self.watchdog.filter(|watchdog| watchdog.due <= now.instant);
        let Some(Watchdog { interval, .. }) = due else { return };
        let wait = if self.send("WATCHDOG=1") { interval } else { NOTIFY_RETRY.min(interval) };
        self.watchdog = Some(Watchdog { interval, due: now.instant + wait });
    }

    /// Returns whether the message was sent.
    fn send(&mut self, message: &str) -> bool {
        let outcome = self.socket.send_to_addr(message.as_bytes(), &self.manager);
        if let Err(error) = &outcome
            && !self.error_logged
        {
            self.error_logged = true;
            warn!("a message to the service manager cannot be sent: {error}");
        }
        // If this fails, the next message may wait as long as the first did, which does no harm.
        _ = self.socket.set_nonblocking(true);
        outcome.is_ok()
    }
}

/// Half of `WATCHDOG_USEC`, if `WATCHDOG_PID` is empty or the process `ours`.
fn watchdog_interval(usec: &str, pid: &str, ours: u32) -> Option<Duration> {
    let is_ours = pid.is_empty() || pid.parse() == Ok(ours);
    let timeout = usec.parse().ok().filter(|usec| *usec > 0 && is_ours).map(Duration::from_micros);
    let (shortest, longest) = (OPTION_SECONDS_MIN, OPTION_SECONDS_MAX);
    timeout.map(|timeout| {
        (timeout / 2).clamp(Duration::from_secs_f64(shortest), Duration::from_secs_f64(longest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_update_and_the_first_after_reloading_say_that_it_is_ready() {
        let name = format!("@wormhole-mailbox-unit-test-{}", std::process::id());
        let address = SocketAddr::from_abstract_name(&name[1..]).expect("an address");
        let manager = UnixDatagram::bind_addr(&address).expect("a socket");
        let recv = || {
            let mut bytes = [0; 200];
            let count = manager.recv(&mut bytes).expect("a message");
            String::from_utf8_lossy(&bytes[..count]).into_owned()
        };
        let now = Clock::read();
        let health = Health { connections: 1, nameplates: 2, mailboxes: 3, is_degraded: false };
        let mut notifier = Notifier::new(OsStr::new(&name), None, now).expect("a notifier");
        const READY: &str = "READY=1\nSTATUS=connections: 1, nameplates: 2, mailboxes: 3";
        notifier.update(now, health);
        assert_eq!(recv(), READY);
        let before = clock::monotonic_microseconds();
        notifier.reloading();
        let message = recv();
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&message);
        let time = time.parse().expect("a number");
        assert!((before..=clock::monotonic_microseconds()).contains(&time), "{time}");
        notifier.update(now, health);
        assert_eq!(recv(), READY);
        // A status waits for its time, unless the storage has failed.
        notifier.update(now, Health { connections: 9, ..health });
        assert_eq!(notifier.next_deadline(), Some(now.instant + NOTIFY_STATUS));
        notifier.update(now, Health { is_degraded: true, ..health });
        assert!(recv().starts_with("STATUS=storage unavailable since "));
        notifier.update(now, Health { is_degraded: true, ..health });
        let later = Clock { instant: now.instant + NOTIFY_STATUS, ..now };
        notifier.update(later, Health { is_degraded: true, ..health });
        assert_eq!(notifier.next_deadline(), None);
        notifier.stopping();
        assert_eq!(recv(), "STOPPING=1");
    }

    #[test]
    fn the_watchdog_interval_is_half_the_timeout_of_the_process_that_is_named() {
        let interval = |usec, pid| watchdog_interval(usec, pid, 17);
        assert_eq!(interval("30000000", "17"), Some(Duration::from_secs(15)));
        assert_eq!(interval("30000000", ""), Some(Duration::from_secs(15)));
        assert_eq!(interval("1", "17"), Some(Duration::from_millis(1)));
        assert!(interval("18446744073709551615", "17").is_some());
        for (usec, pid) in
            [("", "17"), ("", ""), ("0", "17"), ("-5", ""), ("soon", ""), ("30000000", "18")]
        {
            assert_eq!(interval(usec, pid), None, "{usec:?} {pid:?}");
        }
    }
}
