//! Reading arguments, environment and files: at the start, and again at each SIGHUP.
//!
//! The loop waits meanwhile, so only short, regular files are read. All or nothing: if one file is
//! invalid, the settings in force stay.

use std::env;
use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use super::reloadable::Reloadable;
use super::spec::Action;
use super::{Config, Invocation, options};
use crate::config;
use crate::limits::SETTINGS_FILE_BYTES_MAX;
use crate::sys::logging::{info, warn};

/// Some editors begin a file with it.
const BYTE_ORDER_MARK: char = '\u{feff}';

/// Returns the text of a settings file, or the reason why it cannot be read.
pub fn read_file(path: &Path) -> Result<String, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    // Before it is opened: opening a pipe would wait for a writer.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("must be a regular file".to_owned());
    }
    // One byte more than allowed shows that it is too long.
    let mut file = File::open(path).map_err(unreadable)?.take(SETTINGS_FILE_BYTES_MAX as u64 + 1);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > SETTINGS_FILE_BYTES_MAX {
        return Err(format!("must have at most {SETTINGS_FILE_BYTES_MAX} bytes"));
    }
    let text = String::from_utf8(bytes).map_err(|_| "must be UTF-8".to_owned())?;
    Ok(text.strip_prefix(BYTE_ORDER_MARK).unwrap_or(&text).to_owned())
}

/// Reads the arguments and the environment of this process, and the files that they name.
pub fn invocation() -> Result<Invocation, String> {
    config::parse(env::args_os().skip(1), env::vars_os(), read_file)
}

/// Whether there are files that SIGHUP reads again.
pub fn has_files(config: &Config) -> bool {
    config.given.iter().any(|option| option.row.action.names_reloaded_file())
}

/// Reads all settings again; returns the new ones if they are valid.
pub fn again(config: &Config) -> Option<Reloadable> {
    if !has_files(config) {
        let options = names(Action::names_reloaded_file).join(", ");
        info!("nothing to read again: none of {options} is given");
        return None;
    }
    match invocation() {
        Ok(Invocation::Serve(fresh, reloadable)) => {
            info!("read again, now in force: {reloadable}");
            let mut waiting = names(|action| !action.is_reloadable());
            waiting.retain(|name| config.given(name) != fresh.given(name));
            if !waiting.is_empty() {
                warn!("changed, but only a restart brings it into force: {}", waiting.join(", "));
            }
            Some(*reloadable)
        }
        // The same arguments have started the server.
        Ok(_) => None,
        Err(error) => {
            warn!("not read again, all stays as it was: {}", error);
            None
        }
    }
}

/// The options with such an action.
fn names(is_meant: impl Fn(&Action) -> bool) -> Vec<&'static str> {
    options::all().iter().filter(|row| is_meant(&row.action)).map(|row| row.name).collect()
}
