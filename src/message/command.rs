//! The commands of clients, as plain data (manual: protocol 2.3, 2.5).

use std::borrow::Cow;

use crate::message::Rule;

/// A string field of a command. Absent and invalid are kept apart, because the order in which the
/// rules apply depends on the session, which the decoder does not know (manual: protocol 3.2).
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Field<'a> {
    Absent,
    /// Present, but its value breaks the rule.
    Invalid(Rule),
    Text(Cow<'a, str>),
}

impl Field<'_> {
    /// Whether it is there and valid.
    pub fn is_text(&self) -> bool {
        matches!(self, Field::Text(_))
    }
}

/// A boolean field of a command; see [`Field`].
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Flag {
    Absent,
    Invalid,
    Set(bool),
}

/// The `client_version` of a `bind`. `None` is recorded as null.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ClientVersion {
    pub implementation: Option<Box<str>>,
    pub version: Option<Box<str>>,
}

/// One command, borrowed from the text of its message.
///
/// The value of a `ping` is JSON text. The `id` of an `add` is delivered with the message: if it is
/// not a string, as its JSON text. `is_singular`: sent as `submit-permission`, as one released
/// client does. `delete` is a draft of upstream's.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Command<'a> {
    Ping { value: Option<&'a str> },
    SubmitPermissions { method: Field<'a>, stamp: Field<'a>, is_singular: bool },
    Bind { appid: Field<'a>, side: Field<'a>, client_version: ClientVersion },
    List,
    Allocate,
    Claim { nameplate: Field<'a>, allocate: Flag },
    Release { nameplate: Field<'a> },
    Open { mailbox: Field<'a> },
    Add { phase: Field<'a>, body: Field<'a>, id: Option<Cow<'a, str>> },
    Delete { their_phase: Field<'a>, their_side: Field<'a> },
    Close { mailbox: Field<'a>, mood: Field<'a> },
    Unknown,
}

/// Declares the types of commands: the enum, its names, and the index of a command's type.
macro_rules! command_types {
    ($($kind:ident: $name:literal,)*) => {
        /// The type of a command, without its fields.
        #[derive(Clone, Copy, Debug, PartialEq, Eq)]
        pub enum CommandType {
            $($kind,)*
        }

        /// The protocol's names of the types, in the order of [`CommandType`].
        pub const COMMAND_NAMES: [&str; [$($name),*].len()] = [$($name),*];

        impl CommandType {
            /// The type of that name; `Unknown` if the protocol has none.
            pub fn from_name(name: &str) -> CommandType {
                match name {
                    $($name => CommandType::$kind,)*
                    _ => CommandType::Unknown,
                }
            }
        }

        impl Command<'_> {
            /// Its index in [`COMMAND_NAMES`], for counters.
            pub fn index(&self) -> usize {
                let command_type = match self {
                    $(Command::$kind { .. } => CommandType::$kind,)*
                };
                command_type as usize
            }
        }
    };
}

command_types! {
    Ping: "ping",
    SubmitPermissions: "submit-permissions",
    Bind: "bind",
    List: "list",
    Allocate: "allocate",
    Claim: "claim",
    Release: "release",
    Open: "open",
    Add: "add",
    Delete: "delete",
    Close: "close",
    Unknown: "unknown",
}

impl Command<'_> {
    /// The protocol's name of the command, for records.
    pub fn name(&self) -> &'static str {
        COMMAND_NAMES[self.index()]
    }

    /// Whether it may change what the database holds.
    pub fn changes_state(&self) -> bool {
        matches!(
            self,
            Command::Allocate
                | Command::Claim { .. }
                | Command::Release { .. }
                | Command::Open { .. }
                | Command::Add { .. }
                | Command::Delete { .. }
                | Command::Close { .. }
        )
    }
}
