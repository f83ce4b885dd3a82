//! Bytes ⇄ WebSocket messages of one connection, over memory.
//!
//! tungstenite does the framing; it reads from a slice and writes to a buffer, never to a socket,
//! so that not even a pong can leave before the tick's commit. It is given one whole frame at a
//! time. Between messages it then holds nothing, and its context is dropped or, if it is small,
//! lent to whoever comes next: an idle connection costs no buffers, and one large message leaves
//! none.
//!
//! Must never do I/O, and never look into a message.

use std::io::{self, Cursor, Read, Write};

use tungstenite::error::{CapacityError, Error};
use tungstenite::protocol::frame::coding::{CloseCode, Control, Data, OpCode};
use tungstenite::protocol::frame::{CloseFrame, Frame, FrameHeader, Utf8Bytes};
use tungstenite::protocol::{Role, WebSocketConfig, WebSocketContext};
use tungstenite::{Bytes, Message};

use crate::limits::{FRAME_HEADER_BYTES_MAX, Limits};
use crate::message::close::{Farewell, Violation};
use crate::sys::mmap::Buffer;

/// Bounds of what tungstenite takes from the slice at a time. It clears as much before each read,
/// and wants room for the payload beside the frame, so twice the frame suits it best.
const CONTEXT_READ_BYTES_MIN: usize = 256;
const CONTEXT_READ_BYTES_MAX: usize = 16 * 1024;

/// Longest frame for which a context is lent: nearly all that clients send.
const SPARE_FRAME_BYTES_MAX: usize = 512;

/// Bytes of pongs and closes that may wait inside tungstenite; the buffer under it never blocks,
/// so none ever does.
const CONTEXT_WRITE_BYTES_MAX: usize = 4096;

/// What came from the peer.
#[derive(Debug, PartialEq)]
pub enum Inbound {
    Text(Utf8Bytes),
    Binary(Bytes),
    /// The peer answered a ping.
    Pong,
    /// The peer closes, or has answered our close. Our part of it is in the output.
    Closed,
}

fn close_frame(farewell: Farewell) -> CloseFrame {
    let (code, reason) = match farewell {
        Farewell::Violation(Violation::TooLong) => (CloseCode::Size, "message too long"),
        Farewell::Violation(Violation::NotUtf8) => (CloseCode::Invalid, "text must be UTF-8"),
        Farewell::Violation(Violation::Framing) => (CloseCode::Protocol, "malformed frame"),
        Farewell::NotBound => (CloseCode::Policy, "no bind in time"),
        // Go's client shows this to its user, if anything.
        Farewell::NotPermitted => {
            (CloseCode::Policy, "permission denied: this server demands a proof of work (hashcash)")
        }
        Farewell::Notice => (CloseCode::Policy, "see the error in the welcome"),
        Farewell::GoingAway => (CloseCode::Away, "server is stopping"),
        Farewell::TryAgainLater => (CloseCode::Again, "storage is unavailable"),
    };
    CloseFrame { code, reason: Utf8Bytes::from_static(reason) }
}

/// A context in which no message is under way, for the next short frame of whichever connection:
/// making one for each would be the dearest part of handling it.
#[derive(Debug, Default)]
pub struct Spare(Option<Box<WebSocketContext>>);

/// The WebSocket state of one connection.
#[derive(Debug, Default)]
pub struct Wire {
    /// Present while a message is incomplete, or a close is under way.
    context: Option<Box<WebSocketContext>>,
    /// The beginning of a frame that has not come in whole.
    partial: Buffer,
    /// A message has begun and its last fragment is still to come.
    mid_message: bool,
    /// Bytes of the message's fragments so far, which tungstenite keeps.
    assembled_bytes: usize,
    closing: bool,
}

impl Wire {
    /// Takes the next message out of `input`, skipping what it has used; `None` when it needs more
    /// bytes. What the peer must get for it (pong, close) is appended to `output`. After a
    /// violation it must not be called again.
    pub fn next(
        &mut self,
        input: &mut &[u8],
        output: &mut Vec<u8>,
        limits: &Limits,
        spare: &mut Spare,
    ) -> Result<Option<Inbound>, Violation> {
        loop {
            let Some(frame_bytes) = self.frame_bytes(input, limits)? else {
                return Ok(None);
            };
            let inbound = if self.partial.is_empty() {
                let (frame, rest) = input.split_at(frame_bytes);
                *input = rest;
                self.feed(frame, output, limits, spare)?
            } else {
                let missing = frame_bytes - self.partial.bytes().len();
                let (tail, rest) = input.split_at(missing);
                *input = rest;
                let mut frame = std::mem::take(&mut self.partial);
                frame.push(tail, frame_bytes);
                self.feed(frame.bytes(), output, limits, spare)?
            };
            if inbound.is_some() {
                return Ok(inbound);
            }
        }
    }

