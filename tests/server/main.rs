//! One server and its clients on one machine: the protocol, the options, the files, the pages.
//!
//! A rule of the protocol has one test, named as a sentence: script in, script out. A limit is
//! tried at, below and above its value, twice. A test for a negative waits for a positive that
//! comes after. A test that needs a program which a bare Debian lacks is ignored and names it.
//! Heavy tests belong in `tests/hard`, those with other people's programs in `tests/peers`.

#[allow(dead_code)] // each test binary uses its own part
#[path = "../common/mod.rs"]
mod common;

// The wire: what may be sent, and what is answered.
mod extensions; // draft extensions, each off by default
mod frames; // WebSocket frames, pings, close codes
mod handshake; // HTTP heads up to the upgrade
mod hostile_bytes; // random bytes, for every parser
mod json; // how messages are read
mod protocol; // order of answers, every error text
mod proxy_protocol; // the PROXY header before the first byte
mod welcome; // listeners, the welcome, the peer's address

// The rules: what commands do to nameplates and mailboxes.
mod allocate_from; // who may begin
mod crowding; // a third side
mod expiry; // what the expiry check deletes
mod mailboxes; // open, add, close
mod nameplates; // allocate, claim, release, list
mod orphans; // connections whose mailbox was deleted
mod permissions; // proof of work
mod store; // the rules on the store alone, with a given clock

// Limits: of one connection, and of one address.
mod limits;
mod limits_of_addresses;
mod members; // members and guests
mod proxy_headers; // X-Forwarded-For and Forwarded

// The files.
mod addresses; // `--addrid-db`, `--track-connections`
mod failed_starts; // each leaves every file as it was
mod failed_takeovers; // nothing acknowledged is lost
mod files; // created, accepted, upgraded
mod full_disk; // full of what the server itself has stored
mod moved_files; // removed, replaced, wanted by two at once
mod refused_files; // files that stop the start
mod usage; // the usage database

// Running it: options, signals, service managers.
mod check_config; // `--check-config`
mod command_line;
mod config_file;
mod drain; // SIGQUIT
mod environment; // options from variables
mod generate; // the manual page and the completions
mod listening; // addresses that cannot be listened on
mod log; // its lines, and a log that cannot be written
mod reload; // SIGHUP
mod restart; // SIGALRM
mod service_manager; // notification, passed sockets
mod stopping; // SIGTERM, SIGINT
mod takeover; // SIGUSR2
mod test_server; // a server for the tests of clients

// Observing it.
mod admin; // the admin listener
mod check; // an exchange through a running server
mod metrics;
mod reports; // the subcommands
mod shares;
mod status_page;

// The repository itself.
mod manual; // the README and the manual as a whole
mod packaging; // what is published
mod rooms; // the map of the source
mod tidy; // the house style
