//! What a WireGuard user gets: keys made here, a configuration, a QR code. Refuses to keep
//! any of it.

use base64::{Engine as _, engine::general_purpose::STANDARD};
use qrcode::{EcLevel, QrCode, render::svg};
use x25519_dalek::{PublicKey, StaticSecret};
use zeroize::Zeroizing;

use super::super::pool::Cidr;
use super::super::{PRIVATE_KEY, random};
use super::Config;
use crate::failure::Failure;

/// A new private key and its public key, in base64.
///
/// # Errors
/// `unavailable` when the operating system gives no random bytes.
pub(in super::super) fn key_pair() -> Result<(Zeroizing<String>, String), Failure> {
    // Clamped as `wg genkey` does it (RFC 7748 §5), so that every program shows the same key.
    let mut seed = random::<32>()?;
    seed[0] &= 248;
    seed[31] = (seed[31] & 127) | 64;
    let secret = StaticSecret::from(*seed);
    let private = Zeroizing::new(STANDARD.encode(secret.as_bytes()));
    Ok((private, public_of(&seed)))
}

/// The public key, in base64, of a private one.
pub(super) fn public_of(private: &[u8; 32]) -> String {
    STANDARD.encode(PublicKey::from(&StaticSecret::from(*private)).as_bytes())
}

/// The client's configuration, with [`PRIVATE_KEY`] where that belongs.
pub(super) fn template(config: &Config, addresses: &[Cidr], server_key: &str, preshared_key: &str) -> String {
    let joined = |items: Vec<String>| items.join(", ");
    let addresses = joined(addresses.iter().map(Cidr::to_string).collect());
    let mut text = format!("[Interface]\nPrivateKey = {PRIVATE_KEY}\nAddress = {addresses}\n");
    if !config.dns.is_empty() {
        text += &format!("DNS = {}\n", joined(config.dns.iter().map(ToString::to_string).collect()));
    }
    let allowed = joined(config.allowed_ips.iter().map(Cidr::to_string).collect());
    text += &format!(
        "\n[Peer]\nPublicKey = {server_key}\nPresharedKey = {preshared_key}\nEndpoint = {}\nAllowedIPs = {allowed}\n",
        config.endpoint
    );
    if config.keepalive_secs > 0 {
        text += &format!("PersistentKeepalive = {}\n", config.keepalive_secs);
    }
    text
}

/// The configuration as phones read it; `None` where it is too long for a code.
pub(in super::super) fn qr_svg(configuration: &str) -> Option<String> {
    let code = [EcLevel::M, EcLevel::L]
        .into_iter()
        .find_map(|level| QrCode::with_error_correction_level(configuration.as_bytes(), level).ok())?;
    Some(code.render::<svg::Color<'_>>().min_dimensions(320, 320).build())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_are_clamped_fresh_and_belong_together() {
        let (secret, public) = key_pair().unwrap();
        let bytes = super::super::conf::key_bytes(&secret).unwrap();
        assert_eq!(public_of(&bytes), public);
        assert_eq!((bytes[0] & 7, bytes[31] & 192), (0, 64));
        assert_ne!(key_pair().unwrap().1, public);
    }

    #[test]
    fn public_keys_are_those_of_wg() {
        let (secret, public) = key_pair().unwrap();
        let mut wg = std::process::Command::new("wg")
            .arg("pubkey")
            .stdin(std::process::Stdio::piped())
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        std::io::Write::write_all(wg.stdin.as_mut().unwrap(), secret.as_bytes()).unwrap();
        let said = wg.wait_with_output().unwrap().stdout;
        assert_eq!(String::from_utf8(said).unwrap().trim(), public);
    }

    #[test]
    fn a_code_is_an_svg_and_a_book_is_none() {
        let svg = qr_svg("[Interface]\nPrivateKey = x\n").unwrap();
        assert!(svg.contains("<svg") && svg.ends_with("</svg>"));
        assert_eq!(qr_svg(&"x".repeat(3_000)), None);
    }
}
