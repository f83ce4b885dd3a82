//! Commits by batch size: the cost of a message in the database, alone and in a batch.

use std::fs;
use std::path::{Path, PathBuf};

use wormhole_mailbox::storage::db::{ChannelDb, ChannelOptions, Database, EarlierLocks, MEMORY};

use crate::{Part, path};

/// Pages in the log after which it is copied into the file.
const CHECKPOINT_PAGES: u32 = 4_000;

/// The parts.
pub fn parts() -> Vec<Part> {
    vec![
        Part { name: "commit of 1 message, on disk", prepare: || on_disk(1), messages: 1 },
        Part { name: "commit of 8 messages, on disk", prepare: || on_disk(8), messages: 8 },
        Part { name: "commit of 64 messages, on disk", prepare: || on_disk(64), messages: 64 },
        Part { name: "commit of 1 message, in memory", prepare: || in_memory(1), messages: 1 },
        Part { name: "commit of 64 messages, in memory", prepare: || in_memory(64), messages: 64 },
    ]
}

/// A directory beside the build, hence on a real disk; goes with the part.
struct Directory(PathBuf);

impl Drop for Directory {
    fn drop(&mut self) {
        _ = fs::remove_dir_all(&self.0);
    }
}

fn on_disk(adds: usize) -> Box<dyn FnMut(u64)> {
    let name = format!("parts-{}-{adds}", std::process::id());
    let directory = Directory(Path::new(env!("CARGO_TARGET_TMPDIR")).join(name));
    fs::create_dir_all(&directory.0).expect("a directory");
    let mut run = commits(&directory.0.join("channel.sqlite"), adds);
    Box::new(move |rounds| {
        _ = &directory; // lives as long as the file is used
        run(rounds);
    })
}

fn in_memory(adds: usize) -> Box<dyn FnMut(u64)> {
    commits(Path::new(MEMORY), adds)
}

fn commits(file: &Path, adds: usize) -> Box<dyn FnMut(u64)> {
    let options = ChannelOptions::default();
    let examined = ChannelDb::examine(file, options, &mut EarlierLocks::none());
    let examined = examined.expect("a file");
    let mut database = ChannelDb::open(examined, options, false).expect("a database");
    database.commit(&path::opening()).expect("a commit");
    let changes = path::changes(adds);
    Box::new(move |rounds| {
        for _ in 0..rounds {
            database.commit(&changes).expect("a commit");
            if database.wal_pages() > CHECKPOINT_PAGES {
                database.checkpoint().expect("a checkpoint");
            }
        }
    })
}
