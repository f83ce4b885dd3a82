//! Why a command is refused, and the exact texts of the answers (manual: protocol 3).

use std::fmt;
use std::rc::Rc;

use crate::limits::{JSON_DEPTH_MAX, NAMEPLATE_DIGITS_MAX, STAMP_BYTES_MAX};

/// Declares the reasons of one type, a row each: the text that `Display` writes and, before it, the
/// label in the metrics where the type has one.
macro_rules! reasons {
    ($(#[$doc:meta])* $type:ident: $(
        $reason:ident $({ $($field:ident: $field_type:ty),* })?: $text:literal;
    )*) => {
        $(#[$doc])*
        #[derive(Clone, Debug, PartialEq, Eq)]
        pub enum $type {
            $(#[doc = $text] $reason $({ $($field: $field_type),* })?,)*
        }

        impl fmt::Display for $type {
            fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                match self {
                    $($type::$reason $({ $($field),* })? => write!(f, $text),)*
                }
            }
        }
    };
    ($(#[$doc:meta])* $type:ident: $(
        $reason:ident $({ $($field:ident: $field_type:ty),* })?: $label:literal, $text:literal;
    )*) => {
        reasons! {
            $(#[$doc])* $type: $($reason $({ $($field: $field_type),* })?: $text;)*
        }

        impl $type {
            /// The label in the metrics: stable, whatever the text becomes.
            pub fn label(&self) -> &'static str {
                match self {
                    $($type::$reason { .. } => $label,)*
                }
            }
        }
    };
}

reasons! {
    /// Why a command is refused. `Display` writes the exact text of the answer; clients match on
    /// some.
    Refusal:
    NotJson: "not_json", "message must be valid JSON";
    NotUtf8: "not_utf8", "message must be valid UTF-8";
    NotAnObject: "not_an_object", "message must be a JSON object";
    TooDeep: "too_deep", "message must not be nested deeper than {JSON_DEPTH_MAX} levels";
    MessageTooLong { bytes_max: usize }: "message_too_long",
        "message is too long: at most {bytes_max} bytes";
    FrameTooLong { bytes_max: usize }: "frame_too_long",
        "WebSocket frame is too long: at most {bytes_max} bytes";
    MissingType: "missing_type", "missing 'type'";
    PingRequiresPing: "ping_requires_ping", "ping requires 'ping'";
    AlreadyBound: "already_bound", "already bound";
    MustBindFirst: "must_bind_first", "must bind first";
    PermissionRequired: "permission_required",
        "permission required: this server demands a proof of work (hashcash) that your client has \
         not given; use a client that can, or try again later";
    PermissionDenied { problem: StampError }: "permission_denied", "permission denied: {problem}";
    UnknownType: "unknown_type", "unknown type";
    AlreadyAllocated: "already_allocated", "you already allocated one, don't be greedy";
    NoFreeNameplate: "no_free_nameplate", "no free nameplate, try again later";
    OnlyOneClaim: "only_one_claim", "only one claim per connection";
    Unallocated: "unallocated", "unallocated";
    Reclaimed: "reclaimed", "reclaimed";
    Crowded: "crowded", "crowded";
    OnlyOneRelease: "only_one_release", "only one release per connection";
    ReleaseOther: "release_other", "release and claim must use same nameplate";
    ReleaseWithoutClaim: "release_without_claim",
        "release without nameplate must follow claim";
    OnlyOneOpen: "only_one_open", "only one open per connection";
    MustOpenFirst: "must_open_first", "must open mailbox before adding";
    MustOpenToDelete: "must_open_first", "must open mailbox before DELETE-ing";
    OnlyOneClose: "only_one_close", "only one close per connection";
    CloseOther: "close_other", "open and close must use same mailbox";
    CloseWithoutOpen: "close_without_open", "close without mailbox must follow open";
    MailboxNotAvailable: "mailbox_not_available", "mailbox is not available";
    MembersOnly: "members_only",
        "only members of this server may begin an exchange, others may join one";
    StorageUnavailable: "storage_unavailable", "server storage is unavailable, try again later";
    ServerFull: "server_full", "server is full, try again later";
    AddressFull: "address_full",
        "too much stored from your address, close mailboxes or wait until they expire";
    TooManyNameplates: "too_many_nameplates",
        "too many nameplates from your address, release some or wait until they expire";
    // The operator's message.
    Draining { message: Rc<str> }: "draining", "{message}";
    Outsider: "outsider", "from your address, exchanges on this server can be joined, not begun";
    // What the test of a client has ordered.
    OnOrder { message: Rc<str> }: "on_order", "{message}";
    MailboxFull { bytes_max: usize, messages_max: usize }: "mailbox_full",
        "mailbox is full: at most {messages_max} messages and {bytes_max} bytes";
    TooManyAllocates { retry_after: Wait }: "too_many_allocates",
        "too many 'allocate' from your address, try again in {retry_after}";
    TooManyClaims { retry_after: Wait }: "too_many_claims",
        "too many 'claim' from your address, try again in {retry_after}";
    Requires { command: &'static str, field: &'static str }: "missing_field",
        "{command} requires '{field}'";
    // Upstream's words for `add`, and for its draft of `delete`.
    Missing { field: &'static str }: "missing_field", "missing '{field}'";
    DeleteMissing { field: &'static str }: "missing_field",
        "delete is missing argument '{field}'";
    Invalid { command: &'static str, field: &'static str, rule: Rule }: "invalid_field",
        "{command} requires '{field}' to be {rule}";
}

/// Seconds until a command may be sent again.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Wait(pub u64);

impl fmt::Display for Wait {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let unit = if self.0 == 1 { "second" } else { "seconds" };
        write!(f, "{} {unit}", self.0)
    }
}

reasons! {
    /// The rule for the value of a field. `Display` completes "… requires 'field' to be …".
    Rule:
    Text: "a string";
    Name { bytes_max: usize }: "a string of at most {bytes_max} bytes";
    Digits: "1 to {NAMEPLATE_DIGITS_MAX} digits";
    Boolean: "true or false";
}

reasons! {
    /// Why a proof of work is not accepted. `Display` completes "permission denied: …".
    StampError:
    Method: "'method' must be \"hashcash\"";
    Stamp: "'stamp' must be a string of at most {STAMP_BYTES_MAX} bytes";
    Fields: "'stamp' must have 7 fields with ':' between them";
    Version: "'stamp' must begin with version 1";
    Bits: "'stamp' must claim a number of bits in its second field";
    TooFewBits { claimed: u32, demanded: u32 }:
        "'stamp' claims {claimed} bits, and {demanded} are demanded";
    Resource: "'stamp' must be for the resource in this connection's welcome";
    Unproven { claimed: u32, found: u32 }:
        "'stamp' claims {claimed} bits, and its SHA-1 has {found}";
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_second_is_singular() {
        for (seconds, end) in [(1, "in 1 second"), (2, "in 2 seconds")] {
            let refusal = Refusal::TooManyClaims { retry_after: Wait(seconds) };
            assert!(refusal.to_string().ends_with(end), "{refusal}");
        }
    }
}
