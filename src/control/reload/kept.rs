//! What operators have set at run time, under a new configuration.

use std::collections::HashMap;

use crate::config::{BackendConfig, Config};
use crate::control::plane::overrides::{Override, Overrides};

/// What becomes of it.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct KeptOverrides {
    /// What stays in force.
    pub(crate) overrides: Overrides,
    /// What stays and what ends, one line each.
    pub(crate) notes: Vec<String>,
}

/// Keeps what the new file does not say itself. What was set for a backend that leaves the file
/// ends with it.
pub(crate) fn kept(overrides: &Overrides, config: &Config) -> KeptOverrides {
    let mut kept = KeptOverrides::default();
    if overrides.is_empty() {
        return kept;
    }
    let backends = config.pools.iter().flat_map(|pool| {
        pool.backends.iter().map(|backend| ((pool.name.as_str(), backend.name.as_str()), backend))
    });
    let backends: HashMap<(&str, &str), &BackendConfig> = backends.collect();
    for ((pool, name), set) in overrides {
        let Some(backend) = backends.get(&(pool.as_str(), name.as_str())) else {
            kept.notes
                .push(format!("backend {pool}/{name}: what an operator had set is gone with it"));
            continue;
        };
        let left = set.beyond(backend);
        let said = |word: String| {
            format!("backend {pool}/{name}: the file says {word}, as an operator did")
        };
        if let Some(admin) = set.admin {
            kept.notes.push(match left.admin {
                Some(_) => {
                    format!("backend {pool}/{name} stays {} (set by an operator)", admin.word())
                }
                None => said(admin.word().to_owned()),
            });
        }
        if let Some(weight) = set.weight {
            kept.notes.push(match left.weight {
                Some(_) => {
                    format!("backend {pool}/{name} keeps weight {weight} (set by an operator)")
                }
                None => said(format!("weight {weight}")),
            });
        }
        if left != Override::default() {
            kept.overrides.insert((pool.clone(), name.clone()), left);
        }
    }
    kept.notes.sort();
    kept
}

#[cfg(test)]
mod tests {
    use super::*;

    use std::path::Path;

    use crate::shared::AdminState;

    // If this fails, what an operator has set outlives its reason, ends while it is needed, or
    // comes back with a backend of the name months later.
    #[test]
    fn an_override_ends_when_the_file_says_it_or_loses_the_backend() {
        let text = "[listener.l]\nbind = [\"127.0.0.1:1\"]\npool = \"p\"\n[pool.p]\nbackends = [\n\
                    { address = \"127.0.0.1:2\", name = \"a\", drain = true, weight = 5 },\n\
                    { address = \"127.0.0.1:3\", name = \"b\" }]\n";
        let config = crate::config::parse(text, Path::new("a.toml")).config.unwrap();
        let set = |admin, weight| Override { admin, weight };
        let key = |name: &str| ("p".to_owned(), name.to_owned());
        let overrides = Overrides::from([
            (key("a"), set(Some(AdminState::Drain), Some(7))),
            (key("b"), set(Some(AdminState::Maint), Some(1))),
            (key("gone"), set(Some(AdminState::Drain), None)),
        ]);
        let kept = kept(&overrides, &config);
        assert_eq!(
            kept.overrides,
            Overrides::from([
                (key("a"), set(None, Some(7))),
                (key("b"), set(Some(AdminState::Maint), None)),
            ])
        );
        assert_eq!(
            kept.notes,
            [
                "backend p/a keeps weight 7 (set by an operator)",
                "backend p/a: the file says drain, as an operator did",
                "backend p/b stays maint (set by an operator)",
                "backend p/b: the file says weight 1, as an operator did",
                "backend p/gone: what an operator had set is gone with it",
            ]
        );
    }
}
