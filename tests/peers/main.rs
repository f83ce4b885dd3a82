//! The server with other people's programs: clients in Python, Go and Rust, the reference server,
//! proxies, service managers, backup tools.

#[allow(dead_code)] // each test binary uses its own part
#[path = "../common/mod.rs"]
mod common;

mod backup; // SQLite's own tool, Litestream
mod behind_proxy; // nginx, Caddy
mod deployment; // the systemd unit, the container, the OpenWrt script
mod differential; // random commands for the reference server and ours
mod interop; // real clients, each with each
mod permissions_interop; // proof of work with real clients
mod upstream_files; // the reference server and its plugins on the same files
