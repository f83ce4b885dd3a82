//! Just enough JSON to read a server's answers fast: the keys of the outermost object and the raw
//! text of their values. Key order and white space differ between servers; both are allowed here.

/// The raw text of the value of a top-level key: a string comes without its quotes.
pub fn value<'a>(text: &'a str, key: &str) -> Option<&'a str> {
    Members { text, at: text.find('{')? + 1 }
        .find(|(name, _)| *name == key)
        .map(|(_, value)| value.trim_matches('"'))
}

/// Walks over the members of an object.
struct Members<'a> {
    text: &'a str,
    at: usize,
}

impl<'a> Iterator for Members<'a> {
    type Item = (&'a str, &'a str);

    fn next(&mut self) -> Option<Self::Item> {
        let bytes = self.text.as_bytes();
        let key_start = self.at + bytes[self.at..].iter().position(|byte| *byte == b'"')?;
        let key_end = end_of_string(bytes, key_start)?;
        let colon = key_end + bytes[key_end..].iter().position(|byte| *byte == b':')?;
        let start = colon + 1 + bytes[colon + 1..].iter().position(|byte| *byte != b' ')?;
        let end = end_of_value(bytes, start)?;
        self.at = end;
        Some((&self.text[key_start + 1..key_end - 1], &self.text[start..end]))
    }
}

/// The index after a string's closing quote.
fn end_of_string(bytes: &[u8], start: usize) -> Option<usize> {
    let mut at = start + 1;
    loop {
        match bytes.get(at)? {
            b'"' => return Some(at + 1),
            b'\\' => at += 2,
            _ => at += 1,
        }
    }
}

/// The index after a value, which ends at a comma or brace of the outermost object.
fn end_of_value(bytes: &[u8], start: usize) -> Option<usize> {
    let mut depth = 0;
    let mut at = start;
    loop {
        match bytes.get(at)? {
            b'"' => at = end_of_string(bytes, at)? - 1,
            b'{' | b'[' => depth += 1,
            b'}' | b',' if depth == 0 => return Some(at),
            b'}' | b']' => depth -= 1,
            _ => {}
        }
        at += 1;
    }
}
