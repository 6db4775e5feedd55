//! `viworks pki`: the certificates of a small site: one CA (P-256), the backend's server
//! certificate, a client certificate for each gateway, and the revocation list. Keys are
//! files of their owner alone; nothing is replaced without `--force`. Refuses to be a
//! big site's CA: its key lies beside its certificates.

mod authority;
mod files;
mod revocation;

use std::net::IpAddr;
use std::path::{Path, PathBuf};

use clap::{ArgGroup, Subcommand};
use rcgen::{ExtendedKeyUsagePurpose, SanType};
use serde_json::json;
use viworks_protocol::id::AgentId;

pub use authority::Authority;

use crate::error::{Error as CliError, Exit};
use crate::output::Out;

/// What every gateway's certificate names: this and the agent's id.
pub const AGENT_URI: &str = "spiffe://viworks/agent/";

#[derive(Debug, thiserror::Error)]
pub enum Error {
    #[error("can't make the {what}")]
    Make { what: &'static str, source: rcgen::Error },
    #[error("{path}: not a {what} in PEM")]
    Parse { path: PathBuf, what: &'static str },
    #[error("{path}: not issued by the CA in {dir}")]
    Foreign { path: PathBuf, dir: PathBuf },
}

/// Certificates of a small site: a CA, the backend's and the gateways'.
#[derive(Debug, Subcommand)]
#[command(after_help = "\
Examples:
  viworks pki init --out pki --name \"Example Ltd\"
  viworks pki issue backend --dir pki --dns viworks.example.com --ip 192.0.2.10
  viworks pki issue agent --dir pki web-1
  viworks pki pin pki/backend.pem
  viworks pki revoke --dir pki pki/agents/web-1.pem")]
pub enum Command {
    /// Make a CA: ca.pem, ca.key.pem and an empty revocation list, crl.pem.
    Init {
        #[arg(long, value_name = "DIR", default_value = "pki")]
        out: PathBuf,
        /// The CA's common name.
        #[arg(long, default_value = "ViWorkS CA")]
        name: String,
        /// Days that it is valid.
        #[arg(long, default_value_t = 3650, value_parser = clap::value_parser!(u16).range(1..))]
        days: u16,
        /// Replace what is there: all certificates of the old CA become worthless.
        #[arg(long)]
        force: bool,
    },
    /// Issue a certificate.
    #[command(subcommand)]
    Issue(Issue),
    /// Revoke a certificate: adds it to the revocation list, crl.pem.
    Revoke {
        /// The certificate.
        cert: PathBuf,
        #[arg(long, value_name = "DIR", default_value = "pki")]
        dir: PathBuf,
    },
    /// Print a certificate's pin, sha256/…, as gateways take it.
    Pin {
        /// The certificate.
        cert: PathBuf,
    },
}

#[derive(Debug, Subcommand)]
pub enum Issue {
    /// The backend's server certificate: backend.pem and backend.key.pem.
    #[command(group = ArgGroup::new("names").required(true).multiple(true))]
    Backend {
        /// A DNS name that gateways dial.
        #[arg(long, group = "names")]
        dns: Vec<String>,
        /// An address that gateways dial.
        #[arg(long, group = "names")]
        ip: Vec<IpAddr>,
        /// The files' name, where there are several backends.
        #[arg(long, default_value = "backend")]
        name: String,
        #[command(flatten)]
        common: Common,
    },
    /// A gateway's client certificate: agents/ID.pem and agents/ID.key.pem.
    Agent {
        /// The agent's id.
        id: String,
        #[command(flatten)]
        common: Common,
    },
}

#[derive(Debug, clap::Args)]
pub struct Common {
    /// Where `pki init` made the CA.
    #[arg(long, value_name = "DIR", default_value = "pki")]
    dir: PathBuf,
    /// Days that it is valid, though not longer than the CA.
    #[arg(long, default_value_t = 397, value_parser = clap::value_parser!(u16).range(1..))]
    days: u16,
    /// Replace what is there.
    #[arg(long)]
    force: bool,
}

impl Command {
    /// # Errors
    /// Files that are there already or can't be read or written; certificates that are
    /// none, or another CA's.
    pub fn run(self, out: &Out) -> Result<Exit, CliError> {
        match self {
            Self::Init { out: dir, name, days, force } => {
                let targets = ["ca.pem", "ca.key.pem", "crl.pem"].map(|name| dir.join(name));
                files::refuse_existing(&targets, force)?;
                let (authority, key) = Authority::create(&name, days)?;
                let crl = revocation::empty(&authority)?;
                files::secret(&targets[1], &key, force)?;
                files::public(&targets[0], authority.cert_pem(), force)?;
                files::public(&targets[2], &crl, force)?;
                wrote(out, &targets)?;
            }
            Self::Issue(issue) => issue.run(out)?,
            Self::Revoke { cert, dir } => {
                let count = revocation::revoke(&dir, &cert)?;
                let crl = dir.join("crl.pem");
                out.show(&json!({ "crl": crl, "revoked": count }), |_| {
                    format!("{} lists {count} revoked; backends read it from agents_crl\n", crl.display())
                })?;
            }
            Self::Pin { cert } => {
                let pin = authority::pin(&cert)?;
                out.show(&json!({ "pin": pin }), |_| format!("{pin}\n"))?;
            }
        }
        Ok(Exit::Succeeded)
    }
}

impl Issue {
    fn run(self, out: &Out) -> Result<(), CliError> {
        match self {
            Self::Backend { dns, ip, name, common } => {
                AgentId::try_from(name.clone())
                    .map_err(|_| CliError::Usage(format!("--name {name:?} is no file name")))?;
                let mut names = Vec::new();
                for name in dns {
                    let fault = || CliError::Usage(format!("--dns {name:?} is no DNS name"));
                    names.push(SanType::DnsName(dns_name(&name).ok_or_else(fault)?));
                }
                names.extend(ip.into_iter().map(SanType::IpAddress));
                common.issue(out, &common.dir, &name, names, ExtendedKeyUsagePurpose::ServerAuth)
            }
            Self::Agent { id, common } => {
                let id = AgentId::try_from(id).map_err(|e| CliError::Usage(e.to_string()))?;
                let make = |source| Error::Make { what: "agent's name", source };
                let uri = SanType::URI(format!("{AGENT_URI}{}", id.as_str()).try_into().map_err(make)?);
                let dir = common.dir.join("agents");
                common.issue(out, &dir, id.as_str(), vec![uri], ExtendedKeyUsagePurpose::ClientAuth)
            }
        }
    }
}

impl Common {
    fn issue(
        &self,
        out: &Out,
        to: &Path,
        name: &str,
        names: Vec<SanType>,
        usage: ExtendedKeyUsagePurpose,
    ) -> Result<(), CliError> {
        let targets = [to.join(format!("{name}.pem")), to.join(format!("{name}.key.pem"))];
        files::refuse_existing(&targets, self.force)?;
        let issued = Authority::load(&self.dir)?.issue(name, names, usage, self.days)?;
        files::secret(&targets[1], &issued.key_pem, self.force)?;
        files::public(&targets[0], &issued.cert_pem, self.force)?;
        wrote(out, &targets)
    }
}

/// A name as RFC 1123 hosts have it, where the first label may be `*`.
fn dns_name(name: &str) -> Option<rcgen::string::Ia5String> {
    let label = |label: &str| {
        let inner = label.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-');
        (1..=63).contains(&label.len()) && inner && !label.starts_with('-') && !label.ends_with('-')
    };
    let rest = name.strip_prefix("*.").unwrap_or(name);
    let fine = name.len() <= 253 && rest.split('.').all(label);
    fine.then(|| name.to_owned().try_into().ok()).flatten()
}

fn wrote(out: &Out, paths: &[PathBuf]) -> Result<(), CliError> {
    out.show(&json!({ "files": paths }), |_| {
        paths.iter().map(|path| format!("wrote {}\n", path.display())).collect::<String>()
    })
}

#[cfg(test)]
mod tests;
