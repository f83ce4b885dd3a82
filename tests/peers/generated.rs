//! The manual page and the completions, read by the programs that they are made for.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use crate::common::{Directory, stdout_of};
use crate::programs::program;

fn generated(kind: &str) -> String {
    stdout_of(&[&format!("--generate={kind}")])
}

/// The manual page in a file.
fn page(directory: &Directory) -> PathBuf {
    let page = directory.file("wormhole-mailbox.8");
    fs::write(&page, generated("man")).expect("write");
    page
}

#[test]
#[ignore = "needs groff"]
fn groff_reads_the_manual_without_a_warning() {
    let directory = Directory::new();
    let mut groff = Command::new(program("groff"));
    let output = groff.args(["-man", "-Tutf8", "-ww"]).arg(page(&directory)).output();
    let output = output.expect("groff runs");
    let warnings = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success() && warnings.is_empty(), "{warnings}");
    // Without the overstrikes that make it bold.
    let text = String::from_utf8(output.stdout).expect("UTF-8");
    assert!(text.contains("commits each change"), "{text}");
}

#[test]
#[ignore = "needs mandoc"]
fn mandoc_reads_the_manual_without_a_warning() {
    let directory = Directory::new();
    let mut mandoc = Command::new(program("mandoc"));
    let output = mandoc.args(["-Tlint", "-Wwarning"]).arg(page(&directory)).output();
    let output = output.expect("mandoc runs");
    let warnings = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && warnings.is_empty(), "{warnings}");
}

/// Lines typed into a real shell on a terminal, `\t` for the key, and what the program is then
/// started with.
const TYPED: [(&str, &str); 8] = [
    ("--synchronous=n\t", "--synchronous=normal"),
    ("--synchronous f\t", "--synchronous full"),
    ("--log-level=d\t", "--log-level=debug"),
    ("--usage-db us\t", "--usage-db usage.sqlite"),
    ("--usage-db=us\t", "--usage-db=usage.sqlite"),
    ("--disallow-l\t", "--disallow-list"),
    ("stat\t--js\t", "status --json"),
    ("usage --per\tw\t", "usage --period=week"),
];

/// Types all lines into a shell and compares what it runs.
fn assert_completes(shell: &[&str], environment: &[(&str, &Path)], directory: &Directory) {
    program(shell[0]);
    fs::write(directory.file("usage.sqlite"), "").expect("write");
    let lines = TYPED.map(|(typed, _)| format!("wormhole-mailbox {typed}\n")).concat();
    let input = directory.file("input");
    fs::write(&input, lines + "exit\n").expect("write");
    let output = Command::new(program("script"))
        .args(["--quiet", "--return", "--command", &shell.join(" "), "/dev/null"])
        .envs(environment.iter().copied())
        .env("TERM", "dumb")
        .current_dir(directory.path())
        .stdin(fs::File::open(&input).expect("input"))
        .stderr(Stdio::inherit())
        .output()
        .expect("script runs");
    let terminal = String::from_utf8_lossy(&output.stdout);
    let ran: Vec<&str> =
        terminal.lines().filter_map(|line| line.strip_prefix("ran: ")).map(str::trim_end).collect();
    assert_eq!(ran, TYPED.map(|(_, expected)| expected), "{terminal}");
}

/// In place of the program: says what it is started with.
const STAND_IN: &str = "wormhole-mailbox() { echo; echo \"ran: $*\"; }\n";

#[test]
#[ignore = "needs bash and script"]
fn bash_completes_names_choices_and_files() {
    let directory = Directory::new();
    fs::write(directory.file("rc"), generated("bash") + STAND_IN).expect("write");
    assert_completes(&["bash", "--noprofile", "--rcfile", "rc", "-i"], &[], &directory);
}

#[test]
#[ignore = "needs zsh and script"]
fn zsh_completes_names_choices_and_files() {
    let directory = Directory::new();
    let head = "autoload -Uz compinit\ncompinit -u -D\nbindkey '^I' complete-word\n";
    let start = head.to_owned() + &generated("zsh") + STAND_IN;
    fs::write(directory.file(".zshrc"), start).expect("write");
    assert_completes(&["zsh", "-d", "-i"], &[("ZDOTDIR", directory.path())], &directory);
}

#[test]
#[ignore = "needs zsh"]
fn zsh_finds_the_completions_where_packages_put_them() {
    let mut zsh = Command::new(program("zsh"));
    let directory = Directory::new();
    fs::write(directory.file("_wormhole-mailbox"), generated("zsh")).expect("write");
    let script = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; \
                  print -- $_comps[wormhole-mailbox]";
    let output = zsh.args(["-f", "-c", script]).current_dir(directory.path()).output();
    let output = output.expect("zsh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "_wormhole-mailbox\n", "{output:?}");
}

#[test]
#[ignore = "needs fish"]
fn fish_completes_names_choices_and_files() {
    let mut fish = Command::new(program("fish"));
    let directory = Directory::new();
    fs::write(directory.file("rc.fish"), generated("fish")).expect("write");
    fs::write(directory.file("usage.sqlite"), "").expect("write");
    let mut script = "source rc.fish\n".to_owned();
    for line in
        ["--sync", "--synchronous=n", "--usage-db us", "--port ", "", "usage --per", "status --syn"]
    {
        script += &format!("echo 'at: {line}'\ncomplete -C 'wormhole-mailbox {line}'\n");
    }
    let output = fish
        .args(["--no-config", "-c", &script])
        .env("HOME", directory.path())
        .current_dir(directory.path())
        .output()
        .expect("fish runs");
    assert!(output.stderr.is_empty(), "{output:?}");
    let offered = String::from_utf8(output.stdout).expect("UTF-8");
    let of = |line: &str| -> Vec<&str> {
        let lines = offered.lines().skip_while(|it| *it != format!("at: {line}")).skip(1);
        let lines = lines.take_while(|it| !it.starts_with("at: "));
        lines.filter_map(|it| it.split('\t').next()).collect()
    };
    assert_eq!(of("--sync"), ["--synchronous"]);
    assert_eq!(of("--synchronous=n"), ["--synchronous=normal"]);
    assert_eq!(of("--usage-db us"), ["usage.sqlite"]);
    assert!(of("--port ").is_empty(), "{offered}");
    assert_eq!(of(""), ["check", "connections", "member", "status", "test-server", "usage"]);
    assert_eq!(of("usage --per"), ["--period"]);
    assert!(of("status --syn").is_empty(), "{offered}");
}
