//! The secret of the flow hash: where it comes from, and a type that keeps it out of logs.

use std::{fmt, path::PathBuf};

use zeroize::{Zeroize, ZeroizeOnDrop, Zeroizing};

/// The 32 bytes of the hash key. `Debug` does not show them, and memory that held them is wiped.
#[derive(Clone, PartialEq, Eq, Zeroize, ZeroizeOnDrop)]
pub struct HashKey([u8; Self::LENGTH]);

impl HashKey {
    /// Bytes of a key.
    pub const LENGTH: usize = 32;

    /// A key from its bytes.
    pub const fn new(bytes: [u8; Self::LENGTH]) -> Self {
        Self(bytes)
    }

    /// A key from 64 hexadecimal digits, as a configuration or a key file holds it.
    pub fn from_hex(text: &str) -> Result<Self, HashKeyError> {
        let length = text.chars().count();
        if length != 2 * Self::LENGTH {
            return Err(HashKeyError::Length(length));
        }
        let digit = |c: char| c.to_digit(16).and_then(|digit| u8::try_from(digit).ok());
        let mut digits = text.chars().map(digit);
        let mut key = Zeroizing::new([0; Self::LENGTH]);
        for byte in key.iter_mut() {
            let (Some(Some(high)), Some(Some(low))) = (digits.next(), digits.next()) else {
                return Err(HashKeyError::Digit);
            };
            *byte = high << 4 | low;
        }
        Ok(Self(*key))
    }

    /// The secret itself.
    pub const fn bytes(&self) -> &[u8; Self::LENGTH] {
        &self.0
    }
}

impl fmt::Debug for HashKey {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str("HashKey(not shown)")
    }
}

/// Why a text is no hash key. The text is not repeated: it may be most of a secret.
#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum HashKeyError {
    /// Not 64 characters.
    #[error("a hash key has 64 hexadecimal digits, this has {0} characters")]
    Length(usize),
    /// A character that is no hexadecimal digit.
    #[error("a hash key has hexadecimal digits only")]
    Digit,
}

/// Where the hash key comes from.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum HashKeySource {
    /// The configuration names none: the daemon makes one at its first start and keeps it.
    Kept,
    /// A file of 64 hexadecimal digits.
    File(PathBuf),
    /// The configuration itself.
    Written(HashKey),
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn debug_never_shows_the_key() {
        let key = HashKey::new([0xab; 32]);
        for shown in [
            format!("{key:?}"),
            format!("{key:#?}"),
            format!("{:?}", HashKeySource::Written(key)),
        ] {
            assert!(!shown.contains("ab") && !shown.contains("171"), "{shown}");
        }
    }

    #[test]
    fn hex_digits_of_both_cases_are_read_in_order() {
        let key = HashKey::from_hex(&format!("0fA0{}", "00".repeat(30)));
        assert_eq!(
            key.map(|key| key.bytes()[..3].to_vec()),
            Ok(vec![0x0f, 0xa0, 0])
        );
        assert_eq!(HashKey::from_hex("00"), Err(HashKeyError::Length(2)));
        assert_eq!(HashKey::from_hex(&"é".repeat(64)), Err(HashKeyError::Digit));
    }
}
