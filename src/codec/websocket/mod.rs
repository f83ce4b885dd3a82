//! Bytes ⇄ WebSocket messages of one connection, in memory (manual: protocol 1.2).
//!
//! tungstenite reads and writes the headers of frames. What they mean is decided here, as its own
//! state machine would answer a ping before the tick's commit, and keep buffers for an idle
//! connection. Fragments are put together (`fragments`), so that a message in the making takes its
//! length once, and one that is too long takes nothing.
//!
//! Must never do I/O, answer a frame by itself, or look into a message.

mod fragments;

use std::io::Cursor;

use tungstenite::protocol::frame::FrameHeader;
use tungstenite::protocol::frame::coding::{Control, Data, OpCode};

use crate::limits::{FRAME_HEADER_BYTES_MAX, Limits};
use crate::message::{CloseReason, Event, FrameError};
use crate::sys::mmap::MmapBuffer;
use fragments::Fragments;

/// The meaning of one frame.
#[derive(Debug)]
pub enum Inbound {
    /// A message is complete, or one beyond a limit has ended and was thrown away as it came in.
    Message(Event),
    /// A fragment that is not the last.
    Fragment,
    /// With the frame that answers it.
    Ping(Vec<u8>),
    Pong,
    /// With the frame that answers it, unless a close has been sent.
    Close(Vec<u8>),
}

/// The WebSocket state of one connection.
#[derive(Debug, Default)]
pub struct WebSocket {
    /// The beginning of an incomplete frame.
    partial: MmapBuffer,
    /// A message of which the last fragment is still to come.
    message: Option<Box<Fragments>>,
}

/// A frame's header, checked.
#[derive(Clone, Copy, Debug)]
struct Header {
    opcode: OpCode,
    is_final: bool,
    mask: [u8; 4],
    header_bytes: usize,
    payload_bytes: u64,
}

impl WebSocket {
    /// Handles the next frame of `input`, and advances `input`; `None` if more bytes are needed.
    /// Must not be called again after an error.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        limits: &Limits,
    ) -> Result<Option<Inbound>, FrameError> {
        if self.message.as_ref().is_some_and(|message| message.is_discarding_frame()) {
            return Ok(self.discard(input));
        }
        let Some(header) = self.read_header(input)? else { return Ok(None) };
        let known = self.partial.bytes().len();
        if let OpCode::Data(_) = header.opcode
            && Fragments::must_discard(self.message.as_deref(), &header, limits)?
        {
            // The header has just become complete, so all before it is in `partial`.
            self.partial = MmapBuffer::default();
            *input = &input[header.header_bytes - known..];
            let message = self.message.get_or_insert_with(|| Fragments::new(&header));
            message.begin_discarding(&header, limits)?;
            return Ok(self.discard(input));
        }
        let frame_bytes = header.header_bytes + header.payload_bytes as usize;
        if known + input.len() < frame_bytes {
            self.keep(input, frame_bytes);
            return Ok(None);
        }
        let (tail, rest) = input.split_at(frame_bytes - known);
        *input = rest;
        let payload = if known == 0 {
            unmasked(&tail[header.header_bytes..], header.mask)
        } else {
            let mut frame = std::mem::take(&mut self.partial);
            frame.push(tail, frame_bytes);
            unmasked(&frame.bytes()[header.header_bytes..], header.mask)
        };
        self.handle_frame(&header, payload, limits).map(Some)
    }

    /// The header of the frame that begins in `partial` and continues in `input`. If it is
    /// incomplete, moves all of `input` to `partial`.
    fn read_header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, FrameError> {
        let mut head = [0; FRAME_HEADER_BYTES_MAX];
        let partial = self.partial.bytes();
        let known = partial.len().min(head.len());
        head[..known].copy_from_slice(&partial[..known]);
        let added = input.len().min(head.len() - known);
        head[known..known + added].copy_from_slice(&input[..added]);

        let mut cursor = Cursor::new(&head[..known + added]);
        let header = FrameHeader::parse(&mut cursor).map_err(|_| FrameError::Framing)?;
        let Some((header, payload_bytes)) = header else {
            self.keep(input, FRAME_HEADER_BYTES_MAX);
            return Ok(None);
        };
        let mask = check_header(&header, payload_bytes, self.message.is_some())?;
        let header_bytes = cursor.position() as usize;
        // The length must take the fewest bytes (RFC 6455, section 5.2).
        if header_bytes != header.len(payload_bytes) {
            return Err(FrameError::Framing);
        }
        let FrameHeader { opcode, is_final, .. } = header;
        Ok(Some(Header { opcode, is_final, mask, header_bytes, payload_bytes }))
    }

    fn keep(&mut self, input: &mut &[u8], expected_bytes: usize) {
        self.partial.push(input, expected_bytes);
        *input = &[];
    }

    /// Throws away payload; `None` if more of the frame is still to come.
    fn discard(&mut self, input: &mut &[u8]) -> Option<Inbound> {
        let inbound = self.message.as_mut()?.discard(input)?;
        if let Inbound::Message(_) = inbound {
            self.message = None;
        }
        Some(inbound)
    }

    fn handle_frame(
        &mut self,
        header: &Header,
        payload: Vec<u8>,
        limits: &Limits,
    ) -> Result<Inbound, FrameError> {
        match header.opcode {
            OpCode::Data(data) if header.is_final && self.message.is_none() => {
                complete(data, payload).map(Inbound::Message)
            }
            OpCode::Data(_) => {
                let message = self.message.get_or_insert_with(|| Fragments::new(header));
                let inbound = message.push(header, &payload, limits)?;
                if let Inbound::Message(_) = inbound {
                    self.message = None;
                }
                Ok(inbound)
            }
            OpCode::Control(Control::Ping) => Ok(Inbound::Ping(control(Control::Pong, &payload))),
            OpCode::Control(Control::Pong) => Ok(Inbound::Pong),
            OpCode::Control(_) => {
                check_close(&payload)?;
                Ok(Inbound::Close(control(Control::Close, &payload)))
            }
        }
    }

    /// Input that brings another connection to the same point of a message, in frames of that many
    /// bytes at most; none in a message that is thrown away.
    pub fn unfinished(&self, frame_bytes_max: usize) -> Option<Vec<u8>> {
        let fragments = match &self.message {
            Some(message) => message.frames(frame_bytes_max)?,
            None => Vec::new(),
        };
        Some([&fragments, self.partial.bytes()].concat())
    }

    /// Whether it is in a message that is thrown away.
    pub fn is_discarding(&self) -> bool {
        self.message.as_ref().is_some_and(|message| message.is_discarding())
    }

    /// Memory held of incomplete frames and messages.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.held_bytes() + self.message.as_ref().map_or(0, |message| message.held_bytes())
    }

    /// Bytes received of an unfinished frame or message; none if there is none.
    pub fn unfinished_bytes(&self) -> Option<u64> {
        if self.message.is_none() && self.partial.is_empty() {
            return None;
        }
        let message = self.message.as_ref().map_or(0, |message| message.received_bytes());
        Some(message + self.partial.bytes().len() as u64)
    }
}

