//! A message in the making: put together from its fragments or, if it is too long, thrown away as
//! it comes in.

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Data, OpCode};

use super::{Header, Inbound, complete, unmasked, write_header};
use crate::limits::{
    EMPTY_FRAGMENTS_MAX, Limits, MESSAGE_DISCARDED_BYTES_MAX, ORIG_CHARS_MAX, OWN_PAGES_BYTES_MIN,
};
use crate::message::{Event, FrameError, Refusal};
use crate::sys::mmap::MmapBuffer;

/// Bytes kept of a discarded message: enough for [`ORIG_CHARS_MAX`] of the longest characters.
const BEGINNING_BYTES: usize = 4 * ORIG_CHARS_MAX;

/// The fragments of a message so far.
#[derive(Debug)]
pub struct Fragments {
    opcode: Data,
    /// Unmasked payload; of a message that is too long, the beginning.
    payload: MmapBuffer,
    /// Bytes of a text's payload that are checked to be UTF-8.
    valid_bytes: usize,
    empty_count: usize,
    discarded: Option<Discarded>,
}

/// A message that is too long: it is read to its end, and not kept.
#[derive(Debug)]
struct Discarded {
    refusal: Refusal,
    /// Payload received and announced.
    bytes: u64,
    /// The present frame; its `payload_bytes` are those that are still to come.
    frame: Header,
}

impl Fragments {
    /// The message that begins with this frame.
    pub fn new(header: &Header) -> Box<Fragments> {
        let opcode = if let OpCode::Data(data) = header.opcode { data } else { Data::Binary };
        Box::new(Fragments {
            opcode,
            payload: MmapBuffer::default(),
            valid_bytes: 0,
            empty_count: 0,
            discarded: None,
        })
    }

    /// Frames from which another connection gets the same fragments, each with at most that many
    /// bytes of payload; none if the message is thrown away.
    pub fn frames(&self, frame_bytes_max: usize) -> Option<Vec<u8>> {
        if self.is_discarding() {
            return None;
        }
        let mut frames = Vec::new();
        let (mut data, mut rest) = (self.opcode, self.payload.bytes());
        while !rest.is_empty() || data != Data::Continue {
            let (payload, left) = rest.split_at(rest.len().min(frame_bytes_max));
            let header = FrameHeader {
                is_final: false,
                opcode: OpCode::Data(data),
                mask: Some([0; 4]),
                ..FrameHeader::default()
            };
            write_header(&header, payload.len(), &mut frames);
            frames.extend_from_slice(payload);
            (data, rest) = (Data::Continue, left);
        }
        Some(frames)
    }

    /// Memory in use.
    pub fn held_bytes(&self) -> usize {
        self.payload.held_bytes() + size_of::<Fragments>()
    }

    /// Bytes of payload that have come.
    pub fn received_bytes(&self) -> u64 {
        let frame_left =
            self.discarded.as_ref().map_or(0, |discarded| discarded.frame.payload_bytes);
        self.announced_bytes() - frame_left
    }

    fn announced_bytes(&self) -> u64 {
        let kept = self.payload.bytes().len() as u64;
        self.discarded.as_ref().map_or(kept, |discarded| discarded.bytes)
    }

    /// Whether the message is thrown away.
    pub fn is_discarding(&self) -> bool {
        self.discarded.is_some()
    }

    /// Whether payload of a frame that is thrown away is still to come.
    pub fn is_discarding_frame(&self) -> bool {
        self.discarded.as_ref().is_some_and(|discarded| discarded.frame.payload_bytes > 0)
    }

    /// Whether a message must be thrown away because of the frame that comes next. Fails if it is
    /// too long even for that.
    pub fn must_discard(
        message: Option<&Fragments>,
        next: &Header,
        limits: &Limits,
    ) -> Result<bool, FrameError> {
        let bytes =
            message.map_or(0, Fragments::announced_bytes).saturating_add(next.payload_bytes);
        let is_within_limits = bytes <= limits.message_bytes_max as u64
            && next.payload_bytes <= limits.frame_bytes_max as u64;
        if !is_within_limits && bytes > MESSAGE_DISCARDED_BYTES_MAX as u64 {
            return Err(FrameError::TooLong);
        }
        Ok(!is_within_limits || message.is_some_and(Fragments::is_discarding))
    }

