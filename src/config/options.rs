//! The table of the server's options: one row an option.
//!
//! Parsing, `--help`, the manual page, the completions, the option reference and the reloading are
//! made from it. Options are applied in the order of the table, so a row may rely on the rows
//! above it.

use super::members::Members;
use super::permission::Mode;
use super::spec::Arity::{Flag, Many, Once, Optional};
use super::spec::ShownDefault::{Each, Number, Text, Unset};
use super::spec::{Action, Group, Row, rows};
use super::{values, websocket_options, welcome_files};
use crate::limits::{self, HASHCASH_BITS_MAX, HASHCASH_BITS_MIN, LimitRow};
use crate::message::AddressHeader;
use crate::storage::db::Synchronous;
use crate::store::Listing;

/// All options, in the order of the help.
pub static GROUPS: &[Group] = &[
    Group {
        title: "Listening",
        rows: rows! {
            "--port" / "-p": Many("ENDPOINT"), Set |s, text| s.listen_for_clients(text)?,
                Text("the passed sockets, else `tcp:4000:interface=\\:\\:`, IPv6 and IPv4"),
                "Where to listen; repeatable. `PORT`, `ADDRESS:PORT`, `tcp:PORT[:interface=ADDRESS]`, \
                 `tcp6:PORT`, `unix:PATH[:mode=OCTAL]`, `systemd:[NUMBER|NAME]` for sockets passed by a \
                 service manager; `haproxy:` before any of these for a proxy that sends PROXY headers.";
            "--trusted-proxy": Many("NETWORK"),
                Reload |s, text| s.reloadable.trusted_proxies.push(values::network(text)?),
                Text("`127.0.0.0/8` and `::1`"),
                "Trust `X-Real-IP`, `X-Real-Port` and PROXY headers from peers in this network; \
                 repeatable. Unix sockets are always trusted.";
            "--proxy-header": Once("x-real-ip|x-forwarded-for|forwarded"),
                Set |s, text| s.config.address_header =
                    values::one_of(&text.to_ascii_lowercase(), &AddressHeader::NAMES)?,
                Text("`x-real-ip`"),
                "The header in which trusted proxies name the client's address. Of a list the last \
                 address counts that is no trusted proxy's.";
            "--onion-network": Many("NETWORK"),
                Reload |s, text| s.reloadable.onion_networks.push(values::onion_network(text)?),
                Text("none"),
                "In the limits, count each IPv6 address of this network alone, and all of them \
                 together as 16; repeatable. In PROXY headers, tor gives each circuit of an onion \
                 service such an address.";
        },
    },
    Group {
        title: "Monitoring",
        rows: rows! {
            "--admin-public": Flag, Set |s, _| s.admin_public = true, Text("off"),
                "Allow an address in `--admin` that is not private.";
            "--admin": Many("ENDPOINT"), Set |s, text| s.listen_for_admin(text)?, Text("nowhere"),
                "Serve the status page, `/metrics`, `/healthz` and `/status.json` here, as in `--port`; \
                 repeatable. Without an address it listens on loopback; a unix socket has mode 600.";
            "--admin-host": Many("NAME"),
                Reload |s, text| s.reloadable.admin_hosts.push(values::host(text)?),
                Text("localhost and the machine's host name"),
                "Answer requests on TCP admin listeners that use this name; repeatable. Other names \
                 get 421, but for `/healthz` and `/metrics`.";
        },
    },
    Group {
        title: "Files",
        rows: rows! {
            "--channel-db": Once("FILE"), Set |s, text| s.config.channel_db = values::path(text)?,
                Text("`relay.sqlite`"),
                "The state database; `:memory:` keeps nothing.";
            "--usage-db": Once("FILE"), Set |s, text| s.config.usage_db = Some(values::path(text)?),
                Text("none"),
                "Record usage in this database.";
            "--usage-keep": Once("DAYS"),
                Set |s, text| s.config.usage_keep = Some(values::days(text)?), Text("for ever"),
                "Delete usage records that are older.";
            "--addrid-db": Once("FILE"),
                Set |s, text| s.config.addrid_db = Some(values::path(text)?), Text("none"),
                "Number peer addresses in this database, `:memory:` allowed; logs then show only \
                 the numbers.";
            "--generation-duration": Once("SECONDS"),
                Set |s, text| s.config.generation_duration = values::positive_seconds(text)?,
                Number(limits::GENERATION_SECONDS, "s"),
                "Erase the numbered addresses after this time.";
            "--track-connections": Flag, Set |s, _| s.config.track_connections = true, Text("off"),
                "Keep a table of live connections in the state database.";
            "--synchronous": Once("full|normal|off"),
                Set |s, text| s.config.synchronous = values::one_of(text, &Synchronous::NAMES)?,
                Text("`full`"),
                "What survives power loss: everything acknowledged, all but the last commits, or nothing \
                 for certain. The lower settings write less to flash.";
        },
    },
    Group {
        title: "Texts for clients",
        rows: rows! {
            "--motd": Once("TEXT"), Reload |s, text| s.reloadable.welcome.motd = Some(text.into()),
                Text("none"),
                "Message of the day, shown by clients.";
            "--advertise-version": Once("VERSION"),
                Reload |s, text| s.reloadable.welcome.current_cli_version =
                    values::unless_empty(text),
                Text("none"),
                "The client version to recommend.";
            "--signal-error": Once("TEXT"),
                Reload |s, text| s.reloadable.welcome.error = values::unless_empty(text),
                Text("none"),
                "Make every client fail with this message.";
            "--welcome-file": Once("FILE"),
                ReloadFile |s, text| welcome_files::merge_welcome(&mut s.reloadable.welcome, text)?,
                Text("none"),
                "A JSON object whose keys go into the welcome of each client; they override the \
                 options above. Read again at SIGHUP.";
            "--notices-file": Once("FILE"),
                ReloadFile |s, text| s.reloadable.notices = welcome_files::notices(text)?,
                Text("none"),
                "A JSON object of networks and texts: clients from there get the text as an error \
                 and are disconnected. Read again at SIGHUP.";
            "--list": Once("real|empty|decoy"),
                Reload |s, text| s.list = Some(values::one_of(text, &Listing::NAMES)?),
                Text("`real`"),
                "Answer `list` with the existing nameplates, with none, or always with all from 1 \
                 to 999.";
            "--disallow-list": Flag, Reload |s, _| s.disallow_list()?, Text("off"),
                "The same as `--list=empty`.";
        },
    },
    Group {
        title: "Who may begin",
        rows: rows! {
            "--members": Once("FILE"),
                ReloadFile |s, text| s.reloadable.members = Some(Members::parse(text)?),
                Text("none: all may begin"),
                "Lines `NAME SECRET`: only clients with `/v1/SECRET` in their URL may begin an \
                 exchange, others may join one. Read again at SIGHUP.";
            "--allocate-from": Many("NETWORK"),
                Set |s, text| s.config.allocate_from.push(values::network(text)?),
                Text("everywhere"),
                "Let exchanges begin only at addresses of this network; repeatable. Clients from \
                 elsewhere can join them.";
            "--permission": Once("none|offer|require|auto"),
                Set |s, text| s.config.permission.mode = values::one_of(text, &Mode::NAMES)?,
                Text("`none`"),
                "Proof of work (hashcash) from clients before they bind: never, optional, always, \
                 or while under attack.";
            "--hashcash-bits": Once("BITS"),
                Set |s, text| s.config.permission.bits =
                    values::whole(text, HASHCASH_BITS_MIN..=HASHCASH_BITS_MAX, "bits")?,
                Number(limits::HASHCASH_BITS as f64, "bits"),
                "Difficulty of the proof of work, 1 to 40; each further bit doubles the work.";
            "--attack-events": Once("NUMBER"),
                Set |s, text| s.config.permission.attack_events =
                    values::whole(text, 1..=u32::MAX, "events")?.into(),
                Number(limits::ATTACK_EVENTS, "events"),
                "Number of hostile events (scary or crowded results, refused nameplates) that \
                 counts as an attack.";
            "--attack-half-life": Once("SECONDS"),
                Set |s, text| s.config.permission.attack_half_life =
                    values::positive_seconds(text)?,
                Number(limits::ATTACK_HALF_LIFE_SECONDS, "s"),
                "Half-life of a hostile event: after this time it counts half.";
        },
    },
    Group {
        title: "Nameplates and draft extensions",
        rows: rows! {
            "--nameplate-digits": Once("DIGITS"),
                Set |s, text| s.config.rules.nameplate_digits_min =
                    values::whole(text, 1..=limits::NAMEPLATE_DIGITS_ALLOCATED_MAX, "digits")?,
                Number(1.0, "digit"),
                "Allocate no nameplate with fewer digits, 1 to 6.";
            "--nameplate-cooldown": Once("SECONDS"),
                Set |s, text| s.config.rules.nameplate_cooldown = values::seconds_or_never(text)?,
                Number(0.0, "s"),
                "Do not allocate a nameplate again for this long after its end; 0 for never.";
            "--claim-without-allocate": Flag,
                Set |s, _| s.config.rules.claim_without_allocate = true, Text("off"),
                "Respect `\"allocate\": false` in a `claim`: it then fails where it would create a \
                 nameplate.";
            "--delete": Flag, Set |s, _| s.config.delete = true, Text("off"),
                "Draft: let clients delete single messages that they have received, so that a mailbox \
                 of a long session does not keep them.";
        },
    },
    Group {
        title: "Lifetime and privacy",
        rows: rows! {
            "--expire-after": Once("SECONDS"),
                Set |s, text| s.config.rules.expire_after = values::positive_seconds(text)?,
                Number(limits::EXPIRE_AFTER_SECONDS, "s"),
                "Delete mailboxes without subscriber and activity for this long.";
            "--expire-check": Once("SECONDS"),
                Set |s, text| s.config.expire_check = values::positive_seconds(text)?,
                Number(limits::EXPIRE_CHECK_SECONDS, "s"),
                "Interval between checks for expired mailboxes.";
            "--blur-usage": Once("SECONDS"),
                Set |s, text| s.config.rules.blur =
                    Some(values::whole(text, 0..=u32::MAX, "seconds")?.into()),
                Text("off"),
                "Round recorded times down to a multiple; log no connections.";
        },
    },
    Group {
        title: "Stopping gently (SIGQUIT)",
        rows: rows! {
            "--drain-message": Once("TEXT"),
                Reload |s, text| if !text.is_empty() { s.reloadable.drain.message = text.into() },
                Text(values::DRAIN_MESSAGE),
                "The error of commands that would begin something during a drain.";
            "--drain-seconds": Once("SECONDS"),
                Reload |s, text| s.reloadable.drain.seconds = values::positive_seconds(text)?,
                Number(limits::DRAIN_SECONDS, "s"),
                "Longest duration of such a stop.";
        },
    },
    Group { title: "Limits", rows: &LIMITS },
    Group {
        title: "Compatibility",
        rows: rows! {
            "--websocket-protocol-option": Many("NAME=JSON"),
                Set |s, text| websocket_options::set(s, text)?, Each(websocket_options::TABLE),
                "An option of the Python server's WebSocket library; repeatable.";
            "--log-fd": Once("FD"),
                Set |s, text| {
                    values::descriptor(text)?;
                    s.config.warnings.push("--log-fd has no effect".to_owned());
                },
                Unset,
                "Accepted for compatibility; has no effect.";
        },
    },
    Group {
        title: "Other",
        rows: rows! {
            "--config": Once("FILE"), OptionsFile, Text("none"),
                "More options, one a line, as in `motd = Hello`; `#` begins a comment. The command \
                 line takes precedence. Read again at SIGHUP.";
            "--check-config": Flag, CheckConfig, Unset,
                "Read options and files, open nothing for writing, say what is wrong, and exit.";
            "--log-level": Once("error|warn|info|debug"),
                Set |s, text| s.config.log_level = values::log_level(text)?, Text("`info`"),
                "How much is logged; `debug` shows each connection.";
            "--takeover": Once("yes|no"),
                Set |s, text| s.config.takeover = values::one_of(text, &values::YES_OR_NO)?,
                Text("`yes`"),
                "Whether connections are handed over: to the program that is now at the server's \
                 path (SIGUSR2), and through a restart by systemd.";
            "--generate": Once("man|bash|fish|zsh|markdown"), Generate, Unset,
                "Print a manual page, completions for a shell, or the option reference, and exit.";
            "--version" / "-V": Flag, Version, Unset, "Print the version and exit.";
            "--help" / "-h": Optional, Help, Unset,
                "Print the options that are used most, with `--help=all` all of them, and exit.";
        },
    },
];

/// The rows of [`limits::TABLE`], and the exemption from those on one address.
const LIMITS: [Row; limits::TABLE.len() + 1] = {
    let mut rows = [LIMIT_EXEMPT; limits::TABLE.len() + 1];
    let mut index = 0;
    while index < limits::TABLE.len() {
        rows[index] = limit_row(&limits::TABLE[index]);
        index += 1;
    }
    rows
};

const LIMIT_EXEMPT: Row = rows! {
    "--limit-exempt": Many("NETWORK"),
        Reload |s, text| s.reloadable.exempt.push(values::network(text)?),
        Text("`127.0.0.0/8` and `::1`"),
        "Networks to which the limits on one address do not apply; repeatable.";
}[0];

const fn limit_row(limit: &'static LimitRow) -> Row {
    Row {
        name: limit.option,
        short: None,
        arity: Once("NUMBER"),
        action: Action::Limit(limit),
        default: match limit.default {
            Some(number) => Number(number, limit.unit),
            None => Text(limit.follows),
        },
        help: limit.about,
    }
}

/// All rows, without the headings.
pub fn all() -> Vec<&'static Row> {
    GROUPS.iter().flat_map(|group| group.rows).collect()
}
