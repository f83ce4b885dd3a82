//! A connection as a record, and back (manual: reloading 5).

use std::io;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::{Connection, Open, Phase};
use crate::codec::websocket::WebSocket;
use crate::limits::Limits;
use crate::message::handover::{ConnectionRecord, Microseconds, PhaseRecord, StateRecord};
use crate::message::{CloseReason, ConnId};
use crate::net::outbox::Outbox;
use crate::net::socket::{Role, Socket};
use crate::sys::clock::{self, Clock};

/// The present time on the clocks of the process and on that which the records use.
#[derive(Clone, Copy, Debug)]
pub struct Times {
    clock: Clock,
    microseconds: Microseconds,
}

impl Times {
    pub fn now() -> Times {
        Times { clock: Clock::read(), microseconds: clock::monotonic_microseconds() }
    }

    fn record(&self, time: Instant) -> Microseconds {
        let age = self.clock.instant.saturating_duration_since(time).as_micros();
        self.microseconds.saturating_sub(i64::try_from(age).unwrap_or(i64::MAX))
    }

    /// A time that the clock of this process cannot have counts as now.
    fn restore(&self, time: Microseconds) -> Instant {
        let age = u64::try_from(self.microseconds.saturating_sub(time)).unwrap_or(0);
        self.clock.instant.checked_sub(Duration::from_micros(age)).unwrap_or(self.clock.instant)
    }
}

impl Connection {
    /// Whether it is in a state that a record cannot hold: in a message that is thrown away, or
    /// about to be closed.
    pub fn is_unsettled(&self) -> bool {
        matches!(&self.phase, Phase::Open(Open { websocket, close_soon, .. })
            if close_soon.is_some() || websocket.is_discarding())
    }

    /// Bytes of the output that its record will have, about.
    pub fn waiting_bytes(&self) -> usize {
        self.outbox.as_ref().map_or(0, |outbox| outbox.waiting_bytes())
    }

    /// The record of the connection, which goes on as it was if the hand-over fails. Encodes the
    /// output that waits.
    pub fn export(
        &mut self,
        conn: ConnId,
        is_rejected: bool,
        state: StateRecord,
        times: &Times,
        limits: &Limits,
    ) -> ConnectionRecord {
        let mut unread = match &self.phase {
            Phase::Open(Open { websocket, .. }) | Phase::Closing { websocket, .. } => {
                websocket.unfinished(limits.frame_bytes_max).unwrap_or_default()
            }
            _ => Vec::new(),
        };
        let phase = match &self.phase {
            Phase::ProxyHeader(header) => PhaseRecord::ProxyHeader(header.clone()),
            Phase::Head(head) => PhaseRecord::Head(head.clone()),
            Phase::Open(open) => PhaseRecord::Open {
                pinged: times.record(open.pinged),
                unanswered: open.unanswered_since.map(|since| times.record(since)),
            },
            Phase::Closing { .. } => PhaseRecord::Closing,
            Phase::Lingering { .. } => PhaseRecord::Lingering,
        };
        unread.extend_from_slice(&self.unread);
        let outbox = self.outbox.as_mut();
        let (unsent, is_ended) =
            outbox.map_or((&[][..], false), |it| it.encode_all(times.clock.wall));
        ConnectionRecord {
            conn,
            is_unix: self.socket.is_unix(),
            is_rejected,
            peer: self.peer,
            phase,
            since: times.record(self.since),
            unread,
            unsent: unsent.to_vec(),
            is_ended,
            state,
        }
    }

    /// The connection of a record and its socket.
    pub fn restore(
        record: ConnectionRecord,
        descriptor: OwnedFd,
        times: &Times,
    ) -> io::Result<Connection> {
        // The record does not say why it was being closed: only a metric would show that.
        let reason = CloseReason::GoingAway;
        let phase = match record.phase {
            PhaseRecord::ProxyHeader(header) => Phase::ProxyHeader(header),
            PhaseRecord::Head(head) => Phase::Head(head),
            PhaseRecord::Open { pinged, unanswered } => Phase::Open(Open {
                pinged: times.restore(pinged),
                unanswered_since: unanswered.map(|since| times.restore(since)),
                ..Open::new(times.clock.instant)
            }),
            PhaseRecord::Closing => Phase::Closing { websocket: WebSocket::default(), reason },
            PhaseRecord::Lingering => Phase::Lingering { reason },
        };
        let socket = Socket::adopt(descriptor, record.is_unix)?;
        let mut connection = Connection {
            phase,
            outbox: Outbox::handed_over(record.unsent, record.is_ended).boxed(),
            unread: record.unread.into(),
            since: times.restore(record.since),
            ..Connection::new(socket, record.peer, Role::Client, times.clock.instant)
        };
        connection.note_output(false, times.clock.instant);
        Ok(connection)
    }

    /// Whether input waits that the poll will not report.
    pub fn has_unread(&self) -> bool {
        !self.unread.is_empty()
    }
}
