//! The manual page, for `man -l` and `/usr/share/man/man8`.

use super::{CommandSpec, OptionSpec, options, subcommands};

/// Its date is when these words were last changed, so that two builds of one source are equal.
const HEAD: &str = concat!(
    ".TH WORMHOLE\\-MAILBOX 8 2026-11-24 \"wormhole\\-mailbox ",
    env!("CARGO_PKG_VERSION"),
    "\" \"System Administration\"\n",
    r#".nh
.ad l
.SH NAME
wormhole\-mailbox \- a Magic Wormhole mailbox server
.SH SYNOPSIS
.B wormhole\-mailbox
.RI [ options ]
.br
.B wormhole\-mailbox
.I command
.RI [ options ]
.SH DESCRIPTION
Magic Wormhole clients meet at a mailbox server to exchange the few small messages that set up a
transfer. Files that are sent do not pass through it.
.PP
The server listens for WebSocket connections, keeps its state in memory, and commits each change to
an SQLite file before any answer that depends on it leaves. Its log goes to standard error. It
takes the flags and the files of the Python server, version 0.8.0.
.PP
With a
.I command
as the first argument, it tells of a server and its files and ends; that changes no file and
disturbs no server.
"#
);

const TAIL: &str = r#".SH SIGNALS
.TP
.B SIGTERM\fR, \fBSIGINT
Stop within 5 seconds: accept nobody any more, send each connection a close, leave the databases
without a write\-ahead log. A second signal ends the server at once, with nothing acknowledged lost.
.SH EXIT STATUS
.TP
.B 0
After a signal, or when what was asked for has been printed.
.TP
.B 1
An address or a file cannot be opened, or a server does not answer.
.TP
.B 2
A mistake on the command line.
.PP
The reason is one line on standard error.
.SH FILES
.TP
.I relay.sqlite
The state, unless
.B \-\-channel\-db
names another file. While the server runs,
.I relay.sqlite\-wal
and
.I relay.sqlite\-shm
belong to it.
.SH EXAMPLES
Serve on one port, and record usage:
.PP
.RS 4
.EX
wormhole\-mailbox \-\-port=4000 \-\-usage\-db=usage.sqlite
.EE
.RE
.PP
See how the last week went:
.PP
.RS 4
.EX
wormhole\-mailbox usage \-\-usage\-db=usage.sqlite
.EE
.RE
.SH SEE ALSO
.BR sqlite3 (1),
.BR systemd.exec (5)
"#;

pub fn text() -> String {
    let mut text = HEAD.to_owned();
    text +=
        ".SH OPTIONS\n\\fB\\-\\-name=\\fIVALUE\\fR and \\fB\\-\\-name \\fIVALUE\\fR both work.\n";
    for group in options::groups() {
        text += &format!(".SS {}\n", escaped(group.title));
        text += &group.options.iter().map(entry).collect::<String>();
    }
    text += ".SH COMMANDS\n";
    for CommandSpec { name, about, options } in subcommands::all() {
        text += &format!(".SS {name}\n{}\n", escaped(about));
        text += &options.iter().map(entry).collect::<String>();
    }
    text + TAIL
}

fn entry(option: &OptionSpec) -> String {
    let short = option.short.map(|short| format!("{}\\fR, \\fB", escaped(short)));
    let value = match option.value {
        "" => String::new(),
        value => format!("\\fR=\\fI{}", escaped(value)),
    };
    let (short, name) = (short.unwrap_or_default(), escaped(option.name));
    format!(".TP\n\\fB{short}{name}{value}\\fR\n{}\n", escaped(&option.help.sentence()))
}

/// Text that means itself: dashes and backslashes as typed, and no line that begins as a request
/// would.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
