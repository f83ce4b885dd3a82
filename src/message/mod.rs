//! What clients ask and what they are told, as plain data: `Command` in, `Response` out.
//!
//! The JSON form is `protocol`'s business, the meaning is `store`'s; both speak in these types, so
//! neither knows the other. This module must never do anything with them.

pub mod close;
pub mod log;
pub mod outcome;
pub mod peer;

use std::borrow::Cow;
use std::collections::HashMap;
use std::fmt;
use std::hash::{BuildHasherDefault, Hasher};
use std::rc::Rc;

use crate::limits::{NAMEPLATE_DIGITS_MAX, STAMP_BYTES_MAX};
use crate::message::log::{Message, Replay};

/// A connection's number: unique while the server runs, never reused, safe to log.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct ConnId(pub u64);

impl fmt::Display for ConnId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "#{}", self.0)
    }
}

/// A map by connection. Their numbers are ours, and no peer can choose one, so hashing needs no
/// secret: it only has to spread consecutive numbers over the table.
pub type ConnMap<T> = HashMap<ConnId, T, BuildHasherDefault<ConnHasher>>;

/// Spreads a connection's number.
#[derive(Clone, Copy, Debug, Default)]
pub struct ConnHasher(u64);

impl Hasher for ConnHasher {
    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.write_u64(self.0 ^ u64::from(*byte));
        }
    }

    fn write_u64(&mut self, number: u64) {
        const GOLDEN_RATIO: u64 = 0x9e37_79b9_7f4a_7c15;
        self.0 = number.wrapping_mul(GOLDEN_RATIO);
    }

    fn finish(&self) -> u64 {
        self.0
    }
}

/// What a field must be to count as valid; the text completes "… requires 'field' to be …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Rule {
    /// Any text, within the message limit.
    Text,
    /// A text of at most so many bytes.
    Name(usize),
    /// One to [`NAMEPLATE_DIGITS_MAX`] ASCII digits.
    Digits,
    /// A JSON boolean.
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

/// A string field of a command. Absent and invalid are kept apart, because the order in which the
/// rules of section 2 apply depends on the session, which the decoder does not know.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    /// The key is not there.
    Absent,
    /// The key is there with something that breaks the rule.
    Invalid(Rule),
    /// A valid value.
    Text(Cow<'a, str>),
}

/// A boolean field of a command; absent and invalid are kept apart, as in [`Field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    Absent,
    Invalid,
    Set(bool),
}

/// What a client submits as its permission to bind.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Proof<'a> {
    /// How it proves it.
    pub method: Field<'a>,
    /// The hashcash stamp.
    pub stamp: Field<'a>,
}

/// The `id` of an `add`, which travels with the message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum MessageId<'a> {
    /// No `id`, or null.
    Null,
    /// A string: stored and sent as it is.
    Text(Cow<'a, str>),
    /// Any other JSON value, as its JSON text: sent unchanged to those who listen now, stored and
    /// replayed as that text (contract section 5, `msg_id`).
    Json(&'a str),
}

/// Implementation and version as `bind` tells them; `None` is recorded as null (unknown).
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientVersion {
    /// First element of `client_version`.
    pub implementation: Option<Box<str>>,
    /// Second element of `client_version`.
    pub version: Option<Box<str>>,
}

/// One command of a client (contract section 2), borrowed from the message it came in.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Ping {
        value: Option<&'a str>,
    },
    /// A released client leaves out the last letter of the type.
    SubmitPermissions {
        proof: Proof<'a>,
        is_singular: bool,
    },
    Bind {
        appid: Field<'a>,
        side: Field<'a>,
        client_version: ClientVersion,
    },
    List,
    Allocate,
    Claim {
        nameplate: Field<'a>,
        allocate: Flag,
    },
    Release {
        nameplate: Field<'a>,
    },
    Open {
        mailbox: Field<'a>,
    },
    Add {
        phase: Field<'a>,
        body: Field<'a>,
        id: MessageId<'a>,
    },
    Close {
        mailbox: Field<'a>,
        mood: Field<'a>,
    },
    Unknown,
}

