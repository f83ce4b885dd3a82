//! The model's connections: what each may do and has done (manual: protocol 3.2).

use wormhole_mailbox::message::ConnId;
use wormhole_mailbox::store::UsageRecord;
use wormhole_mailbox::sys::clock::Timestamp;

use crate::commands::{Arg, Ask, REPLACED, Reply, Sent, UPGRADED};
use crate::faults::Fault;
use crate::model::{Model, Refused};
use crate::rows::{Name, Stored};

/// Longest name, in bytes; longest nameplate, in digits.
const NAME_BYTES_MAX: usize = 256;
const DIGITS_MAX: usize = 40;
const DELETE_SEARCHED_MAX: usize = 256;

const UNAVAILABLE: &str = "server storage is unavailable, try again later";

/// Whether a connection has a mailbox open.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub enum Opened {
    #[default]
    No,
    Yes,
    /// Until another deleted it.
    Gone,
}

/// A connection.
#[derive(Clone, Debug)]
pub struct Client {
    pub conn: ConnId,
    /// The peer's address, as far as it is limited.
    pub address: Option<u8>,
    pub bound: Option<(Name, Name)>,
    /// A `bind` had all its fields.
    pub has_tried_to_bind: bool,
    pub allocated: bool,
    pub claimed: Option<Name>,
    pub released: bool,
    pub mailbox: Option<Name>,
    /// The mailbox it was refused last, as crowded; a close without a name is about that one.
    pub refused: Option<Name>,
    pub opened: Opened,
    pub closed: bool,
    /// Its `release` or `close` was refused while the storage did not work.
    pub is_refused_farewell: bool,
}

impl Client {
    fn name_to_release(&self, nameplate: &Arg) -> Result<Name, Refused> {
        if self.released {
            return Err("only one release per connection".into());
        }
        match (nameplate, &self.claimed) {
            (Arg::Absent, None) => Err("release without nameplate must follow claim".into()),
            (Arg::Absent, Some(claimed)) => Ok(claimed.clone()),
            (nameplate, Some(claimed)) if *nameplate != Arg::Text(claimed.clone()) => {
                Err("release and claim must use same nameplate".into())
            }
            _ => valid(nameplate, "release", "nameplate", |_| true),
        }
    }

    fn id_to_close(&self, mailbox: &Arg) -> Result<Name, Refused> {
        if self.closed {
            return Err("only one close per connection".into());
        }
        match (mailbox, &self.mailbox) {
            (Arg::Absent, None) => match &self.refused {
                Some(refused) => Ok(refused.clone()),
                None => Err("close without mailbox must follow open".into()),
            },
            (Arg::Absent, Some(opened)) => Ok(opened.clone()),
            (mailbox, Some(opened)) if *mailbox != Arg::Text(opened.clone()) => {
                Err("open and close must use same mailbox".into())
            }
            _ => valid(mailbox, "close", "mailbox", is_name),
        }
    }
}

impl Model {
    /// A connection has completed its handshake.
    pub fn connect(&mut self, conn: ConnId, address: Option<u8>) {
        self.clients.push(Client {
            conn,
            address,
            bound: None,
            has_tried_to_bind: false,
            allocated: false,
            claimed: None,
            released: false,
            mailbox: None,
            refused: None,
            opened: Opened::No,
            closed: false,
            is_refused_farewell: false,
        });
        self.tell(conn, Reply::Bytes(UPGRADED));
        self.tell(conn, Reply::Welcome { error: self.is_degraded });
    }

    pub fn disconnect(&mut self, conn: ConnId) {
        self.clients.retain(|client| client.conn != conn);
    }

    pub fn client(&self, conn: ConnId) -> Option<&Client> {
        self.clients.iter().find(|client| client.conn == conn)
    }

    pub fn tell(&mut self, conn: ConnId, reply: Reply) {
        self.expected.push((conn, reply));
    }

