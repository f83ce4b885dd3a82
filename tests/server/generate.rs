//! The manual page and the completions, tried with the programs that read them.

use std::fs;
use std::path::Path;
use std::process::{Command, Stdio};

use crate::common::Directory;
use crate::common::real_clients::{on_path, skip};

fn generated(kind: &str) -> String {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wormhole-mailbox"));
    let output = command.arg(format!("--generate={kind}")).output().expect("the program runs");
    assert!(output.status.success() && output.stderr.is_empty(), "{output:?}");
    String::from_utf8(output.stdout).expect("UTF-8")
}

/// Long options that the help of the server, or of a command, lists.
fn options(command: &[&str]) -> Vec<String> {
    let mut program = Command::new(env!("CARGO_BIN_EXE_wormhole-mailbox"));
    let output = program.args(command).arg("--help").output().expect("the program runs");
    let help = String::from_utf8(output.stdout).expect("UTF-8");
    let words = help.lines().filter(|line| line.starts_with("  -")).flat_map(str::split_whitespace);
    let names = words.filter_map(|word| word.split('=').next()).filter(|it| it.starts_with("--"));
    names.map(|name| name.trim_end_matches(',').to_owned()).collect()
}

const COMMANDS: [&str; 3] = ["status", "usage", "connections"];

#[test]
fn every_kind_knows_every_option_and_command() {
    for kind in ["man", "bash", "fish", "zsh", "markdown"] {
        let text = generated(kind).replace('\\', "");
        let lists = COMMANDS.map(|command| options(&[command]));
        let all = options(&[]);
        assert!(all.len() > 30, "{all:?}");
        for option in all.iter().chain(lists.iter().flatten()) {
            // fish has names without their dashes.
            let name = if kind == "fish" { option.replace("--", "-l ") } else { option.clone() };
            assert!(text.contains(&name), "{kind}: no {name}");
        }
        for command in COMMANDS {
            assert!(text.contains(command), "{kind}: no {command}");
        }
    }
}

#[test]
fn the_option_reference_of_the_manual_is_what_is_generated() {
    let page = include_str!("../../src/manual/options.md");
    assert_eq!(page, generated("markdown"), "run --generate=markdown > src/manual/options.md");
}

#[test]
fn another_kind_is_a_mistake() {
    let mut command = Command::new(env!("CARGO_BIN_EXE_wormhole-mailbox"));
    let output = command.arg("--generate=html").output().expect("the program runs");
    assert_eq!(output.status.code(), Some(2));
    let error = String::from_utf8_lossy(&output.stderr);
    assert!(
        error.contains("--generate") && error.contains("man, bash, fish, zsh or markdown"),
        "{error}"
    );
}

/// A program that a test needs, or a message that it is missing.
fn program(name: &str) -> Option<Command> {
    let path = on_path(name);
    if path.is_none() {
        skip(name);
    }
    path.map(Command::new)
}

#[test]
fn the_manual_is_read_without_a_warning() {
    let directory = Directory::new();
    let page = directory.file("wormhole-mailbox.8");
    fs::write(&page, generated("man")).expect("write");
    if let Some(mut groff) = program("groff") {
        let output = groff.args(["-man", "-Tutf8", "-ww"]).arg(&page).output().expect("groff runs");
        let warnings = String::from_utf8_lossy(&output.stderr);
        assert!(output.status.success() && warnings.is_empty(), "{warnings}");
        // Without the overstrikes that make it bold.
        let text = String::from_utf8(output.stdout).expect("UTF-8");
        assert!(text.contains("commits each change"), "{text}");
    }
    if let Some(mut mandoc) = program("mandoc") {
        let output = mandoc.args(["-Tlint", "-Wwarning"]).arg(&page).output().expect("mandoc runs");
        let warnings = String::from_utf8_lossy(&output.stdout);
        assert!(output.status.success() && warnings.is_empty(), "{warnings}");
    }
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
    if program(shell[0]).is_none() || program("script").is_none() {
        return;
    }
    fs::write(directory.file("usage.sqlite"), "").expect("write");
    let lines = TYPED.map(|(typed, _)| format!("wormhole-mailbox {typed}\n")).concat();
    let input = directory.file("input");
    fs::write(&input, lines + "exit\n").expect("write");
    let output = Command::new("script")
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
fn bash_completes_names_choices_and_files() {
    let directory = Directory::new();
    fs::write(directory.file("rc"), generated("bash") + STAND_IN).expect("write");
    assert_completes(&["bash", "--noprofile", "--rcfile", "rc", "-i"], &[], &directory);
}

#[test]
fn zsh_completes_names_choices_and_files() {
    let directory = Directory::new();
    let head = "autoload -Uz compinit\ncompinit -u -D\nbindkey '^I' complete-word\n";
    let start = head.to_owned() + &generated("zsh") + STAND_IN;
    fs::write(directory.file(".zshrc"), start).expect("write");
    assert_completes(&["zsh", "-d", "-i"], &[("ZDOTDIR", directory.path())], &directory);
}

#[test]
fn zsh_finds_the_completions_where_packages_put_them() {
    let Some(mut zsh) = program("zsh") else { return };
    let directory = Directory::new();
    fs::write(directory.file("_wormhole-mailbox"), generated("zsh")).expect("write");
    let script = "fpath=($PWD $fpath); autoload -Uz compinit; compinit -u -D; \
                  print -- $_comps[wormhole-mailbox]";
    let output = zsh.args(["-f", "-c", script]).current_dir(directory.path()).output();
    let output = output.expect("zsh runs");
    assert_eq!(String::from_utf8_lossy(&output.stdout), "_wormhole-mailbox\n", "{output:?}");
}

#[test]
fn fish_completes_names_choices_and_files() {
    let Some(mut fish) = program("fish") else { return };
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
    assert_eq!(of(""), ["connections", "status", "usage"]);
    assert_eq!(of("usage --per"), ["--period"]);
    assert!(of("status --syn").is_empty(), "{offered}");
}