/// The protocol's names of the commands, each at its [`Command::index`].
pub const COMMAND_NAMES: [&str; 11] = [
    "ping",
    "submit-permissions",
    "bind",
    "list",
    "allocate",
    "claim",
    "release",
    "open",
    "add",
    "close",
    "unknown",
];

impl Command<'_> {
    /// Its place in [`COMMAND_NAMES`], for counters.
    pub fn index(&self) -> usize {
        match self {
            Command::Ping { .. } => 0,
            Command::SubmitPermissions { .. } => 1,
            Command::Bind { .. } => 2,
            Command::List => 3,
            Command::Allocate => 4,
            Command::Claim { .. } => 5,
            Command::Release { .. } => 6,
            Command::Open { .. } => 7,
            Command::Add { .. } => 8,
            Command::Close { .. } => 9,
            Command::Unknown => 10,
        }
    }

    /// The protocol's name of the command, for records.
    pub fn name(&self) -> &'static str {
        COMMAND_NAMES[self.index()]
    }

    /// Whether carrying it out may change what the database holds.
    pub fn changes_state(&self) -> bool {
        matches!(
            self,
            Command::Allocate
                | Command::Claim { .. }
                | Command::Release { .. }
                | Command::Open { .. }
                | Command::Add { .. }
                | Command::Close { .. }
        )
    }
}

/// The proof of work that a connection is asked for (`permission-required` in its welcome).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Demand {
    /// Leading zero bits of the stamp's hash, at least.
    pub bits: u32,
    /// What the stamp must be for: nobody can guess it and make one before connecting.
    pub resource: u64,
    /// Whether the connection may not bind without; else the proof is only offered.
    pub is_required: bool,
}

impl Demand {
    /// The resource as stamps and the welcome have it.
    pub fn resource(&self) -> String {
        format!("{:016x}", self.resource)
    }
}

/// Why a proof of work is not accepted; the text completes "permission denied: …".
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Denial {
    Method,
    Stamp,
    Fields,
    Version,
    Bits,
    TooFewBits { claimed: u32, demanded: u32 },
    Resource,
    Unproven { claimed: u32, found: u32 },
}

impl fmt::Display for Denial {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Denial::Method => write!(f, "'method' must be \"hashcash\""),
            Denial::Stamp => {
                write!(f, "'stamp' must be a string of at most {STAMP_BYTES_MAX} bytes")
            }
            Denial::Fields => write!(f, "'stamp' must have 7 fields with ':' between them"),
            Denial::Version => write!(f, "'stamp' must begin with version 1"),
            Denial::Bits => write!(f, "'stamp' must claim a number of bits in its second field"),
            Denial::TooFewBits { claimed, demanded } => {
                write!(f, "'stamp' claims {claimed} bits, and {demanded} are demanded")
            }
            Denial::Resource => {
                write!(f, "'stamp' must be for the resource in this connection's welcome")
            }
            Denial::Unproven { claimed, found } => {
                write!(f, "'stamp' claims {claimed} bits, and its SHA-1 has {found}")
            }
        }
    }
}

/// What an `error` shows of the message that caused it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Orig {
    /// The whole command, as the JSON text that came.
    Command(Box<str>),
    /// The beginning of something that is not a JSON object.
    Text(Box<str>),
}

/// One message to a client, without the `server_tx` that it gets when it leaves.
#[derive(Clone, Debug)]
pub enum Response {
    /// First message on each connection; the text is the finished `welcome` object.
    Welcome(Box<str>),
    /// The `id` is JSON text.
    Ack {
        id: Option<Box<str>>,
    },
    Nameplates(Rc<[Rc<str>]>),
    Allocated(Rc<str>),
    Claimed(Rc<str>),
    Released,
    /// A message just added; `live_id` is its `id` as JSON text where that is not a string.
    Message {
        message: Rc<Message>,
        live_id: Option<Rc<str>>,
    },
    /// Messages added before; becomes one `message` each.
    Replay(Replay),
    Closed,
    /// The value is JSON text.
    Pong(Box<str>),
    /// Boxed, because it is rare and would make every response larger.
    Error {
        refusal: Box<Refusal>,
        orig: Orig,
    },
}

