//! The program: read the arguments, open the files, bind the addresses, serve; or print and exit.
//!
//! Holds no logic of its own. The exit statuses are in the manual (manual: command_line 6).
#![forbid(unsafe_code)]

use std::io::{self, Write};
use std::process::ExitCode;

use wormhole_mailbox::config::{Config, Format, Invocation, Subject, reload};
use wormhole_mailbox::report;
use wormhole_mailbox::startup;
use wormhole_mailbox::sys::{logging, process, program};
use wormhole_mailbox::testing::{Server, Trouble};

/// Something cannot be opened, bound or asked.
const STATUS_FAILED: u8 = 1;
/// A mistake on the command line, or in a file that it names.
const STATUS_USAGE: u8 = 2;

fn main() -> ExitCode {
    let signals = startup::signals_of_successor();
    // A handler that cannot be installed shows when the server installs its own.
    _ = process::survive_file_size_limit();
    let (config, reloadable) = match reload::invocation() {
        Ok(Invocation::Serve(config, reloadable)) => (*config, *reloadable),
        Ok(Invocation::CheckConfig(config)) => return check(*config),
        Ok(Invocation::TestServer(troubles)) => return test_server(&troubles),
        Ok(Invocation::Report(subject, format)) => return print_report(&subject, format),
        Ok(Invocation::Print(text)) => return print(&text),
        Err(error) => return fail(&error, STATUS_USAGE),
    };
    logging::start(config.log_level);
    let server = startup::start(config, reloadable, signals);
    match server.and_then(|server| server.run().map_err(|error| error.to_string())) {
        Ok(()) => ExitCode::SUCCESS,
        Err(problem) => {
            log::error!("{problem}");
            ExitCode::from(STATUS_FAILED)
        }
    }
}

fn check(config: Config) -> ExitCode {
    for warning in &config.warnings {
        logging::print(log::Level::Warn, &format!("warning: {warning}"));
    }
    match startup::check(config) {
        Ok(()) => print(program::VALID),
        Err(problem) => fail(&problem, STATUS_FAILED),
    }
}

/// Serves until stdin is closed.
fn test_server(troubles: &[Trouble]) -> ExitCode {
    match Server::start_with(troubles) {
        Ok(server) => {
            let printed = print(&format!("{}\n", server.url()));
            // An error is an end as well.
            _ = io::copy(&mut io::stdin().lock(), &mut io::sink());
            printed
        }
        Err(problem) => fail(&problem, STATUS_FAILED),
    }
}

fn print_report(subject: &Subject, format: Format) -> ExitCode {
    match report::run(subject, format) {
        Ok((text, None)) => print(&text),
        Ok((text, Some(problem))) => {
            print(&text);
            fail(&problem, STATUS_FAILED)
        }
        Err(error) => fail(&error.to_string(), STATUS_FAILED),
    }
}

fn print(text: &str) -> ExitCode {
    match io::stdout().write_all(text.as_bytes()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => fail(&format!("cannot write to stdout: {error}"), STATUS_FAILED),
    }
}

fn fail(problem: &str, status: u8) -> ExitCode {
    logging::print(log::Level::Error, problem);
    ExitCode::from(status)
}
