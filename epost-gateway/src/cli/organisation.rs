//! An organisation in files: its authority, its ring, and the folders of the nodes it enrols.
//!
//! ```text
//! ORGANISATION/authority.key   0600  Ed25519, PKCS#8: whoever has it can name any key as anybody's; keep it offline
//! ORGANISATION/authority.crt         X.509, DER
//! ORGANISATION/ring.epost            the signed ring document, newest epoch
//! ORGANISATION/ring.secret     0600  the convergence secret, for gateways
//! NODE/node.toml                     what `epost node --config` reads
//! NODE/node.key node.secret    0600  the node's own
//! NODE/node.crt authority.crt ring.epost
//! NODE/ring.secret NAME.key    0600  only on a gateway: the ring's secret, and each user's key file
//! ```
//!
//! What an organisation is, `post::identity::organisation` decides; here are the files, the clock and the randomness.

use super::folder::{FolderError, make_folder, read, replace, write_new};
use super::ports::MailPorts;
use crate::config::{AccountSection, Config, ConfigError, EngineSection, MailSection, NodeSection, secret_file};
use crate::ring_secret;
use bytes::Bytes;
use net::ring::{MemberState, Parameters, RingDocument, RingError};
use post::entropy::Entropy;
use post::identity::authority::{Authority, AuthorityError};
use post::identity::keyfile::{KeyFile, KeyFileError, PasswordCost};
use post::identity::organisation::{self, OrganisationError};
use std::net::{IpAddr, SocketAddr};
use std::path::{Path, PathBuf};
use std::time::{SystemTime, UNIX_EPOCH};

/// Why an organisation's folder could not be made, read or added to.
#[derive(Debug, thiserror::Error)]
pub enum OrganisationFolderError {
    /// A file or folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A secret file, or a node's configuration.
    #[error(transparent)]
    Config(#[from] ConfigError),
    /// What was asked for cannot be.
    #[error(transparent)]
    Organisation(#[from] OrganisationError),
    /// The authority's files do not belong together.
    #[error("the authority in {} cannot be used: {source}; restore authority.key and authority.crt from a backup", path.display())]
    Authority {
        /// The organisation's folder.
        path: PathBuf,
        /// What is wrong.
        source: AuthorityError,
    },
    /// The ring document is not this authority's.
    #[error("the ring document in {} cannot be used: {source}; restore ring.epost from a backup", path.display())]
    Ring {
        /// The organisation's folder.
        path: PathBuf,
        /// What is wrong.
        source: RingError,
    },
    /// A key file could not be made.
    #[error("the key file cannot be made: {0}")]
    KeyFile(#[from] KeyFileError),
    /// The folder's `node.toml` is not one.
    #[error("{} is not a node's configuration: {reason}", path.display())]
    NotANode {
        /// The file.
        path: PathBuf,
        /// Where and why.
        reason: String,
    },
    /// The node's folder was made by another organisation.
    #[error("{} belongs to a node of another organisation", path.display())]
    OtherOrganisation {
        /// The node's folder.
        path: PathBuf,
    },
    /// The address is that of a user of this node already.
    #[error("{address} is a user of this node already")]
    UserExists {
        /// The address.
        address: String,
    },
    /// No member of the ring is found there.
    #[error("no member of the ring is at {host}; there are {}", known.join(", "))]
    NoSuchHost {
        /// Where none is.
        host: String,
        /// Where there are some.
        known: Vec<String>,
    },
    /// It was declared dead, and what it had is others' since.
    #[error("{host} was declared dead and does not come back; enrol the host anew, with an empty store")]
    Dead {
        /// The member.
        host: String,
    },
    /// Somebody must hold what the others give up.
    #[error("{host} is the last active member; the ring cannot do without one")]
    LastActive {
        /// The member.
        host: String,
    },
    /// The operating system has no randomness to give.
    #[error("the system gives no randomness")]
    NoRandomness,
}

/// A folder with an authority and its ring.
pub struct OrganisationFolder {
    path: PathBuf,
    authority: Authority,
    document: Bytes,
}

/// A node to be enrolled.
pub struct NewNode<'a> {
    /// Where its files go; must not have a node in it yet.
    pub folder: &'a Path,
    /// Where it listens for other nodes.
    pub listen: SocketAddr,
    /// Where the others find it, as `host:port`.
    pub host: &'a str,
    /// Where its status page is.
    pub status: SocketAddr,
    /// How many virtual nodes it carries.
    pub weight: u16,
}

/// A node's new addresses; other nodes find it where it listens.
pub struct NodeMove {
    /// Its folder.
    pub folder: PathBuf,
    /// Where it shall listen for other nodes.
    pub listen: SocketAddr,
    /// Where its status page shall be.
    pub status: SocketAddr,
}

/// A user to be enrolled.
pub struct NewUser<'a> {
    /// The mail address, in the organisation's domain.
    pub address: &'a str,
    /// The folder of the node that is to be the user's gateway.
    pub node: &'a Path,
    /// What the user's mail client will say.
    pub password: &'a str,
    /// The name the gateway calls itself.
    pub hostname: &'a str,
    /// Where it listens for the user's mail client.
    pub ip: IpAddr,
    /// On which ports.
    pub ports: MailPorts,
}

impl OrganisationFolder {
    /// Makes an organisation in a new or empty place.
    pub fn init(path: &Path, name: &str, domain: &str) -> Result<Self, OrganisationFolderError> {
        let founded = organisation::found(name, domain, Parameters::DEFAULT, now_s(), &mut entropy()?)?;
        make_folder(path)?;
        write_new(&path.join("authority.key"), &founded.authority.private_key(), true)?;
        write_new(&path.join("authority.crt"), founded.authority.certificate(), false)?;
        write_new(&path.join("ring.secret"), &ring_secret::encode(&founded.secret), true)?;
        write_new(&path.join("ring.epost"), &founded.document, false)?;
        Ok(OrganisationFolder { path: path.to_owned(), authority: founded.authority, document: founded.document })
    }

