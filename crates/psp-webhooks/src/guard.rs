//! Which addresses may be connected to: those of the public Internet, so that no endpoint reaches into the network that psp
//! runs in.
//!
//! The ranges are those of IANA's registries of special-purpose addresses (RFC 6890) that are not globally reachable, and whole
//! registries where a part of them is. The standard library's `is_global` is not stable; the crates with a copy of it are not
//! maintained.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Which addresses endpoints may have.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Reach {
    /// Those of the public Internet, over TLS at port 443.
    Public,
    /// Those of this machine, too, at any port and without TLS: to try things out.
    Loopback,
}

/// Ranges by their first address and the length of their prefix, in bits.
const REFUSED_V4: [(Ipv4Addr, u32); 16] = [
    (Ipv4Addr::UNSPECIFIED, 8),            // this network
    (Ipv4Addr::new(10, 0, 0, 0), 8),       // private
    (Ipv4Addr::new(100, 64, 0, 0), 10),    // shared by carriers' customers
    (Ipv4Addr::new(127, 0, 0, 0), 8),      // loopback
    (Ipv4Addr::new(168, 63, 129, 16), 32), // Azure's platform, from within its machines
    (Ipv4Addr::new(169, 254, 0, 0), 16),   // link-local, where clouds have their metadata
    (Ipv4Addr::new(172, 16, 0, 0), 12),    // private
    (Ipv4Addr::new(192, 0, 0, 0), 24),     // IETF's protocols
    (Ipv4Addr::new(192, 0, 2, 0), 24),     // documentation
    (Ipv4Addr::new(192, 88, 99, 0), 24),   // relays of 6to4
    (Ipv4Addr::new(192, 168, 0, 0), 16),   // private
    (Ipv4Addr::new(198, 18, 0, 0), 15),    // benchmarks
    (Ipv4Addr::new(198, 51, 100, 0), 24),  // documentation
    (Ipv4Addr::new(203, 0, 113, 0), 24),   // documentation
    (Ipv4Addr::new(224, 0, 0, 0), 4),      // multicast
    (Ipv4Addr::new(240, 0, 0, 0), 4),      // reserved, and broadcast
];

/// What is given out to the Internet: all else of IPv6 is local, multicast, reserved, or made of an IPv4 address.
const PUBLIC_V6: (Ipv6Addr, u32) = (Ipv6Addr::new(0x2000, 0, 0, 0, 0, 0, 0, 0), 3);
/// Within it.
const REFUSED_V6: [(Ipv6Addr, u32); 4] = [
    (Ipv6Addr::new(0x2001, 0, 0, 0, 0, 0, 0, 0), 23), // IETF's protocols: Teredo, benchmarks, ORCHID
    (Ipv6Addr::new(0x2001, 0xdb8, 0, 0, 0, 0, 0, 0), 32), // documentation
    (Ipv6Addr::new(0x2002, 0, 0, 0, 0, 0, 0, 0), 16), // 6to4, which reaches IPv4 addresses
    (Ipv6Addr::new(0x3fff, 0, 0, 0, 0, 0, 0, 0), 20), // documentation
];
/// What a translator (NAT64, RFC 6052) makes an IPv4 address of: judged as that.
const NAT64: (Ipv6Addr, u32) = (Ipv6Addr::new(0x64, 0xff9b, 0, 0, 0, 0, 0, 0), 96);

