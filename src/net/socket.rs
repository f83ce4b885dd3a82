//! TCP and unix sockets behind one type: listening, accepting, reading, writing.
//!
//! The only place that makes sockets for clients. Everything is non-blocking.

use std::ffi::OsStr;
use std::fmt;
use std::fs;
use std::io::{self, IoSlice, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::{self, Path, PathBuf};
use std::thread;

use mio::unix::SourceFd;
use mio::{Interest, Registry, Token};
use rustix::fs::{FlockOperation, Mode, OFlags};
use rustix::io::{Errno, retry_on_intr};
use rustix::net::{
    AddressFamily, SendAncillaryBuffer, SendFlags, Shutdown, SocketAddrAny, SocketAddrUnix,
    SocketType, getsockname, sockopt,
};

use crate::limits::{
    DIRECTORY_LOCK_RETRIES, DIRECTORY_LOCK_RETRY, LISTEN_BACKLOG, RECEIVE_BUFFER_BYTES,
    SEND_BUFFER_BYTES,
};
use crate::message::Peer;
use crate::sys::identity::{self, FileId};

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A path, and the file mode of the socket.
    Unix { path: PathBuf, mode: u32 },
}

impl Endpoint {
    /// Whether a connection could be meant for either, so that both cannot be listened on.
    pub fn overlaps(&self, other: &Endpoint) -> bool {
        let covers = |any: SocketAddr, one: SocketAddr| {
            any.ip().is_unspecified() && (any.is_ipv6() || one.is_ipv4())
        };
        match (self, other) {
            (Endpoint::Tcp(one), Endpoint::Tcp(other)) => {
                let (one, other) = (canonical(*one), canonical(*other));
                let is_one_port = one.port() == other.port() && one.port() != 0;
                is_one_port && (one == other || covers(one, other) || covers(other, one))
            }
            (Endpoint::Unix { path, .. }, Endpoint::Unix { path: other, .. }) => {
                identity::is_same_name(path, other)
            }
            _ => false,
        }
    }
}

/// The address as the kernel sees it: an IPv4 address may be written as one of IPv6, and only that
/// of a link is different at each interface.
fn canonical(address: SocketAddr) -> SocketAddr {
    match address.ip().to_canonical() {
        IpAddr::V6(ip) if ip.is_unicast_link_local() => address,
        ip => (ip, address.port()).into(),
    }
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "{address}"),
            Endpoint::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// The kernel's number of a network interface.
#[cfg(target_os = "linux")]
pub fn interface_number(name: &str) -> Option<u32> {
    let any_socket = new_socket(AddressFamily::UNIX).ok()?;
    rustix::net::netdevice::name_to_index(any_socket, name).ok()
}

#[cfg(not(target_os = "linux"))]
pub fn interface_number(_name: &str) -> Option<u32> {
    None
}

/// The kind of connections that a listener accepts.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum Role {
    /// Clients.
    #[default]
    Client,
    /// Clients behind a proxy that names each in a PROXY header first.
    ProxiedClient,
    /// The admin listener.
    Admin,
}

/// A listening socket, or one that will listen.
#[derive(Debug)]
pub struct Listener {
    descriptor: OwnedFd,
    /// The address that it listens on: port 0 has become a port.
    endpoint: Endpoint,
    /// The file of a unix socket, if we have made it; it goes with the listener.
    file: Option<FileId>,
}

impl Listener {
    pub fn bind(endpoint: &Endpoint) -> io::Result<Listener> {
        let _lock = lock_directory(endpoint);
        Listener::bind_locked(endpoint)
    }

