//! The server with other people's programs: clients in Python, Go and Rust, the reference server,
//! proxies, service managers, backup tools.

#[allow(dead_code)] // each test binary uses its own part
#[path = "../common/mod.rs"]
mod common;

mod clients; // their command lines
mod programs; // where they are installed
mod python_server;

mod backup; // SQLite's own tool, Litestream
mod behind_proxy; // nginx, Caddy, HAProxy
mod browser; // Chromium looks at the status page
mod clock; // libfaketime
mod deployment; // systemd's unit and sockets, the container, the OpenWrt script
mod differential; // random commands for the reference server and ours
mod generated; // the shells complete, groff and mandoc read the manual
mod hosting; // with the transit relay, each client as the manual points it
mod interop; // real clients, each with each
mod neighbours; // load balancers, proxies and monitors as they come
mod prometheus; // its parser reads the metrics
mod refusals; // what real clients show their users
mod upstream_files; // the reference server and its plugins on the same files
