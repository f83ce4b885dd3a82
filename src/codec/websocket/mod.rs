//! Bytes ⇄ WebSocket messages of one connection, in memory (manual: protocol 1.2).
//!
//! tungstenite does the framing. It reads from a slice and writes to a buffer, never to a socket,
//! so that not even a pong can leave before the tick's commit, and it receives one whole frame at
//! a time. After each its context holds nothing: it is dropped or, if small, shared with the next
//! connection. Fragments are put together here (`fragments`), so that a message in the making takes
//! its length once, and one that is too long takes nothing. An idle connection has no buffers.
//!
//! Must never do I/O, and never look into a message.

mod fragments;

use std::io::{self, Cursor, Read, Write};

use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader, Utf8Bytes};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Message};

use crate::limits::{FRAME_HEADER_BYTES_MAX, Limits};
use crate::message::Refusal;
use crate::message::close::{CloseReason, FrameError};
use crate::sys::mmap::MmapBuffer;
use fragments::Fragments;

/// Bounds of tungstenite's read buffer. It zeroes the buffer before each read and copies the
/// payload beside the frame, so that twice the frame is best.
const CONTEXT_READ_BYTES_MIN: usize = 256;
const CONTEXT_READ_BYTES_MAX: usize = 16 * 1024;

/// Longest frame for which the shared context is used; nearly all are shorter.
const SHARED_FRAME_BYTES_MAX: usize = 512;

/// Bytes of pongs and closes that may wait inside tungstenite. None do, as the buffer below it
/// never blocks.
const CONTEXT_WRITE_BYTES_MAX: usize = 4096;

#[derive(Debug, PartialEq)]
pub enum Inbound {
    Text(Utf8Bytes),
    Binary(Bytes),
    Pong,
    /// A frame that is no message: a ping, or a fragment that is not the last.
    Frame,
    /// A message beyond a limit has ended and was thrown away as it came in.
    TooLong {
        refusal: Refusal,
        beginning: String,
    },
    /// The peer closes, or has answered our close. Our close frame is in the output.
    Closed,
}

fn close_frame(reason: CloseReason) -> Option<CloseFrame> {
    let frame = |(code, text)| CloseFrame {
        code: CloseCode::from(code),
        reason: Utf8Bytes::from_static(text),
    };
    reason.frame().map(frame)
}

/// A context without a message in progress, for the next short frame of any connection. Creating a
/// context would cost more than all else that is done for a short frame.
#[derive(Debug, Default)]
pub struct SharedContext(Option<Box<WebSocketContext>>);

/// The WebSocket state of one connection.
#[derive(Debug, Default)]
pub struct WebSocket {
    /// Present while a close is under way.
    context: Option<Box<WebSocketContext>>,
    /// The beginning of an incomplete frame.
    partial: MmapBuffer,
    /// A message of which the last fragment is still to come.
    message: Option<Box<Fragments>>,
    /// Either side has sent a close.
    closing: bool,
}

/// A frame's header, checked.
struct Header {
    header: FrameHeader,
    mask: [u8; 4],
    header_bytes: usize,
    payload_bytes: u64,
}

