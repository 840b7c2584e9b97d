//! The configuration of one node: a TOML file, read whole and checked whole before anything starts.
//!
//! ```toml
//! [node]
//! dir = "store"                  # the engine's folder
//! organisation = "epost.test"
//! listen = "127.0.0.1:4100"      # QUIC, UDP
//! status = "127.0.0.1:4200"      # HTTP status page, loopback only
//! certificate = "node.crt"       # X.509, DER or PEM
//! key = "node.key"               # PKCS#8, DER or PEM, mode 0600
//! authority = "authority.crt"    # the organisation's CA certificate
//! ring = "ring.epost"            # the signed ring document
//! secret = "node.secret"         # 32 bytes, mode 0600: opens the node-local slots of key files
//!
//! [engine]                       # all of it optional
//! shards = 1
//! scrub_days = 30                # all stored data is read again and checked in so many days; 0: never
//!
//! [mail]                         # optional: this node is a gateway
//! domain = "epost.test"
//! hostname = "localhost"
//! ring_secret = "ring.secret"    # mode 0600
//! tls_certificate = "mail.crt"   # made on the first start if missing
//! tls_key = "mail.key"
//!
//! [[account]]
//! address = "alice@epost.test"
//! key_file = "alice.key"         # mode 0600
//! smtp_starttls = "127.0.0.1:2587"
//! smtp_tls = "127.0.0.1:2465"
//! imap_starttls = "127.0.0.1:2143"
//! imap_tls = "127.0.0.1:2993"
//! ```
//!
//! Relative paths are relative to the file's own folder, so that a data folder can be moved. A key this version
//! does not know is refused rather than passed over: a misspelt bound must not silently be the default.

use post::mail::limits::MESSAGE_BYTES_MAX;
use serde::{Deserialize, Serialize};
use std::collections::BTreeSet;
use std::fs;
use std::io::Read;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// Largest file this node reads at start: certificate, key, ring document, key file.
pub const FILE_BYTES_MAX: u64 = 4 << 20;

/// Length of the node's own secret in bytes.
pub const NODE_SECRET_BYTES: usize = 32;

/// Everything one node is told.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct Config {
    /// Who this node is and where it listens.
    pub node: NodeSection,
    /// The store.
    #[serde(default)]
    pub engine: EngineSection,
    /// Mail, if this node is somebody's gateway.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub mail: Option<MailSection>,
    /// The users whose gateway this is.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub account: Vec<AccountSection>,
}

/// Who this node is and where it listens.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct NodeSection {
    /// The engine's folder; created on the first start.
    pub dir: PathBuf,
    /// The organisation that enrolled this node, as in its certificate.
    pub organisation: String,
    /// UDP address of the QUIC endpoint; what the ring document says of this host must lead here.
    pub listen: SocketAddr,
    /// TCP address of the status page; must be loopback.
    pub status: SocketAddr,
    /// This node's certificate, issued by the authority.
    pub certificate: PathBuf,
    /// The certificate's private key.
    pub key: PathBuf,
    /// The authority's certificate.
    pub authority: PathBuf,
    /// The signed ring document.
    pub ring: PathBuf,
    /// 32 secret bytes that open the node-local slots of this node's key files.
    pub secret: PathBuf,
}

/// The store. Every value has a default.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields, default)]
pub struct EngineSection {
    /// Shard threads, each with an io_uring of its own.
    pub shards: usize,
    /// Most bytes the store may hold on disk.
    pub capacity_bytes: u64,
    /// Size of one segment file.
    pub segment_bytes: u32,
    /// Resolution of lease expiry in seconds; fixed when the store is created.
    pub tick_s: u32,
    /// How often expired leases are swept, in seconds.
    pub sweep_s: u64,
    /// In how many days all stored data is read again to find rot, so that replicas can repair it; 0 for never.
    pub scrub_days: u32,
}

impl Default for EngineSection {
    fn default() -> EngineSection {
        EngineSection {
            shards: 1,
            capacity_bytes: 16 << 30,
            segment_bytes: 64 << 20,
            tick_s: 3600,
            sweep_s: 60,
            scrub_days: 30,
        }
    }
}

/// Mail, if this node is somebody's gateway.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct MailSection {
    /// The mail domain of the ring's organisation.
    pub domain: String,
    /// The name SMTP and IMAP greet with and the mail certificate is made for.
    pub hostname: String,
    /// Largest message accepted, in bytes.
    #[serde(default = "message_bytes_max")]
    pub message_bytes_max: usize,
    /// File with the ring's convergence secret, held by gateways only.
    pub ring_secret: PathBuf,
    /// Certificate of the mail listeners (ECDSA P-256); made on the first start if missing.
    pub tls_certificate: PathBuf,
    /// Its private key.
    pub tls_key: PathBuf,
}

