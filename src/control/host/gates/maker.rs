//! Makes the gate of one listener.

use std::io;
use std::sync::Arc;

use ipnet::Ipv6Net;

use super::kernel::{KernelGate, SlotCount};
use super::listener_gate::{AccessCounts, GateRefusal, ListenerGate, REMEDY, limit_key};
use super::lists::KernelList;
use super::stock::GateStock;
use crate::config::{KernelRefusal, KeyPath, ListenerConfig, access_obstacle, gate_obstacle};
use crate::policy::balance::hash::Prefix;
use crate::shared::{AccessMarks, Gate, GateCount, Listener, Refusing};
use crate::sys::gate::{GateList, GatePlan, GateWatch, ListMeaning, NetworkTable};

/// Makes the gate of one listener.
pub(super) struct GateMaker<'a> {
    pub(super) stock: &'a GateStock,
    pub(super) listener: &'a ListenerConfig,
    pub(super) nat64: &'a [Ipv6Net],
    /// The listener before, if its gate may serve.
    pub(super) before: Option<&'a Listener>,
}

impl GateMaker<'_> {
    /// `obstacle`: why it can have none.
    pub(super) fn made(&self, obstacle: Option<String>) -> ListenerGate {
        let limits = self.listener.limits.iter();
        let obstacles: Vec<Option<String>> = limits
            .map(|limit| gate_obstacle(self.listener, limit).or_else(|| obstacle.clone()))
            .collect();
        if let Some(why) = access_obstacle(self.listener).or(obstacle) {
            return without_gate(&obstacles, &why);
        }
        self.kept(&obstacles).unwrap_or_else(|| {
            self.new_gate(&obstacles).unwrap_or_else(|why| without_gate(&obstacles, &why))
        })
    }

    /// The gate that it has, if it is for the same limits.
    fn kept(&self, obstacles: &[Option<String>]) -> Option<ListenerGate> {
        let before = self.before?;
        let gate = before.gate.clone()?;
        let limits: Vec<Refusing> =
            before.limits.iter().map(|limit| limit.refusing.clone()).collect();
        let is_same = limits.iter().zip(obstacles).all(|(refusing, obstacle)| {
            matches!(refusing, Refusing::InKernel { .. }) == obstacle.is_none()
        });
        is_same.then(|| ListenerGate {
            gate: Some(gate),
            access: before.access_refusing.clone(),
            access_counts: None,
            limits,
            counts: Vec::new(),
        })
    }

    fn new_gate(&self, obstacles: &[Option<String>]) -> Result<ListenerGate, String> {
        let maps = self.stock.maps()?;
        let bans = self.stock.bans.table().map_err(|error| no_gate(&error))?;
        let list = self.stock.lists.of(self.listener).map_err(|error| no_list(&error))?;
        let marks = AccessMarks { ban: self.stock.number(), lists: self.stock.number() };
        let lists = asked(&bans, list.as_deref(), marks);
        let translators = self.nat64.iter().map(|net| (net.network(), net.prefix_len()));
        let mut plan = GatePlan { lists, watches: Vec::new(), translators: translators.collect() };
        let mut numbers = Vec::new();
        for (limit, obstacle) in self.listener.limits.iter().zip(obstacles) {
            let number = self.stock.number();
            numbers.push(number);
            if obstacle.is_none() {
                let Prefix { v4, v6 } = limit.key;
                plan.watches.push(GateWatch { mark: number, slot: number, v4, v6 });
            }
        }
        let code = maps.maps.code(&plan).map_err(|error| no_gate(&error))?;
        let count = |slot| SlotCount::new(&maps, slot).map_err(|error| no_gate(&error));
        let (ban, lists) = (count(marks.ban)?, count(marks.lists)?);
        let mut counts = Vec::new();
        for (number, obstacle) in numbers.iter().zip(obstacles) {
            counts.push(obstacle.is_none().then(|| count(*number)).transpose()?);
        }
        let all = counts.iter().flatten().chain([&ban, &lists]).cloned().collect();
        let gate = Arc::new(Gate::new(Box::new(KernelGate {
            maps: Arc::clone(&maps),
            code,
            list,
            counts: all,
        })));
        let limits = numbers.iter().zip(obstacles).map(|(mark, obstacle)| match obstacle {
            None => Refusing::InKernel { gate: Arc::clone(&gate), mark: *mark },
            Some(why) => Refusing::InWorkers(why.as_str().into()),
        });
        let dynamic = |count: Arc<SlotCount>| count as Arc<dyn GateCount>;
        Ok(ListenerGate {
            limits: limits.collect(),
            counts: counts.into_iter().map(|count| count.map(dynamic)).collect(),
            access: Refusing::InKernel { gate: Arc::clone(&gate), mark: marks },
            access_counts: Some(AccessCounts { ban: dynamic(ban), lists: dynamic(lists) }),
            gate: Some(gate),
        })
    }

    /// What requires the kernel, and does not get it.
    pub(super) fn refusals(&self, made: &ListenerGate) -> Vec<GateRefusal> {
        let Self { listener, .. } = self;
        let refusal = |key: KeyPath, subject: String, why: String| GateRefusal {
            key: key.key("kernel_refusal"),
            message: format!("the kernel cannot refuse {subject}: {why}"),
            hint: REMEDY.to_owned(),
        };
        let mut refusals = Vec::new();
        if let (KernelRefusal::Require, Some(why)) =
            (listener.kernel_refusal, made.access.why_not())
        {
            let subject = format!("clients of the listener `{}`", listener.name);
            refusals.push(refusal(KeyPath::listener(&listener.name), subject, why));
        }
        for (place, (limit, refusing)) in listener.limits.iter().zip(&made.limits).enumerate() {
            if let (KernelRefusal::Require, Some(why)) = (limit.kernel_refusal, refusing.why_not())
            {
                let subject = format!("for the limit `{}`", limit.name);
                refusals.push(refusal(limit_key(listener, place), subject, why));
            }
        }
        refusals
    }
}

/// The lists in the order in which workers ask them.
fn asked<'a>(
    bans: &'a NetworkTable,
    list: Option<&'a KernelList>,
    marks: AccessMarks,
) -> Vec<GateList<'a>> {
    let bans = GateList { networks: bans, slot: marks.ban, meaning: ListMeaning::RefusedUntil };
    let list = list.map(|list| GateList {
        networks: &list.networks,
        slot: marks.lists,
        meaning: ListMeaning::Admitted(list.admitted),
    });
    [Some(bans), list].into_iter().flatten().collect()
}

fn no_gate(error: &io::Error) -> String {
    format!("the kernel loads no gate: {error}")
}

fn no_list(error: &io::Error) -> String {
    format!("the kernel does not take `allow` and `deny`: {error}")
}

/// `why` holds for clients that are not admitted, and for limits that have no obstacle of their
/// own.
fn without_gate(obstacles: &[Option<String>], why: &str) -> ListenerGate {
    let said = |obstacle: &Option<String>| obstacle.clone().unwrap_or_else(|| why.to_owned());
    let limits = obstacles.iter().map(|obstacle| Refusing::InWorkers(said(obstacle).into()));
    ListenerGate {
        gate: None,
        access: Refusing::InWorkers(why.into()),
        access_counts: None,
        limits: limits.collect(),
        counts: Vec::new(),
    }
}
