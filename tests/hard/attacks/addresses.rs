//! Attacks by addresses and by what one address may do: prefixes, snipers, permissions, records,
//! the admin listener; and an office, which is none.

use std::collections::HashSet;
use std::net::{Ipv6Addr, TcpStream};
use std::time::{Duration, Instant};

use serde_json::{Value, json};

use super::crowd::{Crowd, bound, head, ping, subscriber, text};
use super::honest::{Honest, finish};
use super::{Attack, Field, holds};
use crate::common::sql;

/// An address in a /64 of 2001:db8::/32, whose third group is `site` and fourth `subnet`.
fn ipv6(site: u16, subnet: u16) -> String {
    Ipv6Addr::new(0x2001, 0xdb8, site, subnet, 0, 0, 0, 1).to_string()
}

/// A prefix spreads over its /64s.
pub struct Prefixes {
    /// Length of the prefix: 48 or 56.
    pub bits: u32,
    /// How many /64s; those of a /48 are in a /56 each.
    pub networks: u16,
    /// Connections from each /64: as many as it may have.
    pub each: usize,
    /// What the prefix may have: a /48 16 times as many, a /56 4 times.
    pub most: usize,
    pub options: Vec<String>,
}

impl Attack for Prefixes {
    fn name(&self) -> String {
        format!("a /{}: {} connections from each of {} /64", self.bits, self.each, self.networks)
    }

    fn options(&self) -> Vec<String> {
        self.options.clone()
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let site = field.network as u16;
        let subnet = |number: u16| number << (56 - self.bits);
        let subnets = (0..self.networks).flat_map(|it| vec![subnet(it); self.each]);
        let openings = subnets.map(|subnet| [head(&ipv6(site, subnet)), ping()].concat());
        let mut crowd = Crowd::gather(field, openings);
        crowd.settle();
        for other in 0..20 {
            Honest::connect(field.server.address, &ipv6(0x1000 + other, 0))?;
        }
        field.linger();
        let (alive, most) = (crowd.alive(), self.most);
        if alive > most {
            return Err(format!("{alive} connections of a /{}, not {most}", self.bits));
        }
        Ok(())
    }
}

/// Fills the table of addresses with prefixes; then others connect.
pub struct ManyPrefixes {
    pub count: u32,
}

impl Attack for ManyPrefixes {
    fn name(&self) -> String {
        format!("connects from {} prefixes of 48 bits", self.count)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        for some in (0..self.count).collect::<Vec<_>>().chunks(500) {
            let openings = some.iter().map(|number| {
                let (high, low) = ((number >> 16) as u16, *number as u16);
                let from = Ipv6Addr::new(0x2a00 + high, 1, low, 0, 0, 0, 0, 1);
                [head(&from.to_string()), ping()].concat()
            });
            Crowd::gather(field, openings).settle();
        }
        for number in 0..100 {
            Honest::connect(field.server.address, &format!("198.19.1.{number}"))?;
            Honest::connect(field.server.address, &ipv6(0x2000 + number, 0))?;
        }
        field.linger();
        Ok(())
    }
}

/// What a join costs: the head, `bind`, `claim` and `open`.
const JOIN_BYTES: usize = 500;

/// Lists nameplates and claims each new one before its receiver does.
pub struct Sniper {
    pub transfers: usize,
    /// It releases the nameplate at once, as the sender does when somebody speaks: then the
    /// receiver is not refused, but begins a nameplate of its own.
    pub releases: bool,
}

/// Joins that may keep a receiver out, and seconds until there may be one more.
const JOINS_MAX: usize = 10;
const JOIN_SECONDS: u64 = 30;

