//! Client addresses as they are counted, and how many connections each has.

use std::cell::RefCell;
use std::collections::BTreeMap;
use std::net::IpAddr;
use std::rc::Rc;

use berth_routing::waiting::may_take;

/// What is counted as one: an IPv4 address, or the /64 of an IPv6 address, which is what one subscriber is given at the least.
#[derive(Debug, Clone, Copy, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub(crate) struct Group(u64, bool);

/// What `address` is counted as.
pub(crate) fn group(address: IpAddr) -> Group {
    match address.to_canonical() {
        IpAddr::V4(address) => Group(u64::from(u32::from(address)), false),
        IpAddr::V6(address) => Group((u128::from(address) >> 64) as u64, true),
    }
}

/// The connections of one thread, by where they come from. It has no more entries than there are connections.
#[derive(Debug, Default)]
pub(crate) struct Connections {
    by_group: RefCell<BTreeMap<Group, usize>>,
}

/// One connection, counted for as long as this exists.
#[derive(Debug)]
pub(crate) struct Place {
    of: Rc<Connections>,
    group: Group,
}

impl Connections {
    /// Counts a connection from `address` beside `all` others, of which there may be `max`. `None` when the address has as many as there are
    /// places left: it shares them with others by [`may_take`], so that it alone gets half of them, and those who crowd in with it leave room for the rest.
    /// That is far more than a network behind one address needs, and what a proxy in front of all can have.
    pub(crate) fn enter(self: &Rc<Self>, address: IpAddr, all: usize, max: usize) -> Option<Place> {
        let group = group(address);
        let mut by_group = self.by_group.borrow_mut();
        let own = by_group.get(&group).copied().unwrap_or_default();
        if !may_take(own, all, max) {
            return None;
        }
        by_group.insert(group, own + 1);
        Some(Place { of: Rc::clone(self), group })
    }
}

impl Drop for Place {
    fn drop(&mut self) {
        let mut by_group = self.of.by_group.borrow_mut();
        if let Some(own) = by_group.get_mut(&self.group) {
            *own -= 1;
            if *own == 0 {
                by_group.remove(&self.group);
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn one_address_gets_half_of_the_places_and_gives_them_back() {
        let connections = Rc::<Connections>::default();
        let mut places = Vec::new();
        let enter = |address: &str, all: usize| connections.enter(address.parse().unwrap(), all, 16);
        while let Some(place) = enter("2001:db8::1", places.len()) {
            places.push(place);
        }
        assert_eq!(places.len(), 8);
        assert!(enter("2001:db8::2", 8).is_none(), "it is in the same network");
        assert!(enter("2001:db8:0:1::1", 8).is_some() && enter("192.0.2.1", 8).is_some());
        assert!(enter("192.0.2.1", 16).is_none(), "there are no more");
        places.pop();
        assert!(enter("2001:db8::2", 7).is_some());
        drop(places);
        assert!(connections.by_group.borrow().is_empty());
    }

    #[test]
    fn an_address_is_the_same_in_both_ways_of_writing() {
        assert_eq!(group("::ffff:192.0.2.1".parse().unwrap()), group("192.0.2.1".parse().unwrap()));
        assert_ne!(group("::1".parse().unwrap()), group("0.0.0.0".parse().unwrap()));
    }
}
