//! The known name that a mistyped one probably stands for.

/// Returns the name nearest to `typed`, if any resembles it. Case, leading dashes, and letters that
/// are missing at the end weigh nothing.
pub fn nearest<'a>(typed: &str, names: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |name: &str| name.trim_start_matches('-').to_ascii_lowercase();
    let typed = bare(typed);
    let letters = typed.chars().count();
    // What is more than twice as long resembles none, and may be a whole file.
    let names = names.filter(|name| letters <= 2 * name.len());
    let rated = names.map(|name| (distance(&typed, &bare(name)), name));
    let (distance, name) = rated.min_by_key(|(distance, name)| (*distance, name.len()))?;
    let resembles = 2 * distance <= letters.max(bare(name).len());
    (resembles && letters > 0).then_some(name)
}

/// Edits from one text to the other: letters inserted, removed, replaced, or swapped with the next
/// one; 0 if `name` begins with all of `typed`, and that is more than a letter or two.
fn distance(typed: &str, name: &str) -> usize {
    const PREFIX_BYTES_MIN: usize = 3;
    if typed.len() >= PREFIX_BYTES_MIN && name.starts_with(typed) {
        return 0;
    }
    let (typed, name) = (typed.as_bytes(), name.as_bytes());
    // Of each beginning of the one to each beginning of the other.
    let mut edits = vec![vec![0; name.len() + 1]; typed.len() + 1];
    edits[0] = (0..=name.len()).collect();
    for row in 1..=typed.len() {
        edits[row][0] = row;
        for column in 1..=name.len() {
            let (letter, other) = (typed[row - 1], name[column - 1]);
            let replaced = edits[row - 1][column - 1] + usize::from(letter != other);
            let best = replaced.min(edits[row - 1][column] + 1).min(edits[row][column - 1] + 1);
            let is_swap =
                row > 1 && column > 1 && letter == name[column - 2] && typed[row - 2] == other;
            edits[row][column] =
                if is_swap { best.min(edits[row - 2][column - 2] + 1) } else { best };
        }
    }
    edits[typed.len()][name.len()]
}

#[cfg(test)]
mod tests {

    use super::nearest;

    #[test]
    fn what_resembles_a_name_stands_for_it() {
        const NAMES: [&str; 7] =
            ["--port", "-p", "-V", "--usage-db", "--channel-db", "--log-level", "--list"];
        for (typed, expected) in [
            ("--prot", Some("--port")),
            ("--Port", Some("--port")),
            ("-port", Some("--port")),
            ("-v", Some("-V")),
            ("--usagedb", Some("--usage-db")),
            ("--usage", Some("--usage-db")),
            ("--channel_db", Some("--channel-db")),
            ("--loglevel", Some("--log-level")),
            ("--lst", Some("--list")),
            ("--nonsense", None),
            ("-x", None),
            ("--", None),
            ("", None),
        ] {
            assert_eq!(nearest(typed, &mut NAMES.into_iter()), expected, "{typed}");
        }
        let typed = "x".repeat(1_000_000);
        assert_eq!(nearest(&typed, &mut NAMES.into_iter()), None, "and that at once");
    }
}
