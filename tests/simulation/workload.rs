//! What happens in a run: settings, weights, and the next command of a client.
//!
//! Each run leaves some operations out altogether (swarm testing): what is rare in a mixture of
//! everything, such as a mailbox that nobody closes, becomes common in a run without `close`.

use wormhole_mailbox::message::ConnId;
use wormhole_mailbox::sys::clock::Seconds;

use crate::commands::{Arg, Ask, Sent};
use crate::model::Model;
use crate::random::Random;
use crate::rows::Name;
use crate::sessions::{Client, Opened};
use crate::world::ADDRESSES_MAX;

/// What an operator may have set.
#[derive(Clone, Debug)]
pub struct Settings {
    pub expire_after: Seconds,
    pub expire_check: Seconds,
    pub blur: Option<Seconds>,
    pub allow_list: bool,
    pub claim_without_allocate: bool,
    pub delete: bool,
    pub nameplate_cooldown: Seconds,
    pub mailbox_bytes_max: usize,
    pub mailbox_messages_max: usize,
    pub stored_bytes_max: usize,
    pub address_nameplates_max: usize,
    pub address_join_burst: usize,
    pub deletions_per_tick_max: usize,
    pub subscribers_per_side_max: usize,
}

/// Kinds of commands that a client sends without any plan.
const KINDS: usize = 14;

/// One run's mixture.
#[derive(Clone, Debug)]
pub struct Swarm {
    pub settings: Settings,
    pub ticks: usize,
    pub events_per_tick: usize,
    pub clients_max: usize,
    /// Peer addresses that are limited.
    pub addresses: usize,
    /// Apps and sides to choose from; few sides make crowds.
    pub apps: usize,
    pub sides: usize,
    /// Whether there is a usage database.
    pub records_usage: bool,
    /// Per mille of events.
    pub plans: usize,
    pub connects: usize,
    pub leaves: usize,
    pub kinds: [usize; KINDS],
    /// Per mille of ticks.
    pub failures: usize,
    pub crashes: usize,
    pub takeovers: usize,
    pub jumps: usize,
    pub steps: usize,
    pub boundaries: usize,
    pub floods: usize,
}

impl Swarm {
    pub fn new(random: &mut Random) -> Swarm {
        let some = |random: &mut Random, per_mille: usize, value: usize| {
            if random.chance(per_mille) { value } else { 0 }
        };
        let mut settings = Settings {
            expire_after: random.pick(&[660.0, 660.0, 30.0]),
            expire_check: random.pick(&[300.0, 300.0, 10.0]),
            blur: random.pick(&[None, Some(60.0)]),
            allow_list: random.chance(850),
            claim_without_allocate: random.chance(500),
            delete: false,
            nameplate_cooldown: random.pick(&[0.0, 0.0, 30.0, 900.0]),
            mailbox_bytes_max: random.pick(&[16 << 20, 20_000, 1_000]),
            mailbox_messages_max: random.pick(&[10_000, 4]),
            stored_bytes_max: random.pick(&[128 << 20, 128 << 20, 40_000, 80_000]),
            subscribers_per_side_max: random.pick(&[8, 2, 1]),
            deletions_per_tick_max: 1_000,
            address_nameplates_max: random.pick(&[100_000, 100_000, 2, 1]),
            address_join_burst: random.pick(&[100_000, 1, 2]),
        };
        // What a failed tick has noted of joins is not undone.
        let can_fail = settings.address_join_burst > 2;
        let steps = some(random, 300, 60);
        // When the store is full, how much of it is on its way out is not foreseen.
        let has_room = settings.stored_bytes_max > 1 << 20;
        // To whom it is given back would have to be foreseen, too.
        settings.delete = has_room && settings.claim_without_allocate;
        let deletions_per_tick_max = if has_room { random.pick(&[1_000, 2]) } else { 1_000 };
        let settings = Settings { deletions_per_tick_max, ..settings };
        let address_nameplates_max = settings.address_nameplates_max;
        Swarm {
            settings,
            ticks: 60 + random.below(180),
            events_per_tick: random.pick(&[1, 3, 10]),
            clients_max: random.pick(&[4, 16, 60]),
            addresses: match address_nameplates_max {
                1 => ADDRESSES_MAX,
                _ => random.pick(&[2, 3, ADDRESSES_MAX]),
            },
            apps: 1 + random.below(2),
            sides: 2 + random.below(4),
            records_usage: random.chance(125),
            plans: random.pick(&[300, 600, 950]),
            connects: 60 + random.below(200),
            leaves: some(random, 800, 60),
            kinds: std::array::from_fn(|kind| {
                // Without `bind` nothing else happens, so it is never left out.
                if kind == 0 || random.chance(750) { 1 + random.below(10) } else { 0 }
            }),
            failures: if can_fail { some(random, 750, 60) } else { 0 },
            crashes: some(random, 500, 40),
            takeovers: some(random, 300, 60),
            jumps: some(random, 600, 40),
            steps,
            boundaries: some(random, 600, 60),
            floods: some(random, 60, 12),
        }
    }

