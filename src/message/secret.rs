//! Members and their secrets, in a request's path and in the file of members (manual: members 1).

use std::fmt;
use std::hint::black_box;
use std::rc::Rc;

use crate::limits::MEMBER_SECRET_BYTES_MAX;

/// Never shown: `Debug` leaves the text out, and there is no `Display`.
#[derive(Clone)]
pub struct Secret(Rc<str>);

impl Secret {
    /// At most [`MEMBER_SECRET_BYTES_MAX`] bytes of it are compared, and the length.
    pub fn new(text: &str) -> Secret {
        Secret(text.into())
    }

    /// The secret itself.
    pub fn reveal(&self) -> &str {
        &self.0
    }
}

impl PartialEq for Secret {
    /// Takes the same time wherever they differ, so that nothing can be learned from how long an
    /// answer takes.
    fn eq(&self, other: &Secret) -> bool {
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

/// One line of the file. A member may have several, so that a secret can be replaced step by step.
#[derive(Clone, Debug, PartialEq)]
pub struct Member {
    pub name: Rc<str>,
    pub secret: Secret,
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn secrets_match_if_they_are_the_same_to_the_last_byte() {
        let secret = "k".repeat(MEMBER_SECRET_BYTES_MAX);
        let is_match = |text: &str| Secret::new(&secret) == Secret::new(text);
        assert!(is_match(&secret));
        let others = ["", "k", &secret[1..], &format!("{secret}k"), &format!("{secret}\0")];
        for other in others.into_iter().chain([&*secret.replacen('k', "K", 1)]) {
            assert!(!is_match(other), "{other}");
        }
        assert!(Secret::new("k") != Secret::new("k\0"));
        assert!(!format!("{:?}", Secret::new(&secret)).contains('k'));
    }
}