fn message_bytes_max() -> usize {
    25 << 20
}

/// One user whose gateway this is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct AccountSection {
    /// The user's address.
    pub address: String,
    /// The user's key file.
    pub key_file: PathBuf,
    /// SMTP submission that is upgraded by STARTTLS.
    pub smtp_starttls: SocketAddr,
    /// SMTP submission over TLS from the first byte.
    pub smtp_tls: SocketAddr,
    /// IMAP that is upgraded by STARTTLS.
    pub imap_starttls: SocketAddr,
    /// IMAP over TLS from the first byte.
    pub imap_tls: SocketAddr,
}

/// Why a configuration, or a file it names, cannot be used. Each is one line that says what to do.
#[derive(Debug, thiserror::Error)]
pub enum ConfigError {
    /// A file cannot be read.
    #[error("cannot read {path}: {source}")]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// What the system said.
        source: std::io::Error,
    },
    /// The file is not the TOML this version understands.
    #[error("{path} is not a node configuration: {reason}")]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Where and why, in one line.
        reason: String,
    },
    /// A value makes no sense, alone or beside another.
    #[error("{path}: {field} {rule}")]
    Invalid {
        /// The configuration file.
        path: PathBuf,
        /// The key.
        field: &'static str,
        /// What it must be.
        rule: &'static str,
    },
    /// Others could read a secret.
    #[error("{path} holds a secret and is readable by others (mode {mode:03o}); run: chmod 600 {path}")]
    Exposed {
        /// The file.
        path: PathBuf,
        /// Its permission bits.
        mode: u32,
    },
    /// A file is larger than anything of its kind.
    #[error("{path} is larger than {FILE_BYTES_MAX} bytes: not the file meant here")]
    TooLarge {
        /// The file.
        path: PathBuf,
    },
    /// The node's secret is not 32 bytes long.
    #[error("{path} must hold exactly {NODE_SECRET_BYTES} bytes; restore it, or enrol the node anew")]
    BadSecret {
        /// The file.
        path: PathBuf,
    },
}

impl Config {
    /// Reads and checks a configuration file; relative paths in the result lead from the current folder.
    ///
    /// # Errors
    /// [`ConfigError`], when the file cannot be read, does not parse, contradicts itself, or names a secret that
    /// others may read.
    pub fn load(path: &Path) -> Result<Config, ConfigError> {
        let text = public_file(path)?;
        let malformed = |reason: String| ConfigError::Malformed { path: path.to_owned(), reason: one_line(&reason) };
        let text = std::str::from_utf8(&text).map_err(|e| malformed(e.to_string()))?;
        let mut config: Config = toml::from_str(text).map_err(|e| malformed(e.to_string()))?;
        config.resolve(path.parent().unwrap_or(Path::new("")));
        config.check(path)?;
        config.check_secrets()?;
        Ok(config)
    }

    /// The file that [`Config::load`] reads back, paths as they stand.
    #[must_use]
    pub fn to_toml(&self) -> String {
        toml::to_string(self).expect("tables come after values in every section")
    }

    fn resolve(&mut self, base: &Path) {
        let node = &mut self.node;
        let mut paths = vec![
            &mut node.dir,
            &mut node.certificate,
            &mut node.key,
            &mut node.authority,
            &mut node.ring,
            &mut node.secret,
        ];
        if let Some(mail) = &mut self.mail {
            paths.extend([&mut mail.ring_secret, &mut mail.tls_certificate, &mut mail.tls_key]);
        }
        paths.extend(self.account.iter_mut().map(|account| &mut account.key_file));
        for path in paths {
            *path = base.join(&path);
        }
    }

    /// What must hold whatever the files contain.
    fn check(&self, path: &Path) -> Result<(), ConfigError> {
        let demand = |holds: bool, field: &'static str, rule: &'static str| {
            if holds { Ok(()) } else { Err(ConfigError::Invalid { path: path.to_owned(), field, rule }) }
        };
        let engine = &self.engine;
        demand(self.node.status.ip().is_loopback(), "node.status", "must be a loopback address")?;
        demand(!self.node.organisation.is_empty(), "node.organisation", "must not be empty")?;
        demand((1..=64).contains(&engine.shards), "engine.shards", "must be between 1 and 64")?;
        demand(engine.tick_s >= 1, "engine.tick_s", "must be at least 1")?;
        demand(engine.sweep_s >= 1, "engine.sweep_s", "must be at least 1")?;
        demand(engine.segment_bytes >= 8 << 20, "engine.segment_bytes", "must be at least 8 MiB")?;
        let smallest = 2 * u64::from(engine.segment_bytes) * engine.shards as u64;
        demand(engine.capacity_bytes >= smallest, "engine.capacity_bytes", "must hold two segments per shard")?;
        demand(self.account.is_empty() || self.mail.is_some(), "account", "needs a [mail] section")?;
        if let Some(mail) = &self.mail {
            demand(!mail.domain.is_empty(), "mail.domain", "must not be empty")?;
            demand(!mail.hostname.is_empty(), "mail.hostname", "must not be empty")?;
            let sizes = (64 << 10)..=MESSAGE_BYTES_MAX;
            demand(sizes.contains(&mail.message_bytes_max), "mail.message_bytes_max", "must be 64 KiB to 50 MiB")?;
        }
        let mut addresses = BTreeSet::new();
        let mut sockets = BTreeSet::from([self.node.status]);
        for account in &self.account {
            demand(account.address.contains('@'), "account.address", "must be a mail address")?;
            let new = addresses.insert(account.address.to_lowercase());
            demand(new, "account.address", "appears twice")?;
            for socket in account.listeners() {
                demand(socket.port() == 0 || sockets.insert(socket), "account", "uses a listening address twice")?;
            }
        }
        Ok(())
    }

