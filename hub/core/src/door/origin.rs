//! Where a call comes from, whatever the protocol.

use std::net::{IpAddr, Ipv4Addr, SocketAddr};

/// The other end of a call.
#[derive(Clone, Copy, Debug)]
pub struct Origin {
    /// Its address, where there is one.
    pub address: Option<SocketAddr>,
    /// The one who answers for it: its address, or its network's.
    pub source: IpAddr,
    /// Tells its connection from all others that are there now.
    pub connection: usize,
    /// Whether the connection has more calls open than one may on which nobody has shown a token.
    pub crowded: bool,
}

impl Default for Origin {
    fn default() -> Self {
        Self { address: None, source: Ipv4Addr::UNSPECIFIED.into(), connection: 0, crowded: false }
    }
}
