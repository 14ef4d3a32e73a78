//! Where the cluster is and how to know it: `shoal://host[:port][,host2[:port]]/?ca=sha256:<hex>`.
//!
//! The `ca` is the SHA-256 of the cluster CA's certificate: it alone decides whom the client trusts, so host names and
//! public authorities mean nothing here. Access tokens are never part of a URL. Source: DESIGN §11.

use std::fmt;
use std::str::FromStr;

use crate::error::Error;

/// A cluster's URL, taken apart.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ClusterUrl {
    /// `host:port` of some nodes, in the order given; at least one.
    pub addresses: Vec<String>,
    /// The pinned CA.
    pub ca: CaPin,
}

/// The SHA-256 of a cluster CA's certificate (DER).
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct CaPin(pub [u8; 32]);

impl FromStr for ClusterUrl {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = |reason: &str| Error::Config { reason: format!("`{text}` is no Shoal URL: {reason}") };
        let rest = text.strip_prefix("shoal://").ok_or_else(|| wrong("it begins with shoal://"))?;
        let (hosts, query) = rest.split_once('?').ok_or_else(|| wrong("?ca=sha256:... is missing"))?;
        let hosts = hosts.strip_suffix('/').unwrap_or(hosts);
        if hosts.contains(['/', '@', '#']) {
            return Err(wrong("between shoal:// and /? stand hosts only"));
        }
        let addresses = hosts.split(',').map(|host| address(host).ok_or_else(|| wrong("a host is malformed")));
        let mut ca = None;
        for setting in query.split('&') {
            match setting.split_once('=') {
                Some(("ca", pin)) if ca.is_none() => ca = Some(pin.parse()?),
                _ => return Err(wrong("the only setting is ca=sha256:..., once")),
            }
        }
        let ca = ca.ok_or_else(|| wrong("?ca=sha256:... is missing"))?;
        Ok(Self { addresses: addresses.collect::<Result<_, _>>()?, ca })
    }
}

impl fmt::Display for ClusterUrl {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "shoal://{}/?ca={}", self.addresses.join(","), self.ca)
    }
}

impl FromStr for CaPin {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Config { reason: format!("`{text}` is no pin: sha256: and 64 hex digits") };
        let hex = text.strip_prefix("sha256:").ok_or_else(wrong)?;
        if hex.len() != 64 || !hex.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let mut pin = [0; 32];
        for (at, byte) in pin.iter_mut().enumerate() {
            *byte = u8::from_str_radix(&hex[2 * at..2 * at + 2], 16).map_err(|_| wrong())?;
        }
        Ok(Self(pin))
    }
}

impl fmt::Display for CaPin {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("sha256:")?;
        self.0.iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

/// `host:port`, with the default port where none is given; an IPv6 address stands in brackets.
fn address(host: &str) -> Option<String> {
    let (name, port) = match host.rsplit_once(':') {
        Some((name, port)) if !port.ends_with(']') => (name, port.parse().ok().filter(|port| *port != 0)?),
        _ => (host, PORT_DEFAULT),
    };
    let bracketed = name.starts_with('[') && name.ends_with(']');
    let allowed = |c: char| c.is_ascii_alphanumeric() || "-._".contains(c) || (bracketed && ":[]%".contains(c));
    (!name.is_empty() && name.chars().all(allowed)).then(|| format!("{name}:{port}"))
}

/// DESIGN §10.
const PORT_DEFAULT: u16 = 7400;

#[cfg(test)]
mod tests {
    use super::*;

    const PIN: &str = "sha256:00112233445566778899aabbccddeeff00112233445566778899aabbccddeeff";

    #[test]
    fn several_hosts_ports_and_families() {
        let url: ClusterUrl = format!("shoal://a,b:7401,[::1]:9,[fe80::1]/?ca={PIN}").parse().unwrap();
        assert_eq!(url.addresses, ["a:7400", "b:7401", "[::1]:9", "[fe80::1]:7400"]);
        assert_eq!(url.ca.to_string(), PIN);
        assert_eq!(url.to_string().parse::<ClusterUrl>().unwrap(), url);
    }

    #[test]
    fn what_is_malformed_is_refused_as_configuration() {
        for bad in [
            "http://a/?ca=PIN",
            "shoal://a/",
            "shoal:///?ca=PIN",
            "shoal://a,/?ca=PIN",
            "shoal://a:0/?ca=PIN",
            "shoal://a:99999/?ca=PIN",
            "shoal://::1/?ca=PIN",
            "shoal://user@a/?ca=PIN",
            "shoal://a/path?ca=PIN",
            "shoal://a/?ca=PIN&ca=PIN",
            "shoal://a/?ca=PIN&token=secret",
            "shoal://a/?ca=sha256:00",
            "shoal://a/?ca=sha256:+0112233445566778899aabbccddeeff00112233445566778899aabbccddeeff",
            "shoal://a/?",
        ] {
            let result = bad.replace("PIN", PIN).parse::<ClusterUrl>();
            assert!(matches!(result, Err(Error::Config { .. })), "{bad}: {result:?}");
        }
    }
}
