//! What is published: that the package holds what it should and no more, and that its manifest
//! says all that a registry asks for.

use std::path::Path;
use std::process::Command;

const ROOT: &str = env!("CARGO_MANIFEST_DIR");

#[test]
fn the_package_holds_the_sources_and_what_tells_of_them() {
    let output = Command::new(env!("CARGO"))
        .args(["package", "--list", "--allow-dirty", "--offline", "--locked"])
        .current_dir(ROOT)
        .output()
        .expect("cargo runs");
    let listed = String::from_utf8_lossy(&output.stdout).into_owned();
    assert!(output.status.success(), "{}", String::from_utf8_lossy(&output.stderr));
    let (sources, others): (Vec<&str>, Vec<&str>) =
        listed.lines().partition(|name| name.starts_with("src/"));
    assert!(sources.contains(&"src/main.rs") && sources.contains(&"src/lib.rs"));
    let kinds = [".rs", ".html", ".css", ".md", ".txt", ".man", ".bash", ".fish", ".zsh"];
    let is_source = |name: &&str| kinds.iter().any(|kind| name.ends_with(kind));
    assert!(sources.iter().all(is_source), "{sources:?}");
    // The first is what cargo adds by itself, in a clone.
    let expected = ["Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE", "README.md"];
    let others: Vec<_> = others.into_iter().filter(|it| *it != ".cargo_vcs_info.json").collect();
    assert_eq!(others, expected);
}

#[test]
fn the_manifest_says_what_a_registry_asks_for() {
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).expect("a manifest");
    let value = |key: &str| {
        let line = manifest.lines().find_map(|line| line.strip_prefix(&format!("{key} = ")));
        line.unwrap_or_else(|| panic!("no {key}"))
    };
    assert!(value("description").len() > 20);
    // What the file of the license begins with, and a file that is there.
    let license = std::fs::read_to_string(Path::new(ROOT).join("LICENSE")).expect("a license");
    let name = value("license").trim_matches('"');
    assert!(license.starts_with(&format!("{name} License")), "{name}");
    assert!(Path::new(ROOT).join(value("readme").trim_matches('"')).is_file());
    // A registry takes five of each, and keywords of one word and 20 characters.
    for key in ["keywords", "categories"] {
        let list: Vec<String> = serde_json::from_str(value(key)).expect("a list");
        assert!((1..=5).contains(&list.len()), "{key}: {list:?}");
        let is_word = |it: &String| it.len() <= 20 && !it.contains(' ');
        assert!(key != "keywords" || list.iter().all(is_word), "{list:?}");
    }
    // The README says the same version of Rust.
    let needs = format!("needs Rust {}", env!("CARGO_PKG_RUST_VERSION"));
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).expect("a README");
    assert!(readme.contains(&needs), "{needs}");
}