    /// Begins to throw away the payload that comes after this header.
    pub fn begin_discarding(&mut self, header: &Header, limits: &Limits) -> Result<(), FrameError> {
        let known = self.payload.bytes().len();
        let refusal = if header.payload_bytes > limits.frame_bytes_max as u64
            && limits.frame_bytes_max < limits.message_bytes_max
        {
            Refusal::FrameTooLong { bytes_max: limits.frame_bytes_max }
        } else {
            Refusal::MessageTooLong { bytes_max: limits.message_bytes_max }
        };
        let discarded = self.discarded.get_or_insert_with(|| {
            let mut beginning = MmapBuffer::default();
            let kept = known.min(BEGINNING_BYTES);
            beginning.push(&self.payload.bytes()[..kept], kept);
            self.payload = beginning;
            Discarded { refusal, bytes: known as u64, frame: *header }
        });
        discarded.bytes = discarded.bytes.saturating_add(header.payload_bytes);
        discarded.frame = *header;
        self.count_empty(header)
    }

    /// Throws away payload; `None` if more of the frame is still to come. After
    /// [`Inbound::Message`] the message has ended.
    pub fn discard(&mut self, input: &mut &[u8]) -> Option<Inbound> {
        let Discarded { frame, .. } = self.discarded.as_mut()?;
        let count = frame.payload_bytes.min(input.len() as u64) as usize;
        let bytes = input.split_off(..count)?;
        let wanted = count.min(BEGINNING_BYTES - self.payload.bytes().len());
        if wanted > 0 {
            self.payload.push(&unmasked(&bytes[..wanted], frame.mask), BEGINNING_BYTES);
        }
        let offset = count % frame.mask.len();
        frame.mask.rotate_left(offset);
        frame.payload_bytes -= count as u64;
        if frame.payload_bytes > 0 {
            return None;
        }
        if !frame.is_final {
            return Some(Inbound::Fragment);
        }
        let refusal = self.discarded.take()?.refusal;
        let beginning = String::from_utf8_lossy(self.payload.bytes());
        let beginning = beginning.chars().take(ORIG_CHARS_MAX).collect();
        Some(Inbound::Message(Event::TooLong { refusal, beginning }))
    }

    /// Appends a fragment. A text that cannot become UTF-8 any more is refused at once. After
    /// [`Inbound::Message`] the message has ended.
    pub fn push(
        &mut self,
        header: &Header,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<Inbound, FrameError> {
        let bytes = self.payload.bytes().len() + payload.len();
        // A buffer in pages of its own cannot grow.
        let expected = if bytes < OWN_PAGES_BYTES_MIN {
            OWN_PAGES_BYTES_MIN - 1
        } else {
            limits.message_bytes_max
        };
        self.payload.push(payload, expected);
        if self.opcode == Data::Text {
            match std::str::from_utf8(&self.payload.bytes()[self.valid_bytes..]) {
                Ok(valid) => self.valid_bytes += valid.len(),
                Err(error) if error.error_len().is_none() => {
                    self.valid_bytes += error.valid_up_to()
                }
                Err(_) => return Err(FrameError::NotUtf8),
            }
        }
        self.count_empty(header)?;
        if !header.is_final {
            return Ok(Inbound::Fragment);
        }
        complete(self.opcode, self.payload.bytes().to_vec()).map(Inbound::Message)
    }

    /// Counts a fragment if it is empty and not the last.
    fn count_empty(&mut self, header: &Header) -> Result<(), FrameError> {
        let is_empty = header.payload_bytes == 0 && !header.is_final;
        self.empty_count += usize::from(is_empty);
        if self.empty_count > EMPTY_FRAGMENTS_MAX { Err(FrameError::Framing) } else { Ok(()) }
    }
}
