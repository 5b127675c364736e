//! The lists of listeners in the kernel.
//!
//! Half a million networks take a second or two to store, so a list that stays is kept, and
//! listeners with the same lists have one.

use std::io;
use std::sync::{Arc, Weak};

use ipnet::IpNet;
use parking_lot::Mutex;

use crate::config::ListenerConfig;
use crate::policy::admit::flat_networks::{FlatAccess, FlatNetwork};
use crate::sys::gate::NetworkTable;

/// The lists of one or more listeners.
#[derive(Debug)]
pub(super) struct KernelList {
    allow: Vec<IpNet>,
    deny: Vec<IpNet>,
    pub(super) networks: NetworkTable,
    /// The value of clients that are let in.
    pub(super) admitted: u8,
}

/// Those that some gate has.
#[derive(Debug, Default)]
pub(super) struct KernelLists(Mutex<Vec<Weak<KernelList>>>);

impl KernelLists {
    /// Those of a listener; `None`: it has none.
    ///
    /// # Errors
    /// As bpf(2), for want of memory.
    pub(super) fn of(&self, listener: &ListenerConfig) -> io::Result<Option<Arc<KernelList>>> {
        let ListenerConfig { allow, deny, .. } = listener;
        if allow.is_empty() && deny.is_empty() {
            return Ok(None);
        }
        let mut lists = self.0.lock();
        lists.retain(|list| list.strong_count() > 0);
        let mut known = lists.iter().filter_map(Weak::upgrade);
        if let Some(list) = known.find(|list| list.allow == *allow && list.deny == *deny) {
            return Ok(Some(list));
        }
        let new = Arc::new(KernelList::new(allow, deny)?);
        lists.push(Arc::downgrade(&new));
        Ok(Some(new))
    }
}

impl KernelList {
    fn new(allow: &[IpNet], deny: &[IpNet]) -> io::Result<Self> {
        let FlatAccess { networks, admitted } = FlatAccess::new(allow, deny);
        let whole = networks.iter().filter(|(network, _)| network.is_whole_address()).count();
        let size = |number: usize| u32::try_from(number).map_err(|_| io::ErrorKind::StorageFull);
        let table = NetworkTable::new(size(whole)?, size(networks.len() - whole)?)?;
        for (FlatNetwork { address, length }, value) in networks {
            table.store(address, length, value)?;
        }
        let admitted = u8::try_from(admitted).map_err(|_| io::ErrorKind::InvalidData)?;
        Ok(Self { allow: allow.to_vec(), deny: deny.to_vec(), networks: table, admitted })
    }
}