    /// Opens one that was made before.
    pub fn open(path: &Path) -> Result<Self, OrganisationFolderError> {
        let key = secret_file(&path.join("authority.key"))?;
        let certificate = read(&path.join("authority.crt"))?;
        let authority = Authority::open(&key, &certificate)
            .map_err(|source| OrganisationFolderError::Authority { path: path.to_owned(), source })?;
        let document = Bytes::from(read(&path.join("ring.epost"))?);
        let folder = OrganisationFolder { path: path.to_owned(), authority, document };
        folder.ring()?;
        Ok(folder)
    }

    /// The ring as it stands.
    pub fn ring(&self) -> Result<RingDocument, OrganisationFolderError> {
        RingDocument::decode_verified(&self.document, &self.authority.public_key())
            .map_err(|source| OrganisationFolderError::Ring { path: self.path.clone(), source })
    }

    /// Enrols a node and writes its folder; returns its first node id.
    pub fn add_node(&mut self, node: &NewNode<'_>) -> Result<net::id::Id, OrganisationFolderError> {
        let (authority, document) = (&self.authority, &self.document);
        let enrolled = organisation::enrol_node(authority, document, node.host, node.weight, now_s(), &mut entropy()?)?;
        make_folder(node.folder)?;
        let file = |name: &str| node.folder.join(name);
        let config = Config {
            node: NodeSection {
                dir: "store".into(),
                organisation: authority.organisation().to_owned(),
                listen: node.listen,
                status: node.status,
                certificate: "node.crt".into(),
                key: "node.key".into(),
                authority: "authority.crt".into(),
                ring: "ring.epost".into(),
                secret: "node.secret".into(),
            },
            engine: EngineSection::default(),
            mail: None,
            account: Vec::new(),
        };
        // The key first: it is never overwritten, so a folder that has a node in it stops here.
        write_new(&file("node.key"), &enrolled.private_key, true)?;
        write_new(&file("node.secret"), enrolled.node_secret.as_slice(), true)?;
        write_new(&file("node.crt"), &enrolled.certificate, false)?;
        write_new(&file("authority.crt"), authority.certificate(), false)?;
        write_new(&file("ring.epost"), &enrolled.document, false)?;
        write_new(&file("node.toml"), config.to_toml().as_bytes(), false)?;
        replace(&self.path.join("ring.epost"), &enrolled.document)?;
        self.document = enrolled.document;
        Ok(enrolled.node_id)
    }

    /// Enrols a client of the ring, a program of whatever make, in a new folder: its key and certificate, the authority's
    /// certificate, the ring document.
    pub fn add_client(&mut self, folder: &Path) -> Result<net::id::Id, OrganisationFolderError> {
        let enrolled = organisation::enrol_client(&self.authority, &self.document, now_s(), &mut entropy()?)?;
        make_folder(folder)?;
        write_new(&folder.join("client.key"), &enrolled.private_key, true)?;
        write_new(&folder.join("client.crt"), &enrolled.certificate, false)?;
        write_new(&folder.join("authority.crt"), self.authority.certificate(), false)?;
        write_new(&folder.join("ring.epost"), &enrolled.document, false)?;
        replace(&self.path.join("ring.epost"), &enrolled.document)?;
        self.document = enrolled.document;
        Ok(enrolled.node_id)
    }