    /// The length of the frame that begins at `partial` and goes on in `input`, if it is there in
    /// whole; else all of `input` is moved to `partial`. A frame that is too long counts as
    /// whole with its header, so that it is refused at once.
    fn frame_bytes(
        &mut self,
        input: &mut &[u8],
        limits: &Limits,
    ) -> Result<Option<usize>, Violation> {
        if self.partial.is_empty() && input.is_empty() {
            return Ok(None);
        }
        let mut head = [0; FRAME_HEADER_BYTES_MAX];
        let partial = self.partial.bytes();
        let known = partial.len().min(head.len());
        head[..known].copy_from_slice(&partial[..known]);
        let added = input.len().min(head.len() - known);
        head[known..known + added].copy_from_slice(&input[..added]);

        let mut cursor = Cursor::new(&head[..known + added]);
        let header = FrameHeader::parse(&mut cursor).map_err(|_| Violation::Framing)?;
        let Some((header, payload_bytes)) = header else {
            self.keep(input, FRAME_HEADER_BYTES_MAX);
            return Ok(None);
        };
        let Some(frame_bytes) = usize::try_from(payload_bytes)
            .ok()
            .filter(|bytes| *bytes <= limits.frame_bytes_max)
            .and_then(|bytes| bytes.checked_add(cursor.position() as usize))
        else {
            return Err(Violation::TooLong);
        };
        check_header(&header, payload_bytes)?;
        if self.partial.bytes().len() + input.len() < frame_bytes {
            self.keep(input, frame_bytes);
            return Ok(None);
        }
        if let OpCode::Data(_) = header.opcode {
            self.mid_message = !header.is_final;
            self.assembled_bytes =
                if header.is_final { 0 } else { self.assembled_bytes + frame_bytes };
        }
        Ok(Some(frame_bytes))
    }

    fn keep(&mut self, input: &mut &[u8], expected_bytes: usize) {
        self.partial.push(input, expected_bytes);
        *input = &[];
    }

    /// Gives tungstenite one whole frame.
    fn feed(
        &mut self,
        frame: &[u8],
        output: &mut Vec<u8>,
        limits: &Limits,
        spare: &mut Spare,
    ) -> Result<Option<Inbound>, Violation> {
        let is_lent = self.context.is_none() && frame.len() <= SPARE_FRAME_BYTES_MAX;
        let context = self.context.get_or_insert_with(|| {
            let lent = if is_lent { spare.0.take() } else { None };
            let made_for = if is_lent { SPARE_FRAME_BYTES_MAX } else { frame.len() };
            lent.unwrap_or_else(|| new_context(made_for, limits))
        });
        let mut memory = Memory { input: frame, output };
        let inbound = match context.read(&mut memory) {
            Ok(Message::Text(text)) => Some(Inbound::Text(text)),
            Ok(Message::Binary(payload)) => Some(Inbound::Binary(payload)),
            Ok(Message::Pong(_)) => Some(Inbound::Pong),
            Ok(Message::Ping(_)) => {
                // Has the pong written now; it cannot fail, the memory takes all.
                let flushed = context.flush(&mut memory);
                debug_assert!(flushed.is_ok());
                None
            }
            Ok(Message::Close(_)) => {
                // The next read or flush writes the answer and reports the end, which we know.
                _ = context.flush(&mut memory);
                self.closing = true;
                Some(Inbound::Closed)
            }
            Ok(Message::Frame(_)) => None,
            Err(Error::Io(error)) if error.kind() == io::ErrorKind::WouldBlock => None,
            Err(Error::ConnectionClosed) => Some(Inbound::Closed),
            Err(Error::Capacity(CapacityError::MessageTooLong { .. })) => {
                return Err(Violation::TooLong);
            }
            Err(Error::Utf8(_)) => return Err(Violation::NotUtf8),
            Err(_) => return Err(Violation::Framing),
        };
        if !self.mid_message && !self.closing {
            let context = self.context.take();
            if is_lent {
                spare.0 = context;
            }
        }
        Ok(inbound)
    }

    /// Begins to close from our side; only the first call says anything.
    pub fn close(&mut self, farewell: Farewell, output: &mut Vec<u8>, limits: &Limits) {
        let context = self.context.get_or_insert_with(|| new_context(0, limits));
        let mut memory = Memory { input: &[], output };
        // Fails only if the peer has closed already.
        _ = context.close(&mut memory, Some(close_frame(farewell)));
        self.closing = true;
    }

    /// Bytes kept of what has not come in whole.
    pub fn buffered_bytes(&self) -> usize {
        self.partial.held_bytes() + self.assembled_bytes
    }

    /// Whether either side has closed.
    pub fn is_closing(&self) -> bool {
        self.closing
    }
}

/// What tungstenite would find wrong with a frame once it is there in whole, found at its header:
/// a peer that breaks the rules need not send its megabyte first.
fn check_header(header: &FrameHeader, payload_bytes: u64) -> Result<(), Violation> {
    let has_extensions = header.rsv1 || header.rsv2 || header.rsv3;
    let is_malformed = match header.opcode {
        OpCode::Control(control) => {
            !header.is_final
                || payload_bytes > CONTROL_PAYLOAD_BYTES_MAX
                || matches!(control, Control::Reserved(_))
        }
        OpCode::Data(data) => matches!(data, Data::Reserved(_)),
    };
    if header.mask.is_none() || has_extensions || is_malformed {
        return Err(Violation::Framing);
    }
    Ok(())
}

/// Longest payload of a control frame (RFC 6455, section 5.5).
const CONTROL_PAYLOAD_BYTES_MAX: u64 = 125;

/// Appends a ping.
pub fn ping(output: &mut Vec<u8>) {
    let written = Frame::ping(Bytes::new()).format(output);
    debug_assert!(written.is_ok());
}

/// Appends a text message in one frame.
pub fn text(payload: &[u8], output: &mut Vec<u8>) {
    let header = FrameHeader {
        is_final: true,
        rsv1: false,
        rsv2: false,
        rsv3: false,
        opcode: OpCode::Data(Data::Text),
        mask: None,
    };
    let written = header.format(payload.len() as u64, output);
    debug_assert!(written.is_ok());
    output.extend_from_slice(payload);
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

/// The stream that tungstenite sees: reads a slice, then would block; writes to a buffer.
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