    /// A command comes.
    pub fn command(&mut self, conn: ConnId, sent: &Sent) {
        let Some(place) = self.clients.iter().position(|client| client.conn == conn) else {
            self.complaints.push(format!("{conn} is not known"));
            return;
        };
        let without_ack = match sent.ask {
            Ask::WithoutType => Some(Reply::error("missing 'type'", &sent.text)),
            // What is shown is text, not a command; the texts are short enough not to be cut.
            Ask::NotAnObject | Ask::NotJson => Some(Reply::error("message must be …", &sent.text)),
            _ => None,
        };
        if let Some(reply) = without_ack {
            self.tell(conn, reply);
            return;
        }
        self.tell(conn, Reply::Ack(sent.id.unwrap_or("null").into()));
        let is_farewell = matches!(sent.ask, Ask::Release(_) | Ask::Close { .. });
        if is_farewell && self.clients[place].bound.is_none() {
            let is_close = matches!(sent.ask, Ask::Close { .. });
            // Degraded: the welcome had an error.
            if self.clients[place].has_tried_to_bind || self.is_degraded && is_close {
                self.tell(conn, if is_close { Reply::Closed } else { Reply::Released });
                return;
            }
        }
        if self.is_degraded && is_farewell {
            let client = self.clients[place].clone();
            let is_refused = !Self::is_out_of_order(&client, &sent.ask)
                && self.leaves_something(&client, &sent.ask);
            self.clients[place].is_refused_farewell |= is_refused;
        }
        let mut client = self.clients[place].clone();
        let was_subscribed = client.opened == Opened::Yes;
        let outcome = self.check(&client, &sent.ask).and_then(|()| self.perform(&mut client, sent));
        // A close may have ended this client's own subscription, which it knows itself; not so if
        // its mailbox had to go.
        let is_gone = self.clients[place].opened == Opened::Gone;
        if was_subscribed && is_gone && client.opened == Opened::Yes {
            client.opened = Opened::Gone;
        }
        self.clients[place] = client;
        match outcome {
            Ok(Some(reply)) => self.tell(conn, reply),
            Ok(None) => {}
            Err(refused) => self.tell(conn, Reply::Error(refused, sent.text.clone())),
        }
    }

    /// Whether a `release` or `close` is about what the side holds, as far as that is known.
    fn leaves_something(&mut self, client: &Client, ask: &Ask) -> bool {
        if self.is_blind {
            return true;
        }
        let Some((app, side)) = &client.bound else { return false };
        let (named, known) = match ask {
            Ask::Release(_) if client.released => return false,
            Ask::Close { .. } if client.closed => return false,
            Ask::Release(nameplate) => (nameplate, client.claimed.clone()),
            Ask::Close { mailbox, .. } if client.mailbox.is_some() => {
                (mailbox, client.mailbox.clone())
            }
            Ask::Close { mailbox: Arg::Absent, .. } => (&Arg::Absent, client.refused.clone()),
            Ask::Close { mailbox, .. } => (mailbox, None),
            _ => return false,
        };
        let name = match (named, known) {
            (Arg::Absent, Some(known)) => known,
            (Arg::Text(name), None) => name.clone(),
            (Arg::Text(name), Some(known)) if *name == known => known,
            _ => return false,
        };
        if matches!(ask, Ask::Release(_)) {
            let nameplate = self.nameplate(app, &name);
            return nameplate
                .is_some_and(|it| it.sides.iter().any(|known| known.side == *side && known.holds));
        }
        self.mailbox(&name).is_some_and(|mailbox| {
            mailbox.app == *app && mailbox.sides.iter().take(2).any(|known| known.side == *side)
        })
    }

    /// What a connection may not do in any case, for what it has done so far or does not name.
    fn is_out_of_order(client: &Client, ask: &Ask) -> bool {
        let is = |arg: &Arg, rule: fn(&str) -> bool| matches!(arg, Arg::Text(text) if rule(text));
        match ask {
            Ask::Ping(_) | Ask::SubmitPermissions => false,
            Ask::Bind { .. } => client.bound.is_some(),
            _ if client.bound.is_none() => true,
            Ask::Allocate => client.allocated,
            Ask::Claim(nameplate, _) => client.claimed.is_some() || !is(nameplate, is_nameplate),
            Ask::Open(mailbox) => client.opened == Opened::Yes || !is(mailbox, is_name),
            Ask::Release(nameplate) => client.name_to_release(nameplate).is_err(),
            Ask::Add { .. } | Ask::Delete { .. } => client.opened != Opened::Yes,
            Ask::Close { mailbox, mood } => {
                client.id_to_close(mailbox).is_err() || mood_of(mood).is_err()
            }
            _ => false,
        }
    }

