//! Bearer tokens: `viw_` and 32 random bytes in base64url. Refuses anything of another
//! shape before it is looked up. Only the SHA-256 ever leaves this file, and `Debug` shows
//! neither.

use axum::http::{HeaderMap, header};
use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use sha2::{Digest as _, Sha256};
use std::fmt;

const PREFIX: &str = "viw_";
const BYTES: usize = 32;

/// SHA-256 over a token's text: what is stored and looked up.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct TokenHash([u8; 32]);

/// A token that was just made; shown once to who asked for it.
pub struct NewToken {
    text: String,
}

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum TokenError {
    #[error("no bearer token: send `Authorization: Bearer viw_…`")]
    Missing,
    #[error("the Authorization header is not one bearer token of this backend")]
    Malformed,
}

impl TokenHash {
    /// Of the request's `Authorization: Bearer …`.
    ///
    /// # Errors
    /// When there is none, more than one, or it has not the shape of a token.
    pub fn from_headers(headers: &HeaderMap) -> Result<Self, TokenError> {
        let mut values = headers.get_all(header::AUTHORIZATION).iter();
        let value = values.next().ok_or(TokenError::Missing)?;
        if values.next().is_some() {
            return Err(TokenError::Malformed);
        }
        let text = value.to_str().map_err(|_| TokenError::Malformed)?;
        let (scheme, token) = text.split_once(' ').ok_or(TokenError::Malformed)?;
        if !scheme.eq_ignore_ascii_case("bearer") {
            return Err(TokenError::Malformed);
        }
        Self::of(token.trim()).ok_or(TokenError::Malformed)
    }

    /// `None` when `token` has not the shape of a token.
    #[must_use]
    pub fn of(token: &str) -> Option<Self> {
        let mut bytes = [0; BYTES];
        let decoded = URL_SAFE_NO_PAD.decode_slice(token.strip_prefix(PREFIX)?, &mut bytes).ok()?;
        (decoded == BYTES).then(|| Self(Sha256::digest(token.as_bytes()).into()))
    }

    #[must_use]
    pub fn as_bytes(&self) -> &[u8; 32] {
        &self.0
    }

    /// Lowercase hex, as the store keeps it.
    #[must_use]
    pub fn to_hex(&self) -> String {
        hex::encode(self.0)
    }
}

impl fmt::Debug for TokenHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("TokenHash(…)")
    }
}

impl NewToken {
    /// # Errors
    /// When the operating system has no randomness to give.
    pub fn generate() -> Result<Self, getrandom::Error> {
        let mut bytes = [0; BYTES];
        getrandom::fill(&mut bytes)?;
        Ok(Self { text: format!("{PREFIX}{}", URL_SAFE_NO_PAD.encode(bytes)) })
    }

    #[must_use]
    pub fn hash(&self) -> TokenHash {
        TokenHash(Sha256::digest(self.text.as_bytes()).into())
    }

    /// The secret itself, given away once.
    #[must_use]
    pub fn reveal(self) -> String {
        self.text
    }
}

impl fmt::Debug for NewToken {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("NewToken(…)")
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use axum::http::HeaderValue;

    fn headers(values: &[&str]) -> HeaderMap {
        let mut map = HeaderMap::new();
        for value in values {
            map.append(header::AUTHORIZATION, HeaderValue::from_str(value).unwrap());
        }
        map
    }

    #[test]
    fn a_new_token_is_found_by_its_header() {
        let new = NewToken::generate().unwrap();
        let hash = new.hash();
        let text = new.reveal();
        assert_eq!(text.len(), 47);
        assert_eq!(TokenHash::from_headers(&headers(&[&format!("bearer {text}")])), Ok(hash));
    }

    #[test]
    fn other_shapes_are_refused_before_any_lookup() {
        let good = NewToken::generate().unwrap().reveal();
        assert_eq!(TokenHash::from_headers(&headers(&[])), Err(TokenError::Missing));
        let twice = [format!("Bearer {good}"), format!("Bearer {good}")];
        assert_eq!(TokenHash::from_headers(&headers(&[&twice[0], &twice[1]])), Err(TokenError::Malformed));
        let short = format!("Bearer {}", &good[..46]);
        let long = format!("Bearer {good}A");
        for bad in ["", "Bearer", "Bearer ", "Basic dTpw", "Bearer viw_", "Bearer x", &short, &long, &good] {
            assert_eq!(TokenHash::from_headers(&headers(&[bad])), Err(TokenError::Malformed), "{bad}");
        }
    }

    #[test]
    fn debug_shows_no_secret() {
        let new = NewToken::generate().unwrap();
        assert_eq!(format!("{new:?} {:?}", new.hash()), "NewToken(…) TokenHash(…)");
    }
}
