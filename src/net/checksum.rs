//! The Internet checksum (RFC 1071).

/// A one's-complement sum under way. Every added piece but the last must have an even length.
#[derive(Clone, Copy, Debug, Default)]
pub struct Sum(u64);

impl Sum {
    /// Adds bytes as big-endian 16-bit words. An odd last byte is padded with a zero.
    #[must_use]
    #[expect(clippy::should_implement_trait, reason = "what is added is no sum")]
    pub fn add(self, bytes: &[u8]) -> Sum {
        // Adds eight bytes a step in the host's byte order, halves apart, which the compiler does with vectors. On
        // little-endian hosts the sum is then byte-swapped, which one swap at the end corrects (RFC 1071, section 2B).
        let (mut low, mut high) = (0u64, 0u64);
        let (words, rest) = bytes.as_chunks::<8>();
        let mut add = |word| {
            let word = u64::from_ne_bytes(word);
            low += word & 0xffff_ffff;
            high += word >> 32;
        };
        words.iter().copied().for_each(&mut add);
        let mut last = [0; 8];
        last[..rest.len()].copy_from_slice(rest);
        add(last);
        Sum(self.0 + u64::from(u16::from_be(fold(low + high))))
    }

    /// Adds one 16-bit word.
    #[must_use]
    pub(crate) fn add_word(self, word: u16) -> Sum {
        Sum(self.0 + u64::from(word))
    }

    /// Returns the sum folded to 16 bits, which checksum offload expects in the field.
    pub fn partial(self) -> u16 {
        fold(self.0)
    }

    /// Returns the checksum: the folded sum's complement. Over data that includes a right checksum,
    /// it is 0.
    pub fn checksum(self) -> u16 {
        !self.partial()
    }
}

fn fold(mut sum: u64) -> u16 {
    while sum >> 16 != 0 {
        sum = (sum & 0xffff) + (sum >> 16);
    }
    sum as u16
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn the_example_of_rfc_1071() {
        let sum = Sum::default().add(&[0x00, 0x01, 0xf2, 0x03, 0xf4, 0xf5, 0xf6, 0xf7]);
        assert_eq!(sum.partial(), 0xddf2);
    }

    proptest! {
        #[test]
        fn agrees_with_the_definition(bytes in proptest::collection::vec(any::<u8>(), 0..200), cut in 0..100usize) {
            let mut plain: u32 = bytes.chunks(2).map(|w| u32::from(w[0]) << 8 | u32::from(*w.get(1).unwrap_or(&0))).sum();
            while plain >> 16 != 0 {
                plain = (plain & 0xffff) + (plain >> 16);
            }
            let (a, b) = bytes.split_at((cut * 2).min(bytes.len() / 2 * 2));
            prop_assert_eq!(Sum::default().add(a).add(b).partial(), plain as u16);
        }
    }
}