    /// Storage and limits come before the protocol's other rules.
    fn check(&mut self, client: &Client, ask: &Ask) -> Result<(), Refused> {
        if Self::is_out_of_order(client, ask) {
            return Ok(());
        }
        let changes = matches!(
            ask,
            Ask::Allocate
                | Ask::Claim(..)
                | Ask::Release(_)
                | Ask::Open(_)
                | Ask::Add { .. }
                | Ask::Close { .. }
        ) || self.settings.delete && matches!(ask, Ask::Delete { .. });
        let is_idle = matches!(ask, Ask::Release(_))
            && client.bound.is_some()
            && !self.leaves_something(client, ask);
        if (self.is_degraded && changes && !is_idle) || (self.is_blind && *ask == Ask::List) {
            return Err(UNAVAILABLE.into());
        }
        let Some(address) = client.address else { return Ok(()) };
        let creates = match ask {
            Ask::Allocate => true,
            Ask::Claim(Arg::Text(name), allocate) if is_nameplate(name) => {
                let may = *allocate != Some("false") || !self.settings.claim_without_allocate;
                may && match &client.bound {
                    Some((app, _)) => self.nameplate(app, name).is_none(),
                    None => true,
                }
            }
            _ => false,
        };
        let has_too_many = |(holder, factor)| {
            let counts = |by: &Option<u8>| by.is_some_and(|by| self.counts_for(by, holder));
            let lives = self.creators.iter().filter(|(_, _, by)| counts(by)).count();
            lives >= factor * self.settings.address_nameplates_max
        };
        if creates && self.holders(address).into_iter().any(has_too_many) {
            return Err("too many nameplates from your address…".into());
        }
        match ask {
            Ask::Claim(Arg::Text(name), _) if is_nameplate(name) => {
                self.check_join(client, address, name)
            }
            _ => Ok(()),
        }
    }

    fn perform(&mut self, client: &mut Client, sent: &Sent) -> Result<Option<Reply>, Refused> {
        match &sent.ask {
            Ask::Ping(None) => return Err("ping requires 'ping'".into()),
            Ask::Ping(Some(value)) => return Ok(Some(Reply::Pong((*value).into()))),
            Ask::SubmitPermissions => return Ok(None),
            Ask::Bind { app, side } => return self.bind(client, app, side).map(|()| None),
            _ => {}
        }
        let Some((app, side)) = client.bound.clone() else { return Err("must bind first".into()) };
        match &sent.ask {
            Ask::List if !self.settings.allow_list => Ok(Some(Reply::Nameplates(Vec::new()))),
            Ask::List => Ok(Some(Reply::Nameplates(self.list(&app)))),
            Ask::Allocate => {
                if client.allocated {
                    return Err("you already allocated one, don't be greedy".into());
                }
                let name = self.allocate(&app, &side, client.address)?;
                client.allocated = true;
                Ok(Some(Reply::Allocated(name)))
            }
            Ask::Claim(nameplate, allocate) => {
                present(nameplate, "claim requires 'nameplate'")?;
                if client.claimed.is_some() {
                    return Err("only one claim per connection".into());
                }
                let name = valid(nameplate, "claim", "nameplate", is_nameplate)?;
                match allocate {
                    Some(json) if self.settings.claim_without_allocate => match *json {
                        "false" if self.nameplate(&app, &name).is_none() => {
                            return Err("unallocated".into());
                        }
                        "true" | "false" => {}
                        _ => return Err("claim requires 'allocate' to be true or false".into()),
                    },
                    _ => {}
                }
                let place = self.place_of(&app, &name, &side);
                let outcome = self.claim(&app, &name, &side, client.address);
                if let Ok(mailbox) = &outcome {
                    self.note_claim(client, place, (&app, &name), mailbox, &side);
                }
                let uses_up = match &outcome {
                    Ok(_) => true,
                    Err(refused) => matches!(&**refused, "crowded" | "reclaimed"),
                };
                client.claimed = uses_up.then_some(name);
                outcome.map(|mailbox| Some(Reply::Claimed(mailbox)))
            }
            Ask::Release(nameplate) => {
                let name = client.name_to_release(nameplate)?;
                self.release(&app, &name, &side);
                client.released = true;
                Ok(Some(Reply::Released))
            }
            Ask::Open(mailbox) => self.open_here(client, &app, &side, mailbox).map(|()| None),
            Ask::Add { phase, body } => {
                self.add_here(client, &side, phase, body, sent.id).map(|()| None)
            }
            Ask::Delete { phase, side: their_side } if self.settings.delete => {
                self.delete_here(client, &side, phase, their_side).map(|()| None)
            }
            Ask::Close { mailbox, mood } => {
                self.close_here(client, &app, &side, mailbox, mood)?;
                Ok(Some(Reply::Closed))
            }
            _ => Err("unknown type".into()),
        }
    }

