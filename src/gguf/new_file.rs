//! A file that appears under its name only when it is complete.

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
#[cfg(unix)]
use std::os::unix::fs::{MetadataExt, OpenOptionsExt, PermissionsExt, fchown};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU32, Ordering};

/// The number of the next temporary file.
static NEXT: AtomicU32 = AtomicU32::new(0);

/// Written under a temporary name in the folder of its own, which it takes last. Dropped before that it is removed.
pub(crate) struct NewFile {
    /// What the caller called it, for messages.
    name: String,
    path: PathBuf,
    /// `None` once it has its name, and for a device, a pipe or a file without a name, which is written as it is.
    temporary: Option<PathBuf>,
    /// It has its name.
    named: bool,
    /// `None` once all is on the disk.
    file: Option<BufWriter<File>>,
}

impl NewFile {
    pub(crate) fn create(path: &Path) -> Result<NewFile> {
        let name = path.display().to_string();
        let fail = |e: io::Error| {
            let message = format!("cannot write {name}: {e}");
            let error = match e.kind() {
                ErrorKind::NotFound => Error::not_found(message),
                ErrorKind::InvalidInput | ErrorKind::IsADirectory => Error::invalid_argument(message),
                _ => Error::io(message),
            };
            error.with("path", &name)
        };
        if path.as_os_str().is_empty() {
            return Err(Error::invalid_argument("cannot write a file: its path is empty").with("path", ""));
        }
        // Asked before links are resolved: those of /proc to a pipe or to a file without a name lead to no path.
        let old = match fs::metadata(path) {
            Ok(old) => Some(old),
            Err(e) if e.kind() == ErrorKind::NotFound => None,
            Err(e) => return Err(fail(e)),
        };
        let given = path;
        let path = resolve(given);
        if old.as_ref().is_some_and(|old| old.is_dir()) || path.file_name().is_none() {
            return Err(fail(io::Error::from(ErrorKind::IsADirectory)));
        }
        if old.as_ref().is_some_and(|old| !old.is_file() || !path.exists()) {
            let file = OpenOptions::new().write(true).truncate(true).open(given).map_err(fail)?;
            return Ok(NewFile { name, path, temporary: None, named: false, file: Some(BufWriter::new(file)) });
        }
        loop {
            let number = NEXT.fetch_add(1, Ordering::Relaxed);
            // Short, whatever the length of the name.
            let temporary = path.with_file_name(format!(".llm.{}.{number}.part", std::process::id()));
            let mut options = OpenOptions::new();
            // Never a file of somebody else.
            options.write(true).create_new(true);
            #[cfg(unix)]
            if old.is_some() {
                options.mode(0o600);
            }
            match options.open(&temporary) {
                Ok(file) => {
                    let (temporary, file) = (Some(temporary), Some(BufWriter::new(file)));
                    let new = NewFile { name: name.clone(), path, temporary, named: false, file };
                    // Who may not read the old one may not read the new one either.
                    #[cfg(unix)]
                    if let (Some(old), Some(file)) = (old, &new.file) {
                        let same_group = fchown(file.get_ref(), None, Some(old.gid())).is_ok();
                        let mode = old.mode() & 0o777;
                        // The old group counts as others then.
                        let mode = if same_group { mode } else { mode & 0o700 | mode & mode >> 3 & 0o007 };
                        file.get_ref().set_permissions(fs::Permissions::from_mode(mode)).map_err(fail)?;
                    }
                    return Ok(new);
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists => {}
                Err(e) => return Err(fail(e)),
            }
        }
    }

    pub(crate) fn write(&mut self, bytes: &[u8]) -> Result<()> {
        let written = self.file.as_mut().map_or(Ok(()), |file| file.write_all(bytes));
        written.map_err(|e| self.failure(e))
    }

    /// Sees to it that all is on the disk.
    pub(crate) fn close(&mut self) -> Result<()> {
        let Some(file) = self.file.take() else { return Ok(()) };
        // A pipe or a device has nothing to sync.
        let device = self.temporary.is_none();
        let closed = file.into_inner().map_err(io::IntoInnerError::into_error);
        closed.and_then(|file| if device { Ok(()) } else { file.sync_all() }).map_err(|e| self.failure(e))
    }

    /// Gives the file its name.
    pub(crate) fn commit(&mut self) -> Result<()> {
        self.close()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path).map_err(|e| self.failure(e))?;
            (self.temporary, self.named) = (None, true);
            // That the folder has the new name should be on the disk too; the file is there in any case, and some file
            // systems cannot sync a folder.
            #[cfg(unix)]
            {
                use crate::log::{self, Level};
                let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
                if let Err(e) = synced {
                    log::event(Level::Warn, format_args!("cannot sync the folder of {}: {e}", self.name));
                }
            }
        }
        Ok(())
    }

    /// Takes the name away again.
    pub(super) fn withdraw(self) {
        if self.named {
            let _ = fs::remove_file(&self.path);
        }
    }

    fn failure(&self, e: io::Error) -> Error {
        Error::io(format!("cannot write {}: {e}", self.name)).with("path", &self.name)
    }
}

/// The path behind links, for a link stays a link: what it points to is replaced, or made.
fn resolve(path: &Path) -> PathBuf {
    if let Ok(path) = fs::canonicalize(path) {
        return path;
    }
    let mut path = path.to_owned();
    // As many as Linux follows.
    for _ in 0..40 {
        let Ok(target) = fs::read_link(&path) else { break };
        path = path.parent().unwrap_or(Path::new("")).join(target);
    }
    path
}

impl Drop for NewFile {
    fn drop(&mut self) {
        if let Some(temporary) = &self.temporary {
            // What is in the buffer need not be written any more.
            drop(self.file.take().map(BufWriter::into_parts));
            let _ = fs::remove_file(temporary);
        }
    }
}
