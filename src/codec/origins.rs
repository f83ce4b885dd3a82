//! The origins that may connect: a browser sends that of the page, other clients send none.

/// Patterns with `*` for any text.
#[derive(Clone, Debug)]
pub struct Origins(pub Vec<String>);

impl Default for Origins {
    fn default() -> Self {
        Origins(vec!["*".to_owned()])
    }
}

impl Origins {
    /// Browsers leave out the scheme's own port, while upstream's library wants it in its patterns:
    /// a pattern may be written either way.
    pub fn allow(&self, origin: &str) -> bool {
        let other = other_spelling(origin);
        self.0.iter().any(|pattern| {
            matches(pattern, origin) || other.as_ref().is_some_and(|it| matches(pattern, it))
        })
    }
}

/// An origin with the port of its scheme added or left out. Of schemes that have none, such as
/// those of browser extensions, upstream's library compares the port as `None`.
fn other_spelling(origin: &str) -> Option<String> {
    let (scheme, host) = origin.split_once("://")?;
    let port = match scheme.to_ascii_lowercase().as_str() {
        "http" => ":80",
        "https" => ":443",
        _ => ":None",
    };
    // The colons of an IPv6 address stand in brackets.
    let has_port = host.rsplit(']').next()?.contains(':');
    match origin.strip_suffix(port) {
        Some(without) => Some(without.to_owned()),
        None => (!has_port && !host.is_empty()).then(|| format!("{origin}{port}")),
    }
}

/// Matches a text against a pattern in which `*` stands for any text. Each part between stars is
/// searched once, from the left: the time is at most the product of the lengths.
fn matches(pattern: &str, text: &str) -> bool {
    let (pattern, text) = (pattern.to_ascii_lowercase(), text.to_ascii_lowercase());
    let mut parts = pattern.split('*');
    let first = parts.next().unwrap_or_default();
    let Some(mut rest) = text.strip_prefix(first) else { return false };
    let Some(last) = parts.next_back() else { return rest.is_empty() };
    for part in parts {
        match rest.find(part) {
            Some(at) => rest = &rest[at + part.len()..],
            None => return false,
        }
    }
    rest.ends_with(last)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_star_stands_for_anything() {
        for (pattern, text, expected) in [
            ("*", "null", true),
            ("https://example.org", "https://example.org", true),
            ("https://example.org", "https://example.org.evil", false),
            ("https://*.example.org", "https://a.example.org", true),
            ("http://localhost:*", "http://localhost:8080", true),
            ("http://localhost:*", "http://localhost", false),
        ] {
            assert_eq!(matches(pattern, text), expected, "{pattern} {text}");
        }
    }

    #[test]
    fn an_origin_matches_with_and_without_the_port_of_its_scheme() {
        for (pattern, origin, expected) in [
            ("https://winden.app:443", "https://winden.app", true),
            ("https://winden.app", "https://winden.app", true),
            ("http://winden.app:80", "http://winden.app", true),
            ("http://localhost:*", "http://localhost", true),
            ("https://[2001:db8::1]:443", "https://[2001:db8::1]", true),
            ("*://winden.app:443", "https://winden.app", true),
            ("https://winden.app:443", "http://winden.app", false),
            ("https://winden.app:443", "https://winden.app:8443", false),
            ("https://winden.app:443", "https://winden.app.evil", false),
            ("https://winden.app:80", "https://winden.app", false),
            ("https://*:443", "null", false),
            ("https://winden.app", "https://winden.app:443", true),
            ("https://winden.app", "https://winden.app:8443", false),
            ("https://[2001:db8::443]", "https://[2001:db8::443]:443", true),
            ("*://*:*", "moz-extension://6f1c", true),
            ("moz-extension://*:*", "moz-extension://6f1c", true),
            ("moz-extension://6f1c", "moz-extension://6f1c", true),
            ("moz-extension://*:80", "moz-extension://6f1c", false),
            ("*://*:*", "file://", false),
        ] {
            let origins = Origins(vec![pattern.to_owned()]);
            assert_eq!(origins.allow(origin), expected, "{pattern} {origin}");
        }
    }
}
