//! SQLite files as another process sees them: what is in them, how they are built, and servers
//! that refuse them.

use std::collections::BTreeMap;
use std::io::Read;
use std::path::Path;
use std::process::{Command, Stdio};

use rusqlite::Connection;
use rusqlite::types::ValueRef;
use serde_json::{Value, json};

use super::{Directory, FREE_PORT, PATIENCE, PROGRAM, Running, retry};

/// The channel database of version 1, after the list of tables (manual: files 2). A file like this
/// is what the Python server leaves.
pub const CHANNEL_V1: &str = "
CREATE TABLE version (version INTEGER);
CREATE TABLE mailboxes (
  app_id VARCHAR, id VARCHAR PRIMARY KEY, updated INTEGER, for_nameplate BOOLEAN);
CREATE INDEX by_id ON mailboxes (app_id, id);
CREATE TABLE mailbox_sides (
  mailbox_id REFERENCES mailboxes(id), opened BOOLEAN, side VARCHAR, added INTEGER, mood VARCHAR);
CREATE TABLE nameplates (id INTEGER PRIMARY KEY AUTOINCREMENT, app_id VARCHAR, name VARCHAR,
  mailbox_id VARCHAR REFERENCES mailboxes(id), request_id VARCHAR);
CREATE INDEX by_name ON nameplates (app_id, name);
CREATE INDEX by_mailbox ON nameplates (app_id, mailbox_id);
CREATE INDEX by_request ON nameplates (app_id, request_id);
CREATE TABLE nameplate_sides (
  nameplates_id REFERENCES nameplates(id), claimed BOOLEAN, side VARCHAR, added INTEGER);
CREATE TABLE messages (app_id VARCHAR, mailbox_id VARCHAR, side VARCHAR, phase VARCHAR,
  body VARCHAR, server_rx INTEGER, msg_id VARCHAR);
CREATE INDEX of_mailbox ON messages (app_id, mailbox_id);
INSERT INTO version VALUES (1);
";

/// What version 2 adds.
pub const CHANNEL_V2: &str = "
CREATE TABLE addrid_generation (generation INTEGER, started INTEGER);
CREATE TABLE connections (id INTEGER PRIMARY KEY AUTOINCREMENT, addrid_generation INTEGER,
  addrid_counter INTEGER, connected INTEGER, side VARCHAR, implementation VARCHAR, version VARCHAR,
  active INTEGER);
