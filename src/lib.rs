//! A Magic Wormhole mailbox server: one thread, one event loop, one SQLite file.
//!
//! # The tick
//!
//! [`server`] repeats one turn, in this order:
//!
//! 1. **Sleep** in the poll until something is ready or due.
//! 2. Read the **clock**: what the tick does happens at that time. If the wall clock was set, what
//!    is stored follows it first, in a transaction of its own.
//! 3. **Send** released output of earlier ticks to sockets that became writable.
//! 4. Accept and read the few connections to the admin listener. Then **read** the clients that are
//!    ready, each up to its share, and apply what has come:
//!    bytes → [`codec::http`] or [`codec::websocket`] → [event](message::Event) →
//!    [`codec::json`] → [`store`]. Row changes and [output](message::Output) gather in the tick's
//!    [effects](store::Effects); the connection gets a verdict. A tick with changes looks once more
//!    at what has come in meanwhile, as it waits for the disk in any case.
//! 5. Run **timers**: handshakes, pings, closes, expiry. Their effects join the tick's.
//! 6. **Accept** new clients, within a budget.
//! 7. **Commit** the changes in one transaction. If that fails, no output has left: memory goes
//!    back to what the database holds, and the tick's participants are closed with 1013. Then
//!    requests to the admin listener are answered.
//! 8. Read the clock again, and **release** the output: encode it with that time, one write per
//!    connection.
//! 9. **Reap** connections that are over.
//! 10. **Tell** the service manager, if there is one, that the loop turns.
//!
//! # The rooms
//!
//! From the top down. A room imports only rooms below it, and names only the crates shown: a test
//! holds this table against every path in the source. `log` aside, no crate is named in two rooms
//! for the same purpose.
//!
//! | room | duty | imports | crates |
//! |---|---|---|---|
//! | `main` | the program: arguments in, exit status out | config report startup sys testing | log |
//! | `testing` | a server in the process of a client's test | config server startup |  |
//! | `startup/` | opens files and addresses, builds the server | admin config engine limits message net server storage store sys | rustix |
//! | `server/` | the loop: the tick, accepting, timers, signals, the service manager | admin codec config engine limits message net sorted storage sys | mio nix signal_hook |
//! | `admin/` | the admin listener's answers: status page, metrics, health | codec config engine format limits message net storage store sys | serde_json |
//! | `engine/` | a command's way from connection to store and back; limits of addresses, permissions, counters | codec config limits message sorted storage store sys | |
//! | `report/` | the subcommands: a look at a server or its files from outside, a new member | codec config format limits message net sorted storage store sys | serde_json tungstenite |
//! | `config/` | arguments, files of options, reloads: text to a valid configuration | codec format limits message net sorted storage store sys | log pico_args serde_json |
//! | `net/` | sockets and connections: listening, reading, sending, deadlines of one connection | codec limits message storage sys | listenfd mio rustix |
//! | `storage/` | what reaches the disk: commits, output held until the commit, records, SQLite | limits message sorted store sys | rusqlite rustix |
//! | `store/` | the state and its rules: no I/O, no clock, no randomness | limits message sorted sys |  |
//! | `codec/` | bytes to values and back, pure: HTTP, PROXY, WebSocket, JSON, hashcash, takeover records | limits message sys | httparse serde_core serde_json sha1 tungstenite |
//! | `message/` | plain data that the rooms exchange | limits sys |  |
//! | `format` | numbers, times and foreign texts as people read them | limits sys |  |
//! | `sys/` | the operating system: clock, randomness, memory pages, process, log | limits | log memmap2 rustix signal_hook simple_logger |
//! | `sorted` | sorting of what is short or sorted rarely | | |
//! | `limits` | every number that bounds something, with unit and reason | | |
//! | `manual/` | the pages of the manual and the specification, for rustdoc | | |
//!
//! Network and engine do not know each other: both speak `message`, and `server` carries events up
//! and verdicts down.
//!
//! # Where a change belongs
//!
//! | change | place |
//! |---|---|
//! | a limit | its row or constant in [`limits`] |
//! | a rule of a command | [`store`], and its section in [`manual`] |
//! | a frame, a header, a JSON key | [`codec`] |
//! | a column of a table | [`storage::db`] |
//! | a metric | [`engine::metrics`], and its row in [`admin`] |
//! | an option | its row in [`config`] |
//! | a log line | where the event is handled; lines that peers can cause: [`engine::limit_log`] |
//!
//! # Invariants
//!
//! - No message leaves before the changes it depends on are committed. A [`net::outbox`] takes
//!   only [`storage::held::Released`], which only [`storage::held::release`] makes, which needs the
//!   [`storage::Committed`] that only a commit returns. Pongs and closes are output like any other.
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
pub mod format;
pub mod limits;
pub mod manual;
pub mod message;
pub mod net;
pub mod report;
pub mod server;
pub mod sorted;
pub mod startup;
pub mod storage;
pub mod store;
pub mod sys;
pub mod testing;
