//! Why a command is refused, and the exact texts of the answers (manual: protocol 3).

use std::fmt;
use std::rc::Rc;

use crate::limits::{JSON_DEPTH_MAX, NAMEPLATE_DIGITS_MAX, STAMP_BYTES_MAX};

/// Why a command is refused. `Display` writes the exact texts of the protocol; clients match on
/// some of them.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotJson,
    NotUtf8,
    NotAnObject,
    TooDeep,
    MessageTooLong { bytes_max: usize },
    FrameTooLong { bytes_max: usize },
    MissingType,
    PingRequiresPing,
    AlreadyBound,
    MustBindFirst,
    PermissionRequired,
    PermissionDenied(StampError),
    UnknownType,
    AlreadyAllocated,
    NoFreeNameplate,
    OnlyOneClaim,
    Unallocated,
    Reclaimed,
    Crowded,
    OnlyOneRelease,
    ReleaseOther,
    ReleaseWithoutClaim,
    OnlyOneOpen,
    MustOpenFirst,
    MustOpenToDelete,
    OnlyOneClose,
    CloseOther,
    CloseWithoutOpen,
    MailboxNotAvailable,
    MembersOnly,
    StorageUnavailable,
    ServerFull,
    AddressFull,
    TooManyNameplates,
    Draining(Rc<str>),
    Outsider,
    OnOrder(Rc<str>),
    MailboxFull { bytes_max: usize, messages_max: usize },
    TooFast { command: Throttled, retry_seconds: u64 },
    Requires { command: &'static str, field: &'static str },
    Missing { field: &'static str },
    DeleteMissing { field: &'static str },
    Invalid { command: &'static str, field: &'static str, rule: Rule },
}

impl Refusal {
    /// Its label in the metrics: stable, whatever its text becomes.
    pub fn label(&self) -> &'static str {
        self.row().0
    }

    /// The label, and the text where that is always the same.
    fn row(&self) -> (&'static str, &'static str) {
        match self {
            Refusal::NotJson => ("not_json", "message must be valid JSON"),
            Refusal::NotUtf8 => ("not_utf8", "message must be valid UTF-8"),
            Refusal::NotAnObject => ("not_an_object", "message must be a JSON object"),
            Refusal::TooDeep => ("too_deep", ""),
            Refusal::MessageTooLong { .. } => ("message_too_long", ""),
            Refusal::FrameTooLong { .. } => ("frame_too_long", ""),
            Refusal::MissingType => ("missing_type", "missing 'type'"),
            Refusal::PingRequiresPing => ("ping_requires_ping", "ping requires 'ping'"),
            Refusal::AlreadyBound => ("already_bound", "already bound"),
            Refusal::MustBindFirst => ("must_bind_first", "must bind first"),
            Refusal::PermissionRequired => (
                "permission_required",
                "permission required: this server demands a proof of work (hashcash) that your \
                 client has not given; use a client that can, or try again later",
            ),
            Refusal::PermissionDenied(_) => ("permission_denied", ""),
            Refusal::UnknownType => ("unknown_type", "unknown type"),
            Refusal::AlreadyAllocated => {
                ("already_allocated", "you already allocated one, don't be greedy")
            }
            Refusal::NoFreeNameplate => ("no_free_nameplate", "no free nameplate, try again later"),
            Refusal::OnlyOneClaim => ("only_one_claim", "only one claim per connection"),
            Refusal::Unallocated => ("unallocated", "unallocated"),
            Refusal::Reclaimed => ("reclaimed", "reclaimed"),
            Refusal::Crowded => ("crowded", "crowded"),
            Refusal::OnlyOneRelease => ("only_one_release", "only one release per connection"),
            Refusal::ReleaseOther => ("release_other", "release and claim must use same nameplate"),
            Refusal::ReleaseWithoutClaim => {
                ("release_without_claim", "release without nameplate must follow claim")
            }
            Refusal::OnlyOneOpen => ("only_one_open", "only one open per connection"),
            Refusal::MustOpenFirst => ("must_open_first", "must open mailbox before adding"),
            Refusal::MustOpenToDelete => ("must_open_first", "must open mailbox before DELETE-ing"),
            Refusal::OnlyOneClose => ("only_one_close", "only one close per connection"),
            Refusal::CloseOther => ("close_other", "open and close must use same mailbox"),
            Refusal::CloseWithoutOpen => {
                ("close_without_open", "close without mailbox must follow open")
            }
            Refusal::MailboxNotAvailable => ("mailbox_not_available", "mailbox is not available"),
            Refusal::MembersOnly => (
                "members_only",
                "only members of this server may begin an exchange, others may join one",
            ),
            Refusal::StorageUnavailable => {
                ("storage_unavailable", "server storage is unavailable, try again later")
            }
            Refusal::ServerFull => ("server_full", "server is full, try again later"),
            Refusal::AddressFull => (
                "address_full",
                "too much stored from your address, close mailboxes or wait until they expire",
            ),
            Refusal::TooManyNameplates => (
                "too_many_nameplates",
                "too many nameplates from your address, release some or wait until they expire",
            ),
            Refusal::Draining(_) => ("draining", ""),
            Refusal::Outsider => {
                ("outsider", "from your address, exchanges on this server can be joined, not begun")
            }
            Refusal::OnOrder(_) => ("on_order", ""),
            Refusal::MailboxFull { .. } => ("mailbox_full", ""),
            Refusal::TooFast { command: Throttled::Allocate, .. } => ("too_many_allocates", ""),
            Refusal::TooFast { command: Throttled::Claim, .. } => ("too_many_claims", ""),
            Refusal::Requires { .. } | Refusal::Missing { .. } | Refusal::DeleteMissing { .. } => {
                ("missing_field", "")
            }
            Refusal::Invalid { .. } => ("invalid_field", ""),
        }
    }
}

