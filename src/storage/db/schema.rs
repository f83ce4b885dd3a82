//! The tables of the three files by version, as the Python server has them (manual: files 1.4).
//! Types matter: they are SQLite's column affinities.

use rusqlite::Connection;

use super::columns::collect;

/// A kind of file, and its versions.
#[derive(Debug)]
pub struct Kind {
    /// For messages to the operator.
    pub name: &'static str,
    /// The statements that make each version from the one before; `versions[0]` makes version 1 in
    /// an empty file.
    pub versions: &'static [&'static str],
    /// Tables that are examined, with their indexes, before anything is changed.
    pub examined: &'static [&'static str],
    /// Tables of which only the first row is read then: to examine 100,000 messages takes as long
    /// as to load them, which finds what is wrong further back.
    pub looked_into: &'static [&'static str],
}

impl Kind {
    /// The latest version.
    pub fn newest(&self) -> usize {
        self.versions.len()
    }

    /// The tables of all versions, as SQLite reads the statements. It takes some memory for a
    /// moment: better before a file is open.
    pub fn model(&self) -> rusqlite::Result<Model> {
        const TABLES: &str = r#"
            SELECT tables.name, '"' || group_concat(column.name, '", "') || '"'
            FROM sqlite_schema AS tables, pragma_table_info(tables.name) AS column
            WHERE tables.type = 'table' AND tables.name NOT LIKE 'sqlite_%'
            GROUP BY tables.rowid"#;
        let tables = |statements: &&str| {
            let model = Connection::open_in_memory()?;
            model.execute_batch(statements)?;
            collect(&model, TABLES, &[], |row| Ok([row.get(0)?, row.get(1)?]))
        };
        Ok(Model { tables: self.versions.iter().map(tables).collect::<Result<_, _>>()? })
    }
}

/// The tables of a kind of file.
#[derive(Debug)]
pub struct Model {
    /// For each version the tables that it adds: the name, and the list of the columns.
    tables: Vec<Vec<[String; 2]>>,
}

impl Model {
    /// A query for all columns of each table that a version adds. If they can be prepared, a file
    /// has these tables.
    pub fn probes(&self, version: usize) -> impl Iterator<Item = String> {
        let tables = self.tables[version - 1].iter();
        tables.map(|[name, columns]| format!("SELECT {columns} FROM {name}"))
    }

    /// Statements that change all columns of each table that a version adds. If they can be
    /// prepared, this SQLite has what the file's triggers, indexes and defaults use.
    pub fn changes(&self, version: usize) -> impl Iterator<Item = String> {
        self.tables[version - 1].iter().flat_map(|[name, columns]| {
            [
                format!("INSERT INTO {name} DEFAULT VALUES"),
                format!("UPDATE {name} SET ({columns}) = ({columns})"),
                format!("DELETE FROM {name}"),
            ]
        })
    }
}

/// The first version of the channel database with tables of connections and of the generation of
/// address ids.
pub const CONNECTIONS_VERSION: usize = 2;

/// The first version of the usage database with a table of client versions.
pub const CLIENTS_VERSION: usize = 2;

/// The channel database.
pub const CHANNEL: Kind = Kind {
    name: "channel database",
    examined: &["nameplates", "nameplate_sides", "mailboxes", "mailbox_sides"],
    looked_into: &["messages"],
    versions: &[
        "
CREATE TABLE version (version INTEGER);
CREATE TABLE nameplates (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  app_id VARCHAR,
  name VARCHAR,
  mailbox_id VARCHAR REFERENCES mailboxes(id),
  request_id VARCHAR
);
CREATE INDEX nameplates_idx ON nameplates (app_id, name);
CREATE INDEX nameplates_mailbox_idx ON nameplates (app_id, mailbox_id);
CREATE INDEX nameplates_request_idx ON nameplates (app_id, request_id);
CREATE TABLE nameplate_sides (
  nameplates_id REFERENCES nameplates(id),
  claimed BOOLEAN,
  side VARCHAR,
  added INTEGER
);
CREATE TABLE mailboxes (
  app_id VARCHAR,
  id VARCHAR PRIMARY KEY,
  updated INTEGER,
  for_nameplate BOOLEAN
);
CREATE INDEX mailboxes_idx ON mailboxes (app_id, id);
CREATE TABLE mailbox_sides (
  mailbox_id REFERENCES mailboxes(id),
  opened BOOLEAN,
  side VARCHAR,
  added INTEGER,
  mood VARCHAR
);
CREATE TABLE messages (
  app_id VARCHAR,
  mailbox_id VARCHAR,
  side VARCHAR,
  phase VARCHAR,
  body VARCHAR,
  server_rx INTEGER,
  msg_id VARCHAR
);
CREATE INDEX messages_idx ON messages (app_id, mailbox_id);
",
        "
CREATE TABLE addrid_generation (generation INTEGER, started INTEGER);
CREATE TABLE connections (
  id INTEGER PRIMARY KEY AUTOINCREMENT,
  addrid_generation INTEGER,
  addrid_counter INTEGER,
  connected INTEGER,
  side VARCHAR,
  implementation VARCHAR,
  version VARCHAR,
  active INTEGER
);
CREATE TABLE connection_messages (
  id REFERENCES connections(id),
  \"when\" INTEGER,
  name VARCHAR
);
",
    ],
};

/// The usage database.
pub const USAGE: Kind = Kind {
    name: "usage database",
    examined: &[],
    looked_into: &[],
    versions: &[
        "
CREATE TABLE version (version INTEGER);
CREATE TABLE current (
  rebooted INTEGER,
  updated INTEGER,
  blur_time INTEGER,
  connections_websocket INTEGER
);
CREATE TABLE nameplates (
  app_id VARCHAR,
  started INTEGER,
  waiting_time INTEGER,
  total_time INTEGER,
  result VARCHAR
);
CREATE INDEX nameplates_idx ON nameplates (app_id, started);
CREATE TABLE mailboxes (
  app_id VARCHAR,
  for_nameplate BOOLEAN,
  started INTEGER,
  total_time INTEGER,
  waiting_time INTEGER,
  result VARCHAR
);
CREATE INDEX mailboxes_idx ON mailboxes (app_id, started);
CREATE INDEX mailboxes_result_idx ON mailboxes (result);
",
        "
CREATE TABLE client_versions (
  app_id VARCHAR,
  side VARCHAR,
  connect_time INTEGER,
  implementation VARCHAR,
  version VARCHAR
);
CREATE INDEX client_versions_time_idx ON client_versions (connect_time);
CREATE INDEX client_versions_appid_time_idx ON client_versions (app_id, connect_time);
",
    ],
};

/// The address-id database.
pub const ADDRID: Kind = Kind {
    name: "address-id database",
    examined: &[],
    looked_into: &[],
    versions: &["
CREATE TABLE version (version INTEGER);
CREATE TABLE address_ids (
  generation INTEGER,
  counter INTEGER,
  type VARCHAR,
  address VARCHAR,
  retain INTEGER
);
"],
};