    fn bind(&mut self, client: &mut Client, app: &Arg, side: &Arg) -> Result<(), Refused> {
        if client.bound.is_some() {
            return Err("already bound".into());
        }
        present(app, "bind requires 'appid'")?;
        present(side, "bind requires 'side'")?;
        client.has_tried_to_bind = true;
        let app = valid(app, "bind", "appid", is_name)?;
        let side = valid(side, "bind", "side", is_name)?;
        client.bound = Some((app.clone(), side.clone()));
        self.usage.push(UsageRecord::ClientVersion {
            app,
            side,
            connect_time: Timestamp(self.blurred(self.now())),
            implementation: None,
            version: None,
        });
        Ok(())
    }

    fn open_here(
        &mut self,
        client: &mut Client,
        app: &Name,
        side: &Name,
        mailbox: &Arg,
    ) -> Result<(), Refused> {
        if client.opened == Opened::Yes {
            return Err("only one open per connection".into());
        }
        present(mailbox, "open requires 'mailbox'")?;
        let id = valid(mailbox, "open", "mailbox", is_name)?;
        self.make_room_to_open(app, &id, side, client.address)?;
        let outcome = self.open(app, &id, side, client.address);
        if outcome == Err("crowded".into()) {
            client.refused = Some(id.clone());
        }
        outcome?;
        client.mailbox = Some(id.clone());
        client.opened = Opened::Yes;
        self.replace_oldest(app, &id, side, client.conn);
        self.shares.claim_loaded(&id, client.address);
        let Some(mailbox) = self.mailbox(&id) else { return Ok(()) };
        let messages = mailbox.messages.clone();
        if !messages.is_empty() {
            let begin = self.expected.len();
            self.replayed.push((id, begin..begin + messages.len()));
        }
        for message in messages {
            self.tell(client.conn, told(message));
        }
        Ok(())
    }

    /// A side with too many subscriptions to a mailbox loses the oldest.
    fn replace_oldest(&mut self, app: &Name, id: &Name, side: &Name, new: ConnId) {
        let most = self.settings.subscribers_per_side_max;
        let most = most + usize::from(self.fault == Some(Fault::ReplacesLate));
        let me = Some((app.clone(), side.clone()));
        let is_subscribed = |client: &&mut Client| {
            client.conn != new
                && client.opened == Opened::Yes
                && client.mailbox.as_ref() == Some(id)
                && client.bound == me
        };
        let mut others: Vec<&mut Client> = self.clients.iter_mut().filter(is_subscribed).collect();
        if others.len() >= most
            && let Some(oldest) = others.iter_mut().min_by_key(|client| client.conn)
        {
            oldest.opened = Opened::Gone;
            self.shares.closings.push((oldest.conn, Reply::Bytes(REPLACED)));
        }
    }

    fn add_here(
        &mut self,
        client: &mut Client,
        side: &Name,
        phase: &Arg,
        body: &Arg,
        id: Option<&str>,
    ) -> Result<(), Refused> {
        let (Opened::Yes, Some(mailbox)) = (client.opened, client.mailbox.clone()) else {
            return Err("must open mailbox before adding".into());
        };
        present(phase, "missing 'phase'")?;
        present(body, "missing 'body'")?;
        // Stored as text: what a string says, or the JSON of anything else.
        let json = id.filter(|json| *json != "null");
        let stored = Stored {
            side: side.clone(),
            phase: valid(phase, "add", "phase", is_name)?,
            body: valid(body, "add", "body", |_| true)?,
            server_rx: self.times.wall,
            id: json.map(|json| json.trim_matches('"').into()),
        };
        self.add(&mailbox, stored.clone(), client.address)?;
        self.join_message(&mailbox, &stored, client.address);
        for listener in self.clients.clone() {
            if listener.opened == Opened::Yes && listener.mailbox.as_ref() == Some(&mailbox) {
                self.tell(listener.conn, told(stored.clone()));
            }
        }
        Ok(())
    }

