//! Why a connection ends, and what its peer learns of it.

/// Why the peer's bytes cannot be read any further; each has its close code.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    TooLong,
    NotUtf8,
    Framing,
}

/// Why we close a connection, as the peer is told.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Farewell {
    /// The peer broke the protocol.
    Violation(FrameError),
    /// The peer did not bind in time.
    NotBound,
    /// The peer has not given the proof of work that it was asked for, or a bad one.
    NotPermitted,
    /// The operator has told the peer something, and no more.
    Notice,
    /// The server stops.
    GoingAway,
    /// The server's storage failed; come back.
    TryAgainLater,
}

/// Why a connection ended, for the log and for tests.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed, one way or another.
    PeerClosed,
    /// The peer's socket failed.
    PeerReset,
    /// The request was answered by plain HTTP.
    HttpAnswered,
    /// Its address has used up its share, or the server is full.
    Refused,
    /// It did not bind in time.
    NotBound,
    /// It has not given the proof of work that it was asked for, or a bad one.
    NotPermitted,
    /// The operator has a notice for its address.
    Notice,
    /// All connections together hold too much, and it held most.
    Shed,
    /// No complete request head in time.
    HandshakeTimeout,
    /// It had to begin with a PROXY header, and did not.
    BadProxyHeader,
    /// The peer broke the WebSocket protocol or sent too much.
    Violation(FrameError),
    /// More output waited than the limit allows.
    SlowReader,
    /// No answer to pings.
    PingTimeout,
    /// The server stops.
    GoingAway,
    /// It took part in a tick whose commit failed.
    StorageFailed,
}

impl CloseReason {
    /// Its name, for counters.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::PeerClosed => "peer_closed",
            CloseReason::PeerReset => "peer_reset",
            CloseReason::HttpAnswered => "http_answered",
            CloseReason::Refused => "refused",
            CloseReason::NotBound => "not_bound",
            CloseReason::NotPermitted => "not_permitted",
            CloseReason::Notice => "notice",
            CloseReason::Shed => "shed",
            CloseReason::BadProxyHeader => "bad_proxy_header",
            CloseReason::HandshakeTimeout => "handshake_timeout",
            CloseReason::Violation(FrameError::TooLong) => "message_too_long",
            CloseReason::Violation(FrameError::NotUtf8) => "not_utf8",
            CloseReason::Violation(FrameError::Framing) => "malformed_frame",
            CloseReason::SlowReader => "slow_reader",
            CloseReason::PingTimeout => "ping_timeout",
            CloseReason::GoingAway => "going_away",
            CloseReason::StorageFailed => "storage_failed",
        }
    }
}

/// What becomes of a connection after one of its messages.
#[must_use]
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    Stay,
    /// It is closed, once what is held for it has gone out.
    Close(Farewell, CloseReason),
    /// The same, when what came together with the message has been handled as well.
    CloseSoon(Farewell, CloseReason),
}
