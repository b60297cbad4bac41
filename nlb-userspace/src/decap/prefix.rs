//! A range of addresses as it is typed: `192.0.2.0/24`, or one address.

use std::{fmt, net::IpAddr, str::FromStr};

use nlb_common::address::Address;

/// All addresses that begin alike.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct Prefix {
    address: IpAddr,
    length: u8,
}

/// Why a text is no prefix.
#[derive(Debug, PartialEq, Eq, thiserror::Error)]
pub enum NotAPrefix {
    /// What stands before the slash.
    #[error("`{0}` is not an IP address; a prefix is written `192.0.2.0/24` or `2001:db8::/64`")]
    Address(String),
    /// What stands behind the slash.
    #[error("`{length}` is not a prefix length: a number from 0 to {most} is")]
    Length {
        /// As typed.
        length: String,
        /// Bits of an address.
        most: u8,
    },
    /// Bits behind the prefix.
    #[error("`{typed}` has bits behind its prefix; `{meant}` would be that range")]
    BitsBehind {
        /// As typed.
        typed: String,
        /// Without them.
        meant: Prefix,
    },
}

impl Prefix {
    /// The range around an address.
    fn around(address: IpAddr, length: u8) -> Self {
        let address = match address {
            IpAddr::V4(v4) => {
                let mask = u32::MAX.checked_shl(32 - u32::from(length)).unwrap_or(0);
                IpAddr::V4((v4.to_bits() & mask).into())
            }
            IpAddr::V6(v6) => {
                let mask = u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
                IpAddr::V6((v6.to_bits() & mask).into())
            }
        };
        Self { address, length }
    }

    /// The address, IPv4 mapped into IPv6, as maps hold it.
    pub fn mapped(self) -> Address {
        self.address.into()
    }

    /// Bits of [`Self::mapped`] that count.
    pub fn mapped_length(self) -> u32 {
        let unmapped = if self.address.is_ipv4() { 96 } else { 0 };
        unmapped + u32::from(self.length)
    }
}

impl fmt::Display for Prefix {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(formatter, "{}/{}", self.address, self.length)
    }
}

impl FromStr for Prefix {
    type Err = NotAPrefix;

    fn from_str(text: &str) -> Result<Self, NotAPrefix> {
        let (address, length) = text
            .split_once('/')
            .map_or((text, None), |(address, length)| (address, Some(length)));
        let address: IpAddr = address
            .parse()
            .map_err(|_| NotAPrefix::Address(address.to_owned()))?;
        let most = if address.is_ipv4() { 32 } else { 128 };
        let length = match length {
            None => most,
            Some(length) => length
                .parse()
                .ok()
                .filter(|length| *length <= most)
                .ok_or_else(|| NotAPrefix::Length {
                    length: length.to_owned(),
                    most,
                })?,
        };
        let meant = Self::around(address, length);
        if meant.address == address {
            Ok(meant)
        } else {
            Err(NotAPrefix::BitsBehind {
                typed: text.to_owned(),
                meant,
            })
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_prefix_is_read_as_it_is_written() {
        for (text, shown, length) in [
            ("192.0.2.0/24", "192.0.2.0/24", 120),
            ("192.0.2.7", "192.0.2.7/32", 128),
            ("0.0.0.0/0", "0.0.0.0/0", 96),
            ("2001:db8::/64", "2001:db8::/64", 64),
            ("2001:db8::7", "2001:db8::7/128", 128),
            ("::/0", "::/0", 0),
        ] {
            let prefix: Prefix = text.parse().unwrap();
            assert_eq!(prefix.to_string(), shown);
            assert_eq!(prefix.mapped_length(), length);
        }
    }

    #[test]
    fn what_is_no_prefix_is_told_so() {
        for (text, error) in [
            (
                "lb1",
                "`lb1` is not an IP address; a prefix is written `192.0.2.0/24` or `2001:db8::/64`",
            ),
            (
                "192.0.2.0/33",
                "`33` is not a prefix length: a number from 0 to 32 is",
            ),
            (
                "2001:db8::/x",
                "`x` is not a prefix length: a number from 0 to 128 is",
            ),
            (
                "192.0.2.7/24",
                "`192.0.2.7/24` has bits behind its prefix; `192.0.2.0/24` would be that range",
            ),
            (
                "2001:db8::1/0",
                "`2001:db8::1/0` has bits behind its prefix; `::/0` would be that range",
            ),
        ] {
            assert_eq!(text.parse::<Prefix>().unwrap_err().to_string(), error);
        }
    }
}