/// A command whose rate is limited for each address.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Throttled {
    Allocate,
    Claim,
}

impl fmt::Display for Throttled {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Throttled::Allocate => "allocate",
            Throttled::Claim => "claim",
        })
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Refusal::TooDeep => {
                write!(f, "message must not be nested deeper than {JSON_DEPTH_MAX} levels")
            }
            Refusal::MessageTooLong { bytes_max } => {
                write!(f, "message is too long: at most {bytes_max} bytes")
            }
            Refusal::FrameTooLong { bytes_max } => {
                write!(f, "WebSocket frame is too long: at most {bytes_max} bytes")
            }
            // The operator's message, or what the test of a client has ordered.
            Refusal::Draining(message) | Refusal::OnOrder(message) => f.write_str(message),
            Refusal::PermissionDenied(denial) => write!(f, "permission denied: {denial}"),
            Refusal::MailboxFull { bytes_max, messages_max } => {
                write!(f, "mailbox is full: at most {messages_max} messages and {bytes_max} bytes")
            }
            Refusal::TooFast { command, retry_seconds } => {
                let unit = if *retry_seconds == 1 { "second" } else { "seconds" };
                write!(
                    f,
                    "too many '{command}' from your address, try again in {retry_seconds} {unit}"
                )
            }
            Refusal::Requires { command, field } => write!(f, "{command} requires '{field}'"),
            // Upstream's words for `add`, and for its draft of `delete`.
            Refusal::Missing { field } => write!(f, "missing '{field}'"),
            Refusal::DeleteMissing { field } => {
                write!(f, "delete is missing argument '{field}'")
            }
            Refusal::Invalid { command, field, rule } => {
                write!(f, "{command} requires '{field}' to be {rule}")
            }
            refusal => f.write_str(refusal.row().1),
        }
    }
}

/// The rule for the value of a field. `Display` completes "… requires 'field' to be …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Any string, within the message limit.
    Text,
    /// A string of at most this many bytes.
    Name(usize),
    /// One to [`NAMEPLATE_DIGITS_MAX`] ASCII digits.
    Digits,
    Boolean,
}

impl fmt::Display for Rule {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Rule::Text => write!(f, "a string"),
            Rule::Name(bytes_max) => write!(f, "a string of at most {bytes_max} bytes"),
            Rule::Digits => write!(f, "1 to {NAMEPLATE_DIGITS_MAX} digits"),
            Rule::Boolean => write!(f, "true or false"),
        }
    }
}

/// Why a proof of work is not accepted. `Display` completes "permission denied: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum StampError {
    Method,
    Stamp,
    Fields,
    Version,
    Bits,
    TooFewBits { claimed: u32, demanded: u32 },
    Resource,
    Unproven { claimed: u32, found: u32 },
}

impl fmt::Display for StampError {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            StampError::Method => write!(f, "'method' must be \"hashcash\""),
            StampError::Stamp => {
                write!(f, "'stamp' must be a string of at most {STAMP_BYTES_MAX} bytes")
            }
            StampError::Fields => write!(f, "'stamp' must have 7 fields with ':' between them"),
            StampError::Version => write!(f, "'stamp' must begin with version 1"),
            StampError::Bits => {
                write!(f, "'stamp' must claim a number of bits in its second field")
            }
            StampError::TooFewBits { claimed, demanded } => {
                write!(f, "'stamp' claims {claimed} bits, and {demanded} are demanded")
            }
            StampError::Resource => {
                write!(f, "'stamp' must be for the resource in this connection's welcome")
            }
            StampError::Unproven { claimed, found } => {
                write!(f, "'stamp' claims {claimed} bits, and its SHA-1 has {found}")
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_second_is_singular() {
        for (retry_seconds, end) in [(1, "in 1 second"), (2, "in 2 seconds")] {
            let refusal = Refusal::TooFast { command: Throttled::Claim, retry_seconds };
            assert!(refusal.to_string().ends_with(end), "{refusal}");
        }
    }
}
