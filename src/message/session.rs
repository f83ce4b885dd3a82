//! What a connection has done so far, for the rules that allow a command once a connection: all
//! that another process needs to go on with it.

use std::rc::Rc;

use crate::message::Holder;

/// The session of one connection, from its handshake to its end.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Session {
    /// To which its share of the store is charged; none if its address has no limits. Not handed
    /// over: the next process knows it by the address.
    pub holder: Option<Holder>,
    /// The app and side that it has bound to.
    pub identity: Option<(Rc<str>, Rc<str>)>,
    /// The client has sent a `bind` with all its fields, valid or not.
    pub has_tried_to_bind: bool,
    pub allocated: bool,
    /// The nameplate of its one claim, which may have been refused as crowded or reclaimed.
    pub claimed: Option<Rc<str>>,
    pub released: bool,
    pub mailbox: MailboxState,
    /// The one `close` is used up: the client may open another mailbox, but not close it.
    pub closed: bool,
}

/// The connection's mailbox.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum MailboxState {
    #[default]
    Unopened,
    /// Refused as crowded: what a `close` without a name is about, so that a confused client can
    /// leave.
    Refused(Rc<str>),
    /// Open and subscribed.
    Open(Rc<str>),
    /// It was open when its last side closed it on another connection.
    Deleted(Rc<str>),
}