impl WebSocket {
    /// Handles the next frame of `input`, and advances `input`; `None` if more bytes are needed.
    /// Pongs and closes in answer are appended to `output`. Must not be called again after an
    /// error.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        limits: &Limits,
        shared: &mut SharedContext,
    ) -> Result<Option<Inbound>, FrameError> {
        if self.message.as_ref().is_some_and(|message| message.is_discarding_frame()) {
            return Ok(self.discard(input));
        }
        if self.partial.is_empty() && input.is_empty() {
            return Ok(None);
        }
        let Some(header) = self.header(input)? else { return Ok(None) };
        if let OpCode::Data(_) = header.header.opcode
            && Fragments::must_discard(self.message.as_deref(), &header, limits)?
        {
            // The header has just become complete, so all before it is in `partial`.
            let known = self.partial.bytes().len();
            self.partial = MmapBuffer::default();
            *input = &input[header.header_bytes - known..];
            let message = self.message.get_or_insert_with(|| Fragments::new(&header));
            message.begin_discarding(&header, limits)?;
            return Ok(self.discard(input));
        }
        let frame_bytes = header.header_bytes + header.payload_bytes as usize;
        let known = self.partial.bytes().len();
        if known + input.len() < frame_bytes {
            self.keep(input, frame_bytes);
            return Ok(None);
        }
        let (tail, rest) = input.split_at(frame_bytes - known);
        *input = rest;
        if known == 0 {
            return self.handle_frame(&header, tail, output, limits, shared).map(Some);
        }
        let mut frame = std::mem::take(&mut self.partial);
        frame.push(tail, frame_bytes);
        self.handle_frame(&header, frame.bytes(), output, limits, shared).map(Some)
    }

    /// The header of the frame that begins in `partial` and continues in `input`. If it is
    /// incomplete, moves all of `input` to `partial`.
    fn header(&mut self, input: &mut &[u8]) -> Result<Option<Header>, FrameError> {
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
        Ok(Some(Header { header, mask, header_bytes, payload_bytes }))
    }

    fn keep(&mut self, input: &mut &[u8], expected_bytes: usize) {
        self.partial.push(input, expected_bytes);
        *input = &[];
    }

    /// Throws away payload; `None` if more of the frame is still to come.
    fn discard(&mut self, input: &mut &[u8]) -> Option<Inbound> {
        let inbound = self.message.as_mut()?.discard(input)?;
        if !matches!(inbound, Inbound::Frame) {
            self.message = None;
        }
        Some(inbound)
    }

    /// Handles one whole frame: fragments here, all else in tungstenite.
    fn handle_frame(
        &mut self,
        header: &Header,
        frame: &[u8],
        output: &mut Vec<u8>,
        limits: &Limits,
        shared: &mut SharedContext,
    ) -> Result<Inbound, FrameError> {
        let is_whole = header.header.is_final && self.message.is_none();
        match header.header.opcode {
            OpCode::Data(_) if !is_whole => {
                let payload = unmasked(&frame[header.header_bytes..], header.mask);
                self.assemble(header, &payload, limits)
            }
            _ => self.feed(frame, output, limits, shared),
        }
    }

    /// Adds a fragment to its message.
    fn assemble(
        &mut self,
        header: &Header,
        payload: &[u8],
        limits: &Limits,
    ) -> Result<Inbound, FrameError> {
        let message = self.message.get_or_insert_with(|| Fragments::new(header));
        let inbound = message.push(header, payload, limits)?;
        if !matches!(inbound, Inbound::Frame) {
            self.message = None;
        }
        Ok(inbound)
    }

    /// Passes one whole frame to tungstenite.
    fn feed(
        &mut self,
        frame: &[u8],
        output: &mut Vec<u8>,
        limits: &Limits,
        shared: &mut SharedContext,
    ) -> Result<Inbound, FrameError> {
        let uses_shared = self.context.is_none() && frame.len() <= SHARED_FRAME_BYTES_MAX;
        let context = self.context.get_or_insert_with(|| {
            let context = if uses_shared { shared.0.take() } else { None };
            let frame_bytes = if uses_shared { SHARED_FRAME_BYTES_MAX } else { frame.len() };
            context.unwrap_or_else(|| new_context(frame_bytes, limits))
        });
        let mut memory = Memory { input: frame, output };
        let inbound = match context.read(&mut memory) {
            Ok(Message::Text(text)) => Inbound::Text(text),
            Ok(Message::Binary(payload)) => Inbound::Binary(payload),
            Ok(Message::Pong(_)) => Inbound::Pong,
            Ok(Message::Ping(_)) => {
                // Writes the pong. Writing to memory cannot fail.
                let flushed = context.flush(&mut memory);
                debug_assert!(flushed.is_ok());
                Inbound::Frame
            }
            Ok(Message::Close(_)) => {
                match bad_gateway_reply(frame) {
                    Some(reply) if !self.closing => _ = reply.format(memory.output),
                    // Writes the answer; the error that reports the end is expected.
                    _ => _ = context.flush(&mut memory),
                }
                self.closing = true;
                Inbound::Closed
            }
            Ok(Message::Frame(_)) => Inbound::Frame,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => Inbound::Frame,
            Err(Error::ConnectionClosed) => Inbound::Closed,
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                return Err(FrameError::TooLong);
            }
            Err(Error::Utf8(_)) => return Err(FrameError::NotUtf8),
            Err(_) => return Err(FrameError::Framing),
        };
        if !self.closing {
            let context = self.context.take();
            if uses_shared {
                shared.0 = context;
            }
        }
        Ok(inbound)
    }

    /// Appends a close frame to `output`, unless either side has closed.
    pub fn close(&mut self, reason: CloseReason, output: &mut Vec<u8>, limits: &Limits) {
        let context = self.context.get_or_insert_with(|| new_context(0, limits));
        let mut memory = Memory { input: &[], output };
        // Fails only if a close has begun already.
        _ = context.close(&mut memory, close_frame(reason));
        self.closing = true;
    }

    /// The beginning of an incomplete frame, as it came in; `None` between the fragments of a
    /// message, and while a close is under way.
    pub fn partial_frame(&self) -> Option<&[u8]> {
        let is_between_messages = self.context.is_none() && self.message.is_none();
        is_between_messages.then(|| self.partial.bytes())
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

fn unmasked(bytes: &[u8], mask: [u8; 4]) -> Vec<u8> {
    bytes.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect()
}

/// Checks a header before its frame is complete; returns the mask. `mid_message`: fragments of a
/// message have come, and not the last.
fn check_header(
    header: &FrameHeader,
    payload_bytes: u64,
    mid_message: bool,
) -> Result<[u8; 4], FrameError> {
    let has_extensions = header.rsv1 || header.rsv2 || header.rsv3;
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
        Some(mask) if !has_extensions && !is_malformed => Ok(mask),
        _ => Err(FrameError::Framing),
    }
}

