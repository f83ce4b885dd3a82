//! Large buffers in pages of their own, which go back to the system the moment they are dropped.
//!
//! The C library's heap can only shrink at its end: after a burst of large messages one small thing
//! that happens to lie there holds on to all their room. So what is large does not live on the
//! heap. Plain memory; must never know what it holds.

use std::fmt;
use std::ops::Deref;

use memmap2::MmapMut;

use crate::limits::{OWN_PAGES_BYTES_MIN, PAGE_BYTES};

/// Pages that are filled from the beginning.
#[derive(Debug)]
struct Pages {
    map: MmapMut,
    used: usize,
}

impl Pages {
    /// Room for so many bytes; none if they are too few for pages of their own, or the system has
    /// no more to give.
    fn with_capacity(bytes: usize) -> Option<Pages> {
        if bytes < OWN_PAGES_BYTES_MIN {
            return None;
        }
        Some(Pages { map: MmapMut::map_anon(bytes).ok()?, used: 0 })
    }

    /// Appends bytes, for which there is room.
    fn push(&mut self, bytes: &[u8]) {
        let end = self.used + bytes.len();
        self.map[self.used..end].copy_from_slice(bytes);
        self.used = end;
    }

    fn bytes(&self) -> &[u8] {
        &self.map[..self.used]
    }
}

/// Bytes that come in piece by piece.
#[derive(Debug, Default)]
pub struct Buffer {
    heap: Vec<u8>,
    /// Behind a pointer: most connections never need it.
    pages: Option<Box<Pages>>,
}

impl Buffer {
    /// Appends a piece. There will be `expected` bytes in all, as far as is known; once that is
    /// large, it holds.
    pub fn push(&mut self, piece: &[u8], expected: usize) {
        if self.pages.is_none()
            && let Some(mut pages) = Pages::with_capacity(expected)
        {
            pages.push(&self.heap);
            *self = Buffer { heap: Vec::new(), pages: Some(Box::new(pages)) };
        }
        match &mut self.pages {
            Some(pages) => pages.push(piece),
            None => {
                let needed = self.heap.len() + piece.len();
                if self.heap.capacity() < needed {
                    // A peer may announce much and send little: at most twice what is there.
                    let wanted = expected.min(needed.saturating_mul(2)).max(needed);
                    self.heap.reserve_exact(wanted - self.heap.len());
                }
                self.heap.extend_from_slice(piece);
            }
        }
    }

    /// What has come.
    pub fn bytes(&self) -> &[u8] {
        match &self.pages {
            Some(pages) => pages.bytes(),
            None => &self.heap,
        }
    }

    /// Whether nothing has come.
    pub fn is_empty(&self) -> bool {
        self.bytes().is_empty()
    }

    /// Memory that it takes. Pages that nothing was written to take none.
    pub fn held_bytes(&self) -> usize {
        match &self.pages {
            Some(pages) => pages.used.next_multiple_of(PAGE_BYTES),
            None => self.heap.capacity(),
        }
    }
}

/// A text that does not change any more.
pub struct Text(Kept);

enum Kept {
    Heap(Box<str>),
    Pages(Pages),
}

impl From<&str> for Text {
    fn from(text: &str) -> Text {
        Text(match Pages::with_capacity(text.len()) {
            Some(mut pages) => {
                pages.push(text.as_bytes());
                Kept::Pages(pages)
            }
            None => Kept::Heap(text.into()),
        })
    }
}

impl Deref for Text {
    type Target = str;

    fn deref(&self) -> &str {
        match &self.0 {
            Kept::Heap(text) => text,
            // It was a text when it came; looking again costs little beside sending it.
            Kept::Pages(pages) => std::str::from_utf8(pages.bytes()).unwrap_or_default(),
        }
    }
}

impl PartialEq for Text {
    fn eq(&self, other: &Text) -> bool {
        **self == **other
    }
}

impl fmt::Debug for Text {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        fmt::Debug::fmt(&**self, f)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn small_and_large_buffers_hold_what_came_in_pieces() {
        for bytes in [0, 1, OWN_PAGES_BYTES_MIN - 1, OWN_PAGES_BYTES_MIN, 5 * OWN_PAGES_BYTES_MIN] {
            let whole: Vec<u8> = (0..bytes).map(|index| index as u8).collect();
            let mut buffer = Buffer::default();
            for (index, piece) in whole.chunks(1000).enumerate() {
                // Of the first piece it is not known yet how many there will be.
                buffer.push(piece, if index == 0 { piece.len() } else { bytes });
            }
            assert_eq!(buffer.bytes(), whole);
            assert!(buffer.held_bytes() >= bytes);
        }
    }

    #[test]
    fn announced_bytes_that_do_not_come_take_no_memory() {
        let mut buffer = Buffer::default();
        buffer.push(b"x", 100 * OWN_PAGES_BYTES_MIN);
        assert_eq!(buffer.held_bytes(), PAGE_BYTES);
    }

    #[test]
    fn small_and_large_texts_are_what_they_were() {
        for text in ["", "4-purple-sausages", &"é".repeat(OWN_PAGES_BYTES_MIN)] {
            assert_eq!(&*Text::from(text), text);
        }
    }
}
