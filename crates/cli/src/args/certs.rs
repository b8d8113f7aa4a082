//! `certs`.

use std::path::PathBuf;

use berth_contract::{DnsHook, Proof};
use berth_spec::{HostName, Millis};
use clap::{ArgGroup, Args, Subcommand, ValueEnum};

/// `berth certs`
#[derive(Debug, Clone, Args)]
pub struct CertsArgs {
    /// What to do; nothing lists.
    #[command(subcommand)]
    pub action: Option<CertsAction>,
}

/// What to do with certificates.
#[derive(Debug, Clone, Subcommand)]
pub enum CertsAction {
    /// Have certificates come by themselves, from Let's Encrypt or another ACME server, whose terms you agree to with it
    Acme(AcmeArgs),
    /// Bring a certificate of your own
    Add {
        /// The chain as PEM: its own certificate first, then those above it
        #[arg(long, value_name = "FILE")]
        chain: PathBuf,
        /// The key as PEM
        #[arg(long, value_name = "FILE")]
        key: PathBuf,
    },
    /// Remove a certificate
    Remove {
        /// Its id, or the beginning of it
        #[arg(value_name = "ID")]
        id: String,
    },
    /// Ask for a certificate now, whether it is time or not
    Renew {
        /// The host
        #[arg(value_name = "HOST")]
        host: HostName,
    },
    /// Print the certificate of this machine's own authority, which issues for hosts below localhost, for browsers to trust
    Ca,
    /// List the certificates and how each host stands
    List,
}

/// `berth certs acme`
#[derive(Debug, Clone, Args)]
#[command(group(ArgGroup::new("server").args(["directory", "staging", "off"])))]
pub struct AcmeArgs {
    /// Whom the server writes to when something is about to go wrong
    #[arg(long, value_name = "ADDRESS")]
    pub email: Option<String>,
    /// The address of the server's directory [default: Let's Encrypt's]
    #[arg(long, value_name = "URL")]
    pub directory: Option<String>,
    /// Let's Encrypt's server for trying out, whose certificates no browser takes
    #[arg(long)]
    pub staging: bool,
    /// Ask for no more certificates; those that there are stay
    #[arg(long)]
    pub off: bool,
    /// How it is shown that a host is yours: http-01 at port 80, tls-alpn-01 at port 443, dns-01 by --dns-hook. Wildcards are proven by DNS
    /// whatever is said here
    #[arg(long, value_enum, value_name = "PROOF", default_value = "http-01", hide_possible_values = true)]
    pub proof: ProofArg,
    /// A program on the platform's machine that writes to DNS. It is called as PATH present NAME VALUE to have a TXT record there, and as
    /// PATH cleanup NAME VALUE to have it gone, as lego's provider exec calls one
    #[arg(long, value_name = "PATH")]
    pub dns_hook: Option<String>,
    /// How long the servers of the zone may take after that to have it all
    #[arg(long, value_name = "TIME", default_value_t = DnsHook::usual_wait(), requires = "dns_hook")]
    pub dns_wait: Millis,
    /// How long the program may run
    #[arg(long, value_name = "TIME", default_value_t = DnsHook::usual_timeout(), requires = "dns_hook")]
    pub dns_timeout: Millis,
    /// The authorities that the server itself is believed by, as PEM, when they are not the machine's
    #[arg(long, value_name = "FILE")]
    pub authorities: Option<PathBuf>,
    /// The id of an external account, for servers that want one
    #[arg(long, value_name = "ID", requires = "external_key_file")]
    pub external_id: Option<String>,
    /// The file with its key
    #[arg(long, value_name = "FILE", requires = "external_id")]
    pub external_key_file: Option<PathBuf>,
}

/// A proof as it is typed.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub enum ProofArg {
    /// At port 80
    #[value(name = "http-01")]
    Http01,
    /// At port 443
    #[value(name = "tls-alpn-01")]
    TlsAlpn01,
    /// In DNS
    #[value(name = "dns-01")]
    Dns01,
}

impl From<ProofArg> for Proof {
    fn from(proof: ProofArg) -> Self {
        match proof {
            ProofArg::Http01 => Self::Http01,
            ProofArg::TlsAlpn01 => Self::TlsAlpn01,
            ProofArg::Dns01 => Self::Dns01,
        }
    }
}