/// A message that is complete.
fn complete(data: Data, payload: Vec<u8>) -> Result<Event, FrameError> {
    match data {
        Data::Text => String::from_utf8(payload).map(Event::Text).map_err(|_| FrameError::NotUtf8),
        _ => Ok(Event::Binary(payload)),
    }
}

fn unmasked(bytes: &[u8], mask: [u8; 4]) -> Vec<u8> {
    let mut payload = bytes.to_vec();
    let (words, rest) = payload.as_chunks_mut();
    for word in words {
        *word = (u32::from_ne_bytes(*word) ^ u32::from_ne_bytes(mask)).to_ne_bytes();
    }
    rest.iter_mut().zip(mask).for_each(|(byte, mask)| *byte ^= mask);
    payload
}

/// Checks a header before its frame is complete; returns the mask. `mid_message`: fragments of a
/// message have come, and not the last.
fn check_header(
    header: &FrameHeader,
    payload_bytes: u64,
    mid_message: bool,
) -> Result<[u8; 4], FrameError> {
    // The highest bit of a length must be 0, too (RFC 6455, section 5.2).
    let has_reserved_bits =
        header.rsv1 || header.rsv2 || header.rsv3 || payload_bytes > i64::MAX as u64;
    let is_malformed = match header.opcode {
        OpCode::Control(control) => {
            !header.is_final
                || payload_bytes > CONTROL_PAYLOAD_BYTES_MAX
                || matches!(control, Control::Reserved(_))
        }
        OpCode::Data(Data::Continue) => !mid_message,
        OpCode::Data(Data::Text | Data::Binary) => mid_message,
        OpCode::Data(Data::Reserved(_)) => true,
    };
    match header.mask {
        Some(mask) if !has_reserved_bits && !is_malformed => Ok(mask),
        _ => Err(FrameError::Framing),
    }
}

/// Checks the payload of a close frame: nothing, or a code that may be sent, and a text.
fn check_close(payload: &[u8]) -> Result<(), FrameError> {
    let Some((code, reason)) = payload.split_first_chunk() else {
        return if payload.is_empty() { Ok(()) } else { Err(FrameError::Framing) };
    };
    match u16::from_be_bytes(*code) {
        1000..=1003 | 1007..=1014 | 3000..=4999 => {}
        _ => return Err(FrameError::Framing),
    }
    std::str::from_utf8(reason).map(drop).map_err(|_| FrameError::NotUtf8)
}

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_PAYLOAD_BYTES_MAX: u64 = 125;

/// A ping frame without payload.
pub fn ping() -> Vec<u8> {
    control(Control::Ping, &[])
}

/// The close frame of a reason.
pub fn close(reason: CloseReason) -> Vec<u8> {
    let payload =
        reason.frame().map(|(code, text)| [&code.to_be_bytes()[..], text.as_bytes()].concat());
    control(Control::Close, &payload.unwrap_or_default())
}

fn control(control: Control, payload: &[u8]) -> Vec<u8> {
    let mut frame = Vec::with_capacity(FRAME_HEADER_BYTES_MAX + payload.len());
    let header = FrameHeader { opcode: OpCode::Control(control), ..FrameHeader::default() };
    write_header(&header, payload.len(), &mut frame);
    frame.extend_from_slice(payload);
    frame
}

/// Appends a text message in one frame; its payload in parts.
pub fn text(parts: &[&[u8]], output: &mut Vec<u8>) {
    text_header(parts.iter().map(|part| part.len()).sum(), output);
    parts.iter().for_each(|part| output.extend_from_slice(part));
}

/// Appends the header of a text message in one frame.
pub fn text_header(payload_bytes: usize, output: &mut Vec<u8>) {
    let header = FrameHeader { opcode: OpCode::Data(Data::Text), ..FrameHeader::default() };
    write_header(&header, payload_bytes, output);
}

fn write_header(header: &FrameHeader, payload_bytes: usize, output: &mut Vec<u8>) {
    // Writing to memory cannot fail.
    let written = header.format(payload_bytes as u64, output);
    debug_assert!(written.is_ok());
}
