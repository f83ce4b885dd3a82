//! Large buffers in anonymous memory mappings, which return to the system as soon as they are
//! dropped.
//!
//! The C library's heap can only shrink at its end: after a burst of large messages, one small
//! allocation there would keep all of their memory. So large buffers are not on the heap.

use std::borrow::Cow;
use std::fmt;
use std::ops::Range;

use memmap2::MmapMut;

use super::heap::block_bytes;
use crate::limits::{OWN_PAGES_BYTES_MIN, PAGE_BYTES};

/// A mapping that is filled from the beginning.
#[derive(Debug)]
struct Mapping {
    map: MmapMut,
    used: usize,
}

impl Mapping {
    /// None if the bytes are too few for a mapping, or the system has no memory left.
    fn with_capacity(bytes: usize) -> Option<Mapping> {
        if bytes < OWN_PAGES_BYTES_MIN {
            return None;
        }
        Some(Mapping { map: MmapMut::map_anon(bytes).ok()?, used: 0 })
    }

    /// Appends bytes. The mapping must have room for them.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        self.map[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    fn bytes(&self) -> &[u8] {
        &self.map[..self.used]
    }
}

/// Bytes that arrive in pieces.
#[derive(Debug, Default)]
pub struct MmapBuffer {
    heap: Vec<u8>,
    /// Boxed, because most connections never need it.
    mapping: Option<Box<Mapping>>,
}

impl MmapBuffer {
    /// Appends a piece. `expected` is the length of the whole, as far as it is known; once it is
    /// large enough for a mapping, the whole must not become longer.
    pub fn push(&mut self, piece: &[u8], expected: usize) {
        if self.mapping.is_none()
            && let Some(mut mapping) = Mapping::with_capacity(expected)
        {
            mapping.push(&self.heap);
            *self = MmapBuffer { heap: Vec::new(), mapping: Some(Box::new(mapping)) };
        }
        match &mut self.mapping {
            Some(mapping) => mapping.push(piece),
            None => {
                let needed = self.heap.len() + piece.len();
                if self.heap.capacity() < needed {
                    // A peer may announce much and send little: at most twice what has arrived.
                    let wanted = expected.min(needed.saturating_mul(2)).max(needed);
                    self.heap.reserve_exact(wanted - self.heap.len());
                }
                self.heap.extend_from_slice(piece);
            }
        }
    }

    /// The bytes that have arrived.
    pub fn bytes(&self) -> &[u8] {
        match &self.mapping {
            Some(mapping) => mapping.bytes(),
            None => &self.heap,
        }
    }

    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Memory in use. Pages that were never written to use none.
    pub fn held_bytes(&self) -> usize {
        match &self.mapping {
            Some(mapping) => mapping.used.next_multiple_of(PAGE_BYTES),
            None => self.heap.capacity(),
        }
    }
}

/// An immutable text.
pub struct MmapStr(Repr);

enum Repr {
    Heap(Box<str>),
    /// The bytes of a `str`.
    Mapping(Mapping),
}

impl MmapStr {
    /// The parts one after the other, in one allocation.
    pub fn concat(parts: [&str; 3]) -> MmapStr {
        let bytes = parts.iter().map(|part| part.len()).sum();
        MmapStr(match Mapping::with_capacity(bytes) {
            Some(mut mapping) => {
                parts.iter().for_each(|part| mapping.push(part.as_bytes()));
                Repr::Mapping(mapping)
            }
            None => {
                let mut text = String::with_capacity(bytes);
                text.extend(parts);
                Repr::Heap(text.into())
            }
        })
    }

    /// The bytes of the text, which are valid UTF-8.
    pub fn as_bytes(&self) -> &[u8] {
        match &self.0 {
            Repr::Heap(text) => text.as_bytes(),
            Repr::Mapping(mapping) => mapping.bytes(),
        }
    }

    /// A part of the text, borrowed; it must begin and end between characters. For a large text
    /// this checks its UTF-8 again, which costs little beside sending it; callers that need bytes
    /// use [`MmapStr::as_bytes`].
    pub fn slice(&self, range: Range<usize>) -> Cow<'_, str> {
        match &self.0 {
            Repr::Heap(text) => Cow::Borrowed(&text[range]),
            Repr::Mapping(mapping) => String::from_utf8_lossy(&mapping.bytes()[range]),
        }
    }

    /// Memory in use besides the value itself.
    pub fn held_bytes(&self) -> usize {
        match &self.0 {
            Repr::Heap(text) => block_bytes(text.len()),
            Repr::Mapping(mapping) => mapping.used.next_multiple_of(PAGE_BYTES),
        }
    }
}

impl PartialEq for MmapStr {
    fn eq(&self, other: &MmapStr) -> bool {
        self.as_bytes() == other.as_bytes()
    }
}

impl fmt::Debug for MmapStr {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&self.slice(0..self.as_bytes().len()), f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_buffers_hold_what_came_in_pieces() {
        for bytes in [0, 1, OWN_PAGES_BYTES_MIN - 1, OWN_PAGES_BYTES_MIN, 5 * OWN_PAGES_BYTES_MIN] {
            let whole: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
            let mut buffer = MmapBuffer::default();
            for (index, piece) in whole.chunks(1000).enumerate() {
                // With the first piece, the length of the whole is not known yet.
                buffer.push(piece, if index == 0 { piece.len() } else { bytes });
            }
            assert_eq!(buffer.bytes(), whole);
            assert!(buffer.held_bytes() >= bytes);
        }
    }

    #[test]
    fn announced_bytes_that_do_not_come_take_no_memory() {
        let mut buffer = MmapBuffer::default();
        buffer.push(b"x", 100 * OWN_PAGES_BYTES_MIN);
        assert_eq!(buffer.held_bytes(), PAGE_BYTES);
    }

    #[test]
    fn small_and_large_texts_are_what_they_were() {
        for body in ["", "4-purple-sausages", &"é".repeat(OWN_PAGES_BYTES_MIN)] {
            let text = MmapStr::concat(["phase", "é", body]);
            assert_eq!(text.slice(0..5), "phase");
            assert_eq!(text.slice(5..7), "é");
            assert_eq!(text.slice(7..7 + body.len()), body);
            assert!(text.held_bytes() >= text.as_bytes().len());
        }
    }
}
