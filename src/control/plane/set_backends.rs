//! What operators have set, as it is written for another process: for the one after an upgrade, and
//! for the one after a crash or restart.

use std::io::{self, ErrorKind};

use serde::{Deserialize, Serialize};

use crate::control::plane::overrides::{Override, Overrides};
use crate::shared::AdminState;

/// What is set for one backend.
#[derive(Debug, Clone, PartialEq, Eq, PartialOrd, Ord, Serialize, Deserialize)]
pub(crate) struct SetBackend {
    pool: String,
    backend: String,
    /// The verb that sets it.
    admin: Option<String>,
    weight: Option<u32>,
}

const ADMIN_STATES: [AdminState; 3] = [AdminState::Ready, AdminState::Drain, AdminState::Maint];

/// As a list, in the order of names.
pub(crate) fn written(overrides: &Overrides) -> Vec<SetBackend> {
    let mut list: Vec<SetBackend> = overrides
        .iter()
        .map(|((pool, backend), set)| SetBackend {
            pool: pool.clone(),
            backend: backend.clone(),
            admin: set.admin.map(|admin| admin.word().to_owned()),
            weight: set.weight,
        })
        .collect();
    list.sort();
    list
}

/// From such a list.
///
/// # Errors
/// `InvalidData` for a word or a weight that there is not.
pub(crate) fn read(list: Vec<SetBackend>) -> io::Result<Overrides> {
    let read = |set: SetBackend| {
        let SetBackend { pool, backend, admin, weight } = set;
        let wrong = |what: String| io::Error::new(ErrorKind::InvalidData, what);
        let admin = match admin {
            None => None,
            Some(word) => {
                let known = ADMIN_STATES.into_iter().find(|state| state.word() == word);
                Some(known.ok_or_else(|| wrong(format!("{word:?} is nothing that can be set")))?)
            }
        };
        if let Some(weight) = weight.filter(|weight| *weight > u32::from(u16::MAX)) {
            return Err(wrong(format!("weight {weight} is not in 0..=65535")));
        }
        Ok(((pool, backend), Override { admin, weight }))
    };
    list.into_iter().map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, a drained backend is back after an upgrade or a restart.
    #[test]
    fn what_is_written_is_read() {
        let key = |name: &str| ("p".to_owned(), name.to_owned());
        let states = ADMIN_STATES.into_iter().zip(["a", "b", "c"]);
        let mut set: Overrides = states
            .map(|(admin, name)| (key(name), Override { admin: Some(admin), weight: None }))
            .collect();
        set.insert(key("d"), Override { admin: None, weight: Some(7) });
        let text = serde_json::to_string(&written(&set)).unwrap();
        assert_eq!(read(serde_json::from_str(&text).unwrap()).unwrap(), set);
    }

    // If this fails, a damaged file drains nothing, and nothing tells of it.
    #[test]
    fn what_cannot_be_set_is_an_error() {
        let one = |admin: Option<&str>, weight| SetBackend {
            pool: "p".into(),
            backend: "b".into(),
            admin: admin.map(str::to_owned),
            weight,
        };
        assert!(read(vec![one(Some("asleep"), None)]).is_err());
        assert!(read(vec![one(None, Some(65_536))]).is_err());
    }
}
