//! The pool that a listener or a route names.

use super::file::{Value, bare_or_quoted, shown};
use super::report::{Finding, Report};
use super::scalar;
use super::suggest::nearest;

/// Index of no pool, in a listener that was refused.
pub(super) const NO_POOL: usize = usize::MAX;

/// The index of the pool a value names.
pub(super) fn named_pool(
    value: &Value<'_>,
    pools: &[String],
    report: &mut Report<'_>,
) -> Option<usize> {
    let name = scalar::string(value, "the name of a [pool.NAME] table", report)?;
    if let Some(index) = pools.iter().position(|pool| *pool == name) {
        return Some(index);
    }
    let hint = match nearest(&name, pools.iter().map(String::as_str)) {
        Some(near) => format!("did you mean \"{}\"?", shown(near)),
        None if pools.is_empty() => format!("add a table [pool.{}]", shown(&bare_or_quoted(&name))),
        None => {
            let known: Vec<String> = pools.iter().take(8).map(|pool| shown(pool)).collect();
            format!("pools of this file: {}", known.join(", "))
        }
    };
    let finding = Finding::new(format!("there is no pool `{}`", shown(&name)))
        .expected("the name of a [pool.NAME] table");
    report.error(&value.place, finding.hint(hint));
    None
}
