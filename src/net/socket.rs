//! TCP and unix sockets behind one type: listening, accepting, reading, writing.
//!
//! The only place that makes sockets. Everything is non-blocking.

use std::fmt;
use std::fs;
use std::io::{self, IoSlice, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpListener as StdTcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::fs::{FileTypeExt, MetadataExt, PermissionsExt};
use std::os::unix::net::{
    SocketAddr as StdUnixAddress, UnixListener as StdUnixListener, UnixStream as StdUnixStream,
};
use std::path::{Path, PathBuf};

use mio::event::Source;
use mio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use mio::{Interest, Registry, Token};
use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketType, getsockname, sockopt};

use crate::limits::{LISTEN_BACKLOG, RECEIVE_BUFFER_BYTES, SEND_BUFFER_BYTES};
use crate::message::peer::Peer;

/// Where to listen.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Endpoint {
    /// An address and port; port 0 lets the kernel choose.
    Tcp(SocketAddr),
    /// A path, and the file mode of the socket.
    Unix { path: PathBuf, mode: u32 },
}

impl fmt::Display for Endpoint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Endpoint::Tcp(address) => write!(f, "{address}"),
            Endpoint::Unix { path, .. } => write!(f, "unix:{}", path.display()),
        }
    }
}

/// What the connections of a listener are.
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

/// A listening socket, or one that will listen. A unix socket's file goes with it, if we have made
/// it.
#[derive(Debug)]
pub enum Listener {
    Tcp(TcpListener),
    Unix(UnixListener, Option<SocketFile>),
}

/// Device and inode.
pub type FileId = (u64, u64);

/// The file of a unix socket that we have made.
#[derive(Debug)]
pub struct SocketFile {
    path: PathBuf,
    mode: u32,
    /// Another process may have put a socket of its own at the path since.
    id: FileId,
}

impl SocketFile {
    fn is_ours(&self) -> bool {
        fs::symlink_metadata(&self.path).is_ok_and(|it| (it.dev(), it.ino()) == self.id)
    }
}

impl Drop for SocketFile {
    fn drop(&mut self) {
        if self.is_ours() {
            _ = fs::remove_file(&self.path); // best effort: a start removes a stale one too
        }
    }
}

impl Listener {
    /// Binds. The address is the one that will be listened on: port 0 has become a port.
    pub fn bind(endpoint: &Endpoint) -> io::Result<(Listener, Endpoint)> {
        match endpoint {
            Endpoint::Tcp(address) => {
                let listener = TcpListener::from_std(bind_tcp(*address)?.into());
                let bound = Endpoint::Tcp(listener.local_addr()?);
                Ok((Listener::Tcp(listener), bound))
            }
            Endpoint::Unix { path, mode } => {
                let (fd, file) = bind_unix(path, *mode)?;
                let listener = UnixListener::from_std(fd.into());
                Ok((Listener::Unix(listener, Some(file)), endpoint.clone()))
            }
        }
    }

    /// Begins to listen; before that, connections are refused.
    pub fn listen(&mut self) -> io::Result<()> {
        match self {
            Listener::Tcp(listener) => listen(listener),
            Listener::Unix(listener, file) => {
                // A socket that does not listen yet looks abandoned, and another start removes it.
                if let Some(taken) = file.take_if(|file| !file.is_ours()) {
                    let (fd, own) = bind_unix(&taken.path, taken.mode)?;
                    (*listener, *file) = (UnixListener::from_std(fd.into()), Some(own));
                }
                listen(listener)
            }
        }
    }

    /// Takes over a socket that listens already, with the address that it listens on.
    pub fn adopt_tcp(listener: StdTcpListener) -> io::Result<(Listener, Endpoint)> {
        check_listening(&listener)?;
        bound_buffers(&listener)?;
        listener.set_nonblocking(true)?;
        let bound = Endpoint::Tcp(listener.local_addr()?);
        Ok((Listener::Tcp(TcpListener::from_std(listener)), bound))
    }

    /// As [`Listener::adopt_tcp`]. The socket's file is not ours and stays.
    pub fn adopt_unix(listener: StdUnixListener) -> io::Result<(Listener, Endpoint)> {
        check_listening(&listener)?;
        listener.set_nonblocking(true)?;
        let path = path_of(&listener.local_addr()?);
        let mode = fs::metadata(&path).map_or(0, |metadata| metadata.permissions().mode());
        Ok((Listener::Unix(UnixListener::from_std(listener), None), Endpoint::Unix { path, mode }))
    }

    /// Takes over a socket of either kind that listens already.
    pub fn adopt(descriptor: OwnedFd) -> io::Result<(Listener, Endpoint)> {
        match getsockname(&descriptor)?.address_family() {
            AddressFamily::UNIX => Listener::adopt_unix(descriptor.into()),
            _ => Listener::adopt_tcp(descriptor.into()),
        }
    }

    /// Takes over a listener of an earlier process. `file`: device and inode of the socket's file,
    /// if that process has made it.
    pub fn take_over(
        descriptor: OwnedFd,
        endpoint: &Endpoint,
        file: Option<FileId>,
    ) -> io::Result<(Listener, Endpoint)> {
        match endpoint {
            Endpoint::Tcp(_) => Listener::adopt_tcp(descriptor.into()),
            Endpoint::Unix { path, mode } => {
                check_listening(&descriptor)?;
                let listener = UnixListener::from(descriptor);
                let file = file.map(|id| SocketFile { path: path.clone(), mode: *mode, id });
                Ok((Listener::Unix(listener, file), endpoint.clone()))
            }
        }
    }