    /// Refuses secrets that others may read. The mail key may not exist yet.
    fn check_secrets(&self) -> Result<(), ConfigError> {
        require_private(&self.node.key)?;
        require_private(&self.node.secret)?;
        if let Some(mail) = &self.mail {
            require_private(&mail.ring_secret)?;
            if mail.tls_key.exists() {
                require_private(&mail.tls_key)?;
            }
        }
        self.account.iter().try_for_each(|account| require_private(&account.key_file))
    }
}

impl NodeSection {
    /// Reads the node's own secret.
    ///
    /// # Errors
    /// [`ConfigError`], when it cannot be read, is exposed, or has not the right length.
    pub fn read_secret(&self) -> Result<Zeroizing<[u8; NODE_SECRET_BYTES]>, ConfigError> {
        let bytes = secret_file(&self.secret)?;
        let secret = <[u8; NODE_SECRET_BYTES]>::try_from(bytes.as_slice());
        secret.map(Zeroizing::new).map_err(|_| ConfigError::BadSecret { path: self.secret.clone() })
    }
}

impl AccountSection {
    /// The four addresses this account listens on.
    #[must_use]
    pub fn listeners(&self) -> [SocketAddr; 4] {
        [self.smtp_starttls, self.smtp_tls, self.imap_starttls, self.imap_tls]
    }
}

/// Reads a file that is no secret, within [`FILE_BYTES_MAX`].
///
/// # Errors
/// [`ConfigError::Unreadable`] or [`ConfigError::TooLarge`].
pub fn public_file(path: &Path) -> Result<Vec<u8>, ConfigError> {
    let mut bytes = Vec::new();
    read_bounded(path, &mut bytes)?;
    Ok(bytes)
}

/// Reads a file that holds a secret; refuses it when others may read it. The bytes are wiped when dropped.
///
/// # Errors
/// As [`public_file`], or [`ConfigError::Exposed`].
pub fn secret_file(path: &Path) -> Result<Zeroizing<Vec<u8>>, ConfigError> {
    require_private(path)?;
    // Room for the whole file at once: growing would leave copies of the secret behind.
    let length = fs::metadata(path).map_err(|e| unreadable(path, e))?.len().min(FILE_BYTES_MAX);
    let mut bytes = Zeroizing::new(Vec::with_capacity(usize::try_from(length).unwrap_or(0) + 64));
    read_bounded(path, &mut bytes)?;
    Ok(bytes)
}

fn require_private(path: &Path) -> Result<(), ConfigError> {
    let mode = fs::metadata(path).map_err(|e| unreadable(path, e))?.permissions().mode() & 0o777;
    if mode & 0o077 == 0 { Ok(()) } else { Err(ConfigError::Exposed { path: path.to_owned(), mode }) }
}

fn read_bounded(path: &Path, into: &mut Vec<u8>) -> Result<(), ConfigError> {
    let file = fs::File::open(path).map_err(|e| unreadable(path, e))?;
    file.take(FILE_BYTES_MAX + 1).read_to_end(into).map_err(|e| unreadable(path, e))?;
    if into.len() as u64 > FILE_BYTES_MAX {
        return Err(ConfigError::TooLarge { path: path.to_owned() });
    }
    Ok(())
}

fn unreadable(path: &Path, source: std::io::Error) -> ConfigError {
    ConfigError::Unreadable { path: path.to_owned(), source }
}