/// The reply to a close frame of code 1014 (bad gateway), a code younger than RFC 6455 that
/// tungstenite would answer as a violation.
fn bad_gateway_reply(frame: &[u8]) -> Option<Frame> {
    const BAD_GATEWAY: u16 = 1014;
    let mut cursor = Cursor::new(frame);
    let (header, _) = FrameHeader::parse(&mut cursor).ok()??;
    let masked = frame.get(cursor.position() as usize..)?;
    let mask = header.mask?;
    let payload = unmasked(masked, mask);
    let (code, reason) = payload.split_first_chunk()?;
    let code = Some(u16::from_be_bytes(*code)).filter(|code| *code == BAD_GATEWAY)?;
    let reason = Utf8Bytes::try_from(reason.to_vec()).ok()?;
    Some(Frame::close(Some(CloseFrame { code: code.into(), reason })))
}

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_PAYLOAD_BYTES_MAX: u64 = 125;

pub fn ping(output: &mut Vec<u8>) {
    let written = Frame::ping(Bytes::new()).format(output);
    debug_assert!(written.is_ok());
}

/// Appends a text message in one frame.
pub fn text(payload: &[u8], output: &mut Vec<u8>) {
    text_header(payload.len(), output);
    output.extend_from_slice(payload);
}

/// Appends the header of a text message in one frame.
pub fn text_header(payload_bytes: usize, output: &mut Vec<u8>) {
    let header = FrameHeader {
        is_final: true,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode: OpCode::Data(Data::Text),
        mask: None,
    };
    let written = header.format(payload_bytes as u64, output);
    debug_assert!(written.is_ok());
}

fn new_context(frame_bytes: usize, limits: &Limits) -> Box<WebSocketContext> {
    let read_bytes = (2 * frame_bytes).clamp(CONTEXT_READ_BYTES_MIN, CONTEXT_READ_BYTES_MAX);
    let config = WebSocketConfig::default()
        .read_buffer_size(read_bytes)
        .write_buffer_size(0)
        .max_write_buffer_size(CONTEXT_WRITE_BYTES_MAX)
        .max_message_size(Some(limits.message_bytes_max))
        .max_frame_size(Some(limits.frame_bytes_max))
        .accept_unmasked_frames(false);
    Box::new(WebSocketContext::new(Role::Server, Some(config)))
}

/// The stream for tungstenite: reads a slice, then would block; writes to a buffer.
struct Memory<'a> {
    input: &'a [u8],
    output: &'a mut Vec<u8>,
}

impl Read for Memory<'_> {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        if self.input.is_empty() {
            return Err(io::ErrorKind::WouldBlock.into());
        }
        self.input.read(buffer)
    }
}

impl Write for Memory<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.output.extend_from_slice(bytes);
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
