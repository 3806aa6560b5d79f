//! The networks that a key may be used from.

use std::fmt;
use std::net::IpAddr;
use std::str::FromStr;

use ipnet::IpNet;
use serde::{Deserialize, Deserializer, Serialize, Serializer, de};

use super::{TooMany, read_list};

/// The most networks that one list holds.
pub const MAX_NETWORKS: usize = 256;

/// A network such as `10.0.0.0/8` or `2001:db8::/32`, or a single address. What is written as IPv4 inside of IPv6
/// (`::ffff:10.0.0.0/104`) is the IPv4 network (`10.0.0.0/8`).
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct Network(IpNet);

/// Why a network was refused.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum NetworkError {
    /// Neither an address nor an address, `/` and a length of 0 to 32 or 128.
    #[error("expected a network such as 10.0.0.0/8 or 2001:db8::/32, or an address")]
    Form,
    /// An address inside of a network, where the network's own was meant, or the address without a length.
    #[error("names an address inside of a network; expected {0}")]
    HostBits(Network),
}

impl FromStr for Network {
    type Err = NetworkError;

    fn from_str(text: &str) -> Result<Self, NetworkError> {
        let (address, length) = match text.split_once('/') {
            Some((address, length)) => (address, Some(parse_length(length).ok_or(NetworkError::Form)?)),
            None => (text, None),
        };
        let address: IpAddr = address.parse().map_err(|_| NetworkError::Form)?;
        let length = length.unwrap_or(if address.is_ipv4() { 32 } else { 128 });
        let (address, length) = match (address.to_canonical(), length.checked_sub(96)) {
            (v4, Some(length)) if address.is_ipv6() && v4.is_ipv4() => (v4, length),
            _ => (address, length),
        };
        let network = IpNet::new(address, length).map_err(|_| NetworkError::Form)?;
        if network == network.trunc() { Ok(Self(network)) } else { Err(NetworkError::HostBits(Self(network.trunc()))) }
    }
}

/// 0 to 255 without sign or leading zeros.
fn parse_length(text: &str) -> Option<u8> {
    let plain = text == "0" || !text.starts_with(['0', '+']);
    if plain { text.parse().ok() } else { None }
}

impl fmt::Display for Network {
    /// The one way to write it; a network of one address is written as the address.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if self.0.prefix_len() == self.0.max_prefix_len() { self.0.addr().fmt(f) } else { self.0.fmt(f) }
    }
}

impl Serialize for Network {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        serializer.collect_str(self)
    }
}

impl<'de> Deserialize<'de> for Network {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        String::deserialize(deserializer)?.parse().map_err(de::Error::custom)
    }
}

impl utoipa::PartialSchema for Network {
    fn schema() -> utoipa::openapi::RefOr<utoipa::openapi::Schema> {
        utoipa::openapi::ObjectBuilder::new()
            .schema_type(utoipa::openapi::schema::Type::String)
            .description(Some(
                "An IPv4 or IPv6 network as `address/length`, no bit set beyond its length, or a single address.",
            ))
            .format(Some(utoipa::openapi::schema::SchemaFormat::Custom("network".to_owned())))
            .examples(["10.0.0.0/8", "2001:db8::/32", "192.0.2.7"])
            .into()
    }
}

impl utoipa::ToSchema for Network {}

/// Where a key may be used from: at most 256 networks without repetition, in the order in which they were given. An empty
/// list admits no address.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[schema(value_type = Vec<Network>, max_items = 256)]
pub struct Networks(Box<[Network]>);

impl Networks {
    /// Leaves repetitions out.
    ///
    /// # Errors
    /// More than [`MAX_NETWORKS`], repetitions counted.
    pub fn new(networks: impl IntoIterator<Item = Network>) -> Result<Self, TooMany> {
        let mut kept: Vec<Network> = Vec::new();
        for (i, network) in networks.into_iter().enumerate() {
            if i == MAX_NETWORKS {
                return Err(TooMany(MAX_NETWORKS));
            }
            if !kept.contains(&network) {
                kept.push(network);
            }
        }
        Ok(Self(kept.into()))
    }

