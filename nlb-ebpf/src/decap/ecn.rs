//! What the outer header says about congestion on the tunnel's path, told on by the inner one
//! (RFC 6040 §4.2).

/// The bits of a traffic class that are ECN (RFC 3168 §5).
pub const MASK: u8 = 3;
/// The sender does not understand marks.
pub const NOT_CAPABLE: u8 = 0;
/// The sender understands marks; `L4S` (RFC 9331) is told by it.
pub const CAPABLE_1: u8 = 1;
/// The sender understands marks.
pub const CAPABLE_0: u8 = 2;
/// A queue on the way was too long.
pub const CONGESTION: u8 = 3;

/// The inner field after decapsulation; nothing where the packet must be dropped, because its
/// sender would not understand the mark.
#[inline(always)]
pub const fn combine(outer: u8, inner: u8) -> Option<u8> {
    if outer == CONGESTION {
        if inner == NOT_CAPABLE {
            None
        } else {
            Some(CONGESTION)
        }
    } else if outer == CAPABLE_1 && inner == CAPABLE_0 {
        Some(CAPABLE_1)
    } else {
        Some(inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Figure 4 of RFC 6040, row by row.
    #[test]
    fn every_combination_is_the_one_of_the_rfc() {
        let (n, e0, e1, ce) = (NOT_CAPABLE, CAPABLE_0, CAPABLE_1, CONGESTION);
        let outer = [n, e0, e1, ce];
        for (inner, expected) in [
            (n, [Some(n), Some(n), Some(n), None]),
            (e0, [Some(e0), Some(e0), Some(e1), Some(ce)]),
            (e1, [Some(e1), Some(e1), Some(e1), Some(ce)]),
            (ce, [Some(ce), Some(ce), Some(ce), Some(ce)]),
        ] {
            assert_eq!(outer.map(|outer| combine(outer, inner)), expected);
        }
    }
}
