//! Reading what is imported: a bounded number of bytes, from the disk or from nowhere.

use std::fs::File;
use std::io::Read;
use std::path::{Path, PathBuf};

use crate::policy::glob;

use super::outcome::ImportError;
use super::place::SourcePlace;

/// Longest file in bytes.
const LENGTH_MAX: u64 = 16 << 20;

/// Where files come from.
pub trait ImportFiles {
    /// The bytes of a file.
    ///
    /// # Errors
    /// In words, when it cannot be read.
    fn read(&self, file: &Path) -> Result<Vec<u8>, String>;

    /// The names in a directory, sorted.
    ///
    /// # Errors
    /// In words, when it cannot be read.
    fn names(&self, directory: &Path) -> Result<Vec<String>, String>;
}

/// Files of this host.
#[derive(Debug, Clone, Copy)]
pub struct Disk;

impl ImportFiles for Disk {
    fn read(&self, file: &Path) -> Result<Vec<u8>, String> {
        let mut bytes = Vec::new();
        let opened = File::open(file).map_err(|error| error.to_string())?;
        let read = opened.take(LENGTH_MAX + 1).read_to_end(&mut bytes);
        read.map_err(|error| error.to_string())?;
        if bytes.len() as u64 > LENGTH_MAX {
            return Err(format!("it is longer than {} MiB", LENGTH_MAX >> 20));
        }
        Ok(bytes)
    }

    fn names(&self, directory: &Path) -> Result<Vec<String>, String> {
        let entries = std::fs::read_dir(directory).map_err(|error| error.to_string())?;
        let names = entries.filter_map(|entry| entry.ok()?.file_name().into_string().ok());
        let mut names: Vec<String> = names.collect();
        names.sort();
        Ok(names)
    }
}

/// One text and no other file, for callers that have the text already.
#[derive(Debug, Clone, Copy)]
pub struct NoFiles<'a>(pub &'a [u8]);

impl ImportFiles for NoFiles<'_> {
    fn read(&self, _: &Path) -> Result<Vec<u8>, String> {
        Ok(self.0.to_vec())
    }

    fn names(&self, _: &Path) -> Result<Vec<String>, String> {
        Err("there is no directory".to_owned())
    }
}

/// The text of a file.
pub(super) fn read(file: &Path, files: &dyn ImportFiles) -> Result<String, ImportError> {
    let place = SourcePlace::new(&file.display().to_string(), 1);
    let bytes = files.read(file).map_err(|cause| ImportError {
        place: place.clone(),
        message: format!("cannot read it: {cause}"),
    })?;
    String::from_utf8(bytes).map_err(|error| {
        let before = error.as_bytes().get(..error.utf8_error().valid_up_to()).unwrap_or_default();
        let line = before.split(|byte| *byte == b'\n').count();
        ImportError { place: place.at(line), message: "it is not UTF-8".to_owned() }
    })
}

/// The files that a pattern such as `/etc/nginx/stream.d/*.conf` stands for; the pattern itself,
/// where it is none. Only its last part may be a pattern.
pub(super) fn matching(pattern: &Path, files: &dyn ImportFiles) -> Result<Vec<PathBuf>, String> {
    let name = pattern.file_name().and_then(|name| name.to_str()).unwrap_or_default();
    if !glob::is_pattern(name) {
        return Ok(vec![pattern.to_owned()]);
    }
    let directory = pattern.parent().unwrap_or(Path::new("."));
    let names = files.names(directory)?;
    let is_meant = |found: &&String| {
        // As glob(7) has it: a file is hidden unless its dot is named.
        glob::matches(name, found) && (!found.starts_with('.') || name.starts_with('.'))
    };
    Ok(names.iter().filter(is_meant).map(|found| directory.join(found)).collect())
}
