//! Why a connection ends, and the close frame that its peer gets.

/// Declares the reasons of one type, a row each: its stable name in metrics, and code and text of
/// the close frame; none where the connection ends without one.
macro_rules! close_reasons {
    ($(#[$type_doc:meta])* $type:ident: $(
        $(#[$doc:meta])* $reason:ident $(($cause:ident: $cause_type:ty))?: $name:expr, $frame:expr;
    )*) => {
        $(#[$type_doc])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum $type {
            $($(#[$doc])* $reason $(($cause_type))?,)*
        }

        impl $type {
            /// The stable name in metrics.
            pub fn name(self) -> &'static str {
                match self {
                    $($type::$reason $(($cause))? => $name,)*
                }
            }

            /// Code and text of the close frame; none where the connection ends without one.
            pub fn frame(self) -> Option<(u16, &'static str)> {
                match self {
                    $($type::$reason $(($cause))? => $frame,)*
                }
            }
        }
    };
}

close_reasons! {
    /// Why the peer's bytes cannot be read any further.
    FrameError:
    TooLong: "message_too_long", Some((1009, "message too long"));
    NotUtf8: "not_utf8", Some((1007, "text must be UTF-8"));
    Framing: "malformed_frame", Some((1002, "malformed frame"));
}

close_reasons! {
    /// Why a connection ended.
    CloseReason:
    /// The peer closed, with or without a close frame.
    PeerClosed: "peer_closed", None;
    /// The peer's socket failed.
    PeerReset: "peer_reset", None;
    /// The request was answered by plain HTTP.
    HttpAnswered: "http_answered", None;
    /// The peer's address has used up its limits, or the server is full.
    Refused: "refused", None;
    /// No `bind` in time.
    NotBound: "not_bound", Some((1008, "no bind in time"));
    /// A demanded proof of work is missing or wrong. Go's client shows the text to its user, if
    /// anything.
    NotPermitted: "not_permitted",
        Some((1008, "permission denied: this server demands a proof of work (hashcash)"));
    /// The operator has a notice for the peer's network.
    Notice: "notice", Some((1008, "see the error in the welcome"));
    /// Its side has subscribed too many newer connections to the mailbox.
    Replaced: "replaced", Some((1008, "replaced: your side has too many newer connections"));
    /// Its mailbox had to go because the store was full.
    Evicted: "evicted", Some((1008, "mailbox deleted: the server was full"));
    /// All connections together buffered too much, and this one held the most.
    Shed: "shed", None;
    /// No complete request head in time.
    HandshakeTimeout: "handshake_timeout", None;
    /// A PROXY header was due, and what came is none.
    BadProxyHeader: "bad_proxy_header", None;
    /// The peer broke the WebSocket protocol or sent too much.
    Violation(error: FrameError): error.name(), error.frame();
    /// More output waited than the limit allows.
    SlowReader: "slow_reader", None;
    /// Waiting output made no progress.
    StalledReader: "stalled_reader", None;
    /// An unfinished message made no progress, or took too long.
    SlowSender: "slow_sender", Some((1008, "unfinished message took too long"));
    /// No answer to pings.
    PingTimeout: "ping_timeout", None;
    /// The server stops.
    GoingAway: "going_away", Some((1001, "server is stopping"));
    /// The commit of a tick in which the connection took part failed.
    StorageFailed: "storage_failed", Some((1013, "storage is unavailable"));
}
