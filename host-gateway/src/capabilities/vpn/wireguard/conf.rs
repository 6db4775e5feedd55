//! The text of a WireGuard configuration (wg(8), wg-quick(8)): finds the peers that the
//! gateway wrote, adds and removes whole ones. Refuses a file whose gateway marks are
//! damaged; every byte that the gateway didn't write stays as it is.

use std::ops::Range;

use base64::{Engine as _, engine::general_purpose::STANDARD};
use zeroize::Zeroizing;

use super::super::name::PeerName;
use super::super::pool::Cidr;

const MARK: &str = "# viworks:";

/// wg-quick's own keys in `[Interface]`, which wg does not know.
const QUICK_KEYS: [&str; 9] =
    ["address", "dns", "mtu", "table", "preup", "postup", "predown", "postdown", "saveconfig"];

/// What a configuration says, and where.
#[derive(Debug)]
pub(super) struct Conf<'a> {
    lines: Vec<&'a [u8]>,
    pub(super) private_key: Option<Zeroizing<[u8; 32]>>,
    /// The server's own addresses.
    pub(super) addresses: Vec<Cidr>,
    /// wg-quick writes the file anew when the interface goes down, and the marks are lost.
    pub(super) save_config: bool,
    /// The allowed addresses of all peers.
    pub(super) allowed: Vec<Cidr>,
    /// The public keys of all peers.
    pub(super) keys: Vec<String>,
    /// The peers with the gateway's mark, in the file's order.
    pub(super) peers: Vec<Peer>,
}

/// A peer that the gateway wrote.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Peer {
    pub(super) name: PeerName,
    /// RFC 3339, UTC.
    pub(super) created: String,
    pub(super) public_key: String,
    pub(super) addresses: Vec<Cidr>,
    /// From the header to the last line that says something; comments behind it belong to
    /// whatever follows.
    lines: Range<usize>,
}

#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("line {line}: {problem}")]
pub(super) struct ConfError {
    pub(super) line: usize,
    pub(super) problem: &'static str,
}

#[derive(Debug, Default)]
struct Section {
    header: usize,
    last: usize,
    mark: Option<(PeerName, String)>,
    public_key: Option<String>,
    addresses: Vec<Cidr>,
}

#[derive(Debug)]
enum Place {
    Nowhere,
    Interface,
    Peer(Section),
    Foreign,
}

impl<'a> Conf<'a> {
    /// # Errors
    /// The first line that can't be trusted.
    pub(super) fn parse(bytes: &'a [u8]) -> Result<Self, ConfError> {
        let lines: Vec<_> = bytes.split_inclusive(|b| *b == b'\n').collect();
        let mut conf = Self {
            lines,
            private_key: None,
            addresses: Vec::new(),
            save_config: false,
            allowed: Vec::new(),
            keys: Vec::new(),
            peers: Vec::new(),
        };
        let mut place = Place::Nowhere;
        for index in 0..conf.lines.len() {
            let error = |problem| ConfError { line: index + 1, problem };
            let line = String::from_utf8_lossy(conf.lines[index]);
            let line = line.trim();
            if line.starts_with(MARK) {
                let Place::Peer(section) = &mut place else { return Err(error("a gateway mark outside a peer")) };
                let mark = parse_mark(line).ok_or_else(|| error("a damaged gateway mark"))?;
                if section.mark.replace(mark).is_some() {
                    return Err(error("a second gateway mark in one peer"));
                }
                section.last = index;
                continue;
            }
            let said = line.split('#').next().unwrap_or_default().trim();
            if said.is_empty() {
                continue;
            }
            if said.starts_with('[') {
                conf.close(place)?;
                place = match said.to_ascii_lowercase().as_str() {
                    "[interface]" => Place::Interface,
                    "[peer]" => Place::Peer(Section { header: index, last: index, ..Section::default() }),
                    _ => Place::Foreign,
                };
                continue;
            }
            let (key, value) = said.split_once('=').unwrap_or((said, ""));
            let (key, value) = (key.trim().to_ascii_lowercase(), value.trim());
            match (&mut place, key.as_str()) {
                (Place::Interface, "privatekey") => {
                    conf.private_key = Some(key_bytes(value).ok_or_else(|| error("PrivateKey is not a key"))?);
                }
                (Place::Interface, "address") => {
                    conf.addresses.extend(cidrs(value).ok_or_else(|| error("Address is malformed"))?);
                }
                (Place::Interface, "saveconfig") => conf.save_config |= value.eq_ignore_ascii_case("true"),
                (Place::Peer(section), name) => {
                    section.last = index;
                    if name == "publickey" {
                        key_bytes(value).ok_or_else(|| error("PublicKey is not a key"))?;
                        section.public_key = Some(value.to_owned());
                    } else if name == "allowedips" {
                        section.addresses.extend(cidrs(value).ok_or_else(|| error("AllowedIPs is malformed"))?);
                    }
                }
                _ => {}
            }
        }
        conf.close(place)?;
        Ok(conf)
    }

