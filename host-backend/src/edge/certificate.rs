//! A client certificate that a proxy passes on in a header: percent-encoded PEM, as nginx
//! writes `$ssl_client_escaped_cert`. Only decoded here; who reads it verifies it.

use hyper::HeaderMap;
use hyper::header::HeaderName;
use rustls_pki_types::CertificateDer;
use rustls_pki_types::pem::PemObject as _;

/// An encoded certificate is two or three KiB.
pub const MAX: usize = 8 * 1024;

#[derive(Debug, Clone, Copy, PartialEq, Eq, thiserror::Error)]
pub enum PassedError {
    #[error("the proxy passed no client certificate on")]
    Missing,
    #[error("the proxy passed several client certificates on")]
    Several,
    #[error("the passed client certificate has {0} bytes, at most {MAX} are taken")]
    TooLong(usize),
    #[error("the passed client certificate is no percent-encoded PEM of one certificate")]
    Malformed,
}

/// The certificate that `headers` have under `name`.
///
/// # Errors
/// When there is not exactly one, or it can't be read.
pub fn passed(headers: &HeaderMap, name: &HeaderName) -> Result<CertificateDer<'static>, PassedError> {
    let mut values = headers.get_all(name).iter();
    let value = values.next().ok_or(PassedError::Missing)?;
    if values.next().is_some() {
        return Err(PassedError::Several);
    }
    if value.len() > MAX {
        return Err(PassedError::TooLong(value.len()));
    }
    if value.is_empty() {
        return Err(PassedError::Missing);
    }
    decode(value.as_bytes())
}

/// # Errors
/// When it is not the percent-encoded PEM of one certificate.
pub fn decode(value: &[u8]) -> Result<CertificateDer<'static>, PassedError> {
    let pem = unescape(value).ok_or(PassedError::Malformed)?;
    let mut found = CertificateDer::pem_slice_iter(&pem);
    match (found.next(), found.next()) {
        (Some(Ok(certificate)), None) => Ok(certificate),
        _ => Err(PassedError::Malformed),
    }
}

/// RFC 3986 §2.1.
fn unescape(value: &[u8]) -> Option<Vec<u8>> {
    let mut out = Vec::with_capacity(value.len());
    let mut rest = value;
    while let [byte, after @ ..] = rest {
        rest = after;
        if *byte != b'%' {
            out.push(*byte);
            continue;
        }
        let [hi, lo, after @ ..] = rest else { return None };
        rest = after;
        let digit = |d: u8| char::from(d).to_digit(16);
        out.push(u8::try_from(digit(*hi)? * 16 + digit(*lo)?).ok()?);
    }
    Some(out)
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    const PEM: &str = "-----BEGIN CERTIFICATE-----\nAQID\n-----END CERTIFICATE-----\n";

    fn escape(text: &str) -> String {
        text.bytes()
            .map(|b| if b.is_ascii_alphanumeric() { char::from(b).to_string() } else { format!("%{b:02X}") })
            .collect()
    }

    fn ask(values: &[&str]) -> Result<CertificateDer<'static>, PassedError> {
        let name = HeaderName::from_static("x-client-cert");
        let mut headers = HeaderMap::new();
        for value in values {
            headers.append(&name, value.parse().unwrap());
        }
        passed(&headers, &name)
    }

    #[test]
    fn one_certificate_is_read() {
        assert_eq!(ask(&[&escape(PEM)]).unwrap().as_ref(), [1, 2, 3]);
    }

    #[test]
    fn none_several_long_and_malformed_ones_are_refused() {
        let good = escape(PEM);
        assert_eq!(ask(&[]), Err(PassedError::Missing));
        assert_eq!(ask(&[""]), Err(PassedError::Missing));
        assert_eq!(ask(&[&good, &good]), Err(PassedError::Several));
        assert_eq!(ask(&[&escape(&PEM.repeat(2))]), Err(PassedError::Malformed));
        assert_eq!(ask(&[&"a".repeat(MAX + 1)]), Err(PassedError::TooLong(MAX + 1)));
        let key = PEM.replace("CERTIFICATE", "PRIVATE KEY");
        for bad in ["SUCCESS", "%", "%4", "%zz", &good[..good.len() - 40], &escape(&key)] {
            assert_eq!(ask(&[bad]), Err(PassedError::Malformed), "{bad}");
        }
    }

    proptest! {
        #[test]
        fn escaped_text_comes_back(bytes: Vec<u8>) {
            let escaped: String = bytes.iter().map(|b| format!("%{b:02x}")).collect();
            prop_assert_eq!(unescape(escaped.as_bytes()), Some(bytes));
        }

        #[test]
        fn any_value_is_judged(bytes: Vec<u8>) {
            let _ = decode(&bytes);
        }
    }
}
