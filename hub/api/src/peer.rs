//! What is known of the other end of a connection: whether a call on it has shown who calls. One that has not holds little, and not for long.

use std::{
    net::{IpAddr, Ipv6Addr, SocketAddr},
    sync::{
        Arc, Mutex, MutexGuard, PoisonError,
        atomic::{AtomicBool, AtomicUsize, Ordering},
    },
};

use acb_hub_core::{
    door::origin::Origin,
    kit::crowds::{Crowds, Line, Member},
};

/// Calls that are open at one time on a connection that has not shown who it is: logins, mostly, of those who share it.
const MAX_UNPROVEN_CALLS: usize = 32;

/// The unproven connections of each source.
#[derive(Clone, Debug)]
pub(crate) struct Sources {
    unproven: Crowds,
    limit: usize,
}

impl Sources {
    pub(crate) fn new(limit: usize) -> Self {
        Self { unproven: Crowds::default(), limit }
    }

    /// A connection from this address, where the hub takes so many more. `None` where its source has as many unproven ones as it may: the
    /// fewer places are left, the fewer of them a source gets, so that however many crowd in, one that has none yet finds a place.
    pub(crate) fn connect(&self, address: SocketAddr, free: usize) -> Option<Peer> {
        let place = self.unproven.join(source(address.ip()), |_| self.limit.min(free.saturating_add(1)))?;
        Some(Peer(Arc::new(State {
            address,
            turn: place.line().clone(),
            proven: AtomicBool::new(false),
            admitted: AtomicUsize::new(0),
            open: AtomicUsize::new(0),
            place: Mutex::new(Some(place)),
        })))
    }
}

/// Who has one IPv6 address has the rest of its network's.
pub(crate) fn source(ip: IpAddr) -> IpAddr {
    match ip.to_canonical() {
        IpAddr::V6(ip) => Ipv6Addr::from_bits(ip.to_bits() & (u128::MAX << 64)).into(),
        ip => ip,
    }
}

/// The other end of one connection. Clones share it: the connection, and every call on it.
#[derive(Clone, Debug)]
pub struct Peer(Arc<State>);

#[derive(Debug)]
struct State {
    address: SocketAddr,
    /// Where the handshakes of its source stand in line.
    turn: Line,
    proven: AtomicBool,
    /// Open calls of proven callers.
    admitted: AtomicUsize,
    /// Open calls.
    open: AtomicUsize,
    /// One of its source's, until a caller is proven.
    place: Mutex<Option<Member>>,
}

impl Peer {
    /// Where it is.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.0.address
    }

    /// The one who answers for it: its address, or its network's.
    pub(crate) fn source(&self) -> IpAddr {
        source(self.0.address.ip())
    }

    /// Its source's line for handshakes.
    pub(crate) fn turn(&self) -> Line {
        self.0.turn.clone()
    }

    /// Where its calls come from.
    pub(crate) fn origin(&self) -> Origin {
        Origin {
            address: Some(self.0.address),
            source: self.source(),
            // No other connection that is there now has the same.
            connection: Arc::as_ptr(&self.0).addr(),
            crowded: self.asks_too_much(),
        }
    }

    /// Whether it has shown who it is, and nothing since has taken that back.
    pub(crate) fn proven(&self) -> bool {
        self.0.proven.load(Ordering::Relaxed) || self.0.admitted.load(Ordering::Relaxed) > 0
    }

    /// Whether a call is open.
    pub(crate) fn busy(&self) -> bool {
        self.0.open.load(Ordering::Relaxed) > 0
    }

    /// Whether it has more calls open than one may that has not shown who it is.
    fn asks_too_much(&self) -> bool {
        !self.proven() && self.0.open.load(Ordering::Relaxed) > MAX_UNPROVEN_CALLS
    }

    /// A call began.
    pub(crate) fn call(&self) -> OpenCall {
        self.0.open.fetch_add(1, Ordering::Relaxed);
        OpenCall(self.clone())
    }

    /// A call's caller is proven.
    pub(crate) fn admit(&self) {
        self.0.admitted.fetch_add(1, Ordering::Relaxed);
        if !self.0.proven.swap(true, Ordering::Relaxed) {
            drop(lock(&self.0.place).take());
        }
    }

    /// A proven caller's call is over.
    pub(crate) fn done(&self) {
        self.0.admitted.fetch_sub(1, Ordering::Relaxed);
    }

    /// A caller lost its rights: what it proved counts no more.
    pub(crate) fn doubt(&self) {
        self.0.proven.store(false, Ordering::Relaxed);
    }
}

