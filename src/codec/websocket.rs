//! Bytes ⇄ WebSocket messages of one connection, in memory (manual: protocol 1.2).
//!
//! tungstenite does the framing. It reads from a slice and writes to a buffer, never to a socket,
//! so that not even a pong can leave before the tick's commit, and it receives one whole frame at
//! a time. After each its context holds nothing: it is dropped or, if small, shared with the next
//! connection. Fragments are put together here, so that a message in the making takes its length
//! once, and one that is too long takes nothing. An idle connection has no buffers.
//!
//! Must never do I/O, and never look into a message.

use std::io::{self, Cursor, Read, Write};

use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader, Utf8Bytes};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Message};

use crate::limits::{
    EMPTY_FRAGMENTS_MAX, FRAME_HEADER_BYTES_MAX, Limits, MESSAGE_DISCARDED_BYTES_MAX,
    ORIG_CHARS_MAX, OWN_PAGES_BYTES_MIN,
};
use crate::message::Refusal;
use crate::message::close::{CloseReason, FrameError};
use crate::sys::mmap::MmapBuffer;

/// Bounds of tungstenite's read buffer. It zeroes the buffer before each read and copies the
/// payload beside the frame, so that twice the frame is best.
const CONTEXT_READ_BYTES_MIN: usize = 256;
const CONTEXT_READ_BYTES_MAX: usize = 16 * 1024;

/// Longest frame for which the shared context is used; nearly all are shorter.
const SHARED_FRAME_BYTES_MAX: usize = 512;

/// What is kept of a message that is discarded: enough for [`ORIG_CHARS_MAX`] of the longest
/// characters.
const BEGINNING_BYTES: usize = 4 * ORIG_CHARS_MAX;

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
    closing: bool,
}

/// The fragments of a message so far.
#[derive(Debug)]
struct Fragments {
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
    /// The part of the present frame's payload that is still to come, and its mask.
    frame_left: u64,
    mask: [u8; 4],
    is_last_frame: bool,
}

/// A frame's header, checked.
struct Header {
    header: FrameHeader,
    mask: [u8; 4],
    header_bytes: usize,
    payload_bytes: u64,
}

