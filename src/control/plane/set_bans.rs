//! Bans, as they are written for another process: for the one after an upgrade, and for the one
//! after a crash or restart. They end by the clock of the calendar: the other one does not outlive
//! the host.

use std::io::{self, ErrorKind};

use ipnet::IpNet;
use serde::{Deserialize, Serialize};

use crate::control::plane::ban_book::{Ban, BanEnd};

/// One ban.
#[derive(Debug, Clone, PartialEq, Eq, Serialize, Deserialize)]
pub(crate) struct SetBan {
    network: String,
    /// When it began, in seconds since the epoch.
    since: u64,
    /// When it ends, likewise; `None` is never.
    until: Option<u64>,
    reason: String,
}

/// As a list, in the same order.
pub(crate) fn written(bans: Vec<Ban>) -> Vec<SetBan> {
    let written = |Ban { network, since, until, reason }: Ban| SetBan {
        network: network.to_string(),
        since,
        until: until.map(|end| end.at),
        reason,
    };
    bans.into_iter().map(written).collect()
}

/// The moment at which a list is read, by both clocks.
#[derive(Debug, Clone, Copy)]
pub(crate) struct ReadAt {
    /// In microseconds of the workers' clock.
    pub(crate) us: u64,
    /// In seconds since the epoch.
    pub(crate) at: u64,
}

/// From such a list, without those that are over.
///
/// # Errors
/// `InvalidData` for what is no network.
pub(crate) fn read(list: Vec<SetBan>, now: ReadAt) -> io::Result<Vec<Ban>> {
    let holds = |ban: &SetBan| ban.until.is_none_or(|at| at > now.at);
    let read = |SetBan { network: text, since, until, reason }: SetBan| {
        let network: IpNet = text.parse().map_err(|_| {
            io::Error::new(ErrorKind::InvalidData, format!("{text:?} is no network"))
        })?;
        let left_us = |at: u64| at.saturating_sub(now.at).saturating_mul(1_000_000);
        let until = until.map(|at| BanEnd { us: now.us.saturating_add(left_us(at)), at });
        Ok(Ban { network, since, until, reason })
    };
    list.into_iter().filter(holds).map(read).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    // If this fails, an abuser is let in by a restart, or stays out after the end of its ban.
    #[test]
    fn a_ban_ends_when_it_was_to() {
        let ban = |until| Ban {
            network: "192.0.2.0/24".parse().unwrap(),
            since: 1_000,
            until,
            reason: "floods".into(),
        };
        let ends = ban(Some(BanEnd { us: 5, at: 1_600 }));
        let set = written(vec![ends, ban(None)]);
        let text = serde_json::to_string(&set).unwrap();
        let at = |seconds| ReadAt { us: 7, at: seconds };
        let read = |seconds| read(serde_json::from_str(&text).unwrap(), at(seconds)).unwrap();
        let carried = ban(Some(BanEnd { us: 100_000_007, at: 1_600 }));
        assert_eq!(read(1_500), [carried, ban(None)]);
        assert_eq!(read(1_600), [ban(None)]);
    }

    // If this fails, a damaged file bans something else.
    #[test]
    fn what_is_no_network_is_an_error() {
        let set = SetBan { network: "x".into(), since: 0, until: None, reason: String::new() };
        assert!(read(vec![set], ReadAt { us: 0, at: 0 }).is_err());
    }
}
