//! Files that a configuration of nginx consists of.

use std::path::{Path, PathBuf};

use crate::import::files::{ImportFiles, matching, read};
use crate::import::outcome::ImportError;

use super::blocks::{Directive, directives};

/// Files within files, and files in all.
const DEPTH_MAX: usize = 16;
const FILES_MAX: usize = 1000;

/// Reads a file with all that it includes in place.
///
/// # Errors
/// When one of them cannot be read, or nginx could not read it either.
pub(super) fn whole(file: &Path, files: &dyn ImportFiles) -> Result<Vec<Directive>, ImportError> {
    // nginx takes paths for those below the directory of its main file.
    let base = file.parent().unwrap_or(Path::new("")).to_owned();
    let mut reader = IncludeReader { base, files, count: 0 };
    reader.file(file, 0)
}

struct IncludeReader<'a> {
    base: PathBuf,
    files: &'a dyn ImportFiles,
    count: usize,
}

impl IncludeReader<'_> {
    fn file(&mut self, file: &Path, depth: usize) -> Result<Vec<Directive>, ImportError> {
        let text = read(file, self.files)?;
        let found = directives(&file.display().to_string(), &text)?;
        self.expanded(found, depth)
    }

    fn expanded(
        &mut self,
        list: Vec<Directive>,
        depth: usize,
    ) -> Result<Vec<Directive>, ImportError> {
        let mut all = Vec::with_capacity(list.len());
        for mut directive in list {
            if directive.name() == "include" && directive.block.is_none() {
                all.extend(self.included(&directive, depth)?);
                continue;
            }
            // What is about requests is not looked at, nor are the files of it.
            let is_foreign = matches!(directive.name(), "http" | "mail");
            if let Some(block) = directive.block.take() {
                let block = if is_foreign { block } else { self.expanded(block, depth)? };
                directive.block = Some(block);
            }
            all.push(directive);
        }
        Ok(all)
    }

    fn included(
        &mut self,
        include: &Directive,
        depth: usize,
    ) -> Result<Vec<Directive>, ImportError> {
        let failed = |message| ImportError { place: include.place.clone(), message };
        if depth == DEPTH_MAX {
            return Err(failed("too many files within files".to_owned()));
        }
        let pattern = self.base.join(include.word(1));
        let found = matching(&pattern, self.files)
            .map_err(|cause| failed(format!("cannot read {}: {cause}", pattern.display())))?;
        let mut all = Vec::new();
        for file in found {
            self.count += 1;
            if self.count > FILES_MAX {
                return Err(failed("too many files".to_owned()));
            }
            let inside = self.file(&file, depth + 1).map_err(|error| ImportError {
                place: error.place,
                message: format!("{} (included in {})", error.message, include.place),
            })?;
            all.extend(inside);
        }
        Ok(all)
    }
}