    /// The next command of a client: what an honest one would do now, or anything.
    pub fn command(&self, model: &Model, conn: ConnId, random: &mut Random) -> Option<Sent> {
        let client = model.client(conn)?;
        let id = random.pick(&[None, Some("\"ab12\""), Some("7"), Some("null"), Some("[1.5, {}]")]);
        let plan = if random.chance(self.plans) { self.plan(model, client, random) } else { None };
        Some(Sent::new(id, plan.unwrap_or_else(|| self.whim(model, client, random))))
    }

    /// The next step of an honest exchange.
    fn plan(&self, model: &Model, client: &Client, random: &mut Random) -> Option<Ask> {
        let Some((app, side)) = &client.bound else { return Some(self.bind(random)) };
        let is_left_out = |kind: usize| self.kinds[kind] == 0;
        let plates = || model.rows.nameplates.iter().filter(|nameplate| nameplate.app == *app);
        let own = plates().find(|it| it.sides.iter().any(|known| known.side == *side));
        if client.claimed.is_none() && !is_left_out(3) {
            return match own.or_else(|| plates().next_back()) {
                Some(nameplate) => Some(Ask::Claim(Arg::Text(nameplate.name.clone()), None)),
                None if !client.allocated && !is_left_out(2) => Some(Ask::Allocate),
                None => Some(Ask::Claim(Arg::text("4"), None)),
            };
        }
        match client.opened {
            Opened::Yes if !is_left_out(6) && random.chance(700) => Some(self.add(random)),
            Opened::Yes if !client.released && !is_left_out(4) => Some(Ask::Release(Arg::Absent)),
            Opened::Yes if !is_left_out(7) && !client.closed => {
                Some(Ask::Close { mailbox: Arg::Absent, mood: mood(random) })
            }
            Opened::No if !client.closed && !is_left_out(5) => {
                let claimed = client.claimed.as_ref()?;
                let nameplate = plates().find(|nameplate| nameplate.name == *claimed)?;
                Some(Ask::Open(Arg::Text(nameplate.mailbox.clone())))
            }
            _ => None,
        }
    }

    /// Anything.
    fn whim(&self, model: &Model, client: &Client, random: &mut Random) -> Ask {
        match random.weighted(&self.kinds) {
            0 => self.bind(random),
            1 => Ask::List,
            2 => Ask::Allocate,
            3 => {
                let allocate = random.pick(&[None, None, Some("true"), Some("false"), Some("0")]);
                Ask::Claim(some_nameplate(model, client, random), allocate)
            }
            4 if random.chance(500) => Ask::Release(Arg::Absent),
            4 => Ask::Release(some_nameplate(model, client, random)),
            5 => Ask::Open(some_mailbox(model, client, random)),
            6 if self.settings.delete && random.chance(400) => self.delete(random),
            6 => self.add(random),
            7 if random.chance(400) => Ask::Close { mailbox: Arg::Absent, mood: mood(random) },
            7 => Ask::Close { mailbox: some_mailbox(model, client, random), mood: mood(random) },
            8 => Ask::Ping(random.pick(&[None, Some("0.10"), Some("\"x\""), Some("[{}]")])),
            9 => Ask::SubmitPermissions,
            10 => Ask::Unknown,
            11 => Ask::WithoutType,
            12 => Ask::NotAnObject,
            _ => Ask::NotJson,
        }
    }

