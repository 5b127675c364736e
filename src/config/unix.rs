//! Paths of Unix sockets in the file.
//!
//! Purely by what is written: whether a directory is there is found out when it is opened.

use std::path::Path;
use std::sync::Arc;

use crate::policy::terms::Address;

use super::file::{Value, quoted, shown};
use super::report::{FilePlace, Finding, Report};

/// What comes before the path of a Unix socket.
pub(super) const PREFIX: &str = Address::UNIX_PREFIX;

/// Longest path of a Unix socket: the kernel's 108 bytes, with the zero at its end (unix(7)).
pub(super) const PATH_LENGTH_MAX: usize = 107;

const EXPECTED: &str = "an absolute path such as \"unix:/run/app.sock\"";

/// Reads what follows `unix:`.
pub(super) fn socket_path(
    text: &str,
    value: &Value<'_>,
    report: &mut Report<'_>,
) -> Option<Arc<Path>> {
    let whole = shown(text);
    let finding = if text.is_empty() {
        Finding::new("`unix:` has no path")
    } else if text.starts_with(['@', '\0']) {
        Finding::new(format!("`{whole}` is no path; abstract sockets are not supported"))
            .hint("name a file: its directory and its mode say which programs may connect")
    } else if !text.starts_with('/') {
        Finding::new(format!("`{whole}` is no absolute path"))
            .hint(format!("write {}", quoted(&format!("{PREFIX}/{text}"))))
    } else if text.contains(char::is_control) {
        Finding::new(format!("`{whole}` holds a control character"))
    } else if [text.rsplit('/').next()].iter().any(|last| matches!(last, Some("" | "." | ".."))) {
        Finding::new(format!("`{whole}` is a directory"))
    } else if text.len() > PATH_LENGTH_MAX {
        Finding::new(format!("this path has {} bytes", text.len()))
            .hint(format!("the kernel takes at most {PATH_LENGTH_MAX}"))
    } else {
        return Some(Arc::from(Path::new(text)));
    };
    report.error(&value.place, finding.expected(EXPECTED));
    None
}

/// What to say of a path that stands without `unix:`, or with another prefix for it.
pub(super) fn misspelt(text: &str) -> Option<Finding> {
    let path = text.strip_prefix("unix@").unwrap_or(text);
    path.starts_with('/').then(|| {
        Finding::new(format!("`{}` is a path", shown(path)))
            .expected(EXPECTED)
            .hint(format!("write {}", quoted(&format!("{PREFIX}{path}"))))
    })
}

/// Whether text can be the name of the backend whose address it is.
pub(super) fn check_as_name(text: &str, place: &FilePlace, report: &mut Report<'_>) -> bool {
    let is_fit = !text.contains(char::is_whitespace);
    if !is_fit {
        let written = quoted(text);
        let finding = Finding::new(format!("`{}` cannot be a name", shown(text)))
            .expected("a `name` without spaces for this backend")
            .hint(format!("write {{ address = {written}, name = \"b1\" }}"));
        report.error(place, finding);
    }
    is_fit
}

#[cfg(test)]
mod tests {
    use std::path::PathBuf;

    use proptest::prelude::*;

    use super::*;
    use crate::config::{Config, Parsed, parse};

    fn parsed(bind: &str, backend: &str) -> Parsed {
        let text = format!(
            "[listener.a]\nbind = [{}]\npool = \"p\"\n[pool.p]\n\
             backends = [{{ address = {}, name = \"b\" }}]\n",
            quoted(bind),
            quoted(backend)
        );
        parse(&text, Path::new("a.toml"))
    }

    fn config(bind: &str, backend: &str) -> Config {
        let parsed = parsed(bind, backend);
        let shown: Vec<_> = parsed.problems.iter().map(|problem| &problem.message).collect();
        parsed.config.unwrap_or_else(|| panic!("{shown:?}"))
    }

    /// One part of a path; dots, spaces, quotes and letters beyond ASCII too.
    fn part() -> impl Strategy<Value = String> {
        "[a-z0-9 ._'\"\\\\ü:@-]{1,12}"
            .prop_filter("a directory", |part| part != "." && part != "..")
    }

    proptest! {
        // If this fails, evenkeel listens at or connects to another path than the file says, or
        // `evenkeel config` shows another.
        #[test]
        fn a_path_is_read_as_written_and_shown_so(
            parts in prop::collection::vec(part(), 1..4),
        ) {
            let path = format!("/{}", parts.join("/"));
            prop_assume!(path.len() <= PATH_LENGTH_MAX);
            let address = Address::Unix(Arc::from(PathBuf::from(&path)));
            let read = config(&format!("unix:{path}"), "10.0.0.1:1");
            prop_assert_eq!(read.listeners[0].bind[0].first(), &address);
            let read = config("10.0.0.1:2", &format!("unix:{path}"));
            prop_assert_eq!(&read.pools[0].backends[0].address, &address);
            let again = parse(&read.to_toml(), Path::new("a.toml"));
            prop_assert_eq!(again.config, Some(read));
        }

        // If this fails, some text in a file ends the process, or a path is taken that no socket
        // can have.
        #[test]
        fn any_text_is_a_path_or_refused(text in "(/?[\\PC\0\n]{0,20}){0,8}") {
            let read = parsed(&format!("unix:{text}"), "10.0.0.1:1");
            let is_fit = text.starts_with('/')
                && text.len() <= PATH_LENGTH_MAX
                && !text.contains(char::is_control)
                && !["/", "/.", "/.."].iter().any(|end| text.ends_with(end));
            prop_assert_eq!(read.config.is_some(), is_fit, "{:?}", text);
        }
    }

    // If this fails, one socket is bound twice, or a listener feeds itself, by another spelling.
    #[test]
    fn paths_are_compared_by_their_parts() {
        let messages = |parsed: Parsed| {
            parsed.problems.into_iter().map(|problem| problem.message).collect::<Vec<_>>()
        };
        let own = messages(parsed("unix:/run//a.sock", "unix:/run/./a.sock"));
        assert_eq!(own, ["backend `unix:/run/./a.sock` is our own listener `a`"]);
        assert_eq!(messages(parsed("unix:/run/a.sock", "unix:/run/b.sock")), [""; 0]);
    }
}
