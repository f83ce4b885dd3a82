//! Reading settings from files: at the start, and again at each SIGHUP.
//!
//! The loop waits meanwhile, so only short, regular files are read. All or nothing: if one file is
//! invalid, the settings in force stay.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use log::{info, warn};

use super::reloadable::Reloadable;
use super::{Config, Invocation, Source, options};
use crate::config;
use crate::limits::SETTINGS_FILE_BYTES_MAX;

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

/// Reads all settings again; returns the new ones if they are valid.
pub fn again(config: &Config) -> Option<Reloadable> {
    if !config.source.has_files() {
        let options = options::all().filter(|row| row.action.names_reloaded_file());
        let names: Vec<&str> = options.map(|row| row.spec.name).collect();
        info!("nothing to read again: none of {} is given", names.join(", "));
        return None;
    }
    let Source { arguments, environment, .. } = config.source.clone();
    match config::parse(arguments, environment, read_file) {
        Ok(Invocation::Serve(fresh, reloadable)) => {
            info!("read again, now in force: {reloadable}");
            let waiting = needing_restart(&config.source, &fresh.source);
            if !waiting.is_empty() {
                warn!("changed, but only a restart brings it into force: {}", waiting.join(", "));
            }
            Some(*reloadable)
        }
        // The same arguments have started the server.
        Ok(_) => None,
        Err(error) => {
            warn!("not read again, all stays as it was: {}", error.0);
            None
        }
    }
}

/// Options with other values than before that only a restart brings into force.
fn needing_restart(before: &Source, now: &Source) -> Vec<&'static str> {
    let rows = options::all().filter(|row| !row.action.is_reloadable());
    let names = rows.map(|row| row.spec.name);
    names.filter(|name| before.values(name) != now.values(name)).collect()
}
