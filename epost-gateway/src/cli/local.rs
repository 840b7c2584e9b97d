//! A local organisation: everything `epost up` needs, made on the first run and found again on every later one.

use super::folder::{DataFolder, FolderError, make_folder, node_folder, node_folders, read, write_new};
use super::organisation::{
    NewNode, NewUser, NodeMove, OrganisationFolder, OrganisationFolderError, entropy, written_config,
};
use super::password::readable;
use super::ports::{MailPorts, NodePorts, PortError, PortPlan, local};
use serde::{Deserialize, Serialize};
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The mail domain of a local organisation.
const DOMAIN: &str = "epost.test";

/// Its users as far as there may be any; the first has her gateway on node 1, and so on.
const USERS: [&str; 5] = ["alice", "bob", "carol", "dave", "erin"];

/// Users when nothing is said.
const USERS_DEFAULT: u16 = 2;

/// Nodes when nothing is said.
const NODES_DEFAULT: u16 = 5;

/// Fewer cannot hold a log's head: five replicas, four of which must acknowledge.
pub const NODES_MIN: u16 = 5;

/// More would be too many for one machine.
pub const NODES_MAX: u16 = 64;

const _: () = assert!(USERS.len() <= NODES_MIN as usize);
const _: () = assert!(0 < USERS_DEFAULT && USERS_DEFAULT as usize <= USERS.len());
const _: () = assert!(NODES_MIN <= NODES_DEFAULT && NODES_DEFAULT <= NODES_MAX);

/// Where the users' passwords are kept, in the data folder.
const USERS_FILE: &str = "users.toml";

/// What was asked for on the command line.
#[derive(Clone, Copy, Debug, Default)]
pub struct Wish {
    /// How many nodes.
    pub nodes: Option<u16>,
    /// How many users, where the organisation is made; more than two only with a first port.
    pub users: Option<u16>,
    /// The first of all ports.
    pub port_base: Option<u16>,
}

/// A local organisation.
pub struct Local {
    /// The mail domain.
    pub domain: String,
    /// The users.
    pub users: Vec<LocalUser>,
    /// The nodes.
    pub nodes: Vec<LocalNode>,
}

/// A user of it.
#[derive(Clone)]
pub struct LocalUser {
    /// The mail address.
    pub address: String,
    /// The password.
    pub password: Zeroizing<String>,
    /// Where her gateway listens.
    pub ports: MailPorts,
}

/// A node of it.
#[derive(Debug)]
pub struct LocalNode {
    /// Its folder.
    pub folder: PathBuf,
    /// Its ports.
    pub ports: NodePorts,
}

/// Why there is no local organisation.
#[derive(Debug, thiserror::Error)]
pub enum LocalError {
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The organisation in it.
    #[error(transparent)]
    Organisation(#[from] OrganisationFolderError),
    /// The ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// Another number of nodes than there are.
    #[error("there are {there} nodes in this folder already; leave out --nodes, or choose another folder with --dir")]
    OtherNodes {
        /// How many there are.
        there: usize,
    },
    /// A file of the folder does not fit the others.
    #[error("{} is damaged; restore it from a backup, or choose another folder with --dir", path.display())]
    Damaged {
        /// The file.
        path: PathBuf,
    },
}

/// The users file.
#[derive(Serialize, Deserialize)]
struct UsersFile {
    user: Vec<UserEntry>,
}

#[derive(Serialize, Deserialize)]
struct UserEntry {
    address: String,
    #[serde(with = "super::password::in_file")]
    password: Zeroizing<String>,
}

impl Local {
    /// Makes the organisation, or finds the one that is there; its ports are free then.
    pub fn prepare(folder: &mut DataFolder, wish: Wish) -> Result<Self, LocalError> {
        if !folder.is_complete() {
            let local = Self::make(folder, wish)?;
            folder.complete()?;
            return Ok(local);
        }
        let mut local = Self::find(folder.path())?;
        if wish.nodes.is_some_and(|wanted| usize::from(wanted) != local.nodes.len()) {
            return Err(LocalError::OtherNodes { there: local.nodes.len() });
        }
        if let Some(base) = wish.port_base {
            let plan = plan(Some(base), local.users.len() as u16, local.nodes.len() as u16)?;
            local.move_to(folder.path(), &plan)?;
        }
        Ok(local)
    }

