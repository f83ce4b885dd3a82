//! The program that this process runs, and the one that is at its path now.

use std::env;
use std::ffi::{OsStr, OsString};
use std::fs;
use std::io::{self, Read};
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::net::UnixStream;
use std::os::unix::process::CommandExt;
use std::path::{self, PathBuf};
use std::process::{Command, Stdio};

use super::companion::Companion;
use crate::limits::COMPANION_OUTPUT_BYTES_MAX;

/// What `--check-config` prints if nothing is wrong. Other versions of the program wait for it.
pub const VALID: &str = "the configuration is valid\n";

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
        let directories = env::var_os("PATH").unwrap_or_default();
        let path = locate(&name, &directories, env::current_exe);
        Program { path, name, arguments: arguments.collect() }
    }

    fn command(&self) -> Command {
        let mut command = Command::new(&self.path);
        command.arg0(&self.name).args(&self.arguments);
        command
    }

    /// Begins a check of the program that is there now, with the same options.
    pub fn check(&self, variable: (&str, &str)) -> io::Result<Check> {
        let (stdout, its_stdout) = UnixStream::pair()?;
        stdout.set_nonblocking(true)?;
        let mut command = self.command();
        command.arg("--check-config").stdin(Stdio::null()).stdout(OwnedFd::from(its_stdout));
        let companion = Companion::start(command.env(variable.0, variable.1))?;
        Ok(Check { companion, stdout })
    }

    /// Executes the program that is there now in this process. Returns only if that fails.
    pub fn replace(&self, stdin: OwnedFd, variable: (&str, &str)) -> io::Error {
        self.command().stdin(stdin).env(variable.0, variable.1).exec()
    }
}

/// A program that checks itself.
#[derive(Debug)]
pub struct Check {
    companion: Companion,
    stdout: UnixStream,
}

impl Check {
    /// How it has ended, if it has: the reason if the program cannot do the work of this one.
    pub fn outcome(&mut self) -> Option<Result<(), String>> {
        match self.companion.try_wait() {
            Ok(None) => None,
            // A program of another kind may end well, too.
            Ok(Some(status)) if status.success() && !self.has_said_valid() => {
                Some(Err("its check did not say that the configuration is valid".to_owned()))
            }
            Ok(Some(status)) if status.success() => Some(Ok(())),
            Ok(Some(status)) => {
                let complaint = self.companion.complaint().map(|it| format!(": {it}"));
                Some(Err(format!("{status}{}", complaint.unwrap_or_default())))
            }
            Err(error) => Some(Err(error.to_string())),
        }
    }

    fn has_said_valid(&self) -> bool {
        let mut said = Vec::new();
        // Ends with an error where nothing more is there, and keeps what was.
        _ = (&self.stdout).take(COMPANION_OUTPUT_BYTES_MAX).read_to_end(&mut said);
        said.ends_with(VALID.as_bytes())
    }
}

/// The path by which a program was called counts, since it may be a link that an upgrade changes.
/// Without one it was found by `PATH`, in the first of these directories in which it is the program
/// that the kernel names. If the kernel does not tell (without a `/proc`), it is to be found in the
/// same way again.
fn locate(name: &OsStr, directories: &OsStr, current: fn() -> io::Result<PathBuf>) -> PathBuf {
    let has_path = name.as_bytes().contains(&b'/');
    let called = path::absolute(name).ok().filter(|path| has_path && path.is_file());
    called.unwrap_or_else(|| match current() {
        Ok(current) => {
            let named = env::split_paths(directories).map(|directory| directory.join(name));
            let is_current = |path: &PathBuf| fs::canonicalize(path).is_ok_and(|it| it == current);
            let found = named.filter_map(|path| path::absolute(path).ok()).find(is_current);
            found.unwrap_or(current)
        }
        Err(_) => name.into(),
    })
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
            let found = locate(OsStr::new(name), OsStr::new("/bin::/proc"), current);
            assert_eq!(found, PathBuf::from(path), "{name}");
        }
    }
}
