//! Which addresses may be reached. Decides about numbers alone: no I/O. Asked for every address before a connection to it.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Admits the public internet, and the networks that the operator allows.
#[derive(Clone, Debug, Default)]
pub(super) struct Guard {
    allow: Vec<IpNet>,
}

impl Guard {
    pub(super) fn new(allow: Vec<IpNet>) -> Self {
        Self { allow }
    }

    /// Whether a connection may be made to the address. One that leads to an IPv4 address in the end is judged as that.
    pub(super) fn admits(&self, ip: IpAddr) -> bool {
        self.allows(ip) || is_global(meant(ip))
    }

    /// Whether the operator has named the address's network.
    pub(super) fn allows(&self, ip: IpAddr) -> bool {
        let (ip, meant) = (ip.to_canonical(), meant(ip));
        self.allow.iter().any(|network| network.contains(&ip) || network.contains(&meant))
    }

    /// Whether the operator has named any network.
    pub(super) fn allows_any(&self) -> bool {
        !self.allow.is_empty()
    }
}

const fn v4(a: u8, b: u8, c: u8, d: u8, length: u8) -> Ipv4Net {
    Ipv4Net::new_assert(Ipv4Addr::new(a, b, c, d), length)
}

const fn v6(first: [u16; 4], length: u8) -> Ipv6Net {
    let [a, b, c, d] = first;
    Ipv6Net::new_assert(Ipv6Addr::new(a, b, c, d, 0, 0, 0, 0), length)
}

/// What isn't on the public internet: the IANA IPv4 special-purpose registry, and multicast. The few entries of
/// `192.0.0.0/24` that are called global lead to the nearest router, so they aren't spared.
const SPECIAL_V4: [Ipv4Net; 16] = [
    v4(0, 0, 0, 0, 8),        // this network; Linux takes 0.0.0.0 for itself
    v4(10, 0, 0, 0, 8),       // private
    v4(100, 64, 0, 0, 10),    // shared by a carrier's customers
    v4(127, 0, 0, 0, 8),      // loopback
    v4(168, 63, 129, 16, 32), // Azure's platform: public by its number, but a machine's own secrets are behind it
    v4(169, 254, 0, 0, 16),   // link-local, and the secrets of most clouds
    v4(172, 16, 0, 0, 12),    // private
    v4(192, 0, 0, 0, 24),     // protocol assignments
    v4(192, 0, 2, 0, 24),     // documentation
    v4(192, 88, 99, 0, 24),   // relays from IPv6, given up
    v4(192, 168, 0, 0, 16),   // private
    v4(198, 18, 0, 0, 15),    // benchmarking
    v4(198, 51, 100, 0, 24),  // documentation
    v4(203, 0, 113, 0, 24),   // documentation
    v4(224, 0, 0, 0, 4),      // multicast
    v4(240, 0, 0, 0, 4),      // reserved, and broadcast
];

/// All that IANA gives out for the public internet. Loopback, unique local, link-local, multicast, `100::/64`, `5f00::/16`,
/// local translation (`64:ff9b:1::/48`) and the forms of IPv4 that nobody routes (`::a.b.c.d`) are outside of it.
const GLOBAL_V6: Ipv6Net = v6([0x2000, 0, 0, 0], 3);

/// What isn't on the public internet inside of [`GLOBAL_V6`].
const SPECIAL_V6: [Ipv6Net; 3] = [
    v6([0x2001, 0, 0, 0], 23),     // protocol assignments: Teredo, benchmarking, ORCHID and others
    v6([0x2001, 0xdb8, 0, 0], 32), // documentation
    v6([0x3fff, 0, 0, 0], 20),     // documentation
];

/// Addresses that a translator turns into the IPv4 address in their last 32 bits (RFC 6052).
const NAT64: Ipv6Net = v6([0x64, 0xff9b, 0, 0], 96);

/// Addresses that lead through the IPv4 address in their bits 16 to 47 (RFC 3056).
const SIX_TO_FOUR: Ipv6Net = v6([0x2002, 0, 0, 0], 16);

/// The IPv4 address that packets to an IPv6 address go to.
fn embedded(ip: IpAddr) -> Option<Ipv4Addr> {
    let IpAddr::V6(ip) = ip else { return None };
    let shift = match ip {
        _ if NAT64.contains(&ip) => 0,
        _ if SIX_TO_FOUR.contains(&ip) => 80,
        _ => return None,
    };
    u32::try_from((ip.to_bits() >> shift) & u128::from(u32::MAX)).ok().map(Ipv4Addr::from_bits)
}