    /// All its ports.
    pub fn ports(&self) -> PortPlan {
        let users = self.users.iter().map(|user| user.ports).collect();
        PortPlan { users, nodes: self.nodes.iter().map(|node| node.ports).collect() }
    }

    fn make(folder: &DataFolder, wish: Wish) -> Result<Self, LocalError> {
        let count = wish.nodes.unwrap_or(NODES_DEFAULT);
        let users = wish.users.unwrap_or(USERS_DEFAULT);
        assert!(usize::from(users) <= USERS.len(), "a user has a name");
        let plan = plan(wish.port_base, users, count)?;
        plan.check()?;
        folder.clear()?;
        let path = folder.path();
        make_folder(&path.join("organisation"))?;
        let mut organisation = OrganisationFolder::init(&path.join("organisation"), DOMAIN, DOMAIN)?;
        for (number, ports) in plan.nodes.iter().enumerate() {
            let host = local(ports.quic).to_string();
            let folder = &node_folder(path, number + 1);
            let (listen, status) = (local(ports.quic), local(ports.status));
            organisation.add_node(&NewNode { folder, listen, host: &host, status, weight: 1 })?;
        }
        let mut users = Vec::new();
        for (number, (name, &ports)) in USERS.iter().zip(&plan.users).enumerate() {
            let mut entropy = entropy()?;
            let password = readable(|| entropy.draw::<1>()[0]);
            let address = format!("{name}@{DOMAIN}");
            organisation.add_user(&NewUser {
                address: &address,
                node: &node_folder(path, number + 1),
                password: &password,
                hostname: "localhost",
                ip: IpAddr::V4(Ipv4Addr::LOCALHOST),
                ports,
            })?;
            users.push(UserEntry { address, password });
        }
        for number in 1..=plan.nodes.len() {
            organisation.refresh_node(&node_folder(path, number))?;
        }
        let Ok(text) = toml::to_string(&UsersFile { user: users }).map(Zeroizing::new) else {
            unreachable!("a list of tables of strings")
        };
        write_new(&path.join(USERS_FILE), text.as_bytes(), true)?;
        Self::find(path)
    }

    fn find(path: &Path) -> Result<Self, LocalError> {
        let mut nodes = Vec::new();
        let mut accounts = Vec::new();
        let mut domain = None;
        for folder in node_folders_or_all(path)? {
            let config = written_config(&folder)?;
            let ports = NodePorts { quic: config.node.listen.port(), status: config.node.status.port() };
            domain = domain.or(config.mail.map(|mail| mail.domain));
            accounts.extend(config.account);
            nodes.push(LocalNode { folder, ports });
        }
        let users_file = path.join(USERS_FILE);
        let damaged = || LocalError::Damaged { path: users_file.clone() };
        let text = Zeroizing::new(read(&users_file)?);
        let text = std::str::from_utf8(&text).map_err(|_| damaged())?;
        let file: UsersFile = toml::from_str(text).map_err(|_| damaged())?;
        let mut users = Vec::new();
        for UserEntry { address, password } in file.user {
            let account = accounts.iter().find(|account| account.address == address).ok_or_else(damaged)?;
            let ports = MailPorts {
                smtp_starttls: account.smtp_starttls.port(),
                smtp_tls: account.smtp_tls.port(),
                imap_starttls: account.imap_starttls.port(),
                imap_tls: account.imap_tls.port(),
            };
            users.push(LocalUser { address, password, ports });
        }
        Ok(Local { domain: domain.ok_or_else(damaged)?, users, nodes })
    }

