//! Certificates as others read them: names, purposes, signatures, files.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use clap::Parser as _;
use x509_parser::prelude::{CertificateRevocationList, FromDer as _, GeneralName, X509Certificate};

use super::authority::der;
use crate::error::{Error, Exit};
use crate::output::Out;

/// Run `viworks pki …` as an operator would type it.
fn pki(line: &str) -> Result<Exit, Error> {
    let cli = crate::Cli::try_parse_from(["viworks", "pki"].into_iter().chain(line.split(' '))).unwrap();
    match cli.command {
        crate::Command::Pki(command) => command.run(&Out::new(true)),
        other => panic!("{other:?}"),
    }
}

fn site() -> (tempfile::TempDir, String) {
    let dir = tempfile::tempdir().unwrap();
    let at = dir.path().join("pki").display().to_string();
    pki(&format!("init --out {at} --name Example")).unwrap();
    (dir, at)
}

/// The certificate's DER, after its signature and dates were checked under the CA.
fn checked(at: &str, name: &str) -> Vec<u8> {
    let read = |name: &str| {
        let path = Path::new(at).join(name);
        der(&path, &fs::read_to_string(&path).unwrap()).unwrap()
    };
    let (ca, cert) = (read("ca.pem"), read(name));
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    let (_, parsed) = X509Certificate::from_der(&cert).unwrap();
    parsed.verify_signature(Some(ca.public_key())).unwrap();
    assert_eq!(parsed.issuer(), ca.subject());
    assert!(parsed.validity().is_valid() && ca.is_ca() && !parsed.is_ca());
    assert!(parsed.validity().not_after <= ca.validity().not_after);
    cert
}

fn mode(path: &str) -> u32 {
    fs::metadata(path).unwrap().permissions().mode() & 0o777
}

#[test]
fn an_agents_certificate_names_the_agent_and_is_for_clients_only() {
    let (_dir, at) = site();
    pki(&format!("issue agent --dir {at} web-1")).unwrap();
    let cert = checked(&at, "agents/web-1.pem");
    let (_, cert) = X509Certificate::from_der(&cert).unwrap();
    let names = &cert.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names.as_slice(), [GeneralName::URI("spiffe://viworks/agent/web-1")]);
    let usage = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.client_auth && !usage.server_auth && !usage.any);
    let key = fs::read_to_string(format!("{at}/agents/web-1.key.pem")).unwrap();
    assert!(key.starts_with("-----BEGIN PRIVATE KEY-----"));
    assert_eq!(mode(&format!("{at}/agents/web-1.key.pem")), 0o600);
    assert_eq!(mode(&format!("{at}/ca.key.pem")), 0o600);
    assert_eq!(mode(&at), 0o700);
}

#[test]
fn the_backends_certificate_has_its_names_and_is_for_servers_only() {
    let (_dir, at) = site();
    pki(&format!("issue backend --dir {at} --dns viworks.example.com --ip 192.0.2.10 --ip 2001:db8::1")).unwrap();
    let cert = checked(&at, "backend.pem");
    let (_, cert) = X509Certificate::from_der(&cert).unwrap();
    let names = &cert.subject_alternative_name().unwrap().unwrap().value.general_names;
    assert_eq!(names[0], GeneralName::DNSName("viworks.example.com"));
    assert_eq!(names[1], GeneralName::IPAddress(&[192, 0, 2, 10]));
    assert_eq!(names.len(), 3);
    let usage = cert.extended_key_usage().unwrap().unwrap().value;
    assert!(usage.server_auth && !usage.client_auth);
    let pin = super::authority::pin(&Path::new(&at).join("backend.pem")).unwrap();
    assert_eq!((pin.len(), &pin[..7]), (7 + 44, "sha256/"));
}

#[test]
fn nothing_is_replaced_without_force() {
    let (_dir, at) = site();
    let ca = fs::read(format!("{at}/ca.pem")).unwrap();
    let again = pki(&format!("init --out {at}"));
    assert!(matches!(again, Err(Error::Exists(_))), "{again:?}");
    assert_eq!(fs::read(format!("{at}/ca.pem")).unwrap(), ca);
    pki(&format!("issue agent --dir {at} web-1")).unwrap();
    let key = fs::read(format!("{at}/agents/web-1.key.pem")).unwrap();
    assert!(matches!(pki(&format!("issue agent --dir {at} web-1")), Err(Error::Exists(_))));
    assert_eq!(fs::read(format!("{at}/agents/web-1.key.pem")).unwrap(), key);
    pki(&format!("issue agent --dir {at} --force web-1")).unwrap();
    assert_ne!(fs::read(format!("{at}/agents/web-1.key.pem")).unwrap(), key);
    checked(&at, "agents/web-1.pem");
    assert_eq!(fs::read_dir(format!("{at}/agents")).unwrap().count(), 2, "no file is left over");
}

#[test]
fn revoked_certificates_are_on_a_list_that_the_ca_signed() {
    let (_dir, at) = site();
    for id in ["web-1", "web-2", "web-3"] {
        pki(&format!("issue agent --dir {at} {id}")).unwrap();
    }
    for id in ["web-1", "web-2", "web-1"] {
        pki(&format!("revoke --dir {at} {at}/agents/{id}.pem")).unwrap();
    }
    let text = fs::read(format!("{at}/crl.pem")).unwrap();
    let (_, pem) = x509_parser::pem::parse_x509_pem(&text).unwrap();
    let (_, crl) = CertificateRevocationList::from_der(&pem.contents).unwrap();
    let ca = der(Path::new("ca.pem"), &fs::read_to_string(format!("{at}/ca.pem")).unwrap()).unwrap();
    let (_, ca) = X509Certificate::from_der(&ca).unwrap();
    crl.verify_signature(ca.public_key()).unwrap();
    let revoked: Vec<Vec<u8>> = crl.iter_revoked_certificates().map(|e| e.raw_serial().to_vec()).collect();
    let serial = |id: &str| {
        let cert = checked(&at, &format!("agents/{id}.pem"));
        let (_, cert) = X509Certificate::from_der(&cert).unwrap();
        cert.raw_serial().to_vec()
    };
    assert_eq!(revoked, [serial("web-1"), serial("web-2")]);
    assert_eq!(crl.crl_number().and_then(|n| u64::try_from(n).ok()), Some(4));
}

#[test]
fn foreign_certificates_and_malformed_names_are_refused() {
    let (_dir, at) = site();
    let (_other, foreign) = site();
    pki(&format!("issue agent --dir {foreign} web-1")).unwrap();
    let fault = pki(&format!("revoke --dir {at} {foreign}/agents/web-1.pem"));
    assert!(matches!(fault, Err(Error::Pki(super::Error::Foreign { .. }))), "{fault:?}");
    assert!(matches!(pki(&format!("revoke --dir {at} {at}/ca.pem")), Err(Error::Pki(super::Error::Foreign { .. }))));
    for line in ["issue agent --dir AT ../x", "issue agent --dir AT -- -x", "issue backend --dir AT --dns a_b"] {
        let ended = pki(&line.replace("AT", &at));
        assert!(matches!(ended, Err(Error::Usage(_))), "{line}: {ended:?}");
    }
}