impl Attack for Sniper {
    fn name(&self) -> String {
        let how = if self.releases { " that leaves no trace" } else { "" };
        format!("a sniper on {} transfers{how}", self.transfers)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let (server, app) = (field.server.address, field.name("sniped"));
        let mut sniper = Honest::bind(server, &field.address(0), &app, "sniper")?;
        let (mut known, mut held) = (HashSet::new(), Vec::new());
        let (mut kept_out, begun) = (0, Instant::now());
        for number in 0..self.transfers {
            let from = |host: u8| format!("198.19.{host}.{}", number % 250);
            let mut one = Honest::bind(server, &from(2), &app, &format!("one-{number}"))?;
            let nameplate = one.begin()?;
            let list = sniper.ask(&json!({"type": "list"}), "nameplates")?;
            for id in list["nameplates"].as_array().into_iter().flatten() {
                let id = id["id"].as_str().unwrap_or_default().to_owned();
                if known.insert(id.clone()) {
                    let mut join =
                        Honest::bind(server, &field.address(0), &app, &format!("sniper-{number}"))?;
                    field.cost.note_connection(JOIN_BYTES);
                    if join.join(&id).is_ok() && self.releases && join.mailbox == one.mailbox {
                        join.add("pake")?;
                        join.ask(&json!({"type": "release"}), "released")?;
                        one.ask(&json!({"type": "release"}), "released")?;
                    }
                    held.push(join);
                }
            }
            let mut two = Honest::bind(server, &from(3), &app, &format!("two-{number}"))?;
            let outcome = two.join(&nameplate).and_then(|()| match one.mailbox == two.mailbox {
                true => finish(&mut one, &mut two),
                false => Err("alone, not crowded".to_owned()),
            });
            if let Err(error) = outcome {
                if !error.contains("crowded") {
                    return Err(format!("a transfer failed otherwise: {error}"));
                }
                kept_out += 1;
            }
            known.remove(&nameplate);
        }
        let most = JOINS_MAX + 1 + (begun.elapsed().as_secs() / JOIN_SECONDS) as usize;
        field.linger();
        if kept_out > most {
            return Err(format!("{kept_out} of {} receivers kept out", self.transfers));
        }
        Ok(())
    }
}

/// Pairs behind one address, all at once: all must be served.
pub struct Office {
    pub pairs: usize,
}

impl Attack for Office {
    fn name(&self) -> String {
        format!("no attack: an office of {} pairs", self.pairs)
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let (server, from) = (field.server.address, field.address(0));
        let app = field.name("office");
        let refused = |error: String, done: usize| {
            Err(format!("refused after {done} of {} pairs: {error}", self.pairs))
        };
        let mut begun = Vec::new();
        for _ in 0..self.pairs {
            let one = Honest::bind(server, &from, &app, "one").and_then(|mut one| {
                let nameplate = one.begin()?;
                Ok((one, nameplate))
            });
            match one {
                Ok(pair) => begun.push(pair),
                Err(error) => return refused(error, begun.len()),
            }
        }
        for (done, (mut one, nameplate)) in begun.into_iter().enumerate() {
            let outcome = Honest::bind(server, &from, &app, "two").and_then(|mut two| {
                two.join(&nameplate)?;
                finish(&mut one, &mut two)
            });
            if let Err(error) = outcome {
                return refused(error, done);
            }
        }
        field.linger();
        Ok(())
    }
}

/// Makes `--permission=auto` demand proofs from all.
pub struct AutoPermission {
    pub connections: usize,
}

impl Attack for AutoPermission {
    fn name(&self) -> String {
        format!("--permission=auto, and {} scary closes of one address", self.connections)
    }

    fn options(&self) -> Vec<String> {
        vec!["--permission=auto".to_owned()]
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let openings = (0..self.connections).map(|index| {
            let mailbox = format!("scary-{}", index / 2);
            let mut bytes =
                subscriber(&field.address(0), "scary", &format!("side-{}", index % 2), &mailbox);
            bytes.extend(text(&json!({"type": "close", "mood": "scary"})));
            bytes
        });
        Crowd::gather(field, openings).settle();
        let honest = Honest::connect(field.server.address, "198.19.4.1")?;
        field.linger();
        match &honest.welcome["welcome"]["permission-required"] {
            Value::Null => Ok(()),
            _ => Err("all clients must prove work".to_owned()),
        }
    }
}

/// Binds of one address fill the usage database.
pub struct UsageGrowth {
    pub connections: usize,
    /// What one address may add in an hour.
    pub rows: usize,
}

/// Longest name in the usage database, in bytes.
const USAGE_NAME_BYTES: i64 = 64;

impl Attack for UsageGrowth {
    fn name(&self) -> String {
        format!("--usage-db, and {} binds with long names", self.connections)
    }

