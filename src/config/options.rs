//! The table of command-line options, and the help made from it.
//!
//! One row an option; parsing (`config`) and `--help` both read it, so that they cannot differ.

use super::subcommands;
use crate::limits;

/// How an option may appear.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Arity {
    /// Without a value, at most once.
    Flag,
    /// With a value, at most once.
    Once,
    /// With a value, any number of times.
    Many,
}

/// One option.
#[derive(Debug)]
pub struct OptionSpec {
    /// Long form, dashes included.
    pub name: &'static str,
    /// Short form, if any.
    pub short: Option<&'static str>,
    /// How it may appear.
    pub arity: Arity,
    /// What stands for the value in the help.
    pub value: &'static str,
    /// What it does, with default and unit.
    pub help: Help,
}

/// Help text, and the default that goes with it.
#[derive(Debug)]
pub enum Help {
    /// A text that is complete.
    Text(&'static str),
    /// A text, a numeric default (unless the text says it) and its unit.
    Number(&'static str, Option<f64>, &'static str),
}

impl Help {
    /// All of it, in one line.
    pub fn sentence(&self) -> String {
        match self {
            Number(sentence, Some(default), unit) => {
                format!("{sentence} [default: {default} {unit}]")
            }
            Number(sentence, None, _) | Text(sentence) => (*sentence).to_owned(),
        }
    }
}

/// A heading of the help with its options.
#[derive(Debug)]
pub struct Group {
    /// The heading.
    pub title: &'static str,
    /// What is under it.
    pub options: Vec<OptionSpec>,
}

pub(super) const fn option(
    name: &'static str,
    arity: Arity,
    value: &'static str,
    help: Help,
) -> OptionSpec {
    OptionSpec { name, short: None, arity, value, help }
}

use Arity::{Flag, Many, Once};
use Help::{Number, Text};

/// All options.
pub fn groups() -> Vec<Group> {
    vec![
        Group {
            title: "Listening",
            options: vec![
                OptionSpec {
                    name: "--port",
                    short: Some("-p"),
                    arity: Many,
                    value: "ENDPOINT",
                    help: Text(
                        "Where to listen; repeatable. PORT, ADDRESS:PORT, tcp:PORT[:interface=ADDRESS], tcp6:PORT, \
                     unix:PATH[:mode=OCTAL], systemd:[NUMBER|NAME] for sockets that a service manager passes; \
                     haproxy: before any of these for clients that come with a PROXY header. [default: the \
                     passed sockets, else tcp:4000:interface=\\:\\:, IPv6 and IPv4]",
                    ),
                },
                option(
                    "--trusted-proxy",
                    Many,
                    "NETWORK",
                    Text(
                        "Take X-Real-IP, X-Real-Port and PROXY headers from peers in this network; repeatable. \
                     Unix sockets are always trusted. [default: 127.0.0.0/8 and ::1]",
                    ),
                ),
                option(
                    "--websocket-protocol-option",
                    Many,
                    "NAME=JSON",
                    Text(
                        "Repeatable. autoPingInterval [60 s], autoPingTimeout [600 s], openHandshakeTimeout [10 s], \
                     closeHandshakeTimeout [3 s], maxMessagePayloadSize [1048576 bytes], maxFramePayloadSize \
                     [1048576 bytes], maxConnections [descriptor limit less 64], allowedOrigins [[\"*\"]], \
                     tcpNoDelay [true].",
                    ),
                ),
            ],
        },
        Group {
            title: "Watching",
            options: vec![
                option(
                    "--admin",
                    Many,
                    "ENDPOINT",
                    Text(
                        "Serve the status page, /metrics, /healthz and /status.json here, as in --port; \
                     repeatable. Without an address it is loopback, a unix socket has mode 600. \
                     [default: nowhere]",
                    ),
                ),
                option(
                    "--admin-public",
                    Flag,
                    "",
                    Text("Let --admin have an address that is not private."),
                ),
            ],
        },
        Group {
            title: "Files",
            options: vec![
                option(
                    "--channel-db",
                    Once,
                    "FILE",
                    Text("The state database; ':memory:' keeps nothing. [default: relay.sqlite]"),
                ),
                option(
                    "--usage-db",
                    Once,
                    "FILE",
                    Text("Record usage in this database. [default: none]"),
                ),
                option(
                    "--addrid-db",
                    Once,
                    "FILE",
                    Text(
                        "Number peer addresses in this database, ':memory:' allowed; logs then show only the \
                     numbers. [default: none]",
                    ),
                ),
                option(
                    "--generation-duration",
                    Once,
                    "SECONDS",
                    Number(
                        "Forget the numbered addresses after this time.",
                        Some(limits::GENERATION_SECONDS),
                        "s",
                    ),
                ),
                option(
                    "--track-connections",
                    Flag,
                    "",
                    Text("Keep a table of live connections in the state database."),
                ),
                option(
                    "--synchronous",
                    Once,
                    "full|normal|off",
                    Text(
                        "What survives power loss: everything acknowledged, all but the last moments, or no \
                     promise. Less means fewer writes on flash. [default: full]",
                    ),
                ),
            ],
        },
        Group {
            title: "What clients are told",
            options: vec![
                option(
                    "--welcome-file",
                    Once,
                    "FILE",
                    Text(
                        "A JSON object whose keys go into the welcome of each client; they win over the options \
                     below. Read again at SIGHUP. [default: none]",
                    ),
                ),
                option(
                    "--notices-file",
                    Once,
                    "FILE",
                    Text(
                        "A JSON object of networks and texts: clients from there are shown the text and sent away. \
                     Read again at SIGHUP. [default: none]",
                    ),
                ),
                option(
                    "--motd",
                    Once,
                    "TEXT",
                    Text("Message of the day, shown by clients. [default: none]"),
                ),
                option(
                    "--advertise-version",
                    Once,
                    "VERSION",
                    Text("The client version to recommend. [default: none]"),
                ),
                option(
                    "--signal-error",
                    Once,
                    "TEXT",
                    Text("Make every client fail with this message. [default: none]"),
                ),
                option(
                    "--list",
                    Once,
                    "real|empty|decoy",
                    Text(
                        "Answer 'list' with the nameplates there are, with none, or with all from 1 to 999 \
                     whatever there is. [default: real]",
                    ),
                ),
                option("--disallow-list", Flag, "", Text("The same as --list=empty.")),
            ],
        },
        Group {
            title: "Permissions and draft extensions",
            options: vec![
                option(
                    "--permission",
                    Once,
                    "none|offer|require|auto",
                    Text(
                        "Proof of work (hashcash) from clients before they bind: never, from those who like, from \
                     all, or from all while under attack. [default: none]",
                    ),
                ),
                option(
                    "--hashcash-bits",
                    Once,
                    "BITS",
                    Number(
                        "Its difficulty, 1 to 40; each bit more doubles the work.",
                        Some(limits::HASHCASH_BITS as f64),
                        "bits",
                    ),
                ),
                option(
                    "--attack-events",
                    Once,
                    "NUMBER",
                    Number(
                        "So many scary or crowded exchanges and refused nameplates at once count as an attack.",
                        Some(limits::ATTACK_EVENTS),
                        "events",
                    ),
                ),
                option(
                    "--attack-half-life",
                    Once,
                    "SECONDS",
                    Number(
                        "After this time such an event counts half.",
                        Some(limits::ATTACK_HALF_LIFE_SECONDS),
                        "s",
                    ),
                ),
                option(
                    "--claim-without-allocate",
                    Flag,
                    "",
                    Text(
                        "Heed '\"allocate\": false' in a claim: it then fails where it would create a nameplate.",
                    ),
                ),
                option(
                    "--nameplate-cooldown",
                    Once,
                    "SECONDS",
                    Number(
                        "Do not allocate a nameplate again for this long after its end.",
                        Some(0.0),
                        "s",
                    ),
                ),
            ],
        },
        Group {
            title: "Lifetime and privacy",
            options: vec![
                option(
                    "--expire-after",
                    Once,
                    "SECONDS",
                    Number(
                        "Delete mailboxes without subscriber and activity for this long.",
                        Some(limits::EXPIRE_AFTER_SECONDS),
                        "s",
                    ),
                ),
                option(
                    "--expire-check",
                    Once,
                    "SECONDS",
                    Number(
                        "Look for such mailboxes this often.",
                        Some(limits::EXPIRE_CHECK_SECONDS),
                        "s",
                    ),
                ),
                option(
                    "--blur-usage",
                    Once,
                    "SECONDS",
                    Text(
                        "Round recorded times down to a multiple; log no connections. [default: off]",
                    ),
                ),
            ],
        },
        Group {
            title: "Stopping gently (SIGUSR1)",
            options: vec![
                option(
                    "--drain-message",
                    Once,
                    "TEXT",
                    Text(
                        "What clients are told that come while the server waits for the others to finish. \
                     [default: The server is about to restart, please try again in a few minutes.]",
                    ),
                ),
                option(
                    "--drain-seconds",
                    Once,
                    "SECONDS",
                    Number("Wait no longer than this.", Some(limits::DRAIN_SECONDS), "s"),
                ),
            ],
        },
        Group { title: "Limits", options: limit_options() },
        Group {
            title: "Other",
            options: vec![
                option(
                    "--config",
                    Once,
                    "FILE",
                    Text(
                        "More options, one a line, as in 'motd = Hello'; '#' begins a comment. The command line wins. \
                     Read again at SIGHUP. [default: none]",
                    ),
                ),
                option(
                    "--log-level",
                    Once,
                    "error|warn|info|debug",
                    Text("How much is logged; 'debug' shows each connection. [default: info]"),
                ),
                option("--log-fd", Once, "FD", Text("Accepted for compatibility; has no effect.")),
                option(
                    "--generate",
                    Once,
                    "man|bash|fish|zsh",
                    Text("Print a manual page, or completions for a shell, and exit."),
                ),
                option("--version", Flag, "", Text("Print the version and exit.")),
                OptionSpec {
                    name: "--help",
                    short: Some("-h"),
                    arity: Flag,
                    value: "",
                    help: Text("Print this and exit."),
                },
            ],
        },
    ]
}

fn limit_options() -> Vec<OptionSpec> {
    let exempt = option(
        "--limit-exempt",
        Many,
        "NETWORK",
        Text(
            "The limits on one address do not hold for this network; repeatable. \
             [default: 127.0.0.0/8 and ::1]",
        ),
    );
    let limits = limits::table().into_iter().map(|limit| {
        option(limit.option, Once, "NUMBER", Number(limit.about, limit.default, limit.unit))
    });
    limits.chain([exempt]).collect()
}

/// What makes no sense in a file of options.
pub const COMMAND_LINE_ONLY: [&str; 4] = ["--config", "--generate", "--help", "--version"];

/// Files that are read again at SIGHUP.
pub const FILES_READ_AGAIN: [&str; 3] = ["--config", "--welcome-file", "--notices-file"];

/// What a file of options can change while the server runs; for the others it takes a restart.
pub const LIVE: [&str; 11] = [
    "--trusted-proxy",
    "--limit-exempt",
    "--welcome-file",
    "--notices-file",
    "--motd",
    "--advertise-version",
    "--signal-error",
    "--list",
    "--disallow-list",
    "--drain-message",
    "--drain-seconds",
];

/// All options, without the headings.
pub fn all() -> impl Iterator<Item = OptionSpec> {
    groups().into_iter().flat_map(|group| group.options)
}

/// Column at which option texts begin, and the width they are wrapped to.
const HELP_INDENT: usize = 8;
const HELP_WIDTH: usize = 92;

/// The text of `--help`.
pub fn help() -> String {
    let mut head = "A Magic Wormhole mailbox server.\n\n\
                    Usage: wormhole-mailbox [options]\n       \
                    wormhole-mailbox COMMAND [options]\n\n\
                    --name=VALUE and --name VALUE both work.\n\n\
                    Commands, each with its own --help:\n"
        .to_owned();
    for command in subcommands::all() {
        head += &format!("  {}\n{}", command.name, wrapped(command.about));
    }
    text(&head, groups())
}

/// A head, then groups of options with their texts.
pub fn text(head: &str, groups: Vec<Group>) -> String {
    let mut text = head.to_owned();
    for group in groups {
        text += &format!("\n{}:\n", group.title);
        for option in group.options {
            let short = option.short.map(|short| format!("{short}, ")).unwrap_or_default();
            let value =
                if option.value.is_empty() { String::new() } else { format!("={}", option.value) };
            text += &format!("  {short}{}{value}\n", option.name);
            text += &wrapped(&option.help.sentence());
        }
    }
    text
}

fn wrapped(sentence: &str) -> String {
    let mut lines = String::new();
    let mut line = String::new();
    for word in sentence.split_whitespace() {
        if !line.is_empty() && HELP_INDENT + line.len() + 1 + word.len() > HELP_WIDTH {
            lines += &format!("{:HELP_INDENT$}{line}\n", "");
            line.clear();
        }
        if !line.is_empty() {
            line.push(' ');
        }
        line += word;
    }
    lines + &format!("{:HELP_INDENT$}{line}\n", "")
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_lists_name_options_that_there_are() {
        let names: Vec<&str> = all().map(|option| option.name).collect();
        for name in COMMAND_LINE_ONLY.iter().chain(&FILES_READ_AGAIN).chain(&LIVE) {
            assert!(names.contains(name), "{name}");
        }
    }
}
