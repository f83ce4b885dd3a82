//! The program that this process runs, and the one that is at its path now.

use std::env;
use std::ffi::{OsStr, OsString};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::process::CommandExt;
use std::path::{self, PathBuf};
use std::process::{Command, Stdio};

use super::companion::Companion;

/// A program, and how it was called.
#[derive(Debug)]
pub struct Program {
    /// Where the program was at the start; an upgrade puts another one there.
    pub path: PathBuf,
    name: OsString,
    arguments: Vec<OsString>,
}

impl Program {
    /// To be called at the start: later the path may lead elsewhere.
    pub fn current() -> Program {
        let mut arguments = env::args_os();
        let name = arguments.next().unwrap_or_default();
        let path = locate(&name, env::current_exe);
        Program { path, name, arguments: arguments.collect() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments);
        command
    }

    /// Begins a check of the program that is there now, with the same options.
    pub fn check(&self, variable: (&str, &str)) -> io::Result<Companion> {
        let mut command = self.command();
        command.arg("--check-config").stdin(Stdio::null()).stdout(Stdio::null());
        Companion::start(command.env(variable.0, variable.1))
    }

    /// Executes the program that is there now in this process. Returns only if that fails.
    pub fn replace(&self, stdin: OwnedFd, variable: (&str, &str)) -> io::Error {
        self.command().stdin(stdin).env(variable.0, variable.1).exec()
    }
}

/// The path by which a program was called counts, since it may be a link that an upgrade changes.
/// Without one it was found by `PATH`; the kernel knows where, and if it does not tell (without a
/// `/proc`), it is to be found in the same way again.
fn locate(name: &OsStr, current: fn() -> io::Result<PathBuf>) -> PathBuf {
    let has_path = name.as_bytes().contains(&b'/');
    let called = path::absolute(name).ok().filter(|path| has_path && path.is_file());
    called.or_else(|| current().ok()).unwrap_or_else(|| name.into())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_program_is_where_it_was_called_or_where_the_kernel_or_path_finds_it() {
        let known = || Ok("/usr/bin/program".into());
        let unknown = || Err(io::ErrorKind::NotFound.into());
        for (name, current, path) in [
            ("/dev/null", known as fn() -> _, "/usr/bin/program"),
            ("/proc/self/comm", known, "/proc/self/comm"),
            ("program", known, "/usr/bin/program"),
            ("program", unknown, "program"),
            ("/gone/program", unknown, "/gone/program"),
        ] {
            assert_eq!(locate(OsStr::new(name), current), PathBuf::from(path), "{name}");
        }
    }
}