impl WebSocket {
    /// Returns what the next frame of `input` comes to, and advances `input`; `None` if more bytes
    /// are needed. Pongs and closes in answer are appended to `output`. Must not be called again
    /// after an error.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        limits: &Limits,
        shared: &mut SharedContext,
    ) -> Result<Option<Inbound>, FrameError> {
        if let Some(discarded) = self.discarded()
            && discarded.frame_left > 0
        {
            return Ok(self.discard(input));
        }
        if self.partial.is_empty() && input.is_empty() {
            return Ok(None);
        }
        let Some(header) = self.header(input)? else { return Ok(None) };
        if let OpCode::Data(_) = header.header.opcode
            && self.is_too_long(&header, limits)?
        {
            // The header has just become complete, so all before it is in `partial`.
            let known = self.partial.bytes().len();
            self.partial = MmapBuffer::default();
            *input = &input[header.header_bytes - known..];
            self.begin_discarding(&header, limits)?;
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

    fn discarded(&mut self) -> Option<&mut Discarded> {
        self.message.as_mut()?.discarded.as_mut()
    }

    /// Whether the message is to be discarded. Fails if it is too long even for that.
    fn is_too_long(&self, header: &Header, limits: &Limits) -> Result<bool, FrameError> {
        let discarded = self.message.as_ref().and_then(|message| message.discarded.as_ref());
        let known = match (&self.message, discarded) {
            (_, Some(discarded)) => discarded.bytes,
            (Some(message), None) => message.payload.bytes().len() as u64,
            (None, None) => 0,
        };
        let bytes = known.saturating_add(header.payload_bytes);
        let is_within_limits = bytes <= limits.message_bytes_max as u64
            && header.payload_bytes <= limits.frame_bytes_max as u64;
        if is_within_limits || bytes <= MESSAGE_DISCARDED_BYTES_MAX as u64 {
            Ok(!is_within_limits || discarded.is_some())
        } else {
            Err(FrameError::TooLong)
        }
    }

    /// Begins to throw away the payload that comes after this header.
    fn begin_discarding(&mut self, header: &Header, limits: &Limits) -> Result<(), FrameError> {
        let message = self.message.get_or_insert_with(|| Fragments::new(header.header.opcode));
        let known = message.payload.bytes().len();
        let refusal = if header.payload_bytes > limits.frame_bytes_max as u64
            && limits.frame_bytes_max < limits.message_bytes_max
        {
            Refusal::FrameTooLong { bytes_max: limits.frame_bytes_max }
        } else {
            Refusal::MessageTooLong { bytes_max: limits.message_bytes_max }
        };
        let discarded = message.discarded.get_or_insert_with(|| {
            let mut beginning = MmapBuffer::default();
            let kept = known.min(BEGINNING_BYTES);
            beginning.push(&message.payload.bytes()[..kept], kept);
            message.payload = beginning;
            Discarded {
                refusal,
                bytes: known as u64,
                frame_left: 0,
                mask: [0; 4],
                is_last_frame: false,
            }
        });
        discarded.bytes = discarded.bytes.saturating_add(header.payload_bytes);
        discarded.frame_left = header.payload_bytes;
        discarded.mask = header.mask;
        discarded.is_last_frame = header.header.is_final;
        message.count_empty(header)
    }

    /// Throws away payload. Returns what the frame comes to if that was all of it.
    fn discard(&mut self, input: &mut &[u8]) -> Option<Inbound> {
        let message = self.message.as_mut()?;
        let discarded = message.discarded.as_mut()?;
        let count =
            usize::try_from(discarded.frame_left).map_or(input.len(), |left| left.min(input.len()));
        let (bytes, rest) = input.split_at(count);
        *input = rest;
        let wanted = count.min(BEGINNING_BYTES - message.payload.bytes().len());
        if wanted > 0 {
            message.payload.push(&unmasked(&bytes[..wanted], discarded.mask), BEGINNING_BYTES);
        }
        let offset = count % discarded.mask.len();
        discarded.mask.rotate_left(offset);
        discarded.frame_left -= count as u64;
        if discarded.frame_left > 0 {
            return None;
        }
        if !discarded.is_last_frame {
            return Some(Inbound::Frame);
        }
        let message = self.message.take()?;
        let refusal = message.discarded?.refusal;
        let beginning = String::from_utf8_lossy(message.payload.bytes());
        let beginning = beginning.chars().take(ORIG_CHARS_MAX).collect();
        Some(Inbound::TooLong { refusal, beginning })
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
        let message = self.message.get_or_insert_with(|| Fragments::new(header.header.opcode));
        message.push(payload, limits)?;
        message.count_empty(header)?;
        if !header.header.is_final {
            return Ok(Inbound::Frame);
        }
        let (opcode, payload) = (message.opcode, Bytes::copy_from_slice(message.payload.bytes()));
        self.message = None;
        match opcode {
            Data::Text => {
                Utf8Bytes::try_from(payload).map(Inbound::Text).map_err(|_| FrameError::NotUtf8)
            }
            _ => Ok(Inbound::Binary(payload)),
        }
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
        let message = self.message.as_ref();
        let message = message.map_or(0, |it| it.payload.held_bytes() + size_of::<Fragments>());
        self.partial.held_bytes() + message
    }

    /// Bytes received of an unfinished frame or message; none if there is none.
    pub fn unfinished_bytes(&self) -> Option<u64> {
        if self.message.is_none() && self.partial.is_empty() {
            return None;
        }
        let message = self.message.as_ref().map_or(0, |message| match &message.discarded {
            Some(discarded) => discarded.bytes - discarded.frame_left,
            None => message.payload.bytes().len() as u64,
        });
        Some(message + self.partial.bytes().len() as u64)
    }

    /// Whether either side has sent a close.
    pub fn is_closing(&self) -> bool {
        self.closing
    }
}

impl Fragments {
    fn new(opcode: OpCode) -> Box<Fragments> {
        let opcode = if let OpCode::Data(data) = opcode { data } else { Data::Binary };
        Box::new(Fragments {
            opcode,
            payload: MmapBuffer::default(),
            valid_bytes: 0,
            empty_count: 0,
            discarded: None,
        })
    }

    /// Counts a fragment if it is empty and not the last.
    fn count_empty(&mut self, header: &Header) -> Result<(), FrameError> {
        let is_empty = header.payload_bytes == 0 && !header.header.is_final;
        self.empty_count += usize::from(is_empty);
        if self.empty_count > EMPTY_FRAGMENTS_MAX { Err(FrameError::Framing) } else { Ok(()) }
    }

    /// Appends payload. A text that cannot become UTF-8 any more is refused at once.
    fn push(&mut self, payload: &[u8], limits: &Limits) -> Result<(), FrameError> {
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
        Ok(())
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
