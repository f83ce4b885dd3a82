//! What a process hands over to its successor (manual: reloading 5): its listeners, and of each
//! connection all that is not in the databases.

use std::net::IpAddr;
use std::rc::Rc;
use std::time::Duration;

use crate::message::{ConnId, CountedAddress, Demand, Member, Peer, Prefix, Session};

/// A point on the kernel's monotonic clock, which both processes share.
pub type Microseconds = i64;

/// The first record: the state of the server as a whole.
#[derive(Debug, Default, PartialEq)]
pub struct Head {
    /// The number of the next connection.
    pub next_conn: u64,
    pub listeners: Vec<ListenerRecord>,
    /// How many records follow.
    pub connections: u64,
}

/// A listener: where its socket is from, so that the successor finds it under the same option.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum ListenerRecord {
    /// As the option names it, and device and inode of a unix socket's file.
    Bound { endpoint: String, file: Option<(u64, u64)> },
    /// Number and name that the service manager gave it.
    Passed { index: u64, name: String },
}

/// The endpoint of a lock, unlike that of any option.
const LOCK: &str = "lock";

impl ListenerRecord {
    /// The record of the lock of a file, no kind of its own, since that would be another format. An
    /// earlier version of the program closes what is no socket, and then locks the file itself.
    pub fn of_lock() -> ListenerRecord {
        ListenerRecord::Bound { endpoint: LOCK.to_owned(), file: None }
    }

    pub fn is_lock(&self) -> bool {
        matches!(self, ListenerRecord::Bound { endpoint, .. } if endpoint == LOCK)
    }
}

/// One connection.
#[derive(Debug, PartialEq)]
pub struct ConnectionRecord {
    pub conn: ConnId,
    pub is_unix: bool,
    /// A connection that is only kept until the peer has read why it may not stay.
    pub is_rejected: bool,
    pub peer: Peer,
    pub phase: PhaseRecord,
    /// When the phase began.
    pub since: Microseconds,
    /// Input that has been read and not been handled.
    pub unread: Vec<u8>,
    /// Encoded output that the socket has not taken.
    pub unsent: Vec<u8>,
    /// Nothing comes after that output.
    pub is_ended: bool,
    pub state: StateRecord,
}

/// The phase of a connection.
#[derive(Debug, PartialEq)]
pub enum PhaseRecord {
    ProxyHeader(Vec<u8>),
    Head(Vec<u8>),
    Open { pinged: Microseconds, unanswered: Option<Microseconds> },
    Closing,
    Lingering,
}

/// The engine's state of one connection.
#[derive(Debug, Default, PartialEq)]
pub struct StateRecord {
    /// The address that it counts for.
    pub counted: Option<CountedAddress>,
    /// None before the handshake is complete.
    pub session: Option<Session>,
    pub demand: Option<Demand>,
    /// The client may only join what others began (`--allocate-from`).
    pub is_outsider: bool,
    /// Its line in the file of members.
    pub member: Option<Member>,
}

/// The engine's state of addresses. Durations are those that are left.
#[derive(Debug, Default, PartialEq)]
pub struct AddressesRecord {
    /// The tokens that are left to each prefix.
    pub rates: Vec<(Prefix, Tokens)>,
    /// Row id and creator of each nameplate.
    pub creators: Vec<(i64, CountedAddress)>,
    pub joins: Vec<JoinRecord>,
    pub attack: AttackRecord,
    pub ids: Option<AddressIdsRecord>,
}

/// Number of rates that limit an address: of connecting, allocating, claiming and so on.
pub const RATES_COUNT: usize = 7;

/// The tokens that are left of each rate.
pub type Tokens = [f64; RATES_COUNT];

/// The claim of a nameplate that another side began.
#[derive(Debug, PartialEq)]
pub struct JoinRecord {
    pub mailbox: Rc<str>,
    pub holder: CountedAddress,
    /// The creator of the nameplate; none if exempt or unknown.
    pub beginner: Option<CountedAddress>,
    /// The time left of its probation, if that has begun.
    pub probation: Option<Duration>,
    pub progress: JoinProgress,
}

/// The messages and closes of a join so far.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct JoinProgress {
    /// A hash of the nameplate's app and name.
    pub nameplate: u64,
    pub joiner: Rc<str>,
    /// Messages of the joiner, and of the side that was there before, each in a phase of its own.
    pub messages: [u64; 2],
    /// Hashes of the phases of their last messages. Another version of the program may compute
    /// them in another way.
    pub last_phases: [Option<u64>; 2],
    pub state: JoinState,
    /// A third side was refused.
    pub is_crowded: bool,
    pub is_scary: bool,
    /// The joiner has been charged for keeping a side out.
    pub is_charged: bool,
}

/// How far a join has shown that it is honest (manual: limits 2).
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum JoinState {
    #[default]
    Unshown,
    /// Both sides have added their messages.
    Probation,
    /// A side closed as `scary` or `errory`: it will not be shown.
    Failed,
    Shown,
}

/// The level of hostile events.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct AttackRecord {
    pub level: f64,
    pub is_attack: bool,
    pub held: Duration,
}

/// The ids of addresses, all of which are in their file.
#[derive(Debug, PartialEq)]
pub struct AddressIdsRecord {
    pub generation: u64,
    /// Seconds since 1970.
    pub started: f64,
    pub left: Duration,
    pub counters: Vec<(IpAddr, u64)>,
}
