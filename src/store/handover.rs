//! Sessions as records, and back: the only state that is not in the database.

use std::rc::Rc;

use super::Store;
use super::session::{Identity, MailboxState, Session};
use crate::message::ConnId;
use crate::message::handover::{MailboxRecord, SessionRecord};
use crate::message::ledger::Holder;

impl Store {
    /// The session of a connection, if its handshake is complete.
    pub fn export_session(&self, conn: ConnId) -> Option<SessionRecord> {
        self.sessions.get(&conn).map(|session| session.export())
    }

    /// Restores a session: counts it in its app, and subscribes it to its mailbox. Nothing is
    /// replayed, and it does not count as activity.
    pub fn restore_session(&mut self, conn: ConnId, holder: Option<Holder>, record: SessionRecord) {
        let mut session = Session::restore(holder, record);
        session.reenter(&mut self.tables);
        session.resubscribe(&mut self.tables, conn);
        self.sessions.insert(conn, Box::new(session));
    }
}

impl Session {
    fn export(&self) -> SessionRecord {
        let identity = self.identity.as_ref();
        SessionRecord {
            identity: identity.map(|me| (me.app.to_string(), me.side.to_string())),
            allocated: self.allocated,
            claimed: self.claimed.as_deref().map(str::to_owned),
            released: self.released,
            mailbox: match &self.mailbox {
                MailboxState::Unopened => MailboxRecord::Unopened,
                MailboxState::Refused(id) => MailboxRecord::Refused(id.to_string()),
                MailboxState::Open(id) => MailboxRecord::Open(id.to_string()),
                MailboxState::Deleted(id) => MailboxRecord::Deleted(id.to_string()),
            },
            closed: self.closed,
        }
    }

    fn restore(holder: Option<Holder>, record: SessionRecord) -> Session {
        let identity = record.identity;
        Session {
            holder,
            identity: identity.map(|(app, side)| Identity {
                holder,
                app: app.into(),
                side: side.into(),
            }),
            allocated: record.allocated,
            claimed: record.claimed.map(Rc::from),
            released: record.released,
            mailbox: match record.mailbox {
                MailboxRecord::Unopened => MailboxState::Unopened,
                MailboxRecord::Refused(id) => MailboxState::Refused(id.into()),
                MailboxRecord::Open(id) => MailboxState::Open(id.into()),
                MailboxRecord::Deleted(id) => MailboxState::Deleted(id.into()),
            },
            closed: record.closed,
        }
    }
}