    fn delete_here(
        &mut self,
        client: &Client,
        side: &Name,
        phase: &Arg,
        their_side: &Arg,
    ) -> Result<(), Refused> {
        let (Opened::Yes, Some(mailbox)) = (client.opened, client.mailbox.clone()) else {
            return Err("must open mailbox before DELETE-ing".into());
        };
        present(phase, "delete is missing argument 'their-phase'")?;
        present(their_side, "delete is missing argument 'their-side'")?;
        let phase = valid(phase, "delete", "their-phase", is_name)?;
        let their_side = valid(their_side, "delete", "their-side", is_name)?;
        if their_side == *side {
            return Ok(());
        }
        let is_it = |it: &Stored| it.side == their_side && it.phase == phase;
        let mut gone = Vec::new();
        if let Some(mailbox) = self.mailbox(&mailbox) {
            let looked_at = mailbox.messages.len().min(DELETE_SEARCHED_MAX);
            let rest = mailbox.messages.split_off(looked_at);
            (gone, mailbox.messages) = mailbox.messages.drain(..).partition(is_it);
            mailbox.messages.extend(rest);
        }
        // A replay that has not been sent goes without them.
        let gone: Vec<Reply> = gone.into_iter().map(told).collect();
        for (_, places) in self.replayed.iter().filter(|(replayed, _)| *replayed == mailbox) {
            for (_, reply) in &mut self.expected[places.clone()] {
                if gone.contains(reply) {
                    *reply = Reply::Nothing;
                }
            }
        }
        Ok(())
    }

    fn close_here(
        &mut self,
        client: &mut Client,
        app: &Name,
        side: &Name,
        mailbox: &Arg,
        mood: &Arg,
    ) -> Result<(), Refused> {
        let id = client.id_to_close(mailbox)?;
        let mood = mood_of(mood)?;
        match client.opened {
            Opened::Yes => self.close(&id, side, mood),
            // As 0.8.0: a new one of that name, if this side has it open, is closed.
            Opened::Gone => {
                let is_served = self.mailbox(&id).is_some_and(|mailbox| {
                    mailbox.app == *app
                        && mailbox.sides.iter().take(2).any(|known| known.side == *side)
                });
                if is_served {
                    self.close(&id, side, mood);
                }
            }
            Opened::No => match self.open(app, &id, side, client.address) {
                Ok(()) => self.close(&id, side, mood),
                Err(refused) if *refused == *"crowded" => {}
                Err(refused) => return Err(refused),
            },
        }
        (client.opened, client.closed) = (Opened::No, true);
        Ok(())
    }
}

/// A message as it is sent, live and replayed alike: its `id` is a string or null.
fn told(message: Stored) -> Reply {
    let Stored { side, phase, body, server_rx, id } = message;
    let id = id.map_or("null".into(), |id| format!("\"{id}\"").into());
    Reply::Message { side, phase, body, server_rx, id }
}

fn is_name(text: &str) -> bool {
    text.len() <= NAME_BYTES_MAX
}

fn is_nameplate(text: &str) -> bool {
    (1..=DIGITS_MAX).contains(&text.len()) && text.bytes().all(|byte| byte.is_ascii_digit())
}

fn present(arg: &Arg, refused: &str) -> Result<(), Refused> {
    if *arg == Arg::Absent { Err(refused.into()) } else { Ok(()) }
}

/// The mood of a `close`; `null` is none.
fn mood_of(arg: &Arg) -> Result<Option<Name>, Refused> {
    match arg {
        Arg::Absent => Ok(None),
        Arg::Bad(json) if **json == *"null" => Ok(None),
        mood => valid(mood, "close", "mood", is_name).map(Some),
    }
}

/// The text of a field, or the sentence that names the field and the rule.
fn valid(
    arg: &Arg,
    command: &str,
    field: &str,
    rule: impl Fn(&str) -> bool,
) -> Result<Name, Refused> {
    match arg {
        Arg::Text(text) if rule(text) => Ok(text.clone()),
        Arg::Absent => Err(format!("{command} requires '{field}'").into()),
        _ => Err(format!("{command} requires '{field}' to be …").into()),
    }
}
