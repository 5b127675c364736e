//! What operators have set, in a file: it outlives a crash and a restart.
//!
//! The file is in the directory that systemd makes for the service (StateDirectory=). It is
//! replaced as a whole, so that a crash leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::control::plane::overrides::Overrides;
use crate::control::plane::set_backends::{self, SetBackend};

/// Grows when a process cannot understand the file of the one before.
const VERSION: u32 = 1;
/// Its name in the directory.
const NAME: &str = "state.json";
/// Longest file that is read.
const BYTES_MAX: u64 = 64 << 20;

/// The file, and what is in it.
#[derive(Debug, Default)]
pub(crate) struct StateFile {
    /// `None` when the service has no such directory.
    path: Option<PathBuf>,
    /// Held while it is written; the latest that was.
    written: Mutex<Option<Vec<SetBackend>>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StateDocument {
    version: u32,
    /// What operators have set.
    set: Vec<SetBackend>,
}

impl StateFile {
    /// That of this service, by the environment (systemd.exec(5)).
    pub(crate) fn of_this_service() -> Self {
        let directories = std::env::var_os("STATE_DIRECTORY");
        let first = directories.as_ref().and_then(|list| std::env::split_paths(list).next());
        Self::within(first.filter(|directory| directory.is_absolute()).as_deref())
    }

    fn within(directory: Option<&Path>) -> Self {
        Self { path: directory.map(|directory| directory.join(NAME)), written: Mutex::default() }
    }

    /// Whether there is to be one.
    pub(crate) fn is_kept(&self) -> bool {
        self.path.is_some()
    }

    /// What it says; a file that cannot be understood is ignored, and the log tells.
    pub(crate) fn read(&self) -> Overrides {
        let Some(path) = &self.path else { return Overrides::new() };
        match read(path) {
            Ok(overrides) => overrides,
            Err(error) if error.kind() == ErrorKind::NotFound => Overrides::new(),
            Err(error) => {
                tracing::warn!("{}: {error}; what operators had set is forgotten", path.display());
                Overrides::new()
            }
        }
    }

    /// Writes what is set now, unless the file says so already. Where it cannot be written, the log
    /// tells. Waits for the disk: not on the thread `control`.
    pub(crate) fn write(&self, overrides: &Overrides) {
        let Some(path) = &self.path else { return };
        let mut written = self.written.lock();
        let set = set_backends::written(overrides);
        if written.as_ref() == Some(&set) {
            return;
        }
        match replace(path, &set) {
            Ok(()) => *written = Some(set),
            Err(error) => tracing::warn!(
                "cannot write {}: {error}; what operators have set ends with this process",
                path.display()
            ),
        }
    }
}

fn read(path: &Path) -> io::Result<Overrides> {
    if fs::metadata(path)?.len() > BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is too long"));
    }
    let StateDocument { version, set } = serde_json::from_slice(&fs::read(path)?)?;
    if version != VERSION {
        let what = format!("it has version {version}, and this program knows {VERSION}");
        return Err(io::Error::new(ErrorKind::InvalidData, what));
    }
    set_backends::read(set)
}

fn replace(path: &Path, set: &[SetBackend]) -> io::Result<()> {
    let text = serde_json::to_vec_pretty(&StateDocument { version: VERSION, set: set.to_vec() })?;
    let next = path.with_extension("new");
    let mut file = File::create(&next)?;
    file.write_all(&text)?;
    file.sync_all()?;
    fs::rename(&next, path)?;
    // The new name is on the disk, too.
    match path.parent() {
        Some(directory) => File::open(directory)?.sync_all(),
        None => Ok(()),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    use crate::control::plane::overrides::Override;
    use crate::shared::AdminState;

    fn drained() -> Overrides {
        let set = Override { admin: Some(AdminState::Drain), weight: Some(3) };
        Overrides::from([(("p".to_owned(), "b".to_owned()), set)])
    }

    // If this fails, a restart puts drained backends back into service.
    #[test]
    fn what_is_set_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::within(Some(directory.path()));
        assert_eq!(file.read(), Overrides::new());
        file.write(&drained());
        assert_eq!(StateFile::within(Some(directory.path())).read(), drained());
        file.write(&Overrides::new());
        assert_eq!(StateFile::within(Some(directory.path())).read(), Overrides::new());
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 1, "nothing else is left");
    }

    // If this fails, a damaged file keeps evenkeel from its start, or is half believed.
    #[test]
    fn what_cannot_be_understood_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::within(Some(directory.path()));
        file.write(&drained());
        let whole = fs::read_to_string(directory.path().join(NAME)).unwrap();
        let newer = whole.replace("\"version\": 1", "\"version\": 2");
        let unknown = whole.replace("drain", "asleep");
        for text in [&whole[..whole.len() / 2], &newer, &unknown, ""] {
            fs::write(directory.path().join(NAME), text).unwrap();
            assert_eq!(file.read(), Overrides::new(), "{text}");
        }
    }

    // If this fails, a service without such a directory writes somewhere.
    #[test]
    fn without_a_directory_there_is_no_file() {
        let file = StateFile::within(None);
        file.write(&drained());
        assert_eq!(file.read(), Overrides::new());
    }
}
