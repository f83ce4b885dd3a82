//! The program that this process runs, and the one that is at its path now.

use std::env;
use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{self, PathBuf};
use std::process::{Command, Stdio};

use super::companion::Companion;

/// Where it is, and how it was called.
#[derive(Debug)]
pub struct Program {
    path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start: later the path may lead elsewhere. The path by which the program
    /// was called counts, since it may be a link that an upgrade changes.
    pub fn current() -> io::Result<Program> {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let called = path::absolute(&name).ok().filter(|path| {
            name.as_bytes().contains(&b'/') && path.is_file() // else it was found by PATH
        });
        let path = called.map_or_else(env::current_exe, Ok)?;
        Ok(Program { path, name, arguments: arguments.collect() })
    }

    pub fn path(&self) -> &path::Path {
        &self.path
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments);
        command
    }

    /// Begins a check of the program that is there now, with the same options.
    pub fn check(&self) -> io::Result<Companion> {
        let mut command = self.command();
        command.arg("--check-config").stdin(Stdio::null()).stdout(Stdio::null());
        Companion::start(&mut command)
    }

    /// Executes the program that is there now in this process. Returns only if that fails.
    pub fn replace(&self, stdin: OwnedFd, variable: (&str, &str)) -> io::Error {
        self.command().stdin(stdin).env(variable.0, variable.1).exec()
    }
}