fn meant(ip: IpAddr) -> IpAddr {
    let ip = ip.to_canonical();
    embedded(ip).map_or(ip, IpAddr::V4)
}

fn is_global(ip: IpAddr) -> bool {
    match ip {
        IpAddr::V4(ip) => !SPECIAL_V4.iter().any(|network| network.contains(&ip)),
        IpAddr::V6(ip) => GLOBAL_V6.contains(&ip) && !SPECIAL_V6.iter().any(|network| network.contains(&ip)),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn guard(allow: &[&str]) -> Guard {
        Guard::new(allow.iter().map(|network| network.parse().unwrap()).collect())
    }

    fn next(ip: IpAddr, back: bool) -> Option<IpAddr> {
        match ip {
            IpAddr::V4(ip) => {
                let bits = if back { ip.to_bits().checked_sub(1) } else { ip.to_bits().checked_add(1) };
                bits.map(|bits| Ipv4Addr::from_bits(bits).into())
            }
            IpAddr::V6(ip) => {
                let bits = if back { ip.to_bits().checked_sub(1) } else { ip.to_bits().checked_add(1) };
                bits.map(|bits| Ipv6Addr::from_bits(bits).into())
            }
        }
    }

    /// First and last address of each range, and whether their outer neighbours are reachable.
    const REFUSED: &[(&str, &str, bool, bool)] = &[
        ("0.0.0.0", "0.255.255.255", false, true),
        ("10.0.0.0", "10.255.255.255", true, true),
        ("100.64.0.0", "100.127.255.255", true, true),
        ("127.0.0.0", "127.255.255.255", true, true),
        ("168.63.129.16", "168.63.129.16", true, true),
        ("169.254.0.0", "169.254.255.255", true, true),
        ("172.16.0.0", "172.31.255.255", true, true),
        ("192.0.0.0", "192.0.0.255", true, true),
        ("192.0.2.0", "192.0.2.255", true, true),
        ("192.88.99.0", "192.88.99.255", true, true),
        ("192.168.0.0", "192.168.255.255", true, true),
        ("198.18.0.0", "198.19.255.255", true, true),
        ("198.51.100.0", "198.51.100.255", true, true),
        ("203.0.113.0", "203.0.113.255", true, true),
        ("224.0.0.0", "239.255.255.255", true, false),
        ("240.0.0.0", "255.255.255.255", false, false),
        ("::", "::1", false, false),
        // Compatible: ::127.0.0.1 and all others.
        ("::2", "::ffff:ffff", false, false),
        ("::7f00:1", "::7f00:1", false, false),
        ("::808:808", "::808:808", false, false),
        // Mapped, judged as IPv4.
        ("::ffff:0.0.0.0", "::ffff:0.255.255.255", false, true),
        ("::ffff:10.0.0.0", "::ffff:10.255.255.255", true, true),
        ("::ffff:127.0.0.0", "::ffff:127.255.255.255", true, true),
        ("::ffff:169.254.169.254", "::ffff:169.254.169.254", false, false),
        ("::ffff:224.0.0.0", "::ffff:255.255.255.255", true, false),
        // Translated (RFC 2765): nobody routes it.
        ("::ffff:0:0:0", "::ffff:0:ffff:ffff", false, false),
        // NAT64, judged as IPv4; and the local kind, refused as a whole.
        ("64:ff9b::0.0.0.0", "64:ff9b::0.255.255.255", false, true),
        ("64:ff9b::10.0.0.0", "64:ff9b::10.255.255.255", true, true),
        ("64:ff9b::100.64.0.0", "64:ff9b::100.127.255.255", true, true),
        ("64:ff9b::127.0.0.1", "64:ff9b::127.0.0.1", false, false),
        ("64:ff9b::169.254.169.254", "64:ff9b::169.254.169.254", false, false),
        ("64:ff9b::224.0.0.0", "64:ff9b::255.255.255.255", true, false),
        ("64:ff9b:1::", "64:ff9b:1:ffff:ffff:ffff:ffff:ffff", false, false),
        ("64:ff9b:1::8.8.8.8", "64:ff9b:1::8.8.8.8", false, false),
        ("100::", "100::ffff:ffff:ffff:ffff", false, false),
        ("100:0:0:1::", "100:0:0:1:ffff:ffff:ffff:ffff", false, false),
        ("1fff::", "1fff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, true),
        ("2001::", "2001:1ff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        ("2001:2::", "2001:2:0:ffff:ffff:ffff:ffff:ffff", false, false),
        ("2001:10::", "2001:3f:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("2001:db8::", "2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        // 6to4, judged as IPv4.
        ("2002::", "2002:ff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        ("2002:a00::", "2002:aff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        ("2002:7f00::", "2002:7fff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        ("2002:a9fe::", "2002:a9fe:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        ("2002:c0a8::", "2002:c0a8:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        ("2002:e000::", "2002:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        ("3fff::", "3fff:fff:ffff:ffff:ffff:ffff:ffff:ffff", true, true),
        ("4000::", "5eff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", true, false),
        ("5f00::", "5f00:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("fc00::", "fdff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("fd00:ec2::254", "fd00:ec2::254", false, false),
        ("fe80::", "febf:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("fec0::", "feff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
        ("ff00::", "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff", false, false),
    ];

    #[test]
    fn what_is_not_on_the_public_internet_is_refused_and_its_neighbours_are_not() {
        let guard = guard(&[]);
        for (first, last, before, after) in REFUSED {
            let (first, last): (IpAddr, IpAddr) = (first.parse().unwrap(), last.parse().unwrap());
            assert!(!guard.admits(first), "{first}");
            assert!(!guard.admits(last), "{last}");
            assert_eq!(next(first, true).is_some_and(|ip| guard.admits(ip)), *before, "before {first}");
            assert_eq!(next(last, false).is_some_and(|ip| guard.admits(ip)), *after, "after {last}");
        }
    }

    #[test]
    fn the_public_internet_is_admitted() {
        for ip in [
            "1.1.1.1",
            "8.8.8.8",
            "100.63.255.255",
            "172.32.0.0",
            "192.31.196.1",
            "192.52.193.1",
            "192.175.48.1",
            "223.255.255.255",
            "::ffff:8.8.8.8",
            "64:ff9b::8.8.8.8",
            "2000::",
            "2001:200::",
            "2001:4860:4860::8888",
            "2002:808:808::1",
            "2606:4700::1111",
            "2620:4f:8000::1",
            "3fff:1000::",
        ] {
            assert!(guard(&[]).admits(ip.parse().unwrap()), "{ip}");
        }
    }

    #[test]
    fn what_the_operator_allows_is_admitted_and_nothing_beside_it() {
        let guard = guard(&["127.0.0.0/8", "10.1.2.3/32", "::1/128", "fd00::/8"]);
        for (ip, admitted) in [
            ("127.0.0.1", true),
            ("::ffff:127.0.0.1", true),
            ("64:ff9b::127.0.0.1", true),
            ("::127.0.0.1", false),
            ("10.1.2.3", true),
            ("10.1.2.2", false),
            ("10.1.2.4", false),
            ("::1", true),
            ("::", false),
            ("fd00::1", true),
            ("fc00::1", false),
            ("169.254.169.254", false),
            ("8.8.8.8", true),
        ] {
            assert_eq!(guard.admits(ip.parse().unwrap()), admitted, "{ip}");
        }
    }

    proptest! {
        /// Everything that the standard library knows to be special is refused, however it is written.
        #[test]
        fn what_is_special_is_refused_in_every_form(bits: u32) {
            let ip = Ipv4Addr::from_bits(bits);
            let special = ip.is_private() || ip.is_loopback() || ip.is_link_local() || ip.is_broadcast()
                || ip.is_documentation() || ip.is_multicast() || ip.is_unspecified();
            let guard = guard(&[]);
            let admitted = guard.admits(ip.into());
            prop_assert!(!(special && admitted), "{}", ip);
            let six_to_four = Ipv6Addr::from_bits(0x2002 << 112 | u128::from(bits) << 80 | 1);
            let nat64 = Ipv6Addr::from_bits(0x0064_ff9b << 96 | u128::from(bits));
            for form in [ip.to_ipv6_mapped(), nat64, six_to_four] {
                prop_assert_eq!(guard.admits(form.into()), admitted, "{}", form);
            }
            prop_assert!(!guard.admits(Ipv6Addr::from_bits(u128::from(bits)).into()));
        }
    }
}