    fn bind(&self, random: &mut Random) -> Ask {
        let app = Arg::Text(format!("app-{}", random.below(self.apps)).into());
        let side = Arg::Text(format!("side-{}", random.below(self.sides)).into());
        Ask::Bind { app: mostly(app, random), side: mostly(side, random) }
    }

    fn delete(&self, random: &mut Random) -> Ask {
        let phase = Arg::text(random.pick(&["pake", "version", "0", "1"]));
        let side = Arg::Text(format!("side-{}", random.below(self.sides)).into());
        Ask::Delete { phase: mostly(phase, random), side: mostly(side, random) }
    }

    fn add(&self, random: &mut Random) -> Ask {
        let phase = Arg::text(random.pick(&["pake", "version", "0", "1"]));
        let most = random.pick(&[10, 10, 10, 10, 10, 10, 500]);
        let body = Arg::Text(format!("{:x}", random.next()).repeat(1 + random.below(most)).into());
        Ask::Add { phase: mostly(phase, random), body: mostly_any(body, random) }
    }
}

fn mood(random: &mut Random) -> Arg {
    let moods = ["happy", "happy", "lonely", "errory", "scary", "curious"];
    let mood = Arg::text(random.pick(&moods));
    if random.chance(100) { Arg::Bad("null".into()) } else { mostly(mood, random) }
}

/// A nameplate of the client's app, one that others use, or nonsense.
fn some_nameplate(model: &Model, client: &Client, random: &mut Random) -> Arg {
    let mut names: Vec<Name> = ["1", "2", "4", "04", "77", "1000"].map(Name::from).to_vec();
    names.extend(client.claimed.clone());
    names.extend(model.rows.nameplates.iter().rev().take(5).map(|it| it.name.clone()));
    let name = Arg::Text(random.pick(&names));
    match random.below(40) {
        0 => Arg::text(""),
        1 => Arg::text("4a"),
        2 => Arg::Text("4".repeat(41).into()),
        3 => Arg::Text("4".repeat(40).into()),
        _ => mostly_any(name, random),
    }
}

/// A mailbox that is there (of any app), one that was, or one that may be.
fn some_mailbox(model: &Model, client: &Client, random: &mut Random) -> Arg {
    let mut names: Vec<Name> = ["mailbox-a", "mailbox-b", "mailbox-c"].map(Name::from).to_vec();
    names.extend(client.mailbox.clone());
    let mailboxes = &model.rows.mailboxes;
    if !mailboxes.is_empty() {
        names.extend((0..3).map(|_| mailboxes[random.below(mailboxes.len())].id.clone()));
    }
    mostly(Arg::Text(random.pick(&names)), random)
}

/// Now and then absent, of another type, or too long.
fn mostly(arg: Arg, random: &mut Random) -> Arg {
    match random.below(60) {
        0 => Arg::Text("x".repeat(257).into()),
        1 => Arg::Text("x".repeat(256).into()),
        _ => mostly_any(arg, random),
    }
}

/// Now and then absent or of another type.
fn mostly_any(arg: Arg, random: &mut Random) -> Arg {
    match random.below(60) {
        0 => Arg::Absent,
        1 => Arg::Bad(random.pick(&["3", "[]", "\"\\ud800\""]).into()),
        _ => arg,
    }
}
