//! HMAC-SHA-256 (RFC 2104, FIPS 198-1), for keys of at most 64 bytes.

use sha2::{Digest as _, Sha256};
use zeroize::Zeroize as _;

const BLOCK: usize = 64;

pub(super) struct Hmac {
    inner: Sha256,
    outer: Sha256,
}

impl Hmac {
    /// Longer keys are cut, which callers with their 32 bytes never see.
    pub(super) fn new(key: &[u8]) -> Self {
        let keyed = |pad: u8| {
            let mut block = [pad; BLOCK];
            block.iter_mut().zip(key).for_each(|(b, k)| *b ^= k);
            let hash = Sha256::new_with_prefix(block);
            block.zeroize();
            hash
        };
        Self { inner: keyed(0x36), outer: keyed(0x5c) }
    }

    pub(super) fn update(&mut self, bytes: &[u8]) {
        self.inner.update(bytes);
    }

    pub(super) fn finish(mut self) -> [u8; 32] {
        self.outer.update(self.inner.finalize());
        self.outer.finalize().into()
    }

    /// In a time that does not depend on where they differ.
    pub(super) fn verify(self, mac: &[u8]) -> bool {
        let real = self.finish();
        mac.len() == real.len() && real.iter().zip(mac).fold(0, |differ, (a, b)| differ | (a ^ b)) == 0
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// RFC 4231, test cases 1 and 2.
    #[test]
    fn it_gives_the_standards_examples() {
        let cases: [(&[u8], &[u8], &str); 2] = [
            (&[0x0b; 20], b"Hi There", "b0344c61d8db38535ca8afceaf0bf12b881dc200c9833da726e9376c2e32cff7"),
            (
                b"Jefe",
                b"what do ya want for nothing?",
                "5bdcc146bf60754e6a042426089575c75a003f089d2739839dec58b964ec3843",
            ),
        ];
        for (key, message, mac) in cases {
            let mut hmac = Hmac::new(key);
            hmac.update(&message[..3]);
            hmac.update(&message[3..]);
            assert_eq!(hex::encode(hmac.finish()), mac);
        }
        let mac = Hmac::new(b"k").finish();
        assert!(Hmac::new(b"k").verify(&mac) && !Hmac::new(b"l").verify(&mac) && !Hmac::new(b"k").verify(&mac[..31]));
    }
}