impl Reach {
    /// Whether an endpoint may have that address.
    pub fn allows(self, address: IpAddr) -> bool {
        // What is written as IPv6 and is IPv4 is reached as that.
        let address = address.to_canonical();
        match address {
            _ if self == Self::Loopback && address.is_loopback() => true,
            IpAddr::V4(address) => is_public_v4(address),
            IpAddr::V6(address) if within_v6(address, NAT64) => is_public_v4(embedded(address)),
            IpAddr::V6(address) => {
                within_v6(address, PUBLIC_V6) && !REFUSED_V6.iter().any(|range| within_v6(address, *range))
            }
        }
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let within = |(first, prefix): &(Ipv4Addr, u32)| (address.to_bits() ^ first.to_bits()) >> (32 - prefix) == 0;
    !REFUSED_V4.iter().any(within)
}

fn within_v6(address: Ipv6Addr, (first, prefix): (Ipv6Addr, u32)) -> bool {
    (address.to_bits() ^ first.to_bits()) >> (128 - prefix) == 0
}

/// The IPv4 address in the last 32 bits.
fn embedded(address: Ipv6Addr) -> Ipv4Addr {
    let [.., a, b, c, d] = address.octets();
    Ipv4Addr::new(a, b, c, d)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn allowed(reach: Reach, address: &str) -> bool {
        reach.allows(address.parse().unwrap())
    }

    #[test]
    fn only_the_public_internet_is_reached() {
        let refused = [
            ("this network", ["0.0.0.0", "0.255.255.255"]),
            ("private", ["10.0.0.0", "10.255.255.255"]),
            ("private", ["172.16.0.0", "172.31.255.255"]),
            ("private", ["192.168.0.0", "192.168.255.255"]),
            ("shared by carriers' customers", ["100.64.0.0", "100.127.255.255"]),
            ("loopback", ["127.0.0.1", "127.255.255.255"]),
            ("link-local", ["169.254.0.0", "169.254.255.255"]),
            ("Azure's platform", ["168.63.129.16", "::ffff:168.63.129.16"]),
            ("metadata", ["169.254.169.254", "fd00:ec2::254"]),
            ("IETF's protocols", ["192.0.0.0", "192.0.0.255"]),
            ("documentation", ["192.0.2.0", "192.0.2.255"]),
            ("documentation", ["198.51.100.0", "198.51.100.255"]),
            ("documentation", ["203.0.113.0", "203.0.113.255"]),
            ("benchmarks", ["198.18.0.0", "198.19.255.255"]),
            ("relays of 6to4", ["192.88.99.0", "192.88.99.255"]),
            ("multicast", ["224.0.0.0", "239.255.255.255"]),
            ("reserved, and broadcast", ["240.0.0.0", "255.255.255.255"]),
            ("unspecified and loopback", ["::", "::1"]),
            ("compatible with IPv4", ["::8.8.8.8", "::127.0.0.1"]),
            ("mapped IPv4", ["::ffff:127.0.0.1", "::ffff:10.0.0.1"]),
            ("mapped IPv4", ["::ffff:169.254.169.254", "::ffff:a9fe:a9fe"]),
            ("NAT64", ["64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe"]),
            ("NAT64 of a site", ["64:ff9b:1::", "64:ff9b:1:ffff::8.8.8.8"]),
            ("discarded", ["100::", "100::ffff:ffff:ffff:ffff"]),
            ("Teredo", ["2001::", "2001:0:ffff::1"]),
            ("benchmarks", ["2001:2::", "2001:2:0:ffff::"]),
            ("ORCHID", ["2001:10::", "2001:2f:ffff::"]),
            ("documentation", ["2001:db8::", "2001:db8:ffff::"]),
            ("documentation", ["3fff::", "3fff:fff:ffff::"]),
            ("6to4", ["2002::", "2002:7f00:1::"]),
            ("segments of routes", ["5f00::", "5f00::1"]),
            ("unique local", ["fc00::", "fdff:ffff::"]),
            ("link-local", ["fe80::1", "febf:ffff::"]),
            ("once site-local", ["fec0::1", "feff::1"]),
            ("multicast", ["ff00::", "ff02::1"]),
            ("reserved", ["4000::", "e000::"]),
        ];
        for (what, addresses) in refused {
            for address in addresses {
                assert!(!allowed(Reach::Public, address), "{address}: {what}");
            }
        }
    }

    #[test]
    fn what_is_beside_the_ranges_is_reached() {
        for address in [
            "1.0.0.0",
            "8.8.8.8",
            "9.255.255.255",
            "11.0.0.0",
            "100.63.255.255",
            "100.128.0.0",
            "126.255.255.255",
            "128.0.0.0",
            "168.63.129.15",
            "168.63.129.17",
            "169.253.255.255",
            "169.255.0.0",
            "172.15.255.255",
            "172.32.0.0",
            "192.0.1.0",
            "192.0.3.0",
            "192.167.255.255",
            "192.169.0.0",
            "198.17.255.255",
            "198.20.0.0",
            "223.255.255.255",
            "2000::1",
            "2001:200::",
            "2001:db7::",
            "2001:db9::",
            "2003::",
            "2606:4700::1111",
            "3ffe::",
            "3fff:1000::",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
        ] {
            assert!(allowed(Reach::Public, address), "{address}");
        }
    }

    #[test]
    fn this_machine_is_reached_where_that_is_allowed_and_nothing_else_of_the_network() {
        for address in ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "8.8.8.8"] {
            assert!(allowed(Reach::Loopback, address), "{address}");
        }
        for address in ["10.0.0.1", "169.254.169.254", "0.0.0.0", "::", "fe80::1", "64:ff9b::127.0.0.1"] {
            assert!(!allowed(Reach::Loopback, address), "{address}");
        }
    }
}
