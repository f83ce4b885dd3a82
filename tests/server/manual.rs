//! The README and the manual as a whole: every page is found, every link leads somewhere, and every
//! section that a comment cites is there.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use crate::common::document;
use crate::tidy::{assert_none, read, sources};

const README: &str = "README.md";

/// How a comment begins to cite a section: page and number follow. In pieces, so that this file
/// does not match.
const CITED: &str = concat!("manual", ": ");

/// The names of the pages: `files` for `src/manual/files.md`.
fn pages() -> BTreeSet<String> {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/manual");
    let entries = fs::read_dir(folder).expect("the manual");
    let names = entries.map(|entry| entry.expect("an entry").file_name().into_string());
    let names = names.map(|name| name.expect("UTF-8"));
    names.filter_map(|name| Some(name.strip_suffix(".md")?.to_owned())).collect()
}

fn page(name: &str) -> String {
    format!("src/manual/{name}.md")
}

/// The files that a document links to: `[text](file)`, and `[name]: file` as a line.
fn links(document: &str) -> BTreeSet<String> {
    let text = read(document);
    let inline = text.split("](").skip(1).filter_map(|rest| rest.split(')').next());
    let definition = |line: &str| Some(line.strip_prefix('[')?.split_once("]: ")?.1.to_owned());
    let found = inline.map(str::to_owned).chain(text.lines().filter_map(definition));
    found.filter(|target| !target.contains("://") && !target.starts_with('#')).collect()
}

/// Whether a page has a section of that number: `2`, `2.3`.
fn has_section(page_name: &str, number: &str) -> bool {
    let heads = [format!("## {number}. "), format!("### {number} ")];
    read(&page(page_name)).lines().any(|line| heads.iter().any(|head| line.starts_with(head)))
}

/// The number that a text begins with, as of a section.
fn section_number(text: &str) -> &str {
    let end = text.find(|char: char| !char.is_ascii_digit() && char != '.').unwrap_or(text.len());
    text[..end].trim_end_matches('.')
}

#[test]
fn every_page_is_found_from_the_readme_in_one_click() {
    let links = links(README);
    let unseen = pages().into_iter().filter(|name| !links.contains(&page(name)));
    assert_none(unseen.map(|name| format!("no link to {name}")).collect());
}

#[test]
fn every_page_is_a_module_of_the_manual() {
    let source = read("src/manual/mod.rs");
    let list = source.split("\npages! {").nth(1).and_then(|rest| rest.split('}').next());
    let listed = list.expect("a list of pages").split_whitespace().map(str::to_owned);
    assert_eq!(listed.collect::<BTreeSet<_>>(), pages());
}

#[test]
fn every_link_leads_to_a_file() {
    let mut complaints = Vec::new();
    for document in pages().iter().map(|name| page(name)).chain([README.to_owned()]) {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(&document);
        let folder: PathBuf = path.parent().expect("a folder").into();
        let dead = links(&document).into_iter().filter(|target| !folder.join(target).is_file());
        complaints.extend(dead.map(|target| format!("{document}: {target}")));
    }
    assert_none(complaints);
}

#[test]
fn every_section_that_is_cited_is_there() {
    let mut complaints = Vec::new();
    for source in sources(&["src", "tests", "benches"]) {
        if source.name == "src/manual/mod.rs" {
            continue;
        }
        for (index, line) in source.text.lines().enumerate() {
            for (at, _) in line.match_indices(CITED) {
                let rest = &line[at + CITED.len()..];
                let (name, rest) = rest.split_once(' ').unwrap_or((rest, ""));
                let number = section_number(rest);
                if !pages().contains(name) || !has_section(name, number) {
                    complaints.push(format!("{}:{}: {}", source.name, index + 1, line.trim()));
                }
            }
        }
    }
    // In pages, `[rules], 4` is section 4 of the page on rules.
    for document in pages() {
        for (name, text) in pages().into_iter().map(|name| (name, read(&page(&document)))) {
            let after = [format!("[{name}], "), format!("[{name}],\n")];
            let rests = after.iter().flat_map(|it| text.split(it.as_str()).skip(1));
            let wrong = rests.map(section_number).filter(|it| !it.is_empty());
            let wrong = wrong.filter(|number| !has_section(&name, number));
            complaints.extend(wrong.map(|number| format!("{document}: [{name}], {number}")));
        }
    }
    assert_none(complaints);
}

#[test]
fn the_recipes_that_are_shown_are_the_files_that_tests_try() {
    let file = |name: &str| document::text(&format!(".packaging/{name}")).trim_end().to_owned();
    for (name, page_name, language, part) in [
        ("wormhole-mailbox.service", "deployment", "ini", "ExecStart="),
        ("wormhole-mailbox.socket", "deployment", "ini", "ListenStream="),
        ("wormhole-mailbox.conf", "deployment", "text", "blur-usage"),
        ("Dockerfile", "deployment", "dockerfile", "FROM scratch"),
        ("openwrt/wormhole-mailbox.init", "deployment", "sh", "start_service()"),
        ("openwrt/wormhole-mailbox.config", "deployment", "uci", "option port"),
        ("nginx.conf", "proxies", "nginx", "proxy_pass http://127.0.0.1:4000"),
        ("Caddyfile", "proxies", "caddy", "reverse_proxy 127.0.0.1:4000"),
        ("compose/compose.yaml", "hosting", "yaml", "services:"),
        ("compose/Caddyfile", "hosting", "caddy", "{$NAME}"),
    ] {
        assert_eq!(document::block(&page(page_name), language, part), file(name), "{name}");
    }
    // Every file that a page or the README names is there.
    let mut complaints = Vec::new();
    for name in pages().iter().map(|name| page(name)).chain([README.to_owned()]) {
        let text = read(&name);
        let named = text.split(".packaging/").skip(1).filter_map(|rest| {
            let end = rest.find(|char: char| !char.is_alphanumeric() && !"./_-".contains(char));
            Some(rest[..end?].trim_end_matches(['.', '/']))
        });
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join(".packaging");
        let missing = named.filter(|file| !root.join(file).exists());
        complaints.extend(missing.map(|file| format!("{name}: .packaging/{file}")));
    }
    assert_none(complaints);
}

#[test]
fn the_readme_is_a_front_page() {
    let lines = read(README).lines().count();
    assert!((200..=300).contains(&lines), "{lines} lines");
}
