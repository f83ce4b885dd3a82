//! The manual page, for `man -l` and `/usr/share/man/man8`.

use super::options::GROUPS;
use super::subcommands::{self, Subcommand};
use super::{OptionSpec, plain};

/// The date is that of the last change of this text, so that builds are reproducible.
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
as the first argument, it prints a report on a server and its files and exits; that changes no file
and disturbs no server.
"#
);

const TAIL: &str = r#".SH SIGNALS
.TP
.B SIGTERM\fR, \fBSIGINT
Stop within 5 seconds: accept no more connections, close all, leave the databases without a
write\-ahead log. A second signal ends the server at once; nothing acknowledged is lost.
.TP
.B SIGHUP
Read the files of
.BR \-\-config ,
.B \-\-welcome\-file
and
.B \-\-notices\-file
again.
.TP
.B SIGUSR1
Drain: accept new clients only to say that the server is about to restart, and stop when all
others have finished.
.SH EXIT STATUS
.TP
.B 0
Stopped by a signal, or a text or report was printed.
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
Show the results of the last week:
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
    for group in GROUPS {
        text += &format!(".SS {}\n", escaped(group.title));
        text += &group.rows.iter().map(|row| entry(&row.spec)).collect::<String>();
    }
    text += ".SH COMMANDS\n";
    for Subcommand { name, about, rows, .. } in subcommands::TABLE {
        text += &format!(".SS {name}\n{}\n", escaped(&plain(about)));
        text += &rows.iter().map(|row| entry(&row.spec)).collect::<String>();
    }
    text + TAIL
}

fn entry(spec: &OptionSpec) -> String {
    let short = spec.short.map(|short| format!("{}\\fR, \\fB", escaped(short)));
    let value = spec.value().map(|value| format!("\\fR=\\fI{}", escaped(value)));
    let (short, value) = (short.unwrap_or_default(), value.unwrap_or_default());
    let (name, help) = (escaped(spec.name), escaped(&spec.help_with_default()));
    format!(".TP\n\\fB{short}{name}{value}\\fR\n{help}\n")
}

/// Literal text: dashes and backslashes as typed, and no line that begins as a request would.
fn escaped(text: &str) -> String {
    let text = text.replace('\\', "\\e").replace('-', "\\-");
    if text.starts_with(['.', '\'']) { format!("\\&{text}") } else { text }
}
