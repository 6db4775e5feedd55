//! Certificates and revocation lists, judged by `openssl`.

use super::*;
use std::os::unix::fs::PermissionsExt;
use std::process::{Command, Output};

fn openssl(dir: &Path, args: &[&str]) -> Output {
    Command::new("openssl").args(args).current_dir(dir).output().unwrap()
}

fn good(dir: &Path, args: &[&str]) -> String {
    let output = openssl(dir, args);
    assert!(output.status.success(), "{args:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap()
}

/// An authority as a site has it: made by openssl, RSA or P-256.
fn authority(dir: &Path, algorithm: &[&str]) -> Authority {
    let mut args = vec!["genpkey", "-out", "ca.key"];
    args.extend(algorithm);
    good(dir, &args);
    let subject = "/C=DE/O=Example/OU=Roads/CN=Example VPN";
    good(dir, &["req", "-x509", "-new", "-key", "ca.key", "-days", "30", "-subj", subject, "-out", "ca.pem"]);
    std::fs::set_permissions(dir.join("ca.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    Authority::load(&dir.join("ca.pem"), &dir.join("ca.key")).unwrap()
}

const P256: [&str; 4] = ["-algorithm", "EC", "-pkeyopt", "ec_paramgen_curve:P-256"];

fn verifies(dir: &Path, cert: &str) -> bool {
    let args = ["verify", "-crl_check", "-purpose", "sslclient", "-CAfile", "ca.pem", "-CRLfile", "crl.pem", cert];
    openssl(dir, &args).status.success()
}

fn name(text: &str) -> PeerName {
    PeerName::try_from(text.to_owned()).unwrap()
}

#[test]
fn openssl_takes_certificates_until_they_are_revoked() {
    for algorithm in [&P256[..], &["-algorithm", "RSA", "-pkeyopt", "rsa_keygen_bits:2048"]] {
        let dir = tempfile::tempdir().unwrap();
        let (dir, authority) = (dir.path(), authority(dir.path(), algorithm));
        let serials = [Serial::random().unwrap(), Serial::random().unwrap()];
        for (serial, file) in serials.iter().zip(["a.pem", "b.pem"]) {
            let (private, public) = key_pair().unwrap();
            let (pem, _) = authority.issue(&name("road-1"), serial, &public, 30).unwrap();
            std::fs::write(dir.join(file), &pem).unwrap();
            std::fs::write(dir.join("k.pem"), private.as_bytes()).unwrap();
            let said = good(
                dir,
                &[
                    "x509",
                    "-in",
                    file,
                    "-noout",
                    "-serial",
                    "-subject",
                    "-ext",
                    "extendedKeyUsage,basicConstraints,keyUsage",
                ],
            );
            assert!(said.contains(&format!("serial={}", serial.to_string().to_uppercase())), "{said}");
            assert!(said.contains("CN = road-1") && said.contains("TLS Web Client Authentication"), "{said}");
            assert!(said.contains("CA:FALSE") && said.contains("Digital Signature"), "{said}");
            let of_cert = good(dir, &["x509", "-in", file, "-noout", "-pubkey"]);
            assert_eq!(of_cert, good(dir, &["pkey", "-in", "k.pem", "-pubout"]));
        }
        let write = |pem: &str| std::fs::write(dir.join("crl.pem"), pem).unwrap();
        let first = authority.next_list(b"", &serials[1], false, 30).unwrap().unwrap();
        write(&first);
        assert!(verifies(dir, "a.pem") && verifies(dir, "b.pem"));

        let second = authority.next_list(first.as_bytes(), &serials[0], true, 30).unwrap().unwrap();
        write(&second);
        assert!(!verifies(dir, "a.pem") && verifies(dir, "b.pem"));
        assert_eq!(authority.next_list(second.as_bytes(), &serials[0], true, 30).unwrap(), None);
        let said = good(dir, &["crl", "-in", "crl.pem", "-noout", "-crlnumber", "-text"]);
        assert!(said.contains("crlNumber=0x02"), "{said}");

        let third = authority.next_list(second.as_bytes(), &serials[1], true, 30).unwrap().unwrap();
        write(&third);
        assert!(!verifies(dir, "a.pem") && !verifies(dir, "b.pem"), "earlier entries stay");

        write(&authority.next_list(third.as_bytes(), &serials[0], false, 30).unwrap().unwrap());
        assert!(verifies(dir, "a.pem") && !verifies(dir, "b.pem"));
    }
}

#[test]
fn revocations_made_by_other_tools_stay() {
    let dir = tempfile::tempdir().unwrap();
    let (dir, authority) = (dir.path(), authority(dir.path(), &P256));
    std::fs::write(dir.join("index.txt"), "R\t490101000000Z\t260101000000Z,keyCompromise\t0A1B\tunknown\t/CN=old\n")
        .unwrap();
    std::fs::write(dir.join("number"), "FF\n").unwrap();
    std::fs::write(dir.join("ca.cnf"), "[ca]\ndefault_ca=d\n[d]\ndatabase=index.txt\ncrlnumber=number\ndefault_md=sha256\ndefault_crl_days=9\ncrl_extensions=x\n[x]\nauthorityKeyIdentifier=keyid\n").unwrap();
    good(dir, &["ca", "-gencrl", "-config", "ca.cnf", "-cert", "ca.pem", "-keyfile", "ca.key", "-out", "crl.pem"]);
    let theirs = std::fs::read(dir.join("crl.pem")).unwrap();
    let serial = Serial::random().unwrap();
    std::fs::write(dir.join("crl.pem"), authority.next_list(&theirs, &serial, true, 30).unwrap().unwrap()).unwrap();
    let said = good(dir, &["crl", "-in", "crl.pem", "-noout", "-crlnumber", "-text", "-CAfile", "ca.pem"]);
    assert!(said.contains("Serial Number: 0A1B") && said.contains("Key Compromise"), "{said}");
    assert!(said.contains(&serial.to_string().to_uppercase()) && said.contains("crlNumber=0x0100"), "{said}");
}

#[test]
fn foreign_lists_and_wrong_keys_are_refused() {
    let (one, two) = (tempfile::tempdir().unwrap(), tempfile::tempdir().unwrap());
    let (ours, theirs) = (authority(one.path(), &P256), authority(two.path(), &P256));
    let serial = Serial::random().unwrap();
    let list = theirs.next_list(b"", &serial, true, 30).unwrap().unwrap();
    let refused = ours.next_list(list.as_bytes(), &serial, true, 30);
    assert!(matches!(refused, Err(Failure::Unavailable(why)) if why.contains("not signed by the authority")));
    assert!(ours.next_list(b"rubbish", &serial, true, 30).is_err());

    let mixed = Authority::load(&one.path().join("ca.pem"), &two.path().join("ca.key"));
    assert!(matches!(mixed, Err(Failure::Unavailable(why)) if why.contains("is not the key of")));
    std::fs::set_permissions(one.path().join("ca.key"), std::fs::Permissions::from_mode(0o644)).unwrap();
    let open = Authority::load(&one.path().join("ca.pem"), &one.path().join("ca.key"));
    assert!(matches!(open, Err(Failure::Unavailable(why)) if why.contains("chmod 0600")));
}

#[test]
fn a_subject_that_cannot_be_repeated_is_refused() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path();
    let mut args = vec!["genpkey", "-out", "ca.key"];
    args.extend(P256);
    good(path, &args);
    good(path, &["req", "-x509", "-new", "-key", "ca.key", "-subj", "/OU=a/OU=b/CN=x", "-out", "ca.pem"]);
    std::fs::set_permissions(path.join("ca.key"), std::fs::Permissions::from_mode(0o600)).unwrap();
    let authority = Authority::load(&path.join("ca.pem"), &path.join("ca.key")).unwrap();
    let issued = authority.issue(&name("a"), &Serial::random().unwrap(), &key_pair().unwrap().1, 30);
    assert!(matches!(issued, Err(Failure::Unavailable(why)) if why.contains("subject")));
}

#[test]
fn only_armour_is_taken() {
    let block = "-----BEGIN X-----\nAAAA\n-----END X-----";
    let text = format!("noise </ca>\n{block}\r\nmore\n{block}");
    assert_eq!(armoured(text.as_bytes(), "X"), Some(format!("{block}\n{block}\n")));
    assert_eq!(armoured(b"-----BEGIN X-----\n</ca>\n-----END X-----", "X"), None);
    assert_eq!(armoured(b"-----BEGIN X-----\n", "X"), None);
}
