//! Why a connection ends, and the close frame that its peer gets.

/// Why the peer's bytes cannot be read any further.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum FrameError {
    TooLong,
    NotUtf8,
    Framing,
}

/// Why a connection ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum CloseReason {
    /// The peer closed, with or without a close frame.
    PeerClosed,
    /// The peer's socket failed.
    PeerReset,
    /// The request was answered by plain HTTP.
    HttpAnswered,
    /// The peer's address has used up its limits, or the server is full.
    Refused,
    /// No `bind` in time.
    NotBound,
    /// A demanded proof of work is missing or wrong.
    NotPermitted,
    /// The operator has a notice for the peer's network.
    Notice,
    /// Its side has subscribed too many newer connections to the mailbox.
    Replaced,
    /// Its mailbox had to go because the store was full.
    Evicted,
    /// All connections together buffered too much, and this one held the most.
    Shed,
    /// No complete request head in time.
    HandshakeTimeout,
    /// A PROXY header was due, and what came is none.
    BadProxyHeader,
    /// The peer broke the WebSocket protocol or sent too much.
    Violation(FrameError),
    /// More output waited than the limit allows.
    SlowReader,
    /// Waiting output made no progress.
    StalledReader,
    /// An unfinished message made no progress, or took too long.
    SlowSender,
    /// No answer to pings.
    PingTimeout,
    /// The server stops.
    GoingAway,
    /// The commit of a tick in which the connection took part failed.
    StorageFailed,
}

impl CloseReason {
    /// The stable name in metrics.
    pub fn name(self) -> &'static str {
        match self {
            CloseReason::PeerClosed => "peer_closed",
            CloseReason::PeerReset => "peer_reset",
            CloseReason::HttpAnswered => "http_answered",
            CloseReason::Refused => "refused",
            CloseReason::NotBound => "not_bound",
            CloseReason::NotPermitted => "not_permitted",
            CloseReason::Notice => "notice",
            CloseReason::Replaced => "replaced",
            CloseReason::Evicted => "evicted",
            CloseReason::Shed => "shed",
            CloseReason::BadProxyHeader => "bad_proxy_header",
            CloseReason::HandshakeTimeout => "handshake_timeout",
            CloseReason::Violation(FrameError::TooLong) => "message_too_long",
            CloseReason::Violation(FrameError::NotUtf8) => "not_utf8",
            CloseReason::Violation(FrameError::Framing) => "malformed_frame",
            CloseReason::SlowReader => "slow_reader",
            CloseReason::StalledReader => "stalled_reader",
            CloseReason::SlowSender => "slow_sender",
            CloseReason::PingTimeout => "ping_timeout",
            CloseReason::GoingAway => "going_away",
            CloseReason::StorageFailed => "storage_failed",
        }
    }

    /// Code and text of the close frame; none where the connection ends without one.
    pub fn frame(self) -> Option<(u16, &'static str)> {
        Some(match self {
            CloseReason::Violation(FrameError::TooLong) => (1009, "message too long"),
            CloseReason::Violation(FrameError::NotUtf8) => (1007, "text must be UTF-8"),
            CloseReason::Violation(FrameError::Framing) => (1002, "malformed frame"),
            CloseReason::NotBound => (1008, "no bind in time"),
            CloseReason::SlowSender => (1008, "unfinished message took too long"),
            // Go's client shows this to its user, if anything.
            CloseReason::NotPermitted => {
                (1008, "permission denied: this server demands a proof of work (hashcash)")
            }
            CloseReason::Notice => (1008, "see the error in the welcome"),
            CloseReason::Replaced => (1008, "replaced: your side has too many newer connections"),
            CloseReason::Evicted => (1008, "mailbox deleted: the server was full"),
            CloseReason::GoingAway => (1001, "server is stopping"),
            CloseReason::StorageFailed => (1013, "storage is unavailable"),
            CloseReason::PeerClosed
            | CloseReason::PeerReset
            | CloseReason::HttpAnswered
            | CloseReason::Refused
            | CloseReason::Shed
            | CloseReason::HandshakeTimeout
            | CloseReason::BadProxyHeader
            | CloseReason::SlowReader
            | CloseReason::StalledReader
            | CloseReason::PingTimeout => return None,
        })
    }
}