    /// Whether some network of the list holds the address. An IPv4 address that came as IPv6 (`::ffff:192.0.2.7`) is the
    /// IPv4 address, so no IPv6 network holds it, not even `::/0`.
    #[must_use]
    pub fn admits(&self, ip: IpAddr) -> bool {
        let ip = ip.to_canonical();
        self.0.iter().any(|network| network.0.contains(&ip))
    }

    /// One after another.
    pub fn iter(&self) -> impl Iterator<Item = Network> {
        self.0.iter().copied()
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.0.len()
    }

    /// Whether there is none; then no address is admitted.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.0.is_empty()
    }
}

impl<'de> Deserialize<'de> for Networks {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        Self::new(read_list::<D, Network>(deserializer, MAX_NETWORKS)?).map_err(de::Error::custom)
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    fn networks(json: &str) -> Networks {
        serde_json::from_str(json).unwrap()
    }

    fn refusal(json: &str) -> String {
        serde_json::from_str::<Networks>(json).unwrap_err().to_string()
    }

    #[test]
    fn each_network_is_written_in_one_way() {
        for (text, canonical) in [
            ("10.0.0.0/8", "10.0.0.0/8"),
            ("0.0.0.0/0", "0.0.0.0/0"),
            ("::/0", "::/0"),
            ("192.0.2.7", "192.0.2.7"),
            ("192.0.2.7/32", "192.0.2.7"),
            ("2001:DB8:0:0::/32", "2001:db8::/32"),
            ("2001:db8::1/128", "2001:db8::1"),
            ("2001:0db8::0001", "2001:db8::1"),
            ("::ffff:192.0.2.7", "192.0.2.7"),
            ("::ffff:c000:207", "192.0.2.7"),
            ("::ffff:10.0.0.0/104", "10.0.0.0/8"),
            ("::ffff:0:0/96", "0.0.0.0/0"),
            ("::ffff:192.0.2.7/128", "192.0.2.7"),
            ("::/95", "::/95"),
            ("::", "::"),
        ] {
            let network: Network = text.parse().unwrap();
            assert_eq!(network.to_string(), canonical, "{text}");
            assert_eq!(canonical.parse(), Ok(network), "{text}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused() {
        for text in [
            "",
            "/",
            "/8",
            "10",
            "10.0.0/8",
            "10.0.0.0/",
            "10.0.0.0/33",
            "10.0.0.0/-1",
            "10.0.0.0/+8",
            "10.0.0.0/08",
            "10.0.0.0/00",
            "10.0.0.0/256",
            "10.0.0.0/8/8",
            "10.0.0.0/255.0.0.0",
            "010.0.0.0/8",
            " 10.0.0.0/8",
            "10.0.0.0 /8",
            "10.0.0.256",
            "10.0.0.0:80",
            "2001:db8::/129",
            "[2001:db8::1]",
            "fe80::1%eth0",
            "example.org",
            "*",
            "１0.0.0.0/8",
        ] {
            assert_eq!(text.parse::<Network>(), Err(NetworkError::Form), "{text}");
        }
    }

    #[test]
    fn bits_beyond_the_length_are_refused_with_what_was_meant() {
        for (text, meant) in [
            ("10.1.2.3/8", "10.0.0.0/8"),
            ("192.0.2.1/31", "192.0.2.0/31"),
            ("1.0.0.0/0", "0.0.0.0/0"),
            ("2001:db8::1/32", "2001:db8::/32"),
            ("::ffff:10.1.2.3/104", "10.0.0.0/8"),
            ("::ffff:10.0.0.0/64", "::/64"),
        ] {
            let error = text.parse::<Network>().unwrap_err();
            assert_eq!(error, NetworkError::HostBits(meant.parse().unwrap()), "{text}");
            assert!(error.to_string().ends_with(&format!("; expected {meant}")), "{error}");
        }
    }

    #[test]
    fn lists_are_bounded_and_without_repetition() {
        let list = networks(r#"["10.0.0.0/8", "192.0.2.7", "::ffff:10.0.0.0/104", "192.0.2.7/32", "2001:db8::/32"]"#);
        assert_eq!(serde_json::to_string(&list).unwrap(), r#"["10.0.0.0/8","192.0.2.7","2001:db8::/32"]"#);
        assert_eq!((list.len(), list.is_empty(), list.iter().count()), (3, false, 3));
        let many = |n: u32| serde_json::to_string(&(0..n).map(Ipv4Addr::from_bits).collect::<Vec<_>>()).unwrap();
        assert_eq!(networks(&many(256)).len(), MAX_NETWORKS);
        assert!(refusal(&many(257)).starts_with("expected at most 256 entries"));
        assert!(refusal(&format!("[{}]", vec!["\"::\""; 257].join(","))).starts_with("expected at most 256 entries"));
        assert_eq!(Networks::new(vec!["::".parse().unwrap(); 257]), Err(TooMany(MAX_NETWORKS)));
        for bad in ["null", "{}", "\"10.0.0.0/8\"", "[1]", "[null]", "[[]]", "[\"10.0.0.0/8\", \"hunter2\"]"] {
            let message = refusal(bad);
            assert!(message.contains("expected ") && !message.contains("hunter2"), "{bad}: {message}");
        }
        assert_eq!(size_of::<Network>(), 18);
    }

    #[test]
    fn addresses_are_admitted_by_family() {
        let list = networks(r#"["10.0.0.0/8", "192.0.2.7", "2001:db8::/32", "203.0.113.128/25"]"#);
        for (ip, admitted) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("192.0.2.7", true),
            ("192.0.2.6", false),
            ("192.0.2.8", false),
            ("203.0.113.127", false),
            ("203.0.113.128", true),
            ("::ffff:10.1.2.3", true),
            ("::ffff:11.1.2.3", false),
            ("::10.1.2.3", false),
            ("2001:db8::", true),
            ("2001:db8:ffff:ffff:ffff:ffff:ffff:ffff", true),
            ("2001:db7:ffff:ffff:ffff:ffff:ffff:ffff", false),
            ("2001:db9::", false),
        ] {
            assert_eq!(list.admits(ip.parse().unwrap()), admitted, "{ip}");
        }
        let all = |list: &str| {
            ["0.0.0.0", "255.255.255.255", "::ffff:1.2.3.4", "::", "::1", "ffff::"]
                .map(|ip| networks(list).admits(ip.parse().unwrap()))
        };
        assert_eq!(all("[]"), [false; 6]);
        assert_eq!(all(r#"["0.0.0.0/0"]"#), [true, true, true, false, false, false]);
        assert_eq!(all(r#"["::/0"]"#), [false, false, false, true, true, true]);
        assert_eq!(all(r#"["::/0", "0.0.0.0/0"]"#), [true; 6]);
    }

    proptest! {
        /// The definition, bit by bit. The addresses are near each other, so that both answers occur.
        #[test]
        fn admitting_agrees_with_its_definition(
            network: u128, length in 0_u8..=128, near in 0_u32..128, as_v4: bool, mapped: bool,
        ) {
            let ip = network ^ (u128::MAX >> near & network.rotate_left(64));
            let bits = |length: u8| (0..u32::from(length)).map(|bit| 1 << (127 - bit));
            let same = |length| bits(length).all(|bit| network & bit == ip & bit);
            let masked = |length| bits(length).fold(0, |kept, bit| kept | network & bit);
            let high = |bits: u128| Ipv4Addr::from_bits(u32::try_from(bits >> 96).unwrap());
            let (text, ip, expected) = if as_v4 {
                let (length, ip) = (length % 33, high(ip));
                let shown = if mapped { IpAddr::V6(ip.to_ipv6_mapped()) } else { IpAddr::V4(ip) };
                (format!("{}/{length}", high(masked(length))), shown, same(length))
            } else {
                let (address, ip) = (Ipv6Addr::from_bits(masked(length)), Ipv6Addr::from_bits(ip));
                (format!("{address}/{length}"), IpAddr::V6(ip), same(length))
            };
            let list = Networks::new([text.parse().unwrap()]).unwrap();
            prop_assert_eq!(list.admits(ip), expected, "{} {}", text, ip);
        }

        #[test]
        fn anything_is_parsed_without_panic(text in "[0-9a-f.:/]{0,45}|.{0,20}") {
            if let Ok(network) = text.parse::<Network>() {
                prop_assert_eq!(network.to_string().parse(), Ok(network));
            }
        }
    }
}
