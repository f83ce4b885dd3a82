//! Messages to the service manager (systemd's notification protocol): ready, reloading, stopping, a
//! status line, and the watchdog's keep-alive.
//!
//! Called by the loop itself, so that one that is stuck falls silent and is restarted. Without a
//! service manager there is no `Notifier`. A message that cannot be sent is dropped: it must never
//! hold the service up.

use std::env;
use std::ffi::OsStr;
use std::io;
use std::os::linux::net::SocketAddrExt;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::{SocketAddr, UnixDatagram};
use std::time::{Duration, Instant};

use log::warn;

use crate::engine::health::Health;
use crate::limits::{
    NOTIFY_READY, NOTIFY_RETRY, NOTIFY_STATUS, OPTION_SECONDS_MAX, OPTION_SECONDS_MIN,
};
use crate::sys::clock::{self, Clock, Timestamp};

/// The socket to the service manager, and what has been sent there.
#[derive(Debug)]
pub struct Notifier {
    socket: UnixDatagram,
    manager: SocketAddr,
    watchdog: Option<Watchdog>,
    /// The last status sent; none until READY has been sent.
    last_sent: Option<Health>,
    /// No status is sent before then, unless it is urgent.
    quiet_until: Option<Instant>,
    /// A tick has passed without a status, so there may be a change to send.
    status_pending: bool,
    /// When the storage failed, if it has.
    degraded_since: Option<Timestamp>,
    /// A message could not be sent, and that has been logged once.
    error_logged: bool,
}

/// The watchdog of a manager that restarts a silent service.
#[derive(Debug)]
struct Watchdog {
    /// Half of the manager's timeout, so that one message may be late.
    interval: Duration,
    due: Instant,
}

impl Notifier {
    /// Reads the environment; there is none without `NOTIFY_SOCKET`. To be called once.
    pub fn from_environment(now: Clock) -> Option<Notifier> {
        let address = env::var_os("NOTIFY_SOCKET").filter(|address| !address.is_empty())?;
        let variable = |name| env::var(name).unwrap_or_default();
        let (usec, pid) = (variable("WATCHDOG_USEC"), variable("WATCHDOG_PID"));
        let interval = watchdog_interval(&usec, &pid, std::process::id());
        match Notifier::new(&address, interval, now) {
            Ok(notifier) => Some(notifier),
            Err(error) => {
                warn!("NOTIFY_SOCKET {}: {error}, no status is sent", address.to_string_lossy());
                None
            }
        }
    }

    fn new(address: &OsStr, interval: Option<Duration>, now: Clock) -> io::Result<Notifier> {
        let manager = match address.as_bytes() {
            [b'@', name @ ..] => SocketAddr::from_abstract_name(name)?,
            [b'/', ..] => SocketAddr::from_pathname(address)?,
            _ => return Err(io::Error::new(io::ErrorKind::InvalidInput, "not a unix socket")),
        };
        let socket = UnixDatagram::unbound()?;
        // For the first message alone; later ones do not wait at all.
        socket.set_write_timeout(Some(NOTIFY_READY))?;
        Ok(Notifier {
            socket,
            manager,
            watchdog: interval.map(|interval| Watchdog { interval, due: now.instant + interval }),
            last_sent: None,
            status_pending: false,
            quiet_until: None,
            degraded_since: None,
            error_logged: false,
        })
    }

    /// To be called every tick; sends what is due. READY is sent the first time, and the first time
    /// after [`Notifier::reloading`]. `health` is called only when a status may be sent.
    pub fn note(&mut self, now: Clock, is_degraded: bool, health: impl FnOnce() -> Health) {
        self.keep_alive(now);
        let is_quiet = self.quiet_until.is_some_and(|until| until > now.instant);
        let is_urgent = self.last_sent.is_some_and(|sent| sent.is_degraded != is_degraded);
        self.status_pending = is_quiet && !is_urgent;
        if self.status_pending {
            return;
        }
        self.quiet_until = Some(now.instant + NOTIFY_STATUS);
        let health = health();
        if self.last_sent == Some(health) {
            return;
        }
        self.degraded_since = is_degraded.then(|| self.degraded_since.unwrap_or(now.wall));
        let ready = if self.last_sent.is_none() { "READY=1\n" } else { "" };
        let trouble = self
            .degraded_since
            .map(|since| format!("storage unavailable since {}; ", clock::utc(since)))
            .unwrap_or_default();
        if self.send(&format!("{ready}STATUS={trouble}{health}")) {
            self.last_sent = Some(health);
        } else {
            self.status_pending = true; // so that it is tried again
        }
    }

