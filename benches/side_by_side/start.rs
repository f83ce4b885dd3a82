//! The size of the program, and how fast it starts.

use std::fs;
use std::path::{Path, PathBuf};
use std::time::Duration;

use wormhole_mailbox::storage::db::{ChannelDb, ChannelOptions, EarlierLocks};

use crate::Scope;
use crate::common::modes::{Plan, Storm, run};
use crate::common::report;
use crate::rows::{Row, seconds};
use crate::servers::{Kind, Server, Setup, fresh_directory};

const STORED_MESSAGES: usize = 100_000;
const MESSAGES_PER_MAILBOX: usize = 100;

/// The program as released.
pub fn binary_size(_scope: &Scope) -> Result<Vec<Row>, String> {
    let file = env!("CARGO_BIN_EXE_wormhole-mailbox");
    let bytes = fs::metadata(file).map_err(|error| format!("{file}: {error}"))?.len() as f64;
    Ok(vec![Row::alone("release binary, stripped, SQLite inside", &[bytes], report::bytes)])
}

/// From the start of the process to the first welcome.
pub fn with_stored_messages(scope: &Scope) -> Result<Vec<Row>, String> {
    let directory = fresh_directory()?;
    let file = directory.join("stored.sqlite");
    fill(&file).map_err(|error| format!("filling a database: {error}"))?;
    let mut samples = Vec::new();
    for _ in 0..scope.rounds {
        samples.push(time_to_welcome(&file)?);
    }
    _ = fs::remove_dir_all(directory);
    let what = "start with 100,000 stored messages, to the first welcome";
    Ok(vec![Row::alone(what, &samples, seconds)])
}

fn time_to_welcome(file: &Path) -> Result<f64, String> {
    let setup = Setup { channel_db: Some(PathBuf::from(file)), ..Setup::default() };
    let server = Server::start(Kind::Ours, &setup)?;
    let plan = Plan { measured: Duration::from_secs(10), ..Plan::default() };
    let outcome = run(&mut Storm::new(1), &server.target, &plan)?;
    let elapsed = server.started.elapsed().as_secs_f64();
    server.stop();
    if outcome.operations() == 1 { Ok(elapsed) } else { Err("no welcome".to_owned()) }
}

/// Mailboxes with two sides and messages of a usual size, as recent as can be.
fn fill(file: &Path) -> Result<(), Box<dyn std::error::Error>> {
    let options = ChannelOptions::default();
    let examined = ChannelDb::examine(file, options, &mut EarlierLocks::none())?;
    drop(ChannelDb::open(examined, options, false)?);
    let mut database = rusqlite::Connection::open(file)?;
    let transaction = database.transaction()?;
    {
        let now = std::time::SystemTime::now().duration_since(std::time::UNIX_EPOCH)?.as_secs_f64();
        let mut mailbox = transaction.prepare("INSERT INTO mailboxes VALUES (?1, ?2, ?3, 0)")?;
        let mut side =
            transaction.prepare("INSERT INTO mailbox_sides VALUES (?1, 1, ?2, ?3, NULL)")?;
        let mut message =
            transaction.prepare("INSERT INTO messages VALUES (?1, ?2, ?3, ?4, ?5, ?6, NULL)")?;
        let body = "5a".repeat(100);
        for number in 0..STORED_MESSAGES {
            let app = "bench.example/start";
            let id = format!("stored{:06}", number / MESSAGES_PER_MAILBOX);
            if number % MESSAGES_PER_MAILBOX == 0 {
                mailbox.execute((app, &id, now))?;
                side.execute((&id, "aaaaaaaaaa", now))?;
                side.execute((&id, "bbbbbbbbbb", now))?;
            }
            message.execute((app, &id, "aaaaaaaaaa", number.to_string(), &body, now))?;
        }
    }
    transaction.commit()?;
    Ok(())
}
