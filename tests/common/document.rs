//! The README and the pages of the manual, for tests that try what they show as it is written.

use std::fs;
use std::path::Path;

/// The text of a document, by its path from the root of the repository.
pub fn text(file: &str) -> String {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join(file);
    fs::read_to_string(path).unwrap_or_else(|error| panic!("{file}: {error}"))
}

/// The one block of a language in a document that contains this: what stands between the fences.
pub fn block(file: &str, language: &str, part: &str) -> String {
    let text = text(file);
    let fence = format!("\n```{language}\n");
    let blocks = text.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next());
    let mut found: Vec<&str> = blocks.filter(|block| block.contains(part)).collect();
    assert_eq!(found.len(), 1, "blocks of {language} with {part:?} in {file}: {found:#?}");
    found.remove(0).to_owned()
}

/// The text with something replaced that must be there.
pub fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}
