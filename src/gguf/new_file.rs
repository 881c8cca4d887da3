//! A file that appears under its name only when it is complete.

use crate::error::{Error, Result};
use std::fs::{self, File, OpenOptions};
use std::io::{self, BufWriter, ErrorKind, Write};
use std::path::{Path, PathBuf};

/// Written under a temporary name in the folder of its own, which it takes last. Dropped before that it is removed.
pub(crate) struct NewFile {
    /// What the caller called it, for messages.
    name: String,
    path: PathBuf,
    /// `None` once it has its name, and for a device or a pipe, which is written as it is.
    temporary: Option<PathBuf>,
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
        // A link stays a link: what it points to is replaced.
        let path = fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
        let kind = fs::metadata(&path).ok();
        if kind.as_ref().is_some_and(|kind| kind.is_dir()) || path.file_name().is_none() {
            return Err(fail(io::Error::from(ErrorKind::IsADirectory)));
        }
        if kind.is_some_and(|kind| !kind.is_file()) {
            let file = OpenOptions::new().write(true).open(&path).map_err(fail)?;
            return Ok(NewFile { name, path, temporary: None, file: Some(BufWriter::new(file)) });
        }
        let mut number = 0u32;
        loop {
            let mut temporary = path.clone().into_os_string();
            temporary.push(format!(".{}.{number}.part", std::process::id()));
            // Never a file of somebody else.
            match OpenOptions::new().write(true).create_new(true).open(&temporary) {
                Ok(file) => {
                    let file = Some(BufWriter::new(file));
                    return Ok(NewFile { name, path, temporary: Some(temporary.into()), file });
                }
                Err(e) if e.kind() == ErrorKind::AlreadyExists && number < u32::MAX => number += 1,
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
    pub(crate) fn commit(mut self) -> Result<()> {
        self.close()?;
        if let Some(temporary) = &self.temporary {
            fs::rename(temporary, &self.path).map_err(|e| self.failure(e))?;
            self.temporary = None;
            // That the folder has the new name must be on the disk too.
            #[cfg(unix)]
            {
                let folder = self.path.parent().filter(|folder| !folder.as_os_str().is_empty());
                let synced = File::open(folder.unwrap_or(Path::new("."))).and_then(|folder| folder.sync_all());
                synced.map_err(|e| self.failure(e))?;
            }
        }
        Ok(())
    }

    fn failure(&self, e: io::Error) -> Error {
        Error::io(format!("cannot write {}: {e}", self.name)).with("path", &self.name)
    }
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
