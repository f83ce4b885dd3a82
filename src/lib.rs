//! A Magic Wormhole mailbox server: one thread, one event loop, one SQLite file.
//!
//! # The tick
//!
//! [`server`] repeats one turn, in this order:
//!
//! 1. **Sleep** in the poll until something is ready or due.
//! 2. Read the **clock** once; all of the tick happens at that time.
//! 3. **Send** released output of earlier ticks to sockets that became writable.
//! 4. **Read** what is ready, each connection up to its share, and apply it:
//!    bytes → [`http`] or [`wire`] → [`protocol`] → [`store`]. Row changes gather in the batch,
//!    answers are [`held`].
//! 5. Run **timers**: handshakes, pings, closes, expiry. Their changes join the batch.
//! 6. **Accept** new connections, within a budget.
//! 7. **Commit** the batch in one transaction. If that fails, nothing held has left: memory goes
//!    back to what the database holds, and those who took part are closed with 1013. Then what
//!    operators asked is answered.
//! 8. **Release** what was held: encode it, one write per connection.
//! 9. **Reap** connections that are over.
//! 10. **Tell** the service manager, if there is one, that the loop turns.
//!
//! # The modules
//!
//! Arrows point down only; each external crate is named in the modules shown and nowhere else.
//!
//! ```text
//! main → startup → server             the process; files and addresses; the tick (mio)
//!          │         ├─ admin         what operators see: page, metrics, health (serde_json)
//!          │         ├─ engine        behind the sockets: command → store → held → commit
//!          │         ├─ conn          one connection's life: head, open, closing
//!          │         │    ├─ proxy_header   for whom a proxy speaks (PROXY protocol)
//!          │         │    ├─ http     request head → upgrade or plain answer (tungstenite)
//!          │         │    ├─ wire     bytes ⇄ WebSocket messages, in memory (tungstenite)
//!          │         │    └─ outbox   released output that the socket has not taken
//!          │         ├─ permission    proof of work before a bind (sha1)
//!          │         ├─ quotas        what one peer address may do
//!          │         ├─ listeners     accepting, and running out of descriptors
//!          │         ├─ notify        what a service manager is told
//!          │         ├─ storage       commit, or fail and recover
//!          │         ├─ records       usage, addresses, connections: may lag, may fail
//!          │         ├─ reload        reading settings from files, at the start and at SIGHUP
//!          │         └─ timers, signals (signal-hook), entropy (rustix)
//!          ├─ activation              sockets that a service manager passes (listenfd)
//!          ├─ db                      the SQLite files (rusqlite)
//!          └─ config                  the command line (pico-args)
//! main → report                       a look from outside, through db or the admin listener
//!          └─ config                  the command line and what it names (pico-args, serde_json)
//! live                                what can change while it runs
//! protocol                            JSON ⇄ commands and responses (serde_json)
//! store                               the state and the rules: no I/O, no clock, no randomness
//! held                                what waits for the commit, and what may leave
//! metrics, clients, process           what is counted, who binds, what the kernel knows (rustix)
//! socket, peer, addresses             sockets (mio, rustix); who is at the other end
//! message, message_log, limits        plain data; what is stored; every number
//! pages                               large buffers, off the heap (memmap2)
//! clock                               the time
//! logging, limit_log                  the log (simple_logger); one line for many events
//! ```
//!
//! # Invariants
//!
//! - No message leaves before the changes it may tell of are committed. An [`outbox`] takes only
//!   [`held::Released`], which only [`held::Held::release`] makes, which needs the
//!   [`storage::Committed`] that only a commit gives. tungstenite writes to memory, so not even
//!   a pong or a close can slip by.
//! - [`store`] is a function of its inputs. Time, randomness and commands come in, changes and
//!   replies go out; it can be run a million times faster than life, with a seed.
//! - What the store holds is what the database holds, plus the batch. The database is read at a
//!   start and after a failed commit, never otherwise.
//! - A connection never frees itself, and its number is never used again, so no event can reach
//!   the wrong one.
//! - Nothing a peer sends can reach a panic; every number that bounds it is in [`limits`].
#![forbid(unsafe_code)]

pub mod admin;
pub mod codec;
pub mod config;
pub mod engine;
pub mod limits;
pub mod message;
pub mod net;
pub mod report;
pub mod server;
pub mod startup;
pub mod storage;
pub mod store;
pub mod sys;
