//! A connection's timeouts: handshake, bind, ping, unfinished messages, waiting output, close.

use std::time::{Duration, Instant};

use super::{Connection, ConnectionSettings, Context, Open, Phase};
use crate::codec::http;
use crate::codec::websocket;
use crate::limits::{FAREWELL, Pings, SLOW_SENDER_BYTES_PER_SECOND, STALLED};
use crate::message::CloseReason;
use crate::sys::clock::after;

/// A message that has begun to come in.
#[derive(Clone, Copy, Debug)]
pub struct Unfinished {
    since: Instant,
    /// Bytes that have come, and when the last of them did.
    bytes: u64,
    progressed: Instant,
}

impl Unfinished {
    fn new(bytes: u64, now: Instant) -> Unfinished {
        Unfinished { since: now, bytes, progressed: now }
    }

    fn note_bytes(&mut self, bytes: u64, now: Instant) {
        if bytes > self.bytes {
            (self.bytes, self.progressed) = (bytes, now);
        }
    }

    /// When it must be complete, or have come further.
    fn deadline(&self) -> Instant {
        let allowed = STALLED + Duration::from_secs(self.bytes / SLOW_SENDER_BYTES_PER_SECOND);
        (self.progressed + STALLED).min(self.since + allowed)
    }
}

impl Connection {
    /// When [`Connection::handle_deadline`] must be called next.
    pub fn deadline(&self, settings: &ConnectionSettings) -> Option<Instant> {
        let silence = self.silence_timeout(settings).map(|(deadline, _)| deadline);
        let deadlines = [silence, self.ping_due(settings), self.stalled_deadline()];
        deadlines.into_iter().flatten().min()
    }

    /// When the connection ends, or is closed, unless something comes from the peer; and why.
    fn silence_timeout(&self, settings: &ConnectionSettings) -> Option<(Instant, CloseReason)> {
        let ConnectionSettings { limits, pings, .. } = settings;
        match &self.phase {
            Phase::ProxyHeader(_) | Phase::Head(_) => {
                let deadline = after(self.since, limits.handshake_seconds);
                Some((deadline, CloseReason::HandshakeTimeout))
            }
            Phase::Open(open) => {
                let bind = match open.close_soon {
                    Some(reason) => Some((self.since + FAREWELL, reason)),
                    None if open.is_bound => None,
                    None => Some((after(self.since, limits.bind_seconds), CloseReason::NotBound)),
                };
                let unfinished = open.unfinished.as_ref().map(|unfinished| unfinished.deadline());
                let timeouts = [
                    open.pong_deadline(pings).map(|deadline| (deadline, CloseReason::PingTimeout)),
                    bind,
                    unfinished.map(|deadline| (deadline, CloseReason::SlowSender)),
                ];
                timeouts.into_iter().flatten().min_by_key(|(deadline, _)| *deadline)
            }
            Phase::Closing { reason, .. } | Phase::Lingering { reason } => {
                Some((after(self.since, limits.close_seconds), *reason))
            }
        }
    }

    /// Whether the peer has been silent for too long, as far as its input has been read.
    pub fn is_silent_too_long(&self, settings: &ConnectionSettings, now: Instant) -> bool {
        self.silence_timeout(settings).is_some_and(|(deadline, _)| deadline <= now)
    }

    /// When waiting output must have made progress.
    fn stalled_deadline(&self) -> Option<Instant> {
        self.blocked_since.map(|since| since + STALLED)
    }

    fn ping_due(&self, settings: &ConnectionSettings) -> Option<Instant> {
        let seconds = settings.pings.interval_seconds;
        match &self.phase {
            Phase::Open(open) if seconds > 0.0 => Some(after(open.pinged, seconds)),
            _ => None,
        }
    }

    /// Takes note that the client has bound.
    pub fn note_bound(&mut self) {
        if let Phase::Open(open) = &mut self.phase {
            open.is_bound = true;
        }
    }