    fn options(&self) -> Vec<String> {
        let connects = format!("--limit-address-connect-burst={}", self.connections);
        vec!["--usage-db=usage.sqlite".to_owned(), connects]
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let long = "x".repeat(250);
        let bind = json!({"type": "bind", "appid": long, "side": long,
            "client_version": [long.repeat(8), long.repeat(8)]});
        let opening = [head(&field.address(0)), text(&bind), ping()].concat();
        for some in (0..self.connections).collect::<Vec<_>>().chunks(100) {
            Crowd::gather(field, some.iter().map(|_| opening.clone())).settle();
        }
        // Records may lag by a second.
        field.linger();
        std::thread::sleep(Duration::from_secs(1));
        let usage = sql::open(&field.server.file("usage.sqlite"));
        let one = |query: &str| sql::query(&usage, query)[0][0].as_i64().unwrap_or(0);
        let rows = one("SELECT count(*) FROM client_versions WHERE app_id LIKE 'xxx%'");
        let longest = one("SELECT max(max(length(app_id), length(side), length(implementation), \
                           length(version))) FROM client_versions");
        if rows > self.rows as i64 || longest > USAGE_NAME_BYTES {
            return Err(format!("{rows} rows of one address, names of {longest} bytes"));
        }
        Ok(())
    }
}

/// Idle connections to the admin listener.
pub struct IdleAdmin;

/// As many as it takes.
const ADMIN_CONNECTIONS: usize = 8;

impl Attack for IdleAdmin {
    fn name(&self) -> String {
        format!("{ADMIN_CONNECTIONS} idle connections to the admin listener")
    }

    fn run(&self, field: &Field<'_>) -> Result<(), String> {
        let admin = field.server.admin_address();
        let until = field.until.max(Instant::now() + Duration::from_secs(1));
        let mut idle: Vec<TcpStream> = Vec::new();
        while Instant::now() < until {
            for _ in 0..ADMIN_CONNECTIONS {
                idle.extend(TcpStream::connect(admin));
                field.cost.note_connection(0);
            }
            std::thread::sleep(Duration::from_millis(200));
            idle.drain(..idle.len() - ADMIN_CONNECTIONS);
        }
        Ok(())
    }
}

/// Six connections from one address, and no more for long.
fn six_each() -> Vec<String> {
    let options = [
        "--limit-address-connections=6",
        "--limit-address-connect-burst=6",
        "--limit-address-connect-rate=0.01",
    ];
    options.map(str::to_owned).to_vec()
}

#[test]
fn a_48_has_sixteen_times_what_a_64_has() {
    holds(&Prefixes { bits: 48, networks: 40, each: 6, most: 16 * 6, options: six_each() });
}

#[test]
fn a_56_has_four_times_what_a_64_has() {
    holds(&Prefixes { bits: 56, networks: 20, each: 6, most: 4 * 6, options: six_each() });
}

#[test]
fn a_sniper_keeps_few_receivers_out() {
    holds(&Sniper { transfers: 20, releases: false });
    holds(&Sniper { transfers: 20, releases: true });
}

#[test]
fn an_office_is_not_an_attack() {
    holds(&Office { pairs: 60 });
}

#[test]
fn one_address_cannot_switch_permissions_on() {
    holds(&AutoPermission { connections: 22 });
}

#[test]
fn one_address_adds_few_rows_with_short_names_to_the_usage_database() {
    holds(&UsageGrowth { connections: 1200, rows: 1000 });
}

#[test]
fn idle_connections_to_the_admin_listener_do_not_hide_its_health() {
    holds(&IdleAdmin);
}

#[test]
fn an_attack_is_seen_by_the_driver() {
    let server = crate::common::Server::start(&["--limit-address-connections=3"]);
    let cost = super::Cost::default();
    let field =
        Field { server: &server, cost: &cost, until: Instant::now(), is_shared: false, network: 0 };
    let openings = (0..5).map(|_| [bound(&field.address(0), "app", "side"), ping()].concat());
    let mut crowd = Crowd::gather(&field, openings);
    crowd.settle();
    assert_eq!((crowd.accepted(), crowd.alive()), (3, 3));
}
