//! The program: read the arguments, open the files, bind the addresses, serve; or print and exit.
//!
//! Holds no logic of its own. Exit status 0 after a signal or when all is printed, 1 when something
//! cannot be opened, bound or asked, 2 for a mistake on the command line or in a file of options or
//! texts that it names.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use wormhole_mailbox::config::reload;
use wormhole_mailbox::config::{self, Invocation};
use wormhole_mailbox::report;
use wormhole_mailbox::startup;
use wormhole_mailbox::sys::logging;

const STATUS_FAILED: u8 = 1;
const STATUS_USAGE: u8 = 2;

fn main() -> ExitCode {
    let (config, live) = match config::parse(std::env::args_os().skip(1), reload::read_file) {
        Ok(Invocation::Serve(config, live)) => (*config, *live),
        Ok(Invocation::Print(text)) => return print(&text),
        Ok(Invocation::Report(wanted)) => {
            return match report::run(&wanted) {
                Ok(text) => print(&text),
                Err(problem) => complain(&problem, STATUS_FAILED),
            };
        }
        Err(error) => return complain(&error.0, STATUS_USAGE),
    };
    logging::start(config.log_level);
    match startup::start(config, live)
        .and_then(|server| server.run().map_err(|error| error.to_string()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log::error!("{problem}");
            ExitCode::from(STATUS_FAILED)
        }
    }
}

fn print(text: &str) -> ExitCode {
    match std::io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(_) => ExitCode::from(STATUS_FAILED),
    }
}

fn complain(problem: &str, status: u8) -> ExitCode {
    // If nobody can read it, the status still tells.
    _ = writeln!(std::io::stderr(), "wormhole-mailbox: {problem}");
    ExitCode::from(status)
}