    /// Says whether the member that others find at `host` takes part, in a new ring document. False if it was so already.
    pub fn set_state(&mut self, host: &str, state: MemberState) -> Result<bool, OrganisationFolderError> {
        let ring = self.ring()?;
        // Where a host was enrolled anew, who has its place now is meant, and not its dead predecessor.
        let at_host = || ring.members.iter().filter(|it| it.host == host && it.state != MemberState::Client);
        let member = at_host().find(|it| it.state.has_place()).or(at_host().next());
        let Some(member) = member else {
            let places = ring.members.iter().filter(|it| it.state != MemberState::Client).map(|it| it.host.clone());
            return Err(OrganisationFolderError::NoSuchHost { host: host.to_owned(), known: places.collect() });
        };
        if member.state == state {
            return Ok(false);
        }
        if member.state == MemberState::Dead {
            return Err(OrganisationFolderError::Dead { host: host.to_owned() });
        }
        let is_active = |it: &&net::ring::Member| it.state == MemberState::Active;
        if is_active(&member) && ring.members.iter().filter(is_active).count() == 1 {
            return Err(OrganisationFolderError::LastActive { host: host.to_owned() });
        }
        self.document = organisation::set_state(&self.authority, &self.document, member.nonce, state)?;
        replace(&self.path.join("ring.epost"), &self.document)?;
        Ok(true)
    }

    /// Gives nodes other addresses: in a new ring document first, then in each node's own files.
    pub fn move_nodes(&mut self, moves: &[NodeMove]) -> Result<(), OrganisationFolderError> {
        let mut nonces = Vec::new();
        for moved in moves {
            let path = moved.folder.join("node.crt");
            let certificate = net::secure::certificate::parse_node(&read(&path)?, &self.authority.public_key())
                .map_err(|_| OrganisationFolderError::OtherOrganisation { path: moved.folder.clone() })?;
            nonces.push(certificate.nonce);
        }
        // By way of names nobody has, since a new address may be the old one of another node.
        let by_way = nonces.iter().enumerate().map(|(number, nonce)| (nonce, format!("moving.invalid:{}", number + 1)));
        let at_last = nonces.iter().zip(moves).map(|(nonce, moved)| (nonce, moved.listen.to_string()));
        for (nonce, host) in by_way.chain(at_last) {
            self.document = organisation::set_host(&self.authority, &self.document, *nonce, &host)?;
        }
        replace(&self.path.join("ring.epost"), &self.document)?;
        for moved in moves {
            self.refresh_node(&moved.folder)?;
            let mut config = self.node_config(&moved.folder)?;
            config.node.listen = moved.listen;
            config.node.status = moved.status;
            replace(&moved.folder.join("node.toml"), config.to_toml().as_bytes())?;
        }
        Ok(())
    }

    /// Gives a user's listeners at a gateway other ports.
    pub fn move_user(&self, folder: &Path, address: &str, ports: MailPorts) -> Result<(), OrganisationFolderError> {
        let mut config = self.node_config(folder)?;
        for account in config.account.iter_mut().filter(|account| account.address == address) {
            account.smtp_starttls.set_port(ports.smtp_starttls);
            account.smtp_tls.set_port(ports.smtp_tls);
            account.imap_starttls.set_port(ports.imap_starttls);
            account.imap_tls.set_port(ports.imap_tls);
        }
        Ok(replace(&folder.join("node.toml"), config.to_toml().as_bytes())?)
    }

    /// Gives a node the newest ring document.
    pub fn refresh_node(&self, folder: &Path) -> Result<(), OrganisationFolderError> {
        Ok(replace(&folder.join("ring.epost"), &self.document)?)
    }