    /// When [`Notifier::note`] must be called next, if nothing happens before.
    pub fn next_deadline(&self) -> Option<Instant> {
        let news = self.quiet_until.filter(|_| self.status_pending);
        let watchdog = self.watchdog.as_ref().map(|watchdog| watchdog.due);
        [news, watchdog].into_iter().flatten().min()
    }

    /// Reports that the configuration is being read again, until the next note.
    pub fn reloading(&mut self) {
        self.send(&format!("RELOADING=1\nMONOTONIC_USEC={}", clock::monotonic_microseconds()));
        self.last_sent = None;
        self.quiet_until = None;
    }

    pub fn stopping(&mut self) {
        self.send("STOPPING=1");
    }

    fn keep_alive(&mut self, now: Clock) {
        let due = self.watchdog.as_ref().filter(|watchdog| watchdog.due <= now.instant);
        let Some(interval) = due.map(|watchdog| watchdog.interval) else { return };
        let is_sent = self.send("WATCHDOG=1");
        if let Some(watchdog) = &mut self.watchdog {
            let retry = NOTIFY_RETRY.min(interval);
            watchdog.due = now.instant + if is_sent { interval } else { retry };
        }
    }

    /// Returns whether it was sent.
    fn send(&mut self, message: &str) -> bool {
        let outcome = self.socket.send_to_addr(message.as_bytes(), &self.manager);
        if let Err(error) = &outcome
            && !self.error_logged
        {
            self.error_logged = true;
            warn!("the service manager cannot be told everything: {error}");
        }
        // If that fails, the next one may wait as long as the first did, which is bearable.
        _ = self.socket.set_nonblocking(true);
        outcome.is_ok()
    }
}

/// How often the manager wants to hear from the process `ours`, if it does.
fn watchdog_interval(usec: &str, pid: &str, ours: u32) -> Option<Duration> {
    let is_ours = pid.is_empty() || pid.parse() == Ok(ours);
    let patience = usec.parse().ok().filter(|usec| *usec > 0 && is_ours).map(Duration::from_micros);
    let (shortest, longest) = (OPTION_SECONDS_MIN, OPTION_SECONDS_MAX);
    patience.map(|patience| {
        (patience / 2).clamp(Duration::from_secs_f64(shortest), Duration::from_secs_f64(longest))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_first_note_and_the_first_after_reloading_say_that_it_is_ready() {
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
        notifier.note(now, false, || health);
        assert_eq!(recv(), READY);
        let before = clock::monotonic_microseconds();
        notifier.reloading();
        let message = recv();
        let time = message.strip_prefix("RELOADING=1\nMONOTONIC_USEC=").expect(&message);
        let time = time.parse().expect("a number");
        assert!((before..=clock::monotonic_microseconds()).contains(&time), "{time}");
        notifier.note(now, false, || health);
        assert_eq!(recv(), READY);
        // News waits, unless it is bad, and then for its time only.
        notifier.note(now, false, || Health { connections: 9, ..health });
        assert_eq!(notifier.next_deadline(), Some(now.instant + NOTIFY_STATUS));
        notifier.note(now, true, || Health { is_degraded: true, ..health });
        assert!(recv().starts_with("STATUS=storage unavailable since "));
        notifier.note(now, true, || Health { is_degraded: true, ..health });
        let later = Clock { instant: now.instant + NOTIFY_STATUS, ..now };
        notifier.note(later, true, || Health { is_degraded: true, ..health });
        assert_eq!(notifier.next_deadline(), None);
        notifier.stopping();
        assert_eq!(recv(), "STOPPING=1");
    }

    #[test]
    fn the_watchdog_hears_from_the_process_that_is_named_at_half_its_patience() {
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