    fn close(&mut self, place: Place) -> Result<(), ConfError> {
        let Place::Peer(section) = place else { return Ok(()) };
        let error = |problem| ConfError { line: section.header + 1, problem };
        self.allowed.extend(&section.addresses);
        self.keys.extend(section.public_key.clone());
        let Some((name, created)) = section.mark else { return Ok(()) };
        let public_key = section.public_key.ok_or_else(|| error("a gateway's peer without PublicKey"))?;
        if self.peers.iter().any(|p| p.name == name) {
            return Err(error("a second gateway's peer of the same name"));
        }
        let lines = section.header..section.last + 1;
        self.peers.push(Peer { name, created, public_key, addresses: section.addresses, lines });
        Ok(())
    }

    pub(super) fn find(&self, name: &PeerName) -> Option<&Peer> {
        self.peers.iter().find(|p| p.name == *name)
    }

    /// The file with `block` behind everything else, set off by one empty line.
    pub(super) fn with(&self, block: &[u8]) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(self.lines.concat());
        if out.last().is_some_and(|b| *b != b'\n') {
            out.push(b'\n');
        }
        out.push(b'\n');
        out.extend_from_slice(block);
        out
    }

    /// The file without that peer, and the peer's own bytes.
    pub(super) fn without(&self, peer: &Peer) -> (Zeroizing<Vec<u8>>, Zeroizing<Vec<u8>>) {
        let mut before = peer.lines.start;
        if before > 0 && self.lines[before - 1].trim_ascii().is_empty() {
            before -= 1;
        }
        let mut block = Zeroizing::new(self.lines[peer.lines.clone()].concat());
        if block.last() != Some(&b'\n') {
            block.push(b'\n');
        }
        let mut out = Zeroizing::new(self.lines[..before].concat());
        out.extend(self.lines[peer.lines.end..].iter().copied().flatten());
        (out, block)
    }

    /// The file as `wg syncconf` wants it: without what only wg-quick knows.
    pub(super) fn stripped(&self) -> Zeroizing<Vec<u8>> {
        let mut out = Zeroizing::new(Vec::new());
        let mut in_interface = false;
        for line in &self.lines {
            let text = String::from_utf8_lossy(line);
            let said = text.split('#').next().unwrap_or_default().trim().to_ascii_lowercase();
            if said.starts_with('[') {
                in_interface = said == "[interface]";
            }
            let key = said.split('=').next().unwrap_or_default().trim();
            if !(in_interface && QUICK_KEYS.contains(&key)) {
                out.extend_from_slice(line);
            }
        }
        out
    }
}

/// A peer as the gateway writes it. `preshared_key` is base64.
pub(super) fn block(
    name: &PeerName,
    created: &str,
    public_key: &str,
    preshared_key: &str,
    addresses: &[Cidr],
) -> Zeroizing<String> {
    let addresses = addresses.iter().map(Cidr::to_string).collect::<Vec<_>>().join(", ");
    Zeroizing::new(format!(
        "[Peer]\n{MARK} name={name} created={created}\nPublicKey = {public_key}\nPresharedKey = {preshared_key}\nAllowedIPs = {addresses}\n"
    ))
}

/// The 32 bytes of a key in base64.
pub(super) fn key_bytes(text: &str) -> Option<Zeroizing<[u8; 32]>> {
    let bytes = Zeroizing::new(STANDARD.decode(text).ok()?);
    <[u8; 32]>::try_from(bytes.as_slice()).ok().map(Zeroizing::new)
}

fn parse_mark(line: &str) -> Option<(PeerName, String)> {
    let mut words = line.strip_prefix(MARK)?.split(' ').filter(|w| !w.is_empty());
    let name = words.next()?.strip_prefix("name=")?;
    let created = words.next()?.strip_prefix("created=")?;
    time::OffsetDateTime::parse(created, &time::format_description::well_known::Rfc3339).ok()?;
    if words.next().is_some() {
        return None;
    }
    Some((PeerName::try_from(name.to_owned()).ok()?, created.to_owned()))
}

fn cidrs(value: &str) -> Option<Vec<Cidr>> {
    // A sign before an address adds to or takes from a live interface's list (wg 1.0.20250521).
    value
        .split(',')
        .map(str::trim)
        .filter(|t| !t.is_empty())
        .map(|t| Cidr::parse(t.trim_start_matches(['+', '-'])))
        .collect()
}

#[cfg(test)]
mod tests;
