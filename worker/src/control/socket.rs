//! Where the socket is, and who may have it.

use std::{
    fs::{self, File, Permissions, TryLockError},
    io,
    os::{fd::AsRawFd as _, unix::fs::PermissionsExt as _},
    path::{Path, PathBuf},
};

use tokio::net::{UnixListener, UnixStream};

/// Name of the socket in the data directory.
const SOCKET: &str = "control.sock";
/// Name of the file whose lock says that a worker has the directory.
const LOCK: &str = "lock";

/// The control socket can't be had.
#[derive(Debug, thiserror::Error)]
pub enum ControlError {
    /// Another worker has this directory. Worth a retry when that one has ended.
    #[error(
        "a worker already runs with the data directory {}; see `talka worker status`, or give this one another \
         --data-dir",
        .0.display()
    )]
    AlreadyRuns(PathBuf),
    /// A file can't be used. Not worth a retry before that is mended.
    #[error("the control socket can't be made in {}", data_dir.display())]
    Make {
        /// The data directory.
        data_dir: PathBuf,
        /// Why not.
        source: io::Error,
    },
}

/// The socket of this process, and its claim on the data directory. Both go away with the value; those of a process
/// that is killed are recognised by its lock, which the kernel takes back.
#[derive(Debug)]
pub(crate) struct Socket {
    listener: UnixListener,
    path: PathBuf,
    _lock: File,
}

impl Socket {
    /// Claims the data directory and listens in it.
    pub(crate) async fn bind(data_dir: &Path) -> Result<Self, ControlError> {
        let failed = |source| ControlError::Make { data_dir: data_dir.to_owned(), source };
        let already_runs = || ControlError::AlreadyRuns(data_dir.to_owned());
        fs::create_dir_all(data_dir).map_err(failed)?;
        let lock = File::create(data_dir.join(LOCK)).map_err(failed)?;
        match lock.try_lock() {
            Ok(()) => {}
            Err(TryLockError::WouldBlock) => return Err(already_runs()),
            // Some network file systems have no locks: then a socket that answers has to do.
            Err(TryLockError::Error(error)) if error.kind() == io::ErrorKind::Unsupported => {}
            Err(TryLockError::Error(error)) => return Err(failed(error)),
        }
        let path = data_dir.join(SOCKET);
        if connect(data_dir).await.is_ok() {
            return Err(already_runs());
        }
        match fs::remove_file(&path) {
            Err(error) if error.kind() != io::ErrorKind::NotFound => return Err(failed(error)),
            _ => {}
        }
        let listener = Directory::open(data_dir).and_then(|dir| UnixListener::bind(dir.socket()));
        let listener = listener.map_err(failed)?;
        // Whoever connects before this line is asked who it is.
        fs::set_permissions(&path, Permissions::from_mode(0o600)).map_err(failed)?;
        Ok(Self { listener, path, _lock: lock })
    }

    /// The next connection of the worker's own user or of root; `None` for one of somebody else.
    pub(super) async fn accept(&self) -> io::Result<Option<UnixStream>> {
        let (stream, _) = self.listener.accept().await?;
        let caller = stream.peer_cred()?.uid();
        let own = rustix::process::geteuid().as_raw();
        if caller == own || caller == 0 {
            return Ok(Some(stream));
        }
        tracing::warn!(uid = caller, "another user's request on the control socket is not answered");
        Ok(None)
    }
}

impl Drop for Socket {
    fn drop(&mut self) {
        // What is left behind is replaced by the next worker.
        let _ = fs::remove_file(&self.path);
    }
}

/// A connection to the worker that has this data directory.
pub(super) async fn connect(data_dir: &Path) -> io::Result<UnixStream> {
    let dir = Directory::open(data_dir)?;
    UnixStream::connect(dir.socket()).await
}

/// A data directory, however long its path is: an address of a socket has 108 bytes at most.
struct Directory {
    dir: File,
    path: PathBuf,
}

impl Directory {
    fn open(path: &Path) -> io::Result<Self> {
        Ok(Self { dir: File::open(path)?, path: path.to_owned() })
    }

    /// The socket's path, which is good for as long as `self` is there.
    fn socket(&self) -> PathBuf {
        if cfg!(target_os = "linux") {
            return Path::new("/proc/self/fd").join(self.dir.as_raw_fd().to_string()).join(SOCKET);
        }
        self.path.join(SOCKET)
    }
}
