//! The files of a room and which of them use which, found from the paths that they name.

use std::collections::{BTreeMap, BTreeSet};

use super::reading::{Source, paths_from};

/// The modules of the crate, by their path: `["policy", "admit", "table"]`.
type Modules<'a> = BTreeMap<Vec<String>, &'a Source>;

/// Which file uses which, by module path.
type Uses = BTreeMap<Vec<String>, BTreeSet<Vec<String>>>;

/// The module that a file below `src/` is.
fn module_of(source: &Source) -> Option<Vec<String>> {
    let inside = source.path.strip_prefix("src/")?.strip_suffix(".rs")?;
    let mut segments: Vec<String> = inside.split('/').map(str::to_owned).collect();
    if segments.last().is_some_and(|name| name == "mod") {
        segments.pop();
    }
    let name = segments.last()?;
    let is_test = name == "tests" || name.ends_with("_tests");
    (!is_test).then_some(segments)
}

/// What a module makes of other modules under names of its own: `pub use child::Name`.
fn re_exports(code: &str) -> Vec<String> {
    let statements = code.split(';').filter_map(|statement| {
        let at = statement.find("pub")?;
        let statement = statement.get(at..)?.trim();
        let rest = statement.strip_prefix("pub(crate) use ");
        rest.or_else(|| statement.strip_prefix("pub use ")).map(str::to_owned)
    });
    statements.flat_map(|tree| paths_from(&tree)).collect()
}

/// Whether a module defines a name itself.
fn defines(code: &str, name: &str) -> bool {
    ["struct", "enum", "trait", "type", "fn", "const", "static", "macro_rules!"]
        .iter()
        .any(|kind| super::reading::has_phrase(code, kind, name))
}

struct Crate<'a> {
    modules: Modules<'a>,
    code: BTreeMap<Vec<String>, String>,
}

impl<'a> Crate<'a> {
    fn of(sources: &'a [Source]) -> Self {
        let modules: Modules<'a> = sources
            .iter()
            .filter_map(|source| module_of(source).map(|module| (module, source)))
            .collect();
        let code = modules.iter().map(|(module, source)| (module.clone(), source.code()));
        Self { code: code.collect(), modules }
    }

    /// The path from the root of the crate that `path`, named in `from`, stands for.
    fn absolute(&self, from: &[String], path: &str) -> Option<Vec<String>> {
        let mut segments = path.split("::").filter(|segment| !segment.is_empty()).peekable();
        let mut base: Vec<String> = match segments.peek().copied()? {
            "crate" | "evenkeel" => Vec::new(),
            "self" | "super" => from.to_vec(),
            first => {
                let mut child = from.to_vec();
                child.push(first.to_owned());
                self.modules.contains_key(&child).then(|| from.to_vec())?
            }
        };
        for segment in segments {
            match segment {
                "crate" | "evenkeel" | "self" => {}
                "super" => {
                    base.pop();
                }
                name => base.push(name.to_owned()),
            }
        }
        Some(base)
    }

    /// The module that a path from the root leads to: through what modules re-export, to the one
    /// that defines the name.
    fn target(&self, absolute: &[String], depth: usize) -> Option<Vec<String>> {
        let length = (1..=absolute.len()).rev();
        let length =
            length.into_iter().find(|length| self.modules.contains_key(&absolute[..*length]))?;
        let module = absolute[..length].to_vec();
        let Some(name) = absolute.get(length).filter(|_| depth > 0) else { return Some(module) };
        let code = &self.code[&module];
        if defines(code, name) {
            return Some(module);
        }
        for exported in re_exports(code) {
            let (path, last) = exported.rsplit_once("::").unwrap_or(("self", &exported));
            // A glob is read as a path without a last name.
            if last != name && !last.is_empty() {
                continue;
            }
            let Some(mut inner) = self.absolute(&module, path) else { continue };
            inner.push(name.clone());
            let Some(found) = self.target(&inner, depth - 1) else { continue };
            if last == name || defines(&self.code[&found], name) {
                return Some(found);
            }
        }
        Some(module)
    }

    fn uses(&self) -> Uses {
        let mut uses = Uses::new();
        for (module, code) in &self.code {
            let exported: BTreeSet<String> = re_exports(code).into_iter().collect();
            let targets = paths_from(code)
                .into_iter()
                .filter(|path| !exported.contains(path))
                .filter_map(|path| self.target(&self.absolute(module, &path)?, 3))
                .filter(|target| target != module);
            uses.insert(module.clone(), targets.collect());
        }
        uses
    }
}

/// Each file with the files that it uses, by paths from the root of the repository.
pub(crate) fn files_used(sources: &[Source]) -> Vec<(String, Vec<String>)> {
    let whole = Crate::of(sources);
    let path = |module: &Vec<String>| whole.modules.get(module).map(|source| source.path.clone());
    let uses = whole.uses();
    let files = uses.iter().filter_map(|(module, targets)| {
        Some((path(module)?, targets.iter().filter_map(path).collect()))
    });
    files.collect()
}

/// Those that can be reached from `start`, which is among them only if there is a way back.
fn reached(uses: &Uses, start: &[String]) -> BTreeSet<Vec<String>> {
    let mut found = BTreeSet::new();
    let mut open: Vec<Vec<String>> = vec![start.to_vec()];
    while let Some(module) = open.pop() {
        for target in uses.get(&module).into_iter().flatten() {
            if found.insert(target.clone()) {
                open.push(target.clone());
            }
        }
    }
    found
}

/// Files that use one another in a circle, of the parts of the crate that `is_held` names; one line
/// for each circle.
pub(crate) fn circles(sources: &[Source], is_held: fn(&str) -> bool) -> Vec<String> {
    let mut uses = Crate::of(sources).uses();
    uses.retain(|module, _| module.first().is_some_and(|room| is_held(room)));
    let in_room = |module: &Vec<String>, target: &Vec<String>| module.first() == target.first();
    for (module, targets) in &mut uses {
        targets.retain(|target| in_room(module, target));
    }
    let mut told = BTreeSet::new();
    let mut found = Vec::new();
    for module in uses.keys() {
        let from_here = reached(&uses, module);
        if !from_here.contains(module) || told.contains(module) {
            continue;
        }
        let circle: BTreeSet<_> =
            from_here.into_iter().filter(|other| reached(&uses, other).contains(module)).collect();
        let names: Vec<String> = circle.iter().map(|module| module.join("::")).collect();
        found.push(format!("these use one another in a circle: {}", names.join(", ")));
        told.extend(circle);
    }
    found
}
