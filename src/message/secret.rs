//! The secret of a member, in a request's path and in the file of members (manual: members 1).

use std::fmt;
use std::hint::black_box;

use crate::limits::MEMBER_SECRET_BYTES_MAX;

/// Never shown: `Debug` leaves the text out, and there is no `Display`.
#[derive(Clone)]
pub struct Secret(Box<str>);

impl Secret {
    /// At most [`MEMBER_SECRET_BYTES_MAX`] bytes of it are compared, and the length.
    pub fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// Whether they are the same. Takes the same time wherever they differ, so that nothing can be
    /// learned from how long an answer takes.
    pub fn matches(&self, other: &Secret) -> bool {
        let (ours, theirs) = (self.0.as_bytes(), other.0.as_bytes());
        let at = |bytes: &[u8], index: usize| bytes.get(index).copied().unwrap_or(0);
        let differing = (0..MEMBER_SECRET_BYTES_MAX)
            .fold(0, |differing, index| black_box(differing | at(ours, index) ^ at(theirs, index)));
        (differing == 0) & (ours.len() == theirs.len())
    }
}

impl fmt::Debug for Secret {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Secret")
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_match_if_they_are_the_same_to_the_last_byte() {
        let secret = "k".repeat(MEMBER_SECRET_BYTES_MAX);
        let is_match = |text: &str| Secret::new(&secret).matches(&Secret::new(text));
        assert!(is_match(&secret));
        let others = ["", "k", &secret[1..], &format!("{secret}k"), &format!("{secret}\0")];
        for other in others.into_iter().chain([&*secret.replacen('k', "K", 1)]) {
            assert!(!is_match(other), "{other}");
        }
        assert!(!Secret::new("k").matches(&Secret::new("k\0")));
        assert!(!format!("{:?}", Secret::new(&secret)).contains('k'));
    }
}
