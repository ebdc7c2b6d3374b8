//! Webhooks: where one may go, and how it is signed (sections 6.2, 6.5, 12.8).

#[cfg(feature = "axum")]
use std::net::IpAddr;
use std::net::{Ipv4Addr, Ipv6Addr};
use url::{Host, Url};

/// Whether an address belongs to the public internet.
#[cfg(feature = "axum")]
pub(in crate::streams) fn is_public(address: IpAddr) -> bool {
    match address {
        IpAddr::V4(v4) => is_public_v4(v4),
        IpAddr::V6(v6) => is_public_v6(v6),
    }
}

fn is_public_v4(address: Ipv4Addr) -> bool {
    let [a, b, c, _] = address.octets();
    !(address.is_private()
        || address.is_loopback()
        || address.is_link_local()
        || address.is_broadcast()
        || address.is_documentation()
        || address.is_multicast()
        || a == 0
        || a >= 240
        // Carrier-grade NAT, protocol assignments, benchmarks.
        || (a == 100 && (64..128).contains(&b))
        || (a == 192 && b == 0 && c == 0)
        || (a == 198 && (b == 18 || b == 19)))
}

fn is_public_v6(address: Ipv6Addr) -> bool {
    let segments = address.segments();
    // An IPv4 address in another dress: mapped, compatible, NAT64, 6to4.
    let embedded = match segments {
        [0, 0, 0, 0, 0, 0xffff | 0, high, low] | [0x64, 0xff9b, 0, 0, 0, 0, high, low] => {
            Some((high, low))
        }
        [0x2002, high, low, ..] => Some((high, low)),
        _ => None,
    };
    if let Some((high, low)) = embedded {
        return is_public_v4(Ipv4Addr::from(u32::from(high) << 16 | u32::from(low)));
    }
    // Only 2000::/3 is given out; of that, documentation and Teredo are none.
    let [first, second, ..] = segments;
    first & 0xe000 == 0x2000 && !(first == 0x2001 && (second == 0xdb8 || second < 0x200))
}

/// Whether a webhook may go to this URL.
///
/// # Errors
/// Why it may not.
pub(super) fn check(url: &str, local_allowed: bool) -> Result<(), &'static str> {
    let url = Url::parse(url).map_err(|_| "the URL is none")?;
    if !url.username().is_empty() || url.password().is_some() {
        return Err("the URL holds credentials");
    }
    let (public, loopback) = match url.host() {
        // Names of the own network end in these; others are looked up when they are called.
        Some(Host::Domain(name)) => {
            let name = name.trim_end_matches('.').to_ascii_lowercase();
            let own = |suffix: &&str| name == *suffix || name.ends_with(&format!(".{suffix}"));
            let local = ["localhost", "local", "internal", "lan", "home.arpa"].iter().any(own);
            (!local && name.contains('.'), name == "localhost")
        }
        Some(Host::Ipv4(address)) => (is_public_v4(address), address.is_loopback()),
        Some(Host::Ipv6(address)) => (is_public_v6(address), address.is_loopback()),
        None => return Err("the URL has no host"),
    };
    match url.scheme() {
        "https" if public => Ok(()),
        "http" | "https" if loopback && local_allowed => Ok(()),
        "http" if public => Err("webhooks go over https"),
        "http" | "https" => Err("the URL leads into the own network"),
        _ => Err("webhooks go over https"),
    }
}

/// Whether this URL, which was found good, leads to the own machine.
pub(super) fn is_local(url: &str) -> bool {
    check(url, false).is_err()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_leads_inside_is_refused_however_it_is_written() {
        for url in [
            "https://10.0.0.1/",
            "https://192.168.1.1/",
            "https://172.16.0.1/",
            "https://169.254.169.254/",
            "https://127.0.0.1/",
            "https://2130706433/",
            "https://0x7f.1/",
            "https://0177.0.0.1/",
            "https://0/",
            "https://[::1]/",
            "https://[::]/",
            "https://[fe80::1]/",
            "https://[fc00::1]/",
            "https://[::ffff:10.0.0.1]/",
            "https://[::ffff:7f00:1]/",
            "https://[64:ff9b::a00:1]/",
            "https://[2002:a00:1::]/",
            "https://100.64.0.1/",
            "https://localhost/",
            "https://LOCALHOST./",
            "https://a.localhost/",
            "https://metadata.google.internal/",
            "https://printer.local/",
            "https://intranet/",
            "https://255.255.255.255/",
            "https://224.0.0.1/",
            "http://example.com/",
            "ftp://example.com/",
            "file:///etc/passwd",
            "javascript:1",
            "nonsense",
            "",
            "https://user:password@example.com/",
            "https:///",
            "http://10.0.0.1/hook",
            "http://127.0.0.1:1/",
        ] {
            assert!(check(url, false).is_err(), "{url}");
        }
        for url in
            ["https://example.com/a?b", "https://93.184.216.34/", "https://[2606:2800:220:1::1]/"]
        {
            assert_eq!(check(url, false), Ok(()), "{url}");
            assert_eq!(check(url, true), Ok(()), "{url}");
        }
    }

    #[test]
    fn an_operator_may_allow_the_own_machine_and_no_more() {
        for url in ["http://localhost:1/", "http://127.0.0.1:8080/hook", "http://[::1]/"] {
            assert_eq!(check(url, true), Ok(()), "{url}");
            assert!(is_local(url));
        }
        for url in [
            "http://10.0.0.1/hook",
            "http://169.254.169.254/",
            "http://192.168.1.1/",
            "http://example.com/",
        ] {
            assert!(check(url, true).is_err(), "{url}");
        }
    }
}
