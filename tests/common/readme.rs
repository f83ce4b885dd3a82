//! What the README shows, for tests that try it as it is written there.

/// The README.
pub const TEXT: &str = include_str!("../../README.md");

/// The blocks of a language, in order: what stands between the fences.
pub fn blocks(language: &str) -> Vec<&'static str> {
    let fence = format!("\n```{language}\n");
    TEXT.split(&fence).skip(1).filter_map(|rest| rest.split("\n```").next()).collect()
}

/// The one block of a language that contains this.
pub fn block(language: &str, part: &str) -> &'static str {
    let found: Vec<_> = blocks(language).into_iter().filter(|it| it.contains(part)).collect();
    assert_eq!(found.len(), 1, "blocks of {language} with {part:?}: {found:#?}");
    found[0]
}

/// The text with something replaced that must be there.
pub fn with(text: &str, from: &str, to: &str) -> String {
    assert!(text.contains(from), "no {from:?} in {text}");
    text.replace(from, to)
}
