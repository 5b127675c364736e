//! `[listener.NAME.peek]`: how what clients say first is looked at.

use crate::policy::terms::{Peek, Word};

use super::bounds::{HOUR, SHORTEST};
use super::entries::Entries;
use super::file::Section;
use super::key::{Key, KeyTable, Shape, words};
use super::report::Report;
use super::size;
use super::units::show_size;

/// Keys of `[listener.NAME.peek]`.
pub(super) static PEEK: KeyTable = KeyTable {
    name: "Peek",
    title: "[listener.NAME.peek]",
    sample: "peek = { timeout = \"3s\" }",
    keys: &[
        Key::new("timeout", Shape::Duration(SHORTEST, HOUR))
            .default("3s")
            .means("How long the bytes that decide may take."),
        Key::new("max_bytes", Shape::Size(1, 65_536))
            .default("16KiB")
            .reload("now")
            .means("How many bytes are looked at."),
        Key::new("on_timeout", Shape::Word(words::<OnPeekTimeout>))
            .default("close")
            .reload("now")
            .means(
                "When the time or the bytes are used up or the client has sent FIN, and nothing \
                    is decided: reset it (reason `peek`), or let it go on to the listener's \
                    `pool`.",
            ),
        Key::new("postgres", Shape::Boolean)
            .default("false")
            .means("Answer PostgreSQL clients that ask for TLS, so that their hello is seen."),
    ],
    also: &[],
};
/// `on_timeout` of `peek`: what becomes of a client that does not say enough.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) enum OnPeekTimeout {
    /// It is reset.
    Close,
    /// It goes on to the listener's pool.
    Default,
}

impl Word for OnPeekTimeout {
    const WORDS: &'static [(&'static str, Self)] =
        &[("close", Self::Close), ("default", Self::Default)];
}

/// Reads `peek`.
pub(super) fn peek(listener: &Section<'_>, report: &mut Report<'_>) -> Peek {
    let section = listener.open_or_absent("peek", report);
    let on_timeout = section.word_or_default::<OnPeekTimeout>("on_timeout", report);
    Peek {
        timeout: section.duration_or_default("timeout", report),
        max_bytes: size::bytes_or_default(&section, "max_bytes", report),
        is_default_else: on_timeout == OnPeekTimeout::Default,
        is_postgres: section.boolean_or_default("postgres", report),
    }
}

/// Its keys as `evenkeel config` shows them.
pub(super) fn entries(peek: Peek) -> Entries {
    let Peek { timeout, max_bytes, is_default_else, is_postgres } = peek;
    let on_timeout = if is_default_else { OnPeekTimeout::Default } else { OnPeekTimeout::Close };
    Entries::default()
        .duration("timeout", timeout)
        .text("max_bytes", show_size(max_bytes))
        .word("on_timeout", on_timeout)
        .plain("postgres", is_postgres)
}