    /// Gives everything other ports: a new epoch of the ring document for the nodes, new addresses for the users.
    fn move_to(&mut self, path: &Path, plan: &PortPlan) -> Result<(), LocalError> {
        if *plan == self.ports() {
            return Ok(());
        }
        plan.check()?;
        let mut organisation = OrganisationFolder::open(&path.join("organisation"))?;
        let moves: Vec<NodeMove> = self
            .nodes
            .iter()
            .zip(&plan.nodes)
            .map(|(node, ports)| NodeMove {
                folder: node.folder.clone(),
                listen: local(ports.quic),
                status: local(ports.status),
            })
            .collect();
        organisation.move_nodes(&moves)?;
        self.nodes.iter_mut().zip(&plan.nodes).for_each(|(node, &ports)| node.ports = ports);
        for (number, (user, &ports)) in self.users.iter_mut().zip(&plan.users).enumerate() {
            organisation.move_user(&node_folder(path, number + 1), &user.address, ports)?;
            user.ports = ports;
        }
        Ok(())
    }
}

fn plan(base: Option<u16>, users: u16, nodes: u16) -> Result<PortPlan, PortError> {
    base.map_or_else(|| Ok(PortPlan::standard(users, nodes)), |base| PortPlan::from_base(base, users, nodes))
}

/// The nodes' folders, also of an organisation that is being made.
fn node_folders_or_all(path: &Path) -> Result<Vec<PathBuf>, FolderError> {
    match node_folders(path) {
        Err(FolderError::Missing { .. }) => {
            Ok((1..).map(|number| node_folder(path, number)).take_while(|folder| folder.is_dir()).collect())
        }
        found => found,
    }
}

#[cfg(test)]
mod tests {
    //! Goal: one organisation, found again as it was made; moved when asked; an interrupted first run leaves nothing
    //! behind. Method: real folders, read back by the node's own loader.
    use super::*;
    use crate::config::Config;
    use net::ring::RingDocument;
    use post::identity::authority::authority_of;
    use std::fs;

    fn hosts(folder: &Path) -> Vec<String> {
        let authority = authority_of(&fs::read(folder.join("authority.crt")).unwrap()).unwrap();
        let document = bytes::Bytes::from(fs::read(folder.join("ring.epost")).unwrap());
        let ring = RingDocument::decode_verified(&document, &authority).unwrap();
        ring.members.into_iter().map(|member| member.host).collect()
    }

    /// Ports nobody else on this machine is likely to want; each test has its own.
    fn wish(port_base: u16) -> Wish {
        Wish { port_base: Some(port_base), ..Wish::default() }
    }

    #[test]
    fn made_found_and_moved() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = DataFolder::open(place.path()).unwrap();
        fs::create_dir(place.path().join("node1")).unwrap();
        let made = Local::prepare(&mut folder, wish(21_300)).unwrap();
        assert!(folder.is_complete());
        assert_eq!((made.domain.as_str(), made.nodes.len(), made.users.len()), ("epost.test", 5, 2));
        let found = Local::prepare(&mut folder, Wish::default()).unwrap();
        assert_eq!(found.ports(), made.ports());
        assert_eq!(found.users[1].password, made.users[1].password);
        assert_ne!(made.users[0].password, made.users[1].password);

        // One port further, so that most new addresses are old ones of a neighbour.
        let moved = Local::prepare(&mut folder, wish(21_301)).unwrap();
        assert_eq!(moved.ports(), PortPlan::from_base(21_301, 2, 5).unwrap());
        let expected: Vec<String> = moved.ports().nodes.iter().map(|node| format!("127.0.0.1:{}", node.quic)).collect();
        for (number, node) in moved.nodes.iter().enumerate() {
            assert_eq!(hosts(&node.folder), expected);
            let config = Config::load(&node.folder.join("node.toml")).unwrap();
            assert_eq!(config.node.listen.to_string(), expected[number]);
            assert_eq!(config.account.len(), usize::from(number < 2));
        }
        let six = Wish { nodes: Some(6), ..Wish::default() };
        assert!(matches!(Local::prepare(&mut folder, six), Err(LocalError::OtherNodes { there: 5 })));
    }

    #[test]
    fn as_many_users_as_are_wanted() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = DataFolder::open(place.path()).unwrap();
        let four = Wish { users: Some(4), ..wish(21_500) };
        let made = Local::prepare(&mut folder, four).unwrap();
        assert_eq!((made.users.len(), made.users[3].address.as_str()), (4, "dave@epost.test"));
        assert_eq!(made.ports(), PortPlan::from_base(21_500, 4, 5).unwrap());
        let moved = Local::prepare(&mut folder, wish(21_600)).unwrap();
        assert_eq!(moved.ports(), PortPlan::from_base(21_600, 4, 5).unwrap());
    }

    #[test]
    fn a_taken_port_is_told_before_anything_is_made() {
        let place = tempfile::tempdir().unwrap();
        let taken = std::net::TcpListener::bind(local(21_405)).unwrap();
        let mut folder = DataFolder::open(place.path()).unwrap();
        assert!(matches!(
            Local::prepare(&mut folder, wish(21_400)),
            Err(LocalError::Port(PortError::InUse { port: 21_405, .. }))
        ));
        assert!(!place.path().join("organisation").exists());
        drop(taken);
        assert!(Local::prepare(&mut folder, wish(21_400)).is_ok());
    }
}