/// Parser messages draw the offending line over several; a start-up error is one line.
fn one_line(text: &str) -> String {
    text.split_whitespace().collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    //! Goal: a configuration is taken whole or refused with its reason. Method: a good one in a real folder,
    //! then one change at a time.
    use super::*;

    fn good() -> Config {
        let at = |port: u16| SocketAddr::from(([127, 0, 0, 1], port));
        Config {
            node: NodeSection {
                dir: "store".into(),
                organisation: "epost.test".into(),
                listen: at(4100),
                status: at(4200),
                certificate: "node.crt".into(),
                key: "node.key".into(),
                authority: "authority.crt".into(),
                ring: "ring.epost".into(),
                secret: "node.secret".into(),
            },
            engine: EngineSection::default(),
            mail: Some(MailSection {
                domain: "epost.test".into(),
                hostname: "localhost".into(),
                message_bytes_max: message_bytes_max(),
                ring_secret: "ring.secret".into(),
                tls_certificate: "mail.crt".into(),
                tls_key: "mail.key".into(),
            }),
            account: vec![AccountSection {
                address: "alice@epost.test".into(),
                key_file: "alice.key".into(),
                smtp_starttls: at(2587),
                smtp_tls: at(2465),
                imap_starttls: at(2143),
                imap_tls: at(2993),
            }],
        }
    }

    fn folder() -> tempfile::TempDir {
        let folder = tempfile::tempdir().unwrap();
        for name in ["node.key", "node.secret", "ring.secret", "alice.key"] {
            let path = folder.path().join(name);
            fs::write(&path, [7; 32]).unwrap();
            fs::set_permissions(&path, fs::Permissions::from_mode(0o600)).unwrap();
        }
        folder
    }

    fn load(folder: &tempfile::TempDir, text: &str) -> Result<Config, ConfigError> {
        let path = folder.path().join("node.toml");
        fs::write(&path, text).unwrap();
        Config::load(&path)
    }

    #[test]
    fn what_is_written_is_read_back_with_paths_resolved() {
        let folder = folder();
        let read = load(&folder, &good().to_toml()).unwrap();
        let mut expected = good();
        expected.resolve(folder.path());
        assert_eq!(read, expected);
        assert_eq!(read.node.key, folder.path().join("node.key"));
        assert_eq!(*read.node.read_secret().unwrap(), [7; 32]);
    }

    #[test]
    fn the_engine_section_and_each_of_its_keys_may_be_left_out() {
        let folder = folder();
        let whole = Config { mail: None, account: vec![], ..good() }.to_toml();
        let short = whole.split("[engine]").next().unwrap();
        assert_eq!(load(&folder, short).unwrap().engine, EngineSection::default());
        let one = load(&folder, &format!("{short}[engine]\ntick_s = 1\n")).unwrap();
        assert_eq!(one.engine, EngineSection { tick_s: 1, ..EngineSection::default() });
    }

    #[test]
    fn one_wrong_value_is_refused_with_its_name() {
        type Spoil = fn(&mut Config);
        let cases: [(Spoil, &str); 7] = [
            (|c| c.node.status = "10.0.0.1:80".parse().unwrap(), "node.status"),
            (|c| c.engine.shards = 0, "engine.shards"),
            (|c| c.engine.capacity_bytes = 1 << 20, "engine.capacity_bytes"),
            (|c| c.mail = None, "[mail]"),
            (|c| c.account[0].smtp_tls = c.account[0].imap_tls, "twice"),
            (|c| c.account.push(c.account[0].clone()), "account.address"),
            (|c| c.account[0].address = "alice".into(), "account.address"),
        ];
        let folder = folder();
        for (spoil, name) in cases {
            let mut config = good();
            spoil(&mut config);
            let refusal = load(&folder, &config.to_toml()).unwrap_err().to_string();
            assert!(refusal.contains(name), "{refusal:?} does not name {name}");
            assert!(!refusal.contains('\n'));
        }
    }

    #[test]
    fn unknown_keys_are_refused() {
        let folder = folder();
        let text = good().to_toml().replace("sweep_s", "sweeps");
        let refusal = load(&folder, &text).unwrap_err().to_string();
        assert!(refusal.contains("sweeps"), "{refusal}");
        assert!(!refusal.contains('\n'));
    }

    #[test]
    fn exposed_secrets_are_refused_with_the_remedy() {
        for name in ["node.key", "node.secret", "ring.secret", "alice.key"] {
            let folder = folder();
            fs::set_permissions(folder.path().join(name), fs::Permissions::from_mode(0o640)).unwrap();
            let refusal = load(&folder, &good().to_toml()).unwrap_err();
            assert!(matches!(&refusal, ConfigError::Exposed { path, mode: 0o640 } if path.ends_with(name)));
            assert!(refusal.to_string().contains("chmod 600"));
        }
    }

    #[test]
    fn a_short_node_secret_is_refused() {
        let folder = folder();
        let config = load(&folder, &good().to_toml()).unwrap();
        fs::write(&config.node.secret, [1; 31]).unwrap();
        assert!(matches!(config.node.read_secret(), Err(ConfigError::BadSecret { .. })));
    }
}
