//! What operators have set, in a file: it outlives a crash and a restart.
//!
//! The file is in the directory that systemd makes for the service (StateDirectory=). It is
//! replaced as a whole, so that a crash leaves the old one or the new one.

use std::fs::{self, File};
use std::io::{self, ErrorKind, Write};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::control::plane::ban_book::{Ban, BanBook};
use crate::control::plane::overrides::Overrides;
use crate::control::plane::set_backends::{self, SetBackend};
use crate::control::plane::set_bans::{self, ReadAt, SetBan};

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
    written: Mutex<Option<WrittenState>>,
}

#[derive(Debug, Serialize, Deserialize)]
struct StateDocument {
    version: u32,
    #[serde(flatten)]
    written: WrittenState,
}

/// What the file says of operators.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
struct WrittenState {
    /// What is set for backends.
    set: Vec<SetBackend>,
    /// Left out where there are none, as files of versions before.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    bans: Vec<SetBan>,
}

/// What operators have set.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct SavedState {
    pub(crate) overrides: Overrides,
    pub(crate) bans: Vec<Ban>,
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

    /// What it says, without bans that are over; a file that cannot be understood is ignored, and
    /// the log tells.
    pub(crate) fn read(&self, now: ReadAt) -> SavedState {
        let Some(path) = &self.path else { return SavedState::default() };
        match read(path, now) {
            Ok(state) => state,
            Err(error) if error.kind() == ErrorKind::NotFound => SavedState::default(),
            Err(error) => {
                tracing::warn!("{}: {error}; what operators had set is forgotten", path.display());
                SavedState::default()
            }
        }
    }

    /// Writes what is set now, unless the file says so already. Where it cannot be written, the log
    /// tells. Waits for the disk: not on the thread `control`.
    pub(crate) fn write(&self, overrides: &Overrides, bans: &BanBook, now_us: u64) {
        let Some(path) = &self.path else { return };
        let mut written = self.written.lock();
        // Asked for while it is held: of two that write, the later one has the later list.
        let bans = set_bans::written(bans.list(now_us));
        let set = WrittenState { set: set_backends::written(overrides), bans };
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

fn read(path: &Path, now: ReadAt) -> io::Result<SavedState> {
    if fs::metadata(path)?.len() > BYTES_MAX {
        return Err(io::Error::new(ErrorKind::InvalidData, "it is too long"));
    }
    let StateDocument { version, written } = serde_json::from_slice(&fs::read(path)?)?;
    if version != VERSION {
        let what = format!("it has version {version}, and this program knows {VERSION}");
        return Err(io::Error::new(ErrorKind::InvalidData, what));
    }
    let WrittenState { set, bans } = written;
    Ok(SavedState { overrides: set_backends::read(set)?, bans: set_bans::read(bans, now)? })
}

fn replace(path: &Path, written: &WrittenState) -> io::Result<()> {
    let document = StateDocument { version: VERSION, written: written.clone() };
    let text = serde_json::to_vec_pretty(&document)?;
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

    use std::sync::Arc;
    use std::time::Instant;

    use crate::control::host::gates::Gates;
    use crate::control::plane::overrides::Override;
    use crate::shared::AdminState;

    fn drained() -> Overrides {
        let set = Override { admin: Some(AdminState::Drain), weight: Some(3) };
        Overrides::from([(("p".to_owned(), "b".to_owned()), set)])
    }

    const NOW: ReadAt = ReadAt { us: 0, at: 0 };

    fn no_bans() -> BanBook {
        BanBook::new(Arc::default(), Arc::new(Gates::new(Instant::now())))
    }

    impl StateFile {
        fn write_set(&self, overrides: &Overrides) {
            self.write(overrides, &no_bans(), 0);
        }
    }

    // If this fails, a restart puts drained backends back into service.
    #[test]
    fn what_is_set_outlives_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::within(Some(directory.path()));
        assert_eq!(file.read(NOW).overrides, Overrides::new());
        file.write_set(&drained());
        assert_eq!(StateFile::within(Some(directory.path())).read(NOW).overrides, drained());
        file.write_set(&Overrides::new());
        assert_eq!(StateFile::within(Some(directory.path())).read(NOW).overrides, Overrides::new());
        let names = fs::read_dir(directory.path()).unwrap().count();
        assert_eq!(names, 1, "nothing else is left");
    }

    // If this fails, a restart lets abusers in, or a version that knows no bans refuses the file.
    #[test]
    fn bans_outlive_the_process() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::within(Some(directory.path()));
        let (book, network) = (no_bans(), "192.0.2.0/24".parse().unwrap());
        let ban = Ban { network, since: 3, until: None, reason: "floods".into() };
        book.put(vec![ban.clone()], 0).unwrap();
        file.write(&drained(), &book, 0);
        let saved = StateFile::within(Some(directory.path())).read(NOW);
        assert_eq!(saved, SavedState { overrides: drained(), bans: vec![ban] });
        file.write_set(&drained());
        assert!(!fs::read_to_string(directory.path().join(NAME)).unwrap().contains("bans"));
    }

    // If this fails, a damaged file keeps evenkeel from its start, or is half believed.
    #[test]
    fn what_cannot_be_understood_is_ignored() {
        let directory = tempfile::tempdir().unwrap();
        let file = StateFile::within(Some(directory.path()));
        file.write_set(&drained());
        let whole = fs::read_to_string(directory.path().join(NAME)).unwrap();
        let newer = whole.replace("\"version\": 1", "\"version\": 2");
        let unknown = whole.replace("drain", "asleep");
        for text in [&whole[..whole.len() / 2], &newer, &unknown, ""] {
            fs::write(directory.path().join(NAME), text).unwrap();
            assert_eq!(file.read(NOW).overrides, Overrides::new(), "{text}");
        }
    }

    // If this fails, a service without such a directory writes somewhere.
    #[test]
    fn without_a_directory_there_is_no_file() {
        let file = StateFile::within(None);
        file.write_set(&drained());
        assert_eq!(file.read(NOW).overrides, Overrides::new());
    }
}
