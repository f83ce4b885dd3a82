//! The program: read the arguments, open the files, bind the addresses, serve.
//!
//! Holds no logic of its own. Exit status 0 after a signal, 1 when something cannot be opened or
//! bound, 2 for a mistake on the command line.
#![forbid(unsafe_code)]

use std::io::Write;
use std::process::ExitCode;

use wormhole_mailbox::config::{self, Invocation};
use wormhole_mailbox::{logging, startup};

const STATUS_FAILED: u8 = 1;
const STATUS_USAGE: u8 = 2;

fn main() -> ExitCode {
    let config = match config::parse(std::env::args_os().skip(1)) {
        Ok(Invocation::Serve(config)) => *config,
        Ok(Invocation::Print(text)) => {
            return match std::io::stdout().write_all(text.as_bytes()) {
                Ok(()) => ExitCode::SUCCESS,
                Err(_) => ExitCode::from(STATUS_FAILED),
            };
        }
        Err(error) => {
            // If nobody can read it, the status still tells.
            _ = writeln!(std::io::stderr(), "wormhole-mailbox: {}", error.0);
            return ExitCode::from(STATUS_USAGE);
        }
    };
    logging::start(config.log_level);
    match startup::start(config).and_then(|server| server.run().map_err(|error| error.to_string()))
    {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log::error!("{problem}");
            ExitCode::from(STATUS_FAILED)
        }
    }
}
