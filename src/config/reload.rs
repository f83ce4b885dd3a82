//! Reading settings from files: at the start, and again at each SIGHUP.
//!
//! Between two turns of the loop, so it reads short files and nothing that may wait. All or
//! nothing: if one file is bad, what is in force stays.

use std::fs::{self, File};
use std::io::Read;
use std::path::Path;

use log::{info, warn};

use crate::config::live::Live;
use crate::config::{self, Config, Invocation};
use crate::limits::SETTINGS_FILE_BYTES_MAX;

/// The text of a settings file; or why not.
pub fn read_file(path: &Path) -> Result<String, String> {
    let unreadable = |error| format!("cannot be read: {error}");
    // Asked by name: opening a pipe would wait for somebody to write to it.
    if !fs::metadata(path).map_err(unreadable)?.is_file() {
        return Err("must be a regular file".to_owned());
    }
    // One byte more than allowed is enough to see that it is too much.
    let mut file = File::open(path).map_err(unreadable)?.take(SETTINGS_FILE_BYTES_MAX as u64 + 1);
    let mut bytes = Vec::new();
    file.read_to_end(&mut bytes).map_err(unreadable)?;
    if bytes.len() > SETTINGS_FILE_BYTES_MAX {
        return Err(format!("must have at most {SETTINGS_FILE_BYTES_MAX} bytes"));
    }
    String::from_utf8(bytes).map_err(|_| "must be UTF-8".to_owned())
}

/// Reads everything again; gives what is to be in force from now on, if it is good.
pub fn again(config: &Config) -> Option<Live> {
    if !config.source.has_files() {
        info!("nothing to read again: no --config, --welcome-file or --notices-file is given");
        return None;
    }
    match config::parse(config.source.arguments().iter().cloned(), read_file) {
        Ok(Invocation::Serve(fresh, live)) => {
            info!("read again, now in force: {live}");
            let waiting = config.source.differing(&fresh.source);
            if !waiting.is_empty() {
                warn!("changed, but only a restart puts it in force: {}", waiting.join(", "));
            }
            Some(*live)
        }
        // Then the server would not have started either.
        Ok(Invocation::Print(_) | Invocation::Report(_)) => None,
        Err(error) => {
            warn!("not read again, all stays as it was: {}", error.0);
            None
        }
    }
}