    fn bind_locked(endpoint: &Endpoint) -> io::Result<Listener> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let descriptor = bind_tcp(*address)?;
                let endpoint = Endpoint::Tcp(getsockname(&descriptor)?.try_into()?);
                Ok(Listener { descriptor, endpoint, file: None })
            }
            Endpoint::Unix { path, mode } => {
                let (descriptor, file) = bind_unix(path, *mode)?;
                Ok(Listener { descriptor, endpoint: endpoint.clone(), file: Some(file) })
            }
        }
    }

    /// Begins to listen; before that, connections are refused.
    pub fn listen(&mut self) -> io::Result<()> {
        // A socket that does not listen yet looks abandoned, and another start removes it: before
        // this, or never.
        let _lock = self.file.and_then(|_| lock_directory(&self.endpoint));
        if self.file.is_some() && self.own_file().is_none() {
            *self = Listener::bind_locked(&self.endpoint)?;
        }
        if is_listening(&self.descriptor).unwrap_or(false) {
            return Ok(()); // adopted, with a backlog of the operator's choice
        }
        Ok(rustix::net::listen(&self.descriptor, LISTEN_BACKLOG)?)
    }

    /// Takes over a socket that listens already. The file of a unix socket is not ours and stays.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<Listener> {
        check_listening(&descriptor)?;
        rustix::io::ioctl_fionbio(&descriptor, true)?;
        let address = getsockname(&descriptor)?;
        let endpoint = match SocketAddrUnix::try_from(address.clone()) {
            Ok(address) => {
                let path = path_of(&address);
                let mode = fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
                Endpoint::Unix { path, mode: mode & 0o777 }
            }
            Err(_) => {
                bound_buffers(&descriptor)?;
                Endpoint::Tcp(address.try_into()?)
            }
        };
        Ok(Listener { descriptor, endpoint, file: None })
    }

    /// Takes over a listener of an earlier process. `file`: device and inode of the socket's file,
    /// if that process has made it.
    pub fn take_over(descriptor: OwnedFd, file: Option<FileId>) -> io::Result<Listener> {
        let mut listener = Listener::adopt(descriptor)?;
        listener.file = file;
        Ok(listener)
    }

    /// Goes on as the listener of an option, which may name another mode than before.
    pub fn follow(mut self, option: &Endpoint) -> io::Result<Listener> {
        if let Endpoint::Unix { mode, .. } = option
            && self.endpoint != *option
        {
            self.endpoint = option.clone();
            if let Some(path) = self.own_file() {
                fs::set_permissions(path, fs::Permissions::from_mode(*mode))?;
            }
        }
        Ok(self)
    }

    pub fn endpoint(&self) -> &Endpoint {
        &self.endpoint
    }

    /// Device and inode of the file of a unix socket that we have made.
    pub fn file(&self) -> Option<FileId> {
        self.file
    }

    /// The file of a unix socket that we have made, unless another process has put a socket of its
    /// own in its place.
    fn own_file(&self) -> Option<&Path> {
        let (Endpoint::Unix { path, .. }, Some(file)) = (&self.endpoint, self.file) else {
            return None;
        };
        identity::of_name(path).is_ok_and(|(found, _)| found == file).then_some(path)
    }

    /// Leaves the file of a unix socket where it is.
    pub fn leave_file(&mut self) {
        self.file = None;
    }

    /// Accepts one connection, if one waits.
    pub fn accept(&self) -> io::Result<(Socket, Peer)> {
        let (descriptor, address) = accept(&self.descriptor)?;
        let address = address.and_then(|address| SocketAddr::try_from(address).ok());
        let socket = Socket { descriptor, is_unix: address.is_none() };
        Ok((socket, address.map(Peer::of_socket).unwrap_or_default()))
    }
}

impl Drop for Listener {
    fn drop(&mut self) {
        if let Some(path) = self.own_file() {
            _ = fs::remove_file(path); // best effort: a start removes a stale one too
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

fn path_of(address: &SocketAddrUnix) -> PathBuf {
    #[cfg(target_os = "linux")]
    if let Some(name) = address.abstract_name() {
        return format!("@{}", String::from_utf8_lossy(name)).into();
    }
    let path = address.path_bytes().unwrap_or_default();
    Path::new(OsStr::from_bytes(path)).to_owned()
}

/// macOS has the option and does not implement it.
#[cfg(target_os = "macos")]
fn is_listening(_socket: impl AsFd) -> rustix::io::Result<bool> {
    Err(Errno::NOTSUP)
}

#[cfg(not(target_os = "macos"))]
fn is_listening(socket: impl AsFd) -> rustix::io::Result<bool> {
    sockopt::socket_acceptconn(socket)
}

fn check_listening(socket: impl AsFd) -> io::Result<()> {
    match is_listening(socket) {
        Ok(true) | Err(Errno::NOTSUP) => Ok(()),
        Ok(false) => Err(io::Error::new(io::ErrorKind::InvalidInput, "it does not listen")),
        Err(error) => Err(error.into()),
    }
}

/// Bounds the kernel's buffers of all connections accepted here, which inherit the sizes. Those of
/// unix sockets have a fixed size.
fn bound_buffers(socket: impl AsFd) -> io::Result<()> {
    sockopt::set_socket_send_buffer_size(&socket, SEND_BUFFER_BYTES)?;
    sockopt::set_socket_recv_buffer_size(&socket, RECEIVE_BUFFER_BYTES)?;
    Ok(())
}

fn bind_tcp(address: SocketAddr) -> io::Result<OwnedFd> {
    let family = if address.is_ipv4() { AddressFamily::INET } else { AddressFamily::INET6 };
    let fd = match new_socket(family) {
        // A host without IPv6: "any address" is still what the operator wants.
        Err(Errno::AFNOSUPPORT) if address.ip().is_unspecified() && address.is_ipv6() => {
            return bind_tcp((IpAddr::V4(Ipv4Addr::UNSPECIFIED), address.port()).into());
        }
        made => made?,
    };
    sockopt::set_socket_reuseaddr(&fd, true)?;
    if address.is_ipv6() {
        sockopt::set_ipv6_v6only(&fd, false)?;
    }
    bound_buffers(&fd)?;
    rustix::net::bind(&fd, &address)?;
    Ok(fd)
}

/// Keeps other servers from looking for and replacing sockets in the directory of a unix socket.
/// Best effort, and not waited for long: whoever may read a directory can lock it.
fn lock_directory(endpoint: &Endpoint) -> Option<OwnedFd> {
    let Endpoint::Unix { path, .. } = endpoint else { return None };
    let flags = OFlags::RDONLY | OFlags::DIRECTORY | OFlags::CLOEXEC;
    let path = path::absolute(path).ok()?;
    let directory = rustix::fs::open(path.parent()?, flags, Mode::empty()).ok()?;
    for _ in 0..DIRECTORY_LOCK_RETRIES {
        match rustix::fs::flock(&directory, FlockOperation::NonBlockingLockExclusive) {
            Ok(()) => return Some(directory),
            Err(Errno::WOULDBLOCK) => thread::sleep(DIRECTORY_LOCK_RETRY),
            Err(_) => return None,
        }
    }
    None
}

fn bind_unix(path: &Path, mode: u32) -> io::Result<(OwnedFd, FileId)> {
    remove_stale(path)?;
    let fd = new_socket(AddressFamily::UNIX)?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    // No client can connect before listen, so none connects under the default mode.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    Ok((fd, identity::of_name(path)?.0))
}

/// Removes a socket file on which no process listens any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket {
        // It does not wait where the queue of a process that hangs is full.
        let probe = new_socket(AddressFamily::UNIX)?;
        if rustix::net::connect(&probe, &SocketAddrUnix::new(path)?) == Err(Errno::CONNREFUSED) {
            fs::remove_file(path)?;
        }
    }
    Ok(())
}

#[cfg(not(target_os = "macos"))]
const NEW: rustix::net::SocketFlags =
    rustix::net::SocketFlags::CLOEXEC.union(rustix::net::SocketFlags::NONBLOCK);

#[cfg(not(target_os = "macos"))]
fn new_socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    rustix::net::socket_with(family, SocketType::STREAM, NEW, None)
}

