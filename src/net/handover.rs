//! Passes records and descriptors from a process to the one that replaces it
//! (manual: reloading 5 and 6).
//!
//! All descriptors wait in the end of a socket pair (`SCM_RIGHTS`), a file in memory with the
//! records first. A program that is executed in the same process inherits it as standard input, and
//! an environment variable has its number; for a process that the service manager starts, the
//! manager keeps it. So no name in the file system leads to it, and no other process can hand
//! anything over.

use std::env;
use std::fs::File;
use std::io::{self, BufReader, BufWriter, IoSlice, IoSliceMut, Read, Seek, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixDatagram;

use rustix::fs::fstat;
use rustix::io::Errno;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer,
    SendAncillaryMessage, SendFlags,
};

/// Its value is the process id and the inode of the socket, so that it counts for no other process
/// and no other standard input.
pub const VARIABLE: &str = "WORMHOLE_HANDOVER";

/// In the environment of a program that checks itself before it takes over: what it would take
/// over, a line each. Those of listeners are made by
/// [`Listeners::check_list`](super::listeners::Listeners::check_list), those of locked files by
/// [`describe_locks`](crate::storage::db::describe_locks).
pub const LISTENING: &str = "WORMHOLE_LISTENERS";

/// Begins a line of that list that names a socket which the service manager has passed.
pub const PASSED: &str = "systemd:";

/// Most descriptors that Linux takes in one message (`SCM_MAX_FD`).
const DESCRIPTORS_PER_MESSAGE: usize = 253;

const CONTROL_BYTES: usize = rustix::cmsg_space!(ScmRights(DESCRIPTORS_PER_MESSAGE));

/// Writes records to a file in memory.
#[derive(Debug)]
pub struct RecordWriter(BufWriter<File>);

impl RecordWriter {
    pub fn new() -> io::Result<RecordWriter> {
        Ok(RecordWriter(BufWriter::new(memory_file()?)))
    }

    pub fn write(&mut self, record: &[u8]) -> io::Result<()> {
        self.0.write_all(&(record.len() as u64).to_le_bytes())?;
        self.0.write_all(record)
    }

    /// The file, to be read from its beginning.
    pub fn finish(self) -> io::Result<File> {
        let mut file = self.0.into_inner().map_err(io::IntoInnerError::into_error)?;
        file.rewind()?;
        Ok(file)
    }
}

#[cfg(not(target_os = "macos"))]
fn memory_file() -> io::Result<File> {
    use rustix::fs::{MemfdFlags, memfd_create};
    Ok(memfd_create("wormhole-mailbox-handover", MemfdFlags::CLOEXEC)?.into())
}

/// macOS has no files in memory, so there is no takeover.
#[cfg(target_os = "macos")]
fn memory_file() -> io::Result<File> {
    Err(io::ErrorKind::Unsupported.into())
}

/// Reads what [`RecordWriter`] has written.
#[derive(Debug)]
pub struct RecordReader {
    file: BufReader<File>,
    file_bytes: u64,
}

impl RecordReader {
    fn new(file: File) -> io::Result<RecordReader> {
        let file_bytes = file.metadata()?.len();
        Ok(RecordReader { file: BufReader::new(file), file_bytes })
    }

    pub fn read(&mut self) -> io::Result<Vec<u8>> {
        let mut length = [0; size_of::<u64>()];
        self.file.read_exact(&mut length)?;
        let length = u64::from_le_bytes(length);
        if length > self.file_bytes {
            return Err(io::ErrorKind::InvalidData.into());
        }
        let mut record = vec![0; length as usize];
        self.file.read_exact(&mut record)?;
        Ok(record)
    }
}

/// Sends descriptors to the returned socket, where they wait. Fails if they do not fit: the kernel
/// bounds the memory of the socket and the descriptors on their way.
///
/// The sockets have no connection that the end of the sender would end: the service manager lets go
/// of those that hang up.
pub fn send<'a>(descriptors: impl Iterator<Item = BorrowedFd<'a>>) -> io::Result<OwnedFd> {
    let (sender, receiver) = UnixDatagram::pair()?;
    sender.set_nonblocking(true)?;
    // An earlier version of the program reads to the end of a stream.
    receiver.set_nonblocking(true)?;
    for batch in descriptors.collect::<Vec<_>>().chunks(DESCRIPTORS_PER_MESSAGE) {
        send_with(&sender, &[0], batch)?;
    }
    Ok(receiver.into())
}

/// Sends a message with at most `DESCRIPTORS_PER_MESSAGE` descriptors.
pub fn send_with(sender: &UnixDatagram, text: &[u8], batch: &[BorrowedFd<'_>]) -> io::Result<()> {
    let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
    let mut control = SendAncillaryBuffer::new(&mut space);
    let fits = control.push(SendAncillaryMessage::ScmRights(batch));
    debug_assert!(fits);
    rustix::net::sendmsg(sender, &[IoSlice::new(text)], &mut control, SendFlags::empty())?;
    Ok(())
}

/// The value of [`VARIABLE`] for this process and socket.
pub fn variable(socket: impl AsFd) -> io::Result<String> {
    Ok(format!("{} {}", std::process::id(), fstat(socket)?.st_ino))
}

/// Whether a program has executed this one.
pub fn is_announced() -> bool {
    env::var_os(VARIABLE).is_some()
}

/// Takes the socket that standard input is, if a program has executed this one to hand over to it.
/// Afterwards standard input is empty.
pub fn take_stdin() -> io::Result<Option<OwnedFd>> {
    let Ok(value) = env::var(VARIABLE) else { return Ok(None) };
    let stdin = io::stdin();
    if variable(&stdin)? != value {
        return Ok(None);
    }
    let socket = stdin.as_fd().try_clone_to_owned();
    close_stdin()?;
    socket.map(Some)
}

/// Receives what waits in a socket: records, and descriptors; none if it has been received before.
pub fn receive(socket: OwnedFd) -> io::Result<Option<(RecordReader, Vec<OwnedFd>)>> {
    let mut descriptors = receive_all(socket.as_fd())?.into_iter();
    let Some(file) = descriptors.next() else { return Ok(None) };
    Ok(Some((RecordReader::new(file.into())?, descriptors.collect())))
}

#[cfg(not(target_os = "macos"))]
const RECEIVE: RecvFlags = RecvFlags::CMSG_CLOEXEC.union(RecvFlags::DONTWAIT);
#[cfg(target_os = "macos")]
const RECEIVE: RecvFlags = RecvFlags::DONTWAIT;

fn receive_all(socket: BorrowedFd<'_>) -> io::Result<Vec<OwnedFd>> {
    let mut descriptors = Vec::new();
    loop {
        let mut space = [MaybeUninit::uninit(); CONTROL_BYTES];
        let mut control = RecvAncillaryBuffer::new(&mut space);
        let mut byte = [0];
        let buffer = &mut [IoSliceMut::new(&mut byte)];
        match rustix::net::recvmsg(socket, buffer, &mut control, RECEIVE) {
            Err(Errno::WOULDBLOCK) => return Ok(descriptors),
            // The end of a stream, which another version may have used.
            Ok(received) if received.bytes == 0 => return Ok(descriptors),
            received => received?,
        };
        for message in control.drain() {
            if let RecvAncillaryMessage::ScmRights(rights) = message {
                descriptors.extend(rights);
            }
        }
    }
}

/// Closes what waits in standard input: a descriptor that waits there keeps its socket open.
pub fn close_stdin() -> io::Result<()> {
    Ok(rustix::stdio::dup2_stdin(File::open("/dev/null")?)?)
}
