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
    let is_source = |name: &&str| [".rs", ".css", ".md"].iter().any(|it| name.ends_with(it));
    assert!(sources.iter().all(is_source), "{sources:?}");
    // The first is what cargo adds by itself, in a clone.
    let expected = ["Cargo.lock", "Cargo.toml", "Cargo.toml.orig", "LICENSE", "README.md"];
    let others: Vec<_> = others.into_iter().filter(|it| *it != ".cargo_vcs_info.json").collect();
    assert_eq!(others, expected);
}

#[test]
fn the_manifest_says_what_a_registry_asks_for() {
    for (name, value) in [
        ("description", env!("CARGO_PKG_DESCRIPTION")),
        ("license", env!("CARGO_PKG_LICENSE")),
        ("rust-version", env!("CARGO_PKG_RUST_VERSION")),
        ("readme", env!("CARGO_PKG_README")),
    ] {
        assert!(!value.is_empty(), "{name}");
    }
    let manifest = std::fs::read_to_string(Path::new(ROOT).join("Cargo.toml")).expect("a manifest");
    for key in ["keywords = [", "categories = ["] {
        assert!(manifest.contains(key), "{key}");
    }
    // The README says the same version of Rust.
    let needs = format!("needs Rust {}", env!("CARGO_PKG_RUST_VERSION"));
    let readme = std::fs::read_to_string(Path::new(ROOT).join("README.md")).expect("a README");
    assert!(readme.contains(&needs), "{needs}");
}
