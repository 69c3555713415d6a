//! Which addresses may be connected to. A name says nothing of them: whoever answers for it may name an address of the inside.

use std::net::IpAddr;

use ipnet::IpNet;

/// Where a question may go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Reach {
    /// Public addresses.
    Public,
    /// Addresses in these networks, and no others: not the public ones either.
    Networks(Vec<IpNet>),
    /// Anywhere: what a person's own program may do.
    Anywhere,
}

impl Reach {
    /// Networks in CIDR notation, or public addresses where none is listed.
    ///
    /// # Errors
    /// Which one is none.
    pub fn public_or<'a>(networks: impl IntoIterator<Item = &'a str>) -> Result<Self, String> {
        let network = |text: &str| text.parse::<IpNet>().map_err(|_| format!("{text:?} is no network such as 10.1.0.0/16"));
        let networks: Vec<IpNet> = networks.into_iter().map(network).collect::<Result<_, _>>()?;
        Ok(if networks.is_empty() { Self::Public } else { Self::Networks(networks) })
    }

    /// Whether this address may be connected to.
    #[must_use]
    pub fn allows(&self, address: IpAddr) -> bool {
        // An IPv4 address in an IPv6 one is where the packets go.
        let address = address.to_canonical();
        match self {
            Self::Anywhere => true,
            Self::Public => is_public(address),
            Self::Networks(networks) => networks.iter().any(|network| network.contains(&address)),
        }
    }
}

/// Networks that are no part of the public internet, or that lead to one that is none (RFC 6890 and its registries). Policies of the network name the same.
pub const NOT_PUBLIC: [&str; 17] = [
    "0.0.0.0/8",
    "10.0.0.0/8",
    "100.64.0.0/10",
    "127.0.0.0/8",
    "169.254.0.0/16",
    "172.16.0.0/12",
    "192.0.0.0/24",
    "192.0.2.0/24",
    "192.88.99.0/24",
    "192.168.0.0/16",
    "198.18.0.0/15",
    "198.51.100.0/24",
    "203.0.113.0/24",
    "224.0.0.0/3",
    "2001:db8::/32",
    "2001::/23",
    "2002::/16",
];

fn is_public(address: IpAddr) -> bool {
    let is_unicast = match address {
        IpAddr::V4(_) => true,
        // 2000::/3 is all of IPv6 that is given out.
        IpAddr::V6(address) => address.segments().first().is_some_and(|first| first >> 13 == 1),
    };
    is_unicast && !NOT_PUBLIC.iter().any(|network| contains(network, address))
}

fn contains(network: &str, address: IpAddr) -> bool {
    network.parse::<IpNet>().is_ok_and(|network| network.contains(&address))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_public_addresses_are_reached_or_only_what_is_listed() {
        let nowhere = Reach::public_or([]).unwrap();
        let inside = [
            "0.0.0.0",
            "10.0.0.1",
            "100.64.0.1",
            "127.0.0.1",
            "169.254.169.254",
            "172.16.0.1",
            "172.31.255.255",
            "192.168.1.1",
            "198.18.0.1",
            "224.0.0.1",
            "240.0.0.1",
            "255.255.255.255",
            "::",
            "::1",
            "fe80::1",
            "fc00::1",
            "fd00:ec2::254",
            "ff02::1",
            "::ffff:10.0.0.1",
            "::ffff:127.0.0.1",
            "::ffff:169.254.169.254",
            "64:ff9b::a00:1",
            "2002:a00:1::",
            "2001:db8::1",
            "2001::1",
        ];
        for address in inside {
            let address: IpAddr = address.parse().unwrap();
            assert!(!nowhere.allows(address) && Reach::Anywhere.allows(address), "{address}");
        }
        for address in [
            "1.1.1.1",
            "172.15.0.1",
            "172.32.0.1",
            "100.128.0.1",
            "192.0.1.1",
            "::ffff:8.8.8.8",
            "2606:4700::1111",
            "2a00:1450::1",
        ] {
            assert!(nowhere.allows(address.parse().unwrap()), "{address}");
        }
        let listed = Reach::public_or(["10.1.0.0/16", "fd00::/8"]).unwrap();
        for (address, allowed) in [
            ("10.1.2.3", true),
            ("::ffff:10.1.2.3", true),
            ("10.2.0.1", false),
            ("fd12::1", true),
            ("127.0.0.1", false),
            ("8.8.8.8", false),
            ("2606:4700::1111", false),
        ] {
            assert_eq!(listed.allows(address.parse().unwrap()), allowed, "{address}");
        }
        for wrong in ["", "10.0.0.0", "10.0.0.0/33", "example.com/8"] {
            assert!(Reach::public_or([wrong]).is_err(), "{wrong}");
        }
    }
}
