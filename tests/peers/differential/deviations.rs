//! Where this server deliberately differs from 0.8.0: such commands are not sent. What would happen
//! is read from the reference server's own database, which holds all of its state.

use rusqlite::{Connection, params};

/// The reference server's channel database.
pub struct Reference(pub Connection);

impl Reference {
    fn count(&self, query: &str, parameters: impl rusqlite::Params) -> u32 {
        let mut statement = self.0.prepare_cached(query).expect("query");
        statement.query_row(parameters, |row| row.get(0)).expect("a count")
    }

    pub fn has_nameplate(&self, app: &str, name: &str) -> bool {
        let rows = "SELECT count(*) FROM nameplates WHERE app_id = ? AND name = ?";
        self.count(rows, [app, name]) > 0
    }

    pub fn has_mailbox(&self, id: &str) -> bool {
        self.count("SELECT count(*) FROM mailboxes WHERE id = ?", [id]) > 0
    }

    /// Whether an open by this side differs: a third side locks the others out of 0.8.0, and a
    /// mailbox of another app makes it drop the connection.
    pub fn open_differs(&self, app: &str, id: &str, side: &str) -> bool {
        let elsewhere = "SELECT count(*) FROM mailboxes WHERE id = ? AND app_id <> ?";
        let others = "SELECT count(*) FROM mailbox_sides WHERE mailbox_id = ? AND side <> ?";
        self.count(elsewhere, [id, app]) > 0 || self.count(others, [id, side]) >= 2
    }

    /// Whether a claim by this side differs: as with `open`.
    pub fn claim_differs(&self, app: &str, name: &str, side: &str) -> bool {
        let holders = "SELECT count(*) FROM nameplate_sides JOIN nameplates ON id = nameplates_id
                       WHERE app_id = ? AND name = ? AND side <> ?";
        let openers = "SELECT count(*) FROM mailbox_sides JOIN nameplates USING (mailbox_id)
                       WHERE app_id = ? AND name = ? AND side <> ?";
        [holders, openers].into_iter().any(|others| self.count(others, [app, name, side]) >= 2)
    }

    /// Whether a close by this side, if it is the last one, differs: 0.8.0 fails when another side
    /// is on record with the mailbox's nameplate, and when not it deletes the side's claims on
    /// all other nameplates too.
    pub fn close_differs(&self, id: &str, side: &str) -> bool {
        let open =
            "SELECT count(*) FROM mailbox_sides WHERE mailbox_id = ? AND opened AND side <> ?";
        let fails = "SELECT count(*) FROM nameplate_sides JOIN nameplates ON id = nameplates_id
                     WHERE mailbox_id = ? AND side <> ?";
        let hits_others = "SELECT count(*) FROM nameplate_sides
                           JOIN nameplates ON id = nameplates_id
                           WHERE mailbox_id <> ? AND side = ?";
        self.count(open, params![id, side]) == 0
            && (self.count(fails, [id, side]) > 0 || self.count(hits_others, [id, side]) > 0)
    }
}