    /// Does what is due; returns the reason if the connection is over.
    pub fn handle_deadline(&mut self, context: &mut Context<'_>) -> Option<CloseReason> {
        let (now, settings) = (context.now, context.settings);
        if self.stalled_deadline().is_some_and(|deadline| deadline <= now) {
            return Some(CloseReason::StalledReader);
        }
        if let Some((deadline, reason)) = self.silence_timeout(settings)
            && deadline <= now
            && let Some(over) = self.time_out(reason, context)
        {
            return Some(over);
        }
        if self.ping_due(settings).is_some_and(|deadline| deadline <= now)
            && let Phase::Open(open) = &mut self.phase
        {
            open.pinged = now;
            open.unanswered_since.get_or_insert(now);
            context.send(websocket::ping());
        }
        None
    }

    /// Ends the connection, at once or with a farewell; returns the reason if it is over.
    fn time_out(&mut self, reason: CloseReason, context: &mut Context<'_>) -> Option<CloseReason> {
        match (reason, &self.phase) {
            (_, Phase::ProxyHeader(_) | Phase::Head(_)) => {
                self.answer(http::HEAD_TOO_SLOW.answer(), reason, context);
            }
            (CloseReason::PingTimeout, _)
            | (_, Phase::Closing { .. } | Phase::Lingering { .. }) => {
                return Some(reason);
            }
            (_, Phase::Open(_)) => self.close(reason, context),
        }
        None
    }

    /// Notes how far an unfinished message has come.
    pub(super) fn note_unfinished(&mut self, now: Instant) {
        let Phase::Open(open) = &mut self.phase else { return };
        match (open.websocket.unfinished_bytes(), &mut open.unfinished) {
            (None, unfinished) => *unfinished = None,
            (Some(bytes), Some(unfinished)) => unfinished.note_bytes(bytes, now),
            (Some(bytes), unfinished) => {
                *unfinished = Some(Box::new(Unfinished::new(bytes, now)));
                self.deadline_changed = true;
            }
        }
    }

    /// Notes whether the socket has taken any of the output.
    pub(super) fn note_output(&mut self, has_progressed: bool, now: Instant) {
        if !self.has_output() {
            self.blocked_since = None;
        } else if has_progressed || self.blocked_since.is_none() {
            self.deadline_changed |= self.blocked_since.is_none();
            self.blocked_since = Some(now);
        }
    }

    /// Moves all deadlines: the server stood still for that time, and the peer is not to blame.
    pub fn postpone_deadlines(&mut self, standstill: Duration) {
        self.since += standstill;
        if let Some(since) = &mut self.blocked_since {
            *since += standstill;
        }
        if let Phase::Open(open) = &mut self.phase {
            open.pinged += standstill;
            if let Some(since) = &mut open.unanswered_since {
                *since += standstill;
            }
            if let Some(unfinished) = &mut open.unfinished {
                unfinished.since += standstill;
                unfinished.progressed += standstill;
            }
        }
    }
}

impl Open {
    /// When the peer counts as lost: the timeout runs from the first ping that it did not answer.
    fn pong_deadline(&self, pings: &Pings) -> Option<Instant> {
        let since = self.unanswered_since.filter(|_| pings.timeout_seconds > 0.0)?;
        Some(after(since, pings.timeout_seconds))
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};

    use mio::net::UnixStream;

    use super::*;
    use crate::codec::origins::Origins;
    use crate::limits::Limits;
    use crate::message::{AddressHeader, ConnId, Output, Outputs, Peer};
    use crate::net::connection::{Input, Progress};
    use crate::net::outbox::WriteBuffers;
    use crate::net::socket::{Role, Socket};
    use crate::storage::held::Released;
    use crate::sys::clock::{Clock, Timestamp};

    /// An open connection, its peer's end, and a clock of its own.
    struct Scene {
        connection: Connection,
        peer: UnixStream,
        settings: ConnectionSettings,
        outputs: Outputs,
        buffers: WriteBuffers,
        begun: Instant,
        now: Instant,
    }

