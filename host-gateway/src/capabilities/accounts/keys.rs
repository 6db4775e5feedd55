//! OpenSSH public keys, parsed whole: an allowed type, base64 that is exactly a key of that
//! type (RFC 4253 §6.6, RFC 5656, RFC 8709, OpenSSH's PROTOCOL.u2f), one comment, one line.
//! Refuses options: `command=` and its kin are not a guest's to set.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;

/// Bounds one line of `authorized_keys`.
const MAX_LINE: usize = 4_096;
const MAX_COMMENT: usize = 256;
/// Bounds the keys of one account.
pub(super) const MAX_KEYS: usize = 64;
const KINDS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];
const RSA_BITS: std::ops::RangeInclusive<usize> = 2_048..=16_384;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub(super) enum KeyError {
    #[error("the key is longer than {MAX_LINE} bytes, or its comment than {MAX_COMMENT}")]
    TooLong,
    #[error("the key is more than one line or has control characters")]
    Control,
    #[error("the key does not begin with an allowed type (options are refused)")]
    Type,
    #[error("the key's base64 is malformed")]
    Base64,
    #[error("the key's bytes are not a key of the type that it names")]
    Body,
    #[error("an RSA key needs 2048 to 16384 bits and an odd exponent")]
    Rsa,
}

/// Parse one key and give the line to write, with single spaces.
///
/// # Errors
/// The first rule that it breaks.
pub(super) fn parse(line: &str) -> Result<String, KeyError> {
    if line.len() > MAX_LINE {
        return Err(KeyError::TooLong);
    }
    if line.chars().any(char::is_control) {
        return Err(KeyError::Control);
    }
    let (kind, rest) = line.split_once(' ').ok_or(KeyError::Type)?;
    let (body, comment) = rest.split_once(' ').unwrap_or((rest, ""));
    let comment = comment.trim();
    if comment.len() > MAX_COMMENT {
        return Err(KeyError::TooLong);
    }
    if !KINDS.contains(&kind) {
        return Err(KeyError::Type);
    }
    let bytes = STANDARD.decode(body).map_err(|_| KeyError::Base64)?;
    let mut wire = Wire(&bytes);
    if wire.string()? != kind.as_bytes() {
        return Err(KeyError::Body);
    }
    match kind {
        "ssh-ed25519" => wire.fixed(32)?,
        "ssh-rsa" => wire.rsa()?,
        "ecdsa-sha2-nistp256" => wire.ecdsa("nistp256", 65)?,
        "ecdsa-sha2-nistp384" => wire.ecdsa("nistp384", 97)?,
        "ecdsa-sha2-nistp521" => wire.ecdsa("nistp521", 133)?,
        "sk-ssh-ed25519@openssh.com" => wire.fixed(32).and_then(|()| wire.application())?,
        "sk-ecdsa-sha2-nistp256@openssh.com" => wire.ecdsa("nistp256", 65).and_then(|()| wire.application())?,
        _ => return Err(KeyError::Type),
    }
    if !wire.0.is_empty() {
        return Err(KeyError::Body);
    }
    Ok(if comment.is_empty() { format!("{kind} {body}") } else { format!("{kind} {body} {comment}") })
}

/// What is left to read of a key's bytes: SSH strings, each with its length in front.
struct Wire<'a>(&'a [u8]);

impl<'a> Wire<'a> {
    fn string(&mut self) -> Result<&'a [u8], KeyError> {
        let (length, rest) = self.0.split_first_chunk::<4>().ok_or(KeyError::Body)?;
        let length = u32::from_be_bytes(*length) as usize;
        let (text, rest) = rest.split_at_checked(length).ok_or(KeyError::Body)?;
        self.0 = rest;
        Ok(text)
    }

    fn fixed(&mut self, length: usize) -> Result<(), KeyError> {
        if self.string()?.len() == length { Ok(()) } else { Err(KeyError::Body) }
    }

    /// A positive mpint in its one shortest form.
    fn positive(&mut self) -> Result<&'a [u8], KeyError> {
        match self.string()? {
            [0, rest @ ..] if rest.first().is_some_and(|b| b & 0x80 != 0) => Ok(rest),
            number @ [first, ..] if *first != 0 && first & 0x80 == 0 => Ok(number),
            _ => Err(KeyError::Body),
        }
    }

    fn rsa(&mut self) -> Result<(), KeyError> {
        let (exponent, modulus) = (self.positive()?, self.positive()?);
        let bits = modulus.len() * 8 - modulus.first().map_or(0, |b| b.leading_zeros() as usize);
        let odd = |n: &[u8]| n.last().is_some_and(|b| b & 1 == 1);
        if RSA_BITS.contains(&bits) && odd(modulus) && odd(exponent) && exponent != [1] && exponent.len() <= 8 {
            Ok(())
        } else {
            Err(KeyError::Rsa)
        }
    }

    /// Curve name and an uncompressed point (SEC 1).
    fn ecdsa(&mut self, curve: &str, length: usize) -> Result<(), KeyError> {
        if self.string()? != curve.as_bytes() {
            return Err(KeyError::Body);
        }
        let point = self.string()?;
        if point.len() == length && point.first() == Some(&4) { Ok(()) } else { Err(KeyError::Body) }
    }

    fn application(&mut self) -> Result<(), KeyError> {
        let text = self.string()?;
        let good = (1..=128).contains(&text.len()) && text.iter().all(u8::is_ascii_graphic);
        if good { Ok(()) } else { Err(KeyError::Body) }
    }
}

#[cfg(test)]
mod tests;