impl Response {
    /// Whether it stands for many messages, which leave one after the other.
    pub fn is_replay(&self) -> bool {
        matches!(self, Response::Replay(_))
    }

    /// Bytes that count towards the outbox limit. A replay is the mailbox's memory, not ours.
    pub fn queued_bytes(&self) -> usize {
        let payload = match self {
            Response::Welcome(text) | Response::Pong(text) => text.len(),
            Response::Ack { id } => id.as_ref().map_or(0, |id| id.len()),
            Response::Nameplates(names) => names.len() * NAMEPLATE_JSON_BYTES,
            Response::Message { message, .. } => message.bytes(),
            Response::Error { orig: Orig::Command(text) | Orig::Text(text), .. } => text.len(),
            _ => 0,
        };
        payload + size_of::<Response>()
    }
}

/// What one short nameplate takes in the JSON of a list, about.
const NAMEPLATE_JSON_BYTES: usize = 12;

/// Why a command is not carried out. `Display` gives the exact texts of contract section 2, on
/// some of which clients match.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Refusal {
    NotJson,
    NotUtf8,
    NotAnObject,
    MissingType,
    PingRequiresPing,
    AlreadyBound,
    MustBindFirst,
    /// It has not given the proof of work that its welcome demanded.
    PermissionRequired,
    PermissionDenied(Denial),
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
    OnlyOneClose,
    CloseOther,
    CloseWithoutOpen,
    MailboxNotAvailable,
    StorageUnavailable,
    ServerFull,
    TooManyNameplates,
    /// Nobody may bind any more; the operator's words.
    Draining(Rc<str>),
    /// A mailbox holds all that it may.
    MailboxFull {
        bytes_max: usize,
        messages_max: usize,
    },
    /// The peer's address sends the command too often.
    TooFast {
        command: Throttled,
        retry_seconds: u64,
    },
    /// A required field is absent.
    Requires {
        command: &'static str,
        field: &'static str,
    },
    /// A field of `add` is absent (upstream words it differently there).
    Missing {
        field: &'static str,
    },
    /// A field breaks its rule.
    Invalid {
        command: &'static str,
        field: &'static str,
        rule: Rule,
    },
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
            Refusal::OnlyOneClose => ("only_one_close", "only one close per connection"),
            Refusal::CloseOther => ("close_other", "open and close must use same mailbox"),
            Refusal::CloseWithoutOpen => {
                ("close_without_open", "close without mailbox must follow open")
            }
            Refusal::MailboxNotAvailable => ("mailbox_not_available", "mailbox is not available"),
            Refusal::StorageUnavailable => {
                ("storage_unavailable", "server storage is unavailable, try again later")
            }
            Refusal::ServerFull => ("server_full", "server is full, try again later"),
            Refusal::TooManyNameplates => (
                "too_many_nameplates",
                "too many nameplates from your address, release some or wait until they expire",
            ),
            Refusal::Draining(_) => ("draining", ""),
            Refusal::MailboxFull { .. } => ("mailbox_full", ""),
            Refusal::TooFast { command: Throttled::Allocate, .. } => ("too_many_allocates", ""),
            Refusal::TooFast { command: Throttled::Claim, .. } => ("too_many_claims", ""),
            Refusal::Requires { .. } | Refusal::Missing { .. } => ("missing_field", ""),
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
            Refusal::Draining(message) => f.write_str(message),
            Refusal::PermissionDenied(denial) => write!(f, "permission denied: {denial}"),
            Refusal::MailboxFull { bytes_max, messages_max } => {
                write!(f, "mailbox is full: at most {messages_max} messages and {bytes_max} bytes")
            }
            Refusal::TooFast { command, retry_seconds } => write!(
                f,
                "too many '{command}' from your address, try again in {retry_seconds} seconds"
            ),
            Refusal::Requires { command, field } => write!(f, "{command} requires '{field}'"),
            Refusal::Missing { field } => write!(f, "missing '{field}'"),
            Refusal::Invalid { command, field, rule } => {
                write!(f, "{command} requires '{field}' to be {rule}")
            }
            refusal => f.write_str(refusal.row().1),
        }
    }
}