    impl Scene {
        fn new() -> Scene {
            let (socket, peer) = UnixStream::pair().expect("a pair of sockets");
            let begun = Instant::now();
            let socket = Socket::adopt(socket.into(), true).expect("a stream");
            let mut connection = Connection::new(socket, Peer::default(), Role::Client, begun);
            let open = Open { is_bound: true, ..Open::new(begun) };
            connection.enter(Phase::Open(open), begun);
            let settings = ConnectionSettings {
                address_header: AddressHeader::default(),
                limits: Limits::default(),
                pings: Pings::default(),
                origins: Origins::default(),
            };
            let (outputs, buffers) = (Outputs::default(), WriteBuffers::default());
            Scene { connection, peer, settings, outputs, buffers, begun, now: begun }
        }

        fn at(&mut self, seconds: u64) -> &mut Scene {
            self.now = self.begun + Duration::from_secs(seconds);
            self
        }

        /// Handles what is due at that time.
        fn check(&mut self, seconds: u64) -> Option<CloseReason> {
            self.at(seconds);
            let Scene { connection, settings, outputs, now, .. } = self;
            let context = &mut Context { conn: ConnId(1), now: *now, settings, outputs };
            connection.handle_deadline(context)
        }

        fn receive(&mut self, seconds: u64, bytes: &[u8]) {
            self.peer.write_all(bytes).expect("the socket takes it");
            self.at(seconds);
            let Scene { connection, settings, outputs, now, .. } = self;
            let context = &mut Context { conn: ConnId(1), now: *now, settings, outputs };
            let mut input = Input::default();
            connection.begin_read(&mut input, &settings.limits);
            let progress = connection.next_event(&mut input, context).break_value();
            assert_eq!(progress, Some(Progress::Drained));
            connection.end_read(&mut input, context);
        }

        fn send(&mut self, seconds: u64, bytes: usize) {
            self.at(seconds);
            let clock = Clock { instant: self.now, wall: Timestamp(0.0) };
            let output = (bytes > 0).then(|| Released::in_test(Output::Bytes(vec![0; bytes])));
            let Scene { connection, buffers, settings, .. } = self;
            let sent = connection.send(output.into_iter(), clock, buffers, &settings.limits);
            assert!(sent.is_ok());
        }
    }

    /// Bytes arrive at that rate, once a second; returns the seconds until the message is dropped,
    /// if it is before all of it has come.
    fn dropped_after(message_bytes: u64, bytes_per_second: u64) -> Option<u64> {
        let begun = Instant::now();
        let mut unfinished = Unfinished::new(1, begun);
        for second in 1.. {
            let now = begun + Duration::from_secs(second);
            if unfinished.deadline() <= now {
                return Some(second);
            }
            let bytes = 1 + second * bytes_per_second;
            if bytes >= message_bytes {
                return None;
            }
            unfinished.note_bytes(bytes, now);
        }
        None
    }

    #[test]
    fn a_slow_line_gets_its_message_through_and_a_trickle_does_not() {
        const MIB: u64 = 1024 * 1024;
        assert_eq!(dropped_after(4 * MIB, 10_000), None);
        assert_eq!(dropped_after(64 * MIB, SLOW_SENDER_BYTES_PER_SECOND), None);
        assert_eq!(dropped_after(400_000, 8_000), None);
        assert_eq!(dropped_after(MIB, 1), Some(60));
        // At half the rate, half of the bytes must come in the first minute.
        assert_eq!(dropped_after(MIB, 4_096), Some(118));
    }

    #[test]
    fn a_message_of_which_nothing_comes_for_a_minute_is_dropped() {
        let begun = Instant::now();
        let mut unfinished = Unfinished::new(1_000_000, begun);
        assert_eq!(unfinished.deadline(), begun + STALLED);
        let later = begun + Duration::from_secs(59);
        unfinished.note_bytes(1_000_000, later);
        assert_eq!(unfinished.deadline(), begun + STALLED);
        unfinished.note_bytes(1_000_001, later);
        assert_eq!(unfinished.deadline(), later + STALLED);
    }

