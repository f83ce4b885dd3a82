//! Which file is at a path: device, inode and length, asked for without its times.
//!
//! A Linux file system whose timestamps have been asked for gives the next write a time of its own
//! ("multigrain" timestamps, since 6.13), and the commit that follows must write the inode as well.
//! Asked for after each commit, that makes each commit of a single pair a fifth slower.

use std::fs::{self, File};
use std::io;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

/// Device and inode of a file.
pub type FileId = (u64, u64);

/// The file at a path, and its length in bytes.
pub fn at_path(path: &Path) -> io::Result<(FileId, u64)> {
    #[cfg(target_os = "linux")]
    if let Some(found) = linux::stat(rustix::fs::CWD, path, rustix::fs::AtFlags::empty())? {
        return Ok(found);
    }
    Ok(of_metadata(&fs::metadata(path)?))
}

/// The file, or the link, of that name, and its length in bytes.
pub fn of_name(path: &Path) -> io::Result<(FileId, u64)> {
    #[cfg(target_os = "linux")]
    if let Some(found) = linux::stat(rustix::fs::CWD, path, rustix::fs::AtFlags::SYMLINK_NOFOLLOW)?
    {
        return Ok(found);
    }
    Ok(of_metadata(&fs::symlink_metadata(path)?))
}

/// An open file, and its length in bytes.
pub fn of(file: &File) -> io::Result<(FileId, u64)> {
    #[cfg(target_os = "linux")]
    if let Some(found) = linux::stat(file, Path::new(""), rustix::fs::AtFlags::EMPTY_PATH)? {
        return Ok(found);
    }
    Ok(of_metadata(&file.metadata()?))
}

/// The directory that a path lies in, be there a file at the path or not.
pub fn directory(path: &Path) -> Option<FileId> {
    at_path(std::path::absolute(path).ok()?.parent()?).ok().map(|(id, _)| id)
}

/// Whether two paths are one name in one directory, be there a file or not.
pub fn is_same_name(one: &Path, other: &Path) -> bool {
    let in_one_directory = || directory(one).is_some_and(|it| directory(other) == Some(it));
    one == other || (one.file_name() == other.file_name() && in_one_directory())
}

fn of_metadata(metadata: &fs::Metadata) -> (FileId, u64) {
    ((metadata.dev(), metadata.ino()), metadata.len())
}

#[cfg(target_os = "linux")]
mod linux {
    use std::io;
    use std::os::fd::AsFd;
    use std::path::Path;

    use rustix::fs::{AtFlags, StatxFlags, makedev, statx};
    use rustix::io::Errno;

    use super::FileId;

    /// Nothing where the kernel is older than 4.11.
    pub fn stat(
        directory: impl AsFd,
        path: &Path,
        flags: AtFlags,
    ) -> io::Result<Option<(FileId, u64)>> {
        match statx(directory, path, flags, StatxFlags::INO | StatxFlags::SIZE) {
            Ok(it) => {
                let device = makedev(it.stx_dev_major, it.stx_dev_minor);
                Ok(Some(((device, it.stx_ino), it.stx_size)))
            }
            Err(Errno::NOSYS) => Ok(None),
            Err(error) => Err(error.into()),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_the_same_by_path_and_open_and_by_the_standard_library() {
        let path = std::env::current_exe().expect("a path");
        let file = File::open(&path).expect("a file");
        let by_library = of_metadata(&file.metadata().expect("metadata"));
        assert_eq!(at_path(&path).expect("a file"), by_library);
        assert_eq!(of(&file).expect("a file"), by_library);
    }
}
