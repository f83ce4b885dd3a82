//! The statements of the channel database, prepared once, before the first command needs them.
//!
//! Those `…_BY_KEY` are for rows that are not where they were put.

pub const BEGIN: &str = "BEGIN IMMEDIATE";
pub const COMMIT: &str = "COMMIT";

pub const ADD_MAILBOX: &str =
    "INSERT INTO mailboxes (rowid, app_id, id, updated, for_nameplate) VALUES (?1, ?2, ?3, ?4, ?5)";
pub const TOUCH_MAILBOX: &str = "UPDATE mailboxes SET updated = ?1 WHERE rowid = ?2 AND id = ?3";
pub const TOUCH_MAILBOX_BY_KEY: &str = "UPDATE mailboxes SET updated = ?1 WHERE id = ?2";
pub const DELETE_MESSAGES: &str = "DELETE FROM messages WHERE app_id = ?1 AND mailbox_id = ?2";
pub const DELETE_MAILBOX_SIDE: &str =
    "DELETE FROM mailbox_sides WHERE rowid = ?1 AND mailbox_id = ?2";
pub const DELETE_MAILBOX_SIDES_BY_KEY: &str = "DELETE FROM mailbox_sides WHERE mailbox_id = ?1";
pub const DELETE_MAILBOX: &str = "DELETE FROM mailboxes WHERE rowid = ?1 AND id = ?2";
pub const DELETE_MAILBOX_BY_KEY: &str = "DELETE FROM mailboxes WHERE id = ?1";
pub const ADD_MAILBOX_SIDE: &str = "\
INSERT INTO mailbox_sides (rowid, mailbox_id, opened, side, added)
VALUES (?1, ?2, ?3, ?4, ?5)";
pub const CLOSE_MAILBOX_SIDE: &str = "\
UPDATE mailbox_sides SET opened = 0, mood = ?1
WHERE rowid = ?2 AND mailbox_id = ?3 AND side = ?4";
pub const CLOSE_MAILBOX_SIDE_BY_KEY: &str =
    "UPDATE mailbox_sides SET opened = 0, mood = ?1 WHERE mailbox_id = ?2 AND side = ?3";
pub const ADD_MESSAGE: &str = "\
INSERT INTO messages (app_id, mailbox_id, side, phase, body, server_rx, msg_id)
VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)";
pub const ADD_NAMEPLATE: &str =
    "INSERT INTO nameplates (id, app_id, name, mailbox_id) VALUES (?1, ?2, ?3, ?4)";
pub const DELETE_NAMEPLATE_SIDE: &str =
    "DELETE FROM nameplate_sides WHERE rowid = ?1 AND nameplates_id = ?2";
pub const DELETE_NAMEPLATE_SIDES_BY_KEY: &str =
    "DELETE FROM nameplate_sides WHERE nameplates_id = ?1";
pub const DELETE_NAMEPLATE: &str = "DELETE FROM nameplates WHERE id = ?1";
pub const ADD_NAMEPLATE_SIDE: &str = "\
INSERT INTO nameplate_sides (rowid, nameplates_id, claimed, side, added)
VALUES (?1, ?2, ?3, ?4, ?5)";
pub const RELEASE_NAMEPLATE_SIDE: &str =
    "UPDATE nameplate_sides SET claimed = 0 WHERE rowid = ?1 AND nameplates_id = ?2 AND side = ?3";
pub const RELEASE_NAMEPLATE_SIDE_BY_KEY: &str =
    "UPDATE nameplate_sides SET claimed = 0 WHERE nameplates_id = ?1 AND side = ?2";

/// All of them.
pub const ALL: [&str; 21] = [
    ADD_MAILBOX,
    TOUCH_MAILBOX,
    TOUCH_MAILBOX_BY_KEY,
    DELETE_MESSAGES,
    DELETE_MAILBOX_SIDE,
    DELETE_MAILBOX_SIDES_BY_KEY,
    DELETE_MAILBOX,
    DELETE_MAILBOX_BY_KEY,
    ADD_MAILBOX_SIDE,
    CLOSE_MAILBOX_SIDE,
    CLOSE_MAILBOX_SIDE_BY_KEY,
    ADD_MESSAGE,
    ADD_NAMEPLATE,
    DELETE_NAMEPLATE_SIDE,
    DELETE_NAMEPLATE_SIDES_BY_KEY,
    DELETE_NAMEPLATE,
    ADD_NAMEPLATE_SIDE,
    RELEASE_NAMEPLATE_SIDE,
    RELEASE_NAMEPLATE_SIDE_BY_KEY,
    BEGIN,
    COMMIT,
];