    /// Device and inode of the file of a unix socket that we have made.
    pub fn file(&self) -> Option<FileId> {
        match self {
            Listener::Tcp(_) => None,
            Listener::Unix(_, file) => file.as_ref().map(|file| file.id),
        }
    }

    /// Leaves the file of a unix socket where it is.
    pub fn leave_file(&mut self) {
        if let Listener::Unix(_, file) = self {
            std::mem::forget(file.take());
        }
    }

    /// Accepts one connection, if one waits.
    pub fn accept(&self) -> io::Result<(Socket, Peer)> {
        match self {
            Listener::Tcp(listener) => {
                let (stream, address) = listener.accept()?;
                Ok((Socket::Tcp(stream), Peer::of_socket(address)))
            }
            Listener::Unix(listener, _) => {
                Ok((Socket::Unix(listener.accept()?.0), Peer::default()))
            }
        }
    }
}

impl AsFd for Listener {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Listener::Tcp(listener) => listener.as_fd(),
            Listener::Unix(listener, _) => listener.as_fd(),
        }
    }
}

fn listen(socket: impl AsFd) -> io::Result<()> {
    if is_listening(&socket).unwrap_or(false) {
        return Ok(()); // adopted, with a backlog of the operator's choice
    }
    Ok(rustix::net::listen(&socket, LISTEN_BACKLOG)?)
}

fn path_of(address: &StdUnixAddress) -> PathBuf {
    #[cfg(target_os = "linux")]
    if let Some(name) = std::os::linux::net::SocketAddrExt::as_abstract_name(address) {
        return format!("@{}", String::from_utf8_lossy(name)).into();
    }
    address.as_pathname().map(Path::to_owned).unwrap_or_default()
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

fn bind_unix(path: &Path, mode: u32) -> io::Result<(OwnedFd, SocketFile)> {
    remove_stale(path)?;
    let fd = new_socket(AddressFamily::UNIX)?;
    rustix::net::bind(&fd, &SocketAddrUnix::new(path)?)?;
    // No client can connect before listen, so none connects under the default mode.
    fs::set_permissions(path, fs::Permissions::from_mode(mode))?;
    let made = fs::symlink_metadata(path)?;
    Ok((fd, SocketFile { path: path.to_owned(), mode, id: (made.dev(), made.ino()) }))
}

/// Removes a socket file on which no process listens any more.
fn remove_stale(path: &Path) -> io::Result<()> {
    let is_socket =
        fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket());
    if is_socket
        && StdUnixStream::connect(path)
            .is_err_and(|error| error.kind() == io::ErrorKind::ConnectionRefused)
    {
        fs::remove_file(path)?;
    }
    Ok(())
}

#[cfg(not(target_os = "macos"))]
fn new_socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    let flags = rustix::net::SocketFlags::CLOEXEC | rustix::net::SocketFlags::NONBLOCK;
    rustix::net::socket_with(family, SocketType::STREAM, flags, None)
}

/// macOS has no flags for that.
#[cfg(target_os = "macos")]
fn new_socket(family: AddressFamily) -> rustix::io::Result<OwnedFd> {
    let fd = rustix::net::socket(family, SocketType::STREAM, None)?;
    rustix::io::fcntl_setfd(&fd, rustix::io::FdFlags::CLOEXEC)?;
    rustix::io::ioctl_fionbio(&fd, true)?;
    Ok(fd)
}

/// A connected socket.
#[derive(Debug)]
pub enum Socket {
    Tcp(TcpStream),
    Unix(UnixStream),
}

impl Socket {
    /// Takes over a connected socket of an earlier process. It is non-blocking already.
    pub fn adopt(descriptor: OwnedFd, is_unix: bool) -> io::Result<Socket> {
        if sockopt::socket_type(&descriptor)? != SocketType::STREAM {
            return Err(io::ErrorKind::InvalidInput.into());
        }
        Ok(if is_unix { Socket::Unix(descriptor.into()) } else { Socket::Tcp(descriptor.into()) })
    }

    /// Sends small answers at once, without waiting for more.
    pub fn set_nodelay(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.set_nodelay(true),
            Socket::Unix(_) => Ok(()),
        }
    }

    pub fn shutdown_write(&self) -> io::Result<()> {
        match self {
            Socket::Tcp(stream) => stream.shutdown(Shutdown::Write),
            Socket::Unix(stream) => stream.shutdown(Shutdown::Write),
        }
    }
}

impl AsFd for Socket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            Socket::Tcp(stream) => stream.as_fd(),
            Socket::Unix(stream) => stream.as_fd(),
        }
    }
}

impl Read for Socket {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.read(buffer),
            Socket::Unix(stream) => stream.read(buffer),
        }
    }
}

impl Write for Socket {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write(bytes),
            Socket::Unix(stream) => stream.write(bytes),
        }
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        match self {
            Socket::Tcp(stream) => stream.write_vectored(slices),
            Socket::Unix(stream) => stream.write_vectored(slices),
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

macro_rules! delegate_source {
    ($type:ty, $($pattern:pat => $inner:expr),+) => {
        impl Source for $type {
            fn register(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
                match self { $($pattern => $inner.register(registry, token, interests)),+ }
            }

            fn reregister(&mut self, registry: &Registry, token: Token, interests: Interest) -> io::Result<()> {
                match self { $($pattern => $inner.reregister(registry, token, interests)),+ }
            }

            fn deregister(&mut self, registry: &Registry) -> io::Result<()> {
                match self { $($pattern => $inner.deregister(registry)),+ }
            }
        }
    };
}

delegate_source!(Listener, Listener::Tcp(inner) => inner, Listener::Unix(inner, _) => inner);
delegate_source!(Socket, Socket::Tcp(inner) => inner, Socket::Unix(inner) => inner);