#[cfg(not(target_os = "macos"))]
fn accept(listener: &OwnedFd) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    rustix::net::acceptfrom_with(listener, NEW)
}

/// macOS has no flags for that.
#[cfg(target_os = "macos")]
fn new_socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    prepared(rustix::net::socket(family, SocketType::STREAM, None)?)
}

#[cfg(target_os = "macos")]
fn accept(listener: &OwnedFd) -> rustix::io::Result<(OwnedFd, Option<SocketAddrAny>)> {
    let (descriptor, address) = rustix::net::acceptfrom(listener)?;
    Ok((prepared(descriptor)?, address))
}

#[cfg(target_os = "macos")]
fn prepared(descriptor: OwnedFd) -> rustix::io::Result<OwnedFd> {
    rustix::io::fcntl_setfd(&descriptor, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&descriptor, true)?;
    Ok(descriptor)
}

/// A connected socket.
#[derive(Debug)]
pub struct Socket {
    descriptor: OwnedFd,
    is_unix: bool,
}

impl Socket {
    /// Takes over a connected socket of an earlier process. It is non-blocking already.
    pub fn adopt(descriptor: OwnedFd, is_unix: bool) -> io::Result<Socket> {
        if sockopt::socket_type(&descriptor)? != SocketType::STREAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(Socket { descriptor, is_unix })
    }

    pub fn is_unix(&self) -> bool {
        self.is_unix
    }

    /// Appends what has arrived, as far as the buffer has room; returns the number of bytes.
    pub fn receive(&mut self, buffer: &mut Vec<u8>) -> io::Result<usize> {
        Ok(retry_on_intr(|| {
            rustix::io::read(&self.descriptor, rustix::buffer::spare_capacity(buffer))
        })?)
    }

    /// Sends small answers at once, without waiting for more.
    pub fn set_nodelay(&self) -> io::Result<()> {
        if self.is_unix {
            return Ok(());
        }
        Ok(sockopt::set_tcp_nodelay(&self.descriptor, true)?)
    }

    pub fn shutdown_write(&self) -> io::Result<()> {
        Ok(rustix::net::shutdown(&self.descriptor, Shutdown::Write)?)
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.descriptor.as_fd()
    }
}

/// A peer that has closed its socket is an error here, and no signal, also in a process that does
/// not ignore SIGPIPE.
#[cfg(not(target_os = "macos"))]
const SEND: SendFlags = SendFlags::NOSIGNAL;
/// macOS has no flag for that; the program ignores the signal.
#[cfg(target_os = "macos")]
const SEND: SendFlags = SendFlags::empty();

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        Ok(retry_on_intr(|| rustix::net::send(&self.descriptor, bytes, SEND))?)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        let mut control = SendAncillaryBuffer::default();
        Ok(retry_on_intr(|| rustix::net::sendmsg(&self.descriptor, slices, &mut control, SEND))?)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// Has the poll report events of a socket.
pub fn register(
    socket: &impl AsFd,
    registry: &Registry,
    token: Token,
    interests: Interest,
) -> io::Result<()> {
    registry.register(&mut SourceFd(&socket.as_fd().as_raw_fd()), token, interests)
}

/// Ends that, before the socket is closed.
pub fn deregister(socket: &impl AsFd, registry: &Registry) {
    // Fails only if the kernel has forgotten the socket, which is as good.
    _ = registry.deregister(&mut SourceFd(&socket.as_fd().as_raw_fd()));
}
