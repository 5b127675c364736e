//! The list of bans, as programs read it, and for a person.

use serde::{Deserialize, Serialize};

use crate::control::tell::status::table::{Cell, StatusTable};

/// The document of `GET /v1/bans`.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BanList {
    /// Bans that may be in force at once.
    pub max: usize,
    /// Those in force, by network.
    pub bans: Vec<BanRow>,
}

/// One ban.
#[derive(Debug, Clone, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(default)]
pub struct BanRow {
    /// Whose clients are turned away.
    pub network: String,
    /// When it was set, RFC 3339.
    pub since: String,
    /// When it ends, RFC 3339; `null` is never.
    pub until: Option<String>,
    /// Why, in the words of the operator; may be empty.
    pub reason: String,
}

/// Shows a list.
#[must_use]
pub fn render(list: &BanList, colour: bool) -> String {
    let mut table = StatusTable::new(&["BANNED", "SINCE", "UNTIL", "REASON"]);
    for BanRow { network, since, until, reason } in &list.bans {
        let until = until.as_deref().unwrap_or("unbanned");
        table.add([network, since, until, reason.as_str()].map(Cell::plain).into());
    }
    table.show(colour)
}
