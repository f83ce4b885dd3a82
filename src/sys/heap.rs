//! Memory that values take on the C library's heap, for the limits that count memory.

/// Bytes in front of a block that hold its size.
const BLOCK_HEADER_BYTES: usize = 8;

/// Blocks are multiples of this on 64-bit systems, and at least two of it.
const BLOCK_STEP_BYTES: usize = 16;

/// The two counters in front of the value of an `Rc`.
const RC_HEADER_BYTES: usize = 16;

/// Bytes that an allocation takes.
pub const fn block_bytes(bytes: usize) -> usize {
    let block = (bytes + BLOCK_HEADER_BYTES).next_multiple_of(BLOCK_STEP_BYTES);
    if block < 2 * BLOCK_STEP_BYTES { 2 * BLOCK_STEP_BYTES } else { block }
}

/// Bytes that an `Rc<str>` of that length takes.
pub const fn shared_text_bytes(length: usize) -> usize {
    block_bytes(RC_HEADER_BYTES + length)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocks_are_what_the_heap_hands_out() {
        for (bytes, block) in [(0, 32), (24, 32), (25, 48), (40, 48), (1_000, 1_008)] {
            assert_eq!(block_bytes(bytes), block, "{bytes}");
        }
        assert_eq!(shared_text_bytes(256), 288);
    }
}