    /// Enrols a user at a gateway: writes the key file, unlocked by the password and by the node, and tells the node.
    pub fn add_user(&self, user: &NewUser<'_>) -> Result<(), OrganisationFolderError> {
        let mut config = self.node_config(user.node)?;
        let mut entropy = entropy()?;
        let secrets =
            organisation::enrol_user(&self.authority, &self.document, user.address, 1, now_s(), &mut entropy)?;
        if config.account.iter().any(|account| account.address == secrets.address) {
            return Err(OrganisationFolderError::UserExists { address: secrets.address.clone() });
        }
        let node = NodeSection { secret: user.node.join(&config.node.secret), ..config.node.clone() };
        let mut key_file = KeyFile::new(&secrets, &mut entropy);
        key_file.add_password(&secrets.master, user.password.as_bytes(), PasswordCost::DEFAULT, &mut entropy)?;
        key_file.add_node(&secrets.master, &*node.read_secret()?, &mut entropy)?;
        let name = format!("{}.key", secrets.address.split('@').next().unwrap_or_default());
        write_new(&user.node.join(&name), &key_file.encode(), true)?;
        if config.mail.is_none() {
            let secret = secret_file(&self.path.join("ring.secret"))?;
            write_new(&user.node.join("ring.secret"), &secret, true)?;
            config.mail = Some(mail_section(&self.ring()?.domain, user.hostname));
        }
        let at = |port| SocketAddr::new(user.ip, port);
        config.account.push(AccountSection {
            address: secrets.address.clone(),
            key_file: name.into(),
            smtp_starttls: at(user.ports.smtp_starttls),
            smtp_tls: at(user.ports.smtp_tls),
            imap_starttls: at(user.ports.imap_starttls),
            imap_tls: at(user.ports.imap_tls),
        });
        Ok(replace(&user.node.join("node.toml"), config.to_toml().as_bytes())?)
    }

    /// A node's configuration as written, its paths unresolved; the node must be of this organisation.
    fn node_config(&self, folder: &Path) -> Result<Config, OrganisationFolderError> {
        let config = written_config(folder)?;
        if read(&folder.join(&config.node.authority))? != self.authority.certificate()[..] {
            return Err(OrganisationFolderError::OtherOrganisation { path: folder.to_owned() });
        }
        Ok(config)
    }
}

/// A node's configuration as it stands in its file, paths unresolved.
pub fn written_config(folder: &Path) -> Result<Config, OrganisationFolderError> {
    let path = folder.join("node.toml");
    let text = String::from_utf8_lossy(&read(&path)?).into_owned();
    toml::from_str(&text)
        .map_err(|error| OrganisationFolderError::NotANode { path, reason: error.message().to_owned() })
}

/// 32 fresh bytes make a generator for one task.
pub fn entropy() -> Result<Entropy, OrganisationFolderError> {
    let mut seed = [0; 32];
    getrandom::fill(&mut seed).map_err(|_| OrganisationFolderError::NoRandomness)?;
    Ok(Entropy::new(seed))
}

fn mail_section(domain: &str, hostname: &str) -> MailSection {
    MailSection {
        domain: domain.to_owned(),
        hostname: hostname.to_owned(),
        message_bytes_max: crate::smtp::Limits::default().message_bytes_max,
        ring_secret: "ring.secret".into(),
        tls_certificate: "mail.crt".into(),
        tls_key: "mail.key".into(),
    }
}

fn now_s() -> u64 {
    SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs())
}

#[cfg(test)]
mod tests {
    //! Goal: what is written is what a node can load and a user can unlock; nothing is overwritten; secrets are
    //! private. Method: a whole organisation in a folder, read back by the node's own loader and by the key file.
    use super::*;
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    const PORTS: MailPorts = MailPorts { smtp_starttls: 2587, smtp_tls: 2465, imap_starttls: 2143, imap_tls: 2993 };

    fn node<'a>(folder: &'a Path, host: &'a str, status: &str) -> NewNode<'a> {
        NewNode { folder, listen: host.parse().unwrap(), host, status: status.parse().unwrap(), weight: 1 }
    }

    fn user<'a>(address: &'a str, node: &'a Path) -> NewUser<'a> {
        NewUser { address, node, password: "secret", hostname: "localhost", ip: [127, 0, 0, 1].into(), ports: PORTS }
    }

