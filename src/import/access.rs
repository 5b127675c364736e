//! Rules of which the first that matches counts, as `allow` and `deny`, of which `deny` wins.

use ipnet::IpNet;

use super::draft::KeyLines;
use super::networks::{difference, everything, intersection, shown};

/// Access rules in their order, as far as they have been read.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct AccessRules {
    /// Clients for which an earlier rule has decided: they may connect.
    accepted: Vec<IpNet>,
    denied: Vec<IpNet>,
    /// Clients beside which none may connect, once there is such a rule.
    only: Option<Vec<IpNet>>,
    /// Whether no client is left for a later rule.
    is_decided: bool,
}

/// A list that would take thousands of networks.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct TooManyNetworks;

impl AccessRules {
    /// Whether no later rule is ever asked.
    pub(super) fn is_decided(&self) -> bool {
        self.is_decided
    }

    /// Begins with rules that are asked later: of clients that earlier ones let in, too.
    pub(super) fn next_layer(&mut self) {
        self.accepted.clear();
        self.is_decided = false;
    }

    /// Clients that no later rule is about.
    pub(super) fn accepted(&self) -> &[IpNet] {
        &self.accepted
    }

    /// Those of these networks may connect.
    pub(super) fn accept(&mut self, networks: &[IpNet]) {
        if !self.is_decided {
            self.accepted.extend_from_slice(networks);
        }
    }

    /// All that are left may connect.
    pub(super) fn accept_all(&mut self) {
        self.is_decided = true;
    }

    /// Those of these networks may not connect.
    pub(super) fn reject(&mut self, networks: &[IpNet]) -> Result<(), TooManyNetworks> {
        if !self.is_decided {
            self.denied.extend(difference(networks, &self.accepted).ok_or(TooManyNetworks)?);
        }
        Ok(())
    }

    /// All that are left, but for these networks, may not connect.
    pub(super) fn reject_unless(&mut self, networks: &[IpNet]) {
        if self.is_decided {
            return;
        }
        let mut may = self.accepted.clone();
        may.extend_from_slice(networks);
        self.only = Some(match &self.only {
            Some(only) => intersection(only, &may),
            None => may,
        });
    }

    /// All that are left may not connect.
    pub(super) fn reject_all(&mut self) {
        self.reject_unless(&[]);
        self.is_decided = true;
    }

    /// Writes the lists.
    pub(super) fn set(&self, keys: &mut KeyLines) {
        let mut denied: Vec<IpNet> = Vec::new();
        for net in &self.denied {
            if !denied.contains(net) {
                denied.push(*net);
            }
        }
        let texts = |nets: &[IpNet]| nets.iter().map(shown).collect::<Vec<_>>();
        match &self.only {
            // An empty list would be all.
            Some(only) if only.is_empty() => denied = everything(),
            Some(only) => keys.set_list("allow", &texts(only)),
            None => {}
        }
        if !denied.is_empty() {
            keys.set_list("deny", &texts(&denied));
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::networks::network;
    use super::*;

    fn nets(text: &str) -> Vec<IpNet> {
        text.split_whitespace().map(|net| network(net).unwrap()).collect()
    }

    fn lists(rules: &AccessRules) -> String {
        let mut keys = KeyLines::default();
        rules.set(&mut keys);
        keys.inline()
    }

    // If this fails, an exception before a rule is lost, and clients are refused that were served.
    #[test]
    fn the_first_rule_that_matches_counts() {
        let mut rules = AccessRules::default();
        rules.accept(&nets("10.1.0.0/16"));
        rules.reject(&nets("10.0.0.0/15")).unwrap();
        assert_eq!(lists(&rules), "{ deny = [\"10.0.0.0/16\"] }");
        rules.reject_all();
        rules.accept(&nets("192.0.2.0/24"));
        let all = "{ allow = [\"10.1.0.0/16\"], deny = [\"10.0.0.0/16\"] }";
        assert_eq!(lists(&rules), all);
        let mut rules = AccessRules::default();
        rules.reject_all();
        assert_eq!(lists(&rules), "{ deny = [\"0.0.0.0/0\", \"::/0\"] }");
    }
}
