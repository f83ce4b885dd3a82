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
        self.row().0
    }

    /// Code and text of the close frame; none where the connection ends without one.
    pub fn frame(self) -> Option<(u16, &'static str)> {
        self.row().1
    }

    /// The name, and the close frame.
    fn row(self) -> (&'static str, Option<(u16, &'static str)>) {
        match self {
            CloseReason::PeerClosed => ("peer_closed", None),
            CloseReason::PeerReset => ("peer_reset", None),
            CloseReason::HttpAnswered => ("http_answered", None),
            CloseReason::Refused => ("refused", None),
            CloseReason::NotBound => ("not_bound", Some((1008, "no bind in time"))),
            // Go's client shows this to its user, if anything.
            CloseReason::NotPermitted => (
                "not_permitted",
                Some((1008, "permission denied: this server demands a proof of work (hashcash)")),
            ),
            CloseReason::Notice => ("notice", Some((1008, "see the error in the welcome"))),
            CloseReason::Replaced => {
                ("replaced", Some((1008, "replaced: your side has too many newer connections")))
            }
            CloseReason::Evicted => {
                ("evicted", Some((1008, "mailbox deleted: the server was full")))
            }
            CloseReason::Shed => ("shed", None),
            CloseReason::HandshakeTimeout => ("handshake_timeout", None),
            CloseReason::BadProxyHeader => ("bad_proxy_header", None),
            CloseReason::Violation(FrameError::TooLong) => {
                ("message_too_long", Some((1009, "message too long")))
            }
            CloseReason::Violation(FrameError::NotUtf8) => {
                ("not_utf8", Some((1007, "text must be UTF-8")))
            }
            CloseReason::Violation(FrameError::Framing) => {
                ("malformed_frame", Some((1002, "malformed frame")))
            }
            CloseReason::SlowReader => ("slow_reader", None),
            CloseReason::StalledReader => ("stalled_reader", None),
            CloseReason::SlowSender => {
                ("slow_sender", Some((1008, "unfinished message took too long")))
            }
            CloseReason::PingTimeout => ("ping_timeout", None),
            CloseReason::GoingAway => ("going_away", Some((1001, "server is stopping"))),
            CloseReason::StorageFailed => {
                ("storage_failed", Some((1013, "storage is unavailable")))
            }
        }
    }
}
