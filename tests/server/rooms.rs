//! The map of the source in `src/lib.rs`, held against every path that the code names.
//!
//! The map is a table: a row a room, from the top down, with the rooms it imports and the crates
//! it names. A wrong row fails, and so does one that allows more than the code uses.

use std::collections::{BTreeMap, BTreeSet};

use crate::tidy::{Source, assert_none, names_after, read, sources};

/// The crates that are the language itself.
const LANGUAGE: [&str; 3] = ["std", "core", "alloc"];

/// One row of the map.
#[derive(Debug, Default, PartialEq)]
struct Room {
    imports: BTreeSet<String>,
    crates: BTreeSet<String>,
}

/// The rows of the map with their rooms' names, in its order.
fn map() -> Vec<(String, Room)> {
    let library = read("src/lib.rs");
    let rows = library.lines().filter_map(|line| line.strip_prefix("//! | `"));
    let rooms: Vec<_> = rows
        .map(|row| {
            let cells: Vec<&str> = row.split('|').map(str::trim).collect();
            let [name, _duty, imports, crates, ""] = cells[..] else { panic!("a row: {row}") };
            let names = |cell: &str| cell.split_whitespace().map(str::to_owned).collect();
            let room = Room { imports: names(imports), crates: names(crates) };
            (name.trim_matches(['`', '/']).to_owned(), room)
        })
        .collect();
    assert!(rooms.len() > 10, "no map in src/lib.rs");
    rooms
}

/// The room of a source file: its folder, or itself where it stands beside the folders.
fn room(source: &Source) -> String {
    let path = source.name.trim_start_matches("src/").trim_end_matches(".rs");
    path.split('/').next().unwrap_or(path).to_owned()
}

/// The rooms that a text names: `crate::net::…`, `crate::{net, sys}`.
fn rooms_named(text: &str) -> BTreeSet<String> {
    ["crate::", "wormhole_mailbox::"].iter().flat_map(|root| names_after(text, root)).collect()
}

/// The code of a file without its unit tests, which may reach further.
fn shipped(source: &Source) -> String {
    source.shipped_code().map(|(_, line)| line.to_owned() + "\n").collect()
}

/// The dependencies of the manifest, as code names them.
fn dependencies() -> BTreeSet<String> {
    let manifest = read("Cargo.toml");
    let section = manifest.split("[dependencies]").nth(1).expect("dependencies");
    let section = section.split("\n[").next().unwrap_or(section);
    let lines = section.lines().filter(|line| !line.starts_with('#'));
    let names = lines.filter_map(|line| Some(line.split_once(" = ")?.0.replace('-', "_")));
    names.filter(|name| !LANGUAGE.contains(&name.as_str())).collect()
}

/// What the code really imports and names.
fn measured() -> BTreeMap<String, Room> {
    let dependencies = dependencies();
    let mut rooms: BTreeMap<String, Room> = BTreeMap::new();
    for source in sources(&["src"]).iter().filter(|source| source.name != "src/lib.rs") {
        let name = room(source);
        let text = shipped(source);
        let room = rooms.entry(name.clone()).or_default();
        room.imports.extend(rooms_named(&text).into_iter().filter(|named| *named != name));
        let is_named = |name: &&String| !names_after(&text, &format!("{name}::")).is_empty();
        room.crates.extend(dependencies.iter().filter(is_named).cloned());
    }
    rooms
}

#[test]
fn the_map_is_what_the_code_imports() {
    let mut measured = measured();
    let mut complaints = Vec::new();
    for (name, room) in map() {
        match measured.remove(&name) {
            Some(real) if real == room => {}
            Some(real) => {
                let imports = Vec::from_iter(real.imports).join(" ");
                let crates = Vec::from_iter(real.crates).join(" ");
                complaints.push(format!("{name}: the code says | {imports} | {crates} |"));
            }
            None => complaints.push(format!("{name}: there is no such room")),
        }
    }
    complaints.extend(measured.into_keys().map(|name| format!("{name} is not on the map")));
    assert_none(complaints);
}

#[test]
fn arrows_point_down_only() {
    let map = map();
    let place = |name: &str| map.iter().position(|(room, _)| room == name);
    let mut complaints = Vec::new();
    for (index, (name, room)) in map.iter().enumerate() {
        for import in &room.imports {
            if place(import).is_none_or(|below| below <= index) {
                complaints.push(format!("{name} imports {import}, which is not below it"));
            }
        }
    }
    assert_none(complaints);
}

#[test]
fn no_room_reaches_out_of_itself_by_super() {
    let roots = sources(&["src"]);
    let roots = roots.iter().filter(|source| {
        let path = source.name.trim_start_matches("src/");
        path.ends_with("/mod.rs") && path.matches('/').count() == 1 || !path.contains('/')
    });
    let reaching = roots.filter(|source| shipped(source).contains("super::"));
    assert_none(reaching.map(|source| format!("{}: super::", source.name)).collect());
}

#[test]
fn every_dependency_is_named_in_a_room() {
    let named: BTreeSet<String> = map().into_iter().flat_map(|(_, room)| room.crates).collect();
    assert_eq!(dependencies(), named);
}