    const PONG: [u8; 6] = [0x8a, 0x80, 0, 0, 0, 0];

    /// Checks at each second up to this one; returns what ended the connection, and when.
    fn run(scene: &mut Scene, from: u64, to: u64) -> Option<(u64, CloseReason)> {
        (from..=to).find_map(|second| scene.check(second).map(|reason| (second, reason)))
    }

    #[test]
    fn the_timeout_runs_from_the_first_ping_that_is_not_answered() {
        let mut scene = Scene::new();
        assert_eq!(run(&mut scene, 1, 300), None);
        scene.receive(300, &PONG);
        // The ping at 320 s is the first that is not answered.
        assert_eq!(run(&mut scene, 301, 2_000), Some((920, CloseReason::PingTimeout)));
    }

    #[test]
    fn who_answers_is_not_dropped_after_the_server_stood_still() {
        let mut scene = Scene::new();
        assert_eq!(run(&mut scene, 1, 100), None);
        scene.connection.postpone_deadlines(Duration::from_secs(3_600));
        assert_eq!(scene.check(3_700), None);
        scene.receive(3_700, &PONG);
        assert_eq!(run(&mut scene, 3_701, 4_000), None);
        // A peer that does not answer is dropped in the end.
        assert_eq!(run(&mut scene, 4_001, 9_000), Some((4_320, CloseReason::PingTimeout)));
    }

    #[test]
    fn a_reader_that_takes_nothing_for_a_minute_is_dropped() {
        let mut scene = Scene::new();
        scene.send(10, 4_000_000);
        assert_eq!(run(&mut scene, 11, 69), None);
        assert_eq!(scene.check(70), Some(CloseReason::StalledReader));
        // If it takes something, it has another minute.
        let mut scene = Scene::new();
        scene.send(10, 4_000_000);
        scene.send(20, 0);
        let mut buffer = vec![0; 300_000];
        assert!(scene.peer.read(&mut buffer).is_ok_and(|count| count > 0));
        scene.send(60, 0);
        assert_eq!(run(&mut scene, 61, 119), None);
        scene.connection.postpone_deadlines(Duration::from_secs(1_000));
        assert_eq!(run(&mut scene, 1_100, 1_119), None);
        assert_eq!(scene.check(1_120), Some(CloseReason::StalledReader));
        // And if it takes all, none.
        let mut scene = Scene::new();
        scene.send(10, 4_000_000);
        while scene.connection.has_output() {
            while scene.peer.read(&mut buffer).is_ok_and(|count| count > 0) {}
            scene.send(60, 0);
        }
        assert_eq!(run(&mut scene, 61, 200), None);
    }

    #[test]
    fn a_sender_that_does_not_finish_is_closed() {
        let mut scene = Scene::new();
        scene.receive(5, &[0x81, 0xfe, 0x40, 0, 0, 0, 0, 0, b'x']);
        assert_eq!(run(&mut scene, 6, 65), None);
        assert!(matches!(scene.connection.phase, Phase::Closing { .. }));
        let reason = scene.connection.reason();
        assert_eq!(reason, Some(CloseReason::SlowSender));
        // What is incomplete after a whole frame is another message, and pings are no progress.
        let mut scene = Scene::new();
        scene.receive(5, &[0x01, 0x81, 0, 0, 0, 0, b'{']);
        scene.receive(50, &[0x89, 0x80, 0, 0, 0, 0]);
        scene.receive(60, &PONG);
        assert_eq!(run(&mut scene, 61, 64), None);
        assert!(matches!(scene.connection.phase, Phase::Open(_)));
        assert_eq!(scene.check(65), None);
        assert!(matches!(scene.connection.phase, Phase::Closing { .. }));
    }
}
