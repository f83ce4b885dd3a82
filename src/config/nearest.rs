//! The known name that a mistyped one probably stands for.

/// Returns the name nearest to `typed`, if any resembles it. Case, leading dashes, and letters that
/// are missing at the end weigh nothing.
pub fn nearest<'a>(typed: &str, names: &mut dyn Iterator<Item = &'a str>) -> Option<&'a str> {
    let bare = |name: &str| name.trim_start_matches('-').to_ascii_lowercase();
    let typed = bare(typed);
    let rated = names.map(|name| (distance(&typed, &bare(name)), name));
    let (distance, name) = rated.min_by_key(|(distance, name)| (*distance, name.len()))?;
    let letters = typed.chars().count();
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
    let (typed, name): (Vec<char>, Vec<char>) = (typed.chars().collect(), name.chars().collect());
    // Row by row of the table of distances between beginnings; a swap looks back two rows.
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=name.len()).collect();
    for row in 1..=typed.len() {
        let mut next = vec![row];
        for column in 1..=name.len() {
            let differs = usize::from(typed[row - 1] != name[column - 1]);
            let mut best =
                (last[column - 1] + differs).min(last[column] + 1).min(next[column - 1] + 1);
            if row > 1
                && column > 1
                && typed[row - 1] == name[column - 2]
                && typed[row - 2] == name[column - 1]
            {
                best = best.min(before[column - 2] + 1);
            }
            next.push(best);
        }
        before = std::mem::replace(&mut last, next);
    }
    last[name.len()]
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
    }
}
