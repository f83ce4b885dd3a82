//! The file of members (`--members`), whose clients may begin an exchange (manual: members 1).
//!
//! Text in, members out; an error names the line and the rule, and never the text. Must never open
//! a file.

use std::collections::HashMap;
use std::hash::{BuildHasher, RandomState};
use std::rc::Rc;

use super::values;
use crate::limits::{MEMBER_NAME_BYTES_MAX, MEMBER_SECRET_BYTES_MAX, MEMBER_SECRET_BYTES_MIN};
use crate::message::{Member, Secret};

/// All lines of the file.
#[derive(Clone, Debug)]
pub struct Members {
    lines: Vec<Member>,
    /// Where the line of each secret is, by its hash. That has a random key, so the time that a
    /// search takes says nothing of the secrets; the one found is compared in constant time.
    by_hash: HashMap<u64, usize>,
    key: RandomState,
}

impl Members {
    /// Reads the file's text. The error begins with the line's number.
    pub fn parse(content: &str) -> Result<Members, String> {
        let (mut lines, mut by_hash, key) = (Vec::new(), HashMap::new(), RandomState::new());
        for (number, line) in values::lines(content) {
            let error = |problem: &str| format!("line {number}: {problem}");
            let (name, secret) = member(line).map_err(|problem| error(&problem))?;
            // No two secrets have the same hash: it has 64 bits.
            if by_hash.insert(key.hash_one(secret), lines.len()).is_some() {
                return Err(error("the secret is in an earlier line already"));
            }
            lines.push(Member { name: name.into(), secret: Secret::new(secret) });
        }
        Ok(Members { lines, by_hash, key })
    }

    /// The member with that secret.
    pub fn find(&self, secret: &Secret) -> Option<&Member> {
        let line = self.by_hash.get(&self.key.hash_one(secret.reveal()))?;
        self.lines.get(*line).filter(|member| member.secret == *secret)
    }

    /// Whether that line, name and secret, is in the file.
    pub fn contains(&self, member: &Member) -> bool {
        self.find(&member.secret) == Some(member)
    }

    /// How many lines there are.
    pub fn count(&self) -> usize {
        self.lines.len()
    }

    /// The name in each line, one of several lines several times.
    pub fn names(&self) -> impl Iterator<Item = &Rc<str>> {
        self.lines.iter().map(|line| &line.name)
    }
}

/// Name and secret in a line.
fn member(line: &str) -> Result<(&str, &str), String> {
    let mut words = line.split_whitespace();
    let (Some(name), Some(secret), None) = (words.next(), words.next(), words.next()) else {
        return Err("must have the form NAME SECRET".to_owned());
    };
    let is_secret = (MEMBER_SECRET_BYTES_MIN..=MEMBER_SECRET_BYTES_MAX).contains(&secret.len())
        && secret.bytes().all(is_unreserved);
    if !is_secret {
        return Err(format!(
            "the secret must be {MEMBER_SECRET_BYTES_MIN} to {MEMBER_SECRET_BYTES_MAX} letters, \
             digits, '-', '.', '_' or '~'"
        ));
    }
    Ok((self::name(name)?, secret))
}

/// A member's name, as the status page shows it.
pub fn name(text: &str) -> Result<&str, String> {
    let is_allowed = |byte| is_unreserved(byte) || matches!(byte, b'@' | b'+');
    if (1..=MEMBER_NAME_BYTES_MAX).contains(&text.len()) && text.bytes().all(is_allowed) {
        return Ok(text);
    }
    // It may be a secret in the wrong place.
    Err(format!(
        "the name must be 1 to {MEMBER_NAME_BYTES_MAX} letters, digits, '-', '.', '_', '~', '@' or '+'"
    ))
}

/// What stands in a URL as it is (RFC 3986, section 2.3).
fn is_unreserved(byte: u8) -> bool {
    byte.is_ascii_alphanumeric() || matches!(byte, b'-' | b'.' | b'_' | b'~')
}

#[cfg(test)]
mod tests {
    use super::*;

    const SECRET: &str = "0123456789abcdef";

    #[test]
    fn a_line_has_a_name_and_a_secret() {
        let content = format!(
            "# comment\n\n  alice \t{SECRET} \r\nalice {SECRET}x\nbob@home+1 {}",
            "~".repeat(MEMBER_SECRET_BYTES_MAX)
        );
        let members = Members::parse(&content).expect("good");
        let names: Vec<&str> = members.names().map(|name| &**name).collect();
        assert_eq!(names, ["alice", "alice", "bob@home+1"]);
        let line = |name: &str, text: &str| Member { name: name.into(), secret: Secret::new(text) };
        let find = |text: &str| members.find(&Secret::new(text));
        let longest = "~".repeat(MEMBER_SECRET_BYTES_MAX);
        for member in [line("alice", SECRET), line("bob@home+1", &longest)] {
            assert_eq!(find(member.secret.reveal()), Some(&member));
            assert!(members.contains(&member));
        }
        for gone in [line("bob@home+1", SECRET), line("alice", &SECRET[1..])] {
            assert!(!members.contains(&gone), "{}", gone.name);
        }
        for wrong in ["", "alice", "0123456789ABCDEF", &SECRET[1..], "0123456789abcdefy"] {
            assert_eq!(find(wrong), None, "{wrong}");
        }
        assert_eq!(find(&format!("{longest}~")), None);
        assert_eq!(Members::parse("\n# nobody\n").map(|members| members.count()), Ok(0));
    }

    #[test]
    fn a_long_file_is_read_and_searched_at_once_as_the_loop_waits_for_it() {
        let lines = (0..50_000).map(|it| (format!("member-{it}"), format!("{it:016}")));
        let text: String =
            lines.clone().map(|(name, secret)| format!("{name} {secret}\n")).collect();
        let members = Members::parse(&text).expect("good");
        assert_eq!(members.count(), 50_000);
        for (name, secret) in lines.step_by(50) {
            let member = Member { name: name.into(), secret: Secret::new(&secret) };
            assert!(members.contains(&member) && members.find(&member.secret) == Some(&member));
        }
    }

    #[test]
    fn an_error_names_the_line_and_never_the_secret() {
        for (line, named) in [
            ("hunter2hunter2hunter2".to_owned(), "NAME SECRET"),
            (format!("alice hunter2 {SECRET}"), "NAME SECRET"),
            ("alice hunter2hunter2x".replace("hunter2x", ""), "16 to 128"),
            (format!("alice hunter2{}", "x".repeat(MEMBER_SECRET_BYTES_MAX)), "16 to 128"),
            ("alice hunter2/hunter2/hunter2".to_owned(), "letters"),
            ("alice hunter2%20hunter2hunter2".to_owned(), "letters"),
            ("hunter2hunter2!? 0123456789abcdefg".to_owned(), "the name"),
            (format!("bob {SECRET}"), "earlier line"),
        ] {
            let content = format!("# members\nalice {SECRET}\n{line}\n");
            let problem = Members::parse(&content).expect_err("bad");
            let expected = ["line 3", named];
            assert!(expected.iter().all(|text| problem.contains(text)), "{line}: {problem}");
            assert!(!problem.contains("hunter2") && !problem.contains(SECRET), "{problem}");
        }
    }
}
