//! Keys under a password, to and from OpenSSL; and its verifier on our signatures.

use super::*;
use crate::dsse::{Envelope, pae};
use base64::{Engine as _, engine::general_purpose::STANDARD};
use std::path::Path;
use std::process::{Command, Output};

fn openssl(dir: &Path, args: &[&str]) -> Output {
    Command::new("openssl").args(args).current_dir(dir).output().expect("openssl is installed")
}

#[test]
fn a_sealed_key_opens_with_its_password_only() {
    let key = SecretKey::generate();
    let pem = seal(&key, b"correct horse").unwrap();
    assert!(is_encrypted(&pem) && !is_encrypted(&key.to_pem().unwrap()));
    assert_eq!(open(&pem, b"correct horse").unwrap().public(), key.public());
    assert!(matches!(open(&pem, b"wrong"), Err(Error::Open)));
    assert!(matches!(open("no pem", b"x"), Err(Error::Pem(_))));
    assert_ne!(*pem, *seal(&key, b"correct horse").unwrap(), "salted");
}

#[test]
fn openssl_reads_sealed_and_plain_keys_and_we_read_its() {
    let dir = tempfile::tempdir().unwrap();
    let key = SecretKey::generate();
    let public = key.public().to_pem().unwrap();
    std::fs::write(dir.path().join("plain.pem"), key.to_pem().unwrap().as_bytes()).unwrap();
    std::fs::write(dir.path().join("sealed.pem"), seal(&key, b"pw").unwrap().as_bytes()).unwrap();
    let plain = openssl(dir.path(), &["pkey", "-in", "plain.pem", "-pubout"]);
    assert_eq!(String::from_utf8_lossy(&plain.stdout), public);
    let sealed = openssl(dir.path(), &["pkey", "-in", "sealed.pem", "-passin", "pass:pw", "-pubout"]);
    assert_eq!(String::from_utf8_lossy(&sealed.stdout), public, "{sealed:?}");
    let asn1 = openssl(dir.path(), &["asn1parse", "-in", "sealed.pem"]);
    let asn1 = String::from_utf8_lossy(&asn1.stdout).into_owned();
    for part in ["PBES2", "scrypt", "INTEGER           :4000", "aes-256-cbc"] {
        assert!(asn1.contains(part), "{part} in {asn1}");
    }

    let theirs = ["pkcs8", "-topk8", "-in", "plain.pem", "-scrypt", "-passout", "pass:pw", "-out", "theirs.pem"];
    assert!(openssl(dir.path(), &theirs).status.success());
    let pem = std::fs::read_to_string(dir.path().join("theirs.pem")).unwrap();
    assert_eq!(open(&pem, b"pw").unwrap().public(), key.public());
}

#[test]
fn openssl_verifies_our_envelopes_and_we_verify_its_signatures() {
    let dir = tempfile::tempdir().unwrap();
    let write = |name: &str, bytes: &[u8]| std::fs::write(dir.path().join(name), bytes).unwrap();
    let key = SecretKey::generate();
    let envelope = Envelope::sign("application/vnd.in-toto+json", b"{\"a\":1}", &[&key]);
    let message = pae(&envelope.payload_type, &STANDARD.decode(&envelope.payload).unwrap());
    write("pub.pem", key.public().to_pem().unwrap().as_bytes());
    write("key.pem", key.to_pem().unwrap().as_bytes());
    write("pae", &message);
    write("sig", &STANDARD.decode(&envelope.signatures[0].sig).unwrap());
    let verify = ["pkeyutl", "-verify", "-pubin", "-inkey", "pub.pem", "-rawin", "-in", "pae", "-sigfile", "sig"];
    let verified = openssl(dir.path(), &verify);
    assert!(verified.status.success(), "{verified:?}");
    write("pae", &[message.as_slice(), b" "].concat());
    assert!(!openssl(dir.path(), &verify).status.success());

    write("pae", &message);
    let sign = ["pkeyutl", "-sign", "-inkey", "key.pem", "-rawin", "-in", "pae", "-out", "theirs"];
    assert!(openssl(dir.path(), &sign).status.success());
    let signature: [u8; 64] = std::fs::read(dir.path().join("theirs")).unwrap().try_into().unwrap();
    assert!(key.public().verify(&message, &signature));
}