/// A call that is open while this lives.
#[derive(Debug)]
pub(crate) struct OpenCall(Peer);

impl Drop for OpenCall {
    fn drop(&mut self) {
        self.0.0.open.fetch_sub(1, Ordering::Relaxed);
    }
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn at(address: &str) -> SocketAddr {
        address.parse().unwrap()
    }

    #[test]
    fn a_source_has_few_unproven_connections_and_any_number_of_proven_ones() {
        let sources = Sources::new(2);
        let first = sources.connect(at("10.0.0.1:1"), 9).unwrap();
        let second = sources.connect(at("10.0.0.1:2"), 9).unwrap();
        assert!(sources.connect(at("[::ffff:10.0.0.1]:3"), 9).is_none());
        assert!(sources.connect(at("10.0.0.2:1"), 9).is_some());
        first.admit();
        let third = sources.connect(at("10.0.0.1:3"), 9).unwrap();
        assert!(sources.connect(at("10.0.0.1:4"), 9).is_none());
        drop((first, second, third));
        assert!(sources.connect(at("10.0.0.1:5"), 9).is_some());
        assert!(sources.unproven.is_empty());
    }

    #[test]
    fn who_is_unproven_has_few_calls_open() {
        let peer = Sources::new(1).connect(at("10.0.0.1:1"), 9).unwrap();
        let mut calls: Vec<_> = (0..MAX_UNPROVEN_CALLS).map(|_| peer.call()).collect();
        assert!(!peer.asks_too_much());
        calls.push(peer.call());
        assert!(peer.asks_too_much());
        calls.pop();
        assert!(!peer.asks_too_much());
        calls.push(peer.call());
        peer.admit();
        assert!(!peer.asks_too_much());
    }

    #[test]
    fn however_few_sources_crowd_in_another_one_finds_a_place() {
        const ALL: usize = 4096;
        let sources = Sources::new(1024);
        let mut held = Vec::new();
        for port in 0..2000 {
            for crowd in 1..=5 {
                held.extend(sources.connect(SocketAddr::from(([10, 0, 0, crowd], port)), ALL - held.len()));
            }
        }
        let left = ALL - held.len();
        assert!(left > ALL / 8, "{left}");
        let newcomers = (1..=100).map(|last| at(&format!("10.0.1.{last}:1")));
        held.extend(newcomers.map(|newcomer| sources.connect(newcomer, left).unwrap()));
        // Who alone comes gets all that a source may, and who is proven is not counted.
        drop(held);
        let many: Vec<_> =
            (0..1024).map(|port| sources.connect(SocketAddr::from(([10, 0, 0, 1], port)), 3072).unwrap()).collect();
        assert!(sources.connect(at("10.0.0.1:5000"), 3072).is_none());
        many.iter().for_each(Peer::admit);
        assert!(sources.connect(at("10.0.0.1:5000"), 0).is_some());
    }

    #[test]
    fn a_network_is_one_source() {
        let sources = Sources::new(1);
        let _first = sources.connect(at("[2001:db8::1]:1"), 9).unwrap();
        assert!(sources.connect(at("[2001:db8::2]:1"), 9).is_none());
        assert!(sources.connect(at("[2001:db8:0:1::1]:1"), 9).is_some());
    }

    #[test]
    fn who_lost_its_rights_is_unproven_unless_somebody_else_calls() {
        let peer = Sources::new(1).connect(at("10.0.0.1:1"), 9).unwrap();
        peer.admit();
        peer.admit();
        peer.doubt();
        peer.done();
        assert!(peer.proven(), "of the other one");
        peer.done();
        assert!(!peer.proven());
    }
}