    #[test]
    fn an_organisation_grows_and_is_read_back() {
        let place = tempfile::tempdir().unwrap();
        let (home, first) = (place.path().join("organisation"), place.path().join("node1"));
        let mut organisation = OrganisationFolder::init(&home, "Test", "epost.test").unwrap();
        let id = organisation.add_node(&node(&first, "127.0.0.1:4101", "127.0.0.1:4201")).unwrap();
        organisation.add_user(&user("alice@epost.test", &first)).unwrap();

        let config = Config::load(&first.join("node.toml")).unwrap();
        assert_eq!(config.account[0].address, "alice@epost.test");
        assert_eq!(config.mail.as_ref().unwrap().domain, "epost.test");
        let reopened = OrganisationFolder::open(&home).unwrap();
        let ring = reopened.ring().unwrap();
        assert_eq!(ring.members.len(), 1);
        assert_eq!(RingDocument::node_id(&ring.ring, &ring.members[0].nonce, 0), id);
        assert_eq!(fs::read(first.join("ring.epost")).unwrap(), fs::read(home.join("ring.epost")).unwrap());

        let key_file = KeyFile::decode(&fs::read(&config.account[0].key_file).unwrap()).unwrap();
        let by_password = key_file.unlock_password(b"secret").unwrap();
        let by_node = key_file.unlock_node(&config.node.read_secret().unwrap()).unwrap();
        assert_eq!(key_file.open(&by_password).unwrap().address, "alice@epost.test");
        assert!(key_file.open(&by_node).is_ok());
        assert!(key_file.unlock_password(b"other").is_err());
        for secret in [
            "node1/node.key",
            "node1/node.secret",
            "node1/alice.key",
            "node1/ring.secret",
            "organisation/authority.key",
            "organisation/ring.secret",
        ] {
            let mode = fs::metadata(place.path().join(secret)).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600, "{secret}");
        }
    }

    #[test]
    fn members_drain_come_back_and_die_for_good() {
        use MemberState::{Active, Dead, Draining};
        let place = tempfile::tempdir().unwrap();
        let home = place.path().join("organisation");
        let mut organisation = OrganisationFolder::init(&home, "Test", "epost.test").unwrap();
        for number in 1..=2 {
            let (folder, host) = (place.path().join(format!("node{number}")), format!("127.0.0.1:410{number}"));
            organisation.add_node(&node(&folder, &host, "127.0.0.1:4201")).unwrap();
        }
        organisation.add_client(&place.path().join("client")).unwrap();
        let (first, second) = ("127.0.0.1:4101", "127.0.0.1:4102");
        let epoch = organisation.ring().unwrap().epoch;
        for (state, is_new) in [(Active, false), (Draining, true), (Draining, false), (Active, true), (Dead, true)] {
            assert_eq!(organisation.set_state(second, state).unwrap(), is_new);
            let read = OrganisationFolder::open(&home).unwrap().ring().unwrap();
            assert_eq!(read.members.iter().find(|it| it.host == second).unwrap().state, state);
        }
        assert_eq!(organisation.ring().unwrap().epoch, epoch + 3);
        let refused = organisation.set_state(second, Active);
        assert!(matches!(refused, Err(OrganisationFolderError::Dead { .. })), "{refused:?}");
        let refused = organisation.set_state(first, Draining);
        assert!(matches!(refused, Err(OrganisationFolderError::LastActive { .. })), "{refused:?}");
        let refused = organisation.set_state("127.0.0.1:4109", Dead).unwrap_err().to_string();
        assert!(refused.ends_with("there are 127.0.0.1:4101, 127.0.0.1:4102"), "{refused}");
    }

    #[test]
    fn nothing_is_overwritten_and_strangers_are_refused() {
        let place = tempfile::tempdir().unwrap();
        let (home, first) = (place.path().join("organisation"), place.path().join("node1"));
        let mut organisation = OrganisationFolder::init(&home, "Test", "epost.test").unwrap();
        assert!(matches!(
            OrganisationFolder::init(&home, "Test", "epost.test"),
            Err(OrganisationFolderError::Folder(FolderError::Exists { .. }))
        ));
        organisation.add_node(&node(&first, "127.0.0.1:4101", "127.0.0.1:4201")).unwrap();
        let before = fs::read(home.join("ring.epost")).unwrap();
        assert!(matches!(
            organisation.add_node(&node(&first, "127.0.0.1:4102", "127.0.0.1:4202")),
            Err(OrganisationFolderError::Folder(FolderError::Exists { .. }))
        ));
        assert_eq!(fs::read(home.join("ring.epost")).unwrap(), before, "the ring knows only nodes that have a folder");
        organisation.add_user(&user("alice@epost.test", &first)).unwrap();
        assert!(matches!(
            organisation.add_user(&user("Alice@epost.test", &first)),
            Err(OrganisationFolderError::UserExists { .. })
        ));
        assert!(matches!(
            organisation.add_user(&user("carol@other.test", &first)),
            Err(OrganisationFolderError::Organisation(OrganisationError::WrongDomain))
        ));
        let other = OrganisationFolder::init(&place.path().join("other"), "Other", "epost.test").unwrap();
        assert!(matches!(
            other.add_user(&user("bob@epost.test", &first)),
            Err(OrganisationFolderError::OtherOrganisation { .. })
        ));
    }
}