CREATE TABLE connection_messages (id REFERENCES connections(id), \"when\" INTEGER, name VARCHAR);
UPDATE version SET version = 2;
";

/// The usage database of version 1.
pub const USAGE_V1: &str = "
CREATE TABLE version (version INTEGER);
CREATE TABLE current (
  rebooted INTEGER, updated INTEGER, blur_time INTEGER, connections_websocket INTEGER);
CREATE TABLE nameplates (
  app_id VARCHAR, started INTEGER, waiting_time INTEGER, total_time INTEGER, result VARCHAR);
CREATE INDEX nameplates_started ON nameplates (app_id, started);
CREATE TABLE mailboxes (app_id VARCHAR, for_nameplate BOOLEAN, started INTEGER, total_time INTEGER,
  waiting_time INTEGER, result VARCHAR);
CREATE INDEX mailboxes_started ON mailboxes (app_id, started);
CREATE INDEX mailboxes_result ON mailboxes (result);
INSERT INTO version VALUES (1);
";

/// What version 2 adds.
pub const USAGE_V2: &str = "
CREATE TABLE client_versions (app_id VARCHAR, side VARCHAR, connect_time INTEGER,
  implementation VARCHAR, version VARCHAR);
CREATE INDEX versions_time ON client_versions (connect_time);
CREATE INDEX versions_app_time ON client_versions (app_id, connect_time);
UPDATE version SET version = 2;
";

/// The address-id database.
pub const ADDRID_V1: &str = "
CREATE TABLE version (version INTEGER);
CREATE TABLE address_ids (
  generation INTEGER, counter INTEGER, type VARCHAR, address VARCHAR, retain INTEGER);
INSERT INTO version VALUES (1);
";

/// Opens a file, patient with a server that is writing.
pub fn open(path: &Path) -> Connection {
    let connection = Connection::open(path).expect("a database");
    connection.busy_timeout(PATIENCE).expect("busy timeout");
    connection
}

/// Locks a file against writers, as another process may, until it is dropped.
pub fn lock(path: &Path) -> Connection {
    let connection = open(path);
    connection.execute_batch("BEGIN IMMEDIATE").expect("lock");
    connection
}

/// Makes a file by these statements.
pub fn create(path: &Path, statements: &[&str]) {
    let connection = open(path);
    for statement in statements {
        connection.execute_batch(statement).expect("SQL");
    }
}

/// Makes an in-memory database by these statements.
pub fn in_memory(statements: &[&str]) -> Connection {
    let connection = Connection::open_in_memory().expect("a database");
    connection.execute_batch(&statements.concat()).expect("SQL");
    connection
}

/// The rows of a query, each an array.
pub fn query(connection: &Connection, sql: &str) -> Value {
    let mut statement = connection.prepare(sql).expect(sql);
    let columns = statement.column_count();
    let rows = statement.query_map([], |row| {
        (0..columns).map(|column| Ok(value(row.get_ref(column)?))).collect::<Result<Vec<_>, _>>()
    });
    rows.expect(sql).map(|row| Value::from(row.expect(sql))).collect()
}

fn value(value: ValueRef<'_>) -> Value {
    match value {
        ValueRef::Null => Value::Null,
        ValueRef::Integer(value) => json!(value),
        ValueRef::Real(value) => json!(value),
        ValueRef::Text(text) => String::from_utf8_lossy(text).into(),
        ValueRef::Blob(_) => panic!("no column of ours holds a blob"),
    }
}

/// The rows of a query on a file.
pub fn rows(path: &Path, sql: &str) -> Value {
    query(&open(path), sql)
}

/// All rows of all tables but `version`, by table.
pub fn contents(path: &Path) -> BTreeMap<String, Value> {
    let connection = open(path);
    tables(&connection)
        .into_iter()
        .filter(|table| table != "version")
        .map(|table| {
            let rows = query(&connection, &format!("SELECT * FROM {table} ORDER BY rowid"));
            (table, rows)
        })
        .collect()
}

/// Waits until a query on a file returns these rows.
#[track_caller]
pub fn wait_for(path: &Path, sql: &str, expected: &Value) {
    wait_until(path, sql, |found| found == expected);
}

/// Waits until the rows of a query are as wanted; returns them.
#[track_caller]
pub fn wait_until(path: &Path, sql: &str, wanted: impl Fn(&Value) -> bool) -> Value {
    let connection = open(path);
    retry(|| {
        let found = query(&connection, sql);
        if wanted(&found) { Ok(found) } else { Err(format!("{sql}: {found}")) }
    })
}

/// How a database is built: for each table its columns (name, type, part of the primary key), its
/// references and the columns of its indexes. Names of indexes do not count, nothing refers to
/// them.
pub fn structure(connection: &Connection) -> BTreeMap<String, Value> {
    tables(connection)
        .into_iter()
        .map(|table| {
            let pragma = |columns: &str, name: &str, of: &str| {
                query(connection, &format!("SELECT {columns} FROM pragma_{name}('{of}')"))
            };
            let list = pragma("name, \"unique\", origin", "index_list", &table);
            let mut indexes: Vec<String> = list
                .as_array()
                .expect("rows")
                .iter()
                .map(|index| {
                    let columns = pragma("name", "index_info", index[0].as_str().expect("a name"));
                    format!("{columns} unique {} by {}", index[1], index[2])
                })
                .collect();
            indexes.sort();
            let built = json!({
                "columns": pragma("name, type, \"notnull\", dflt_value, pk", "table_info", &table),
                "references": pragma("\"from\", \"table\", \"to\"", "foreign_key_list", &table),
                "indexes": indexes,
                "autoincrement": query(connection, &format!(
                    "SELECT sql LIKE '%AUTOINCREMENT%' FROM sqlite_master WHERE name = '{table}'"
                )),
            });
            (table, built)
        })
        .collect()
}

fn tables(connection: &Connection) -> Vec<String> {
    let names = query(
        connection,
        "SELECT name FROM sqlite_master WHERE type = 'table' AND name NOT LIKE 'sqlite_%' \
         ORDER BY name",
    );
    names
        .as_array()
        .expect("rows")
        .iter()
        .map(|row| row[0].as_str().expect("a name").to_owned())
        .collect()
}

/// Starts a server that refuses to start; returns the one line that says why. Exit status 1.
pub fn refusal(directory: &Directory, options: &[&str]) -> String {
    let mut command = Command::new(PROGRAM);
    command.args([FREE_PORT, "--log-level=error"]).args(options);
    refusal_of(command, directory)
}

/// The same with a prepared command, which must log nothing but errors.
pub fn refusal_of(mut command: Command, directory: &Directory) -> String {
    command.current_dir(directory.path()).stdin(Stdio::null()).stderr(Stdio::piped());
    let mut child = Running(command.spawn().expect("server starts"));
    let mut stderr = child.0.stderr.take().expect("piped");
    let status = retry(|| child.0.try_wait().expect("wait").ok_or("the refusal".to_owned()));
    let mut text = String::new();
    stderr.read_to_string(&mut text).expect("text");
    assert_eq!(status.code(), Some(1), "{text}");
    assert_eq!(text.trim_end().lines().count(), 1, "one line, not {text:?}");
    text
}

/// The names in a directory, sorted.
pub fn names(directory: &Directory) -> Vec<String> {
    let entries = std::fs::read_dir(directory.path()).expect("directory");
    let mut names: Vec<String> = entries
        .map(|entry| entry.expect("entry").file_name().into_string().expect("a name"))
        .collect();
    names.sort();
    names
}

/// Every file in a directory, with its bytes.
pub fn files(directory: &Directory) -> BTreeMap<String, Vec<u8>> {
    let names = names(directory).into_iter();
    names
        .map(|name| (name.clone(), std::fs::read(directory.file(&name)).expect("a file")))
        .collect()
}

/// Makes the last activity of all mailboxes older, in the file of a stopped server.
pub fn set_back_activity(file: &Path, seconds: f64) {
    let db = Connection::open(file).expect("database");
    db.execute("UPDATE mailboxes SET updated = updated - ?1", [seconds]).expect("SQL");
}
