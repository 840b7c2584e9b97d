//! The command `epost`: what may be typed, and what each command ends with.
//!
//! Exit codes: 0 done; 1 something broke; 2 the command line or the environment is not as it must be, and the one
//! line on standard error says how to put it right. Start with [`up`]; [`organisation`] is what it stands on.

pub mod children;
pub mod drill;
pub mod figures;
pub mod folder;
pub mod http;
pub mod local;
pub mod mail_client;
pub mod organisation;
mod password;
pub mod ports;
pub mod progress;
pub mod record;
pub mod running;
pub mod status;
pub mod store;
pub mod table;
pub mod up;

use crate::config::{Config, ConfigError};
use crate::gateway::{self, GatewayError};
use clap::{Args, Parser, Subcommand, ValueEnum};
use drill::{DrillError, LETTERS_MAX, Plan, fate::Share};
use local::Wish;
use net::ring::MemberState;
use organisation::{NewNode, NewUser, OrganisationFolder, OrganisationFolderError};
use ports::MailPorts;
use running::RunError;
use status::StatusError;
use std::io;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::time::Duration;
use store::{Action, StoreError};
use tracing_subscriber::EnvFilter;
use zeroize::Zeroizing;

/// Serverless mail: a ring of nodes stores it encrypted, and each user's own node speaks SMTP and IMAP.
#[derive(Debug, Parser)]
#[command(
    name = "epost",
    version,
    after_help = "Start with `epost up`, which runs a whole organisation on this machine."
)]
struct Arguments {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Run a local organisation of several nodes with two users, to try everything.
    Up(UpArguments),
    /// Run one node.
    Node(NodeArguments),
    /// Make an organisation, enrol its nodes and users.
    #[command(subcommand)]
    Org(OrgCommand),
    /// Show ring, objects, bytes, leases, queues and drops of each node of a local organisation.
    Status(StatusArguments),
    /// Kill and wipe a share of a ring of its own, and read all mail back: a disaster, rehearsed.
    #[command(after_help = DRILL_HELP)]
    Drill(DrillArguments),
    /// Look at the store of a node that is not running: nothing in it is changed.
    #[command(subcommand)]
    Store(StoreCommand),
}

#[derive(Debug, Args)]
struct UpArguments {
    /// Folder for everything; made on the first run.
    #[arg(long, value_name = "DIR", default_value = "epost-data")]
    dir: PathBuf,
    /// Number of nodes, on the first run [default: 5].
    #[arg(long, value_name = "N", value_parser = clap::value_parser!(u16).range(i64::from(local::NODES_MIN)..=i64::from(local::NODES_MAX)))]
    nodes: Option<u16>,
    /// First of all ports: SMTP and IMAP of each user, then QUIC and status page of each node. Kept for later runs.
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port_base: Option<u16>,
}

/// What a person must know to judge the result.
const DRILL_HELP: &str = "\
The ring is founded for the drill: nothing else is touched. Killed nodes lose their disks: the store, and all that a node \
makes itself. They keep what their owner has elsewhere: certificate, keys, configuration, and the users' key files, which stand \
for the users' own copies.

Exit code: 0 all mail and folders came back byte for byte; 1 not, or something broke; 2 it cannot be done like this; 130 Ctrl-C.";

#[derive(Debug, Args)]
struct DrillArguments {
    /// The share of the nodes that is killed and wiped at once, rounded down.
    #[arg(long, value_name = "PERCENT", default_value = "60%")]
    kill: Share,
    /// Number of nodes.
    #[arg(long, value_name = "N", default_value_t = 16, value_parser = clap::value_parser!(u16).range(i64::from(local::NODES_MIN)..=i64::from(local::NODES_MAX)))]
    nodes: u16,
    /// Number of mails sent beforehand, of mixed sizes.
    #[arg(long, value_name = "N", default_value_t = 100, value_parser = clap::value_parser!(u32).range(1..=LETTERS_MAX as i64))]
    mails: u32,
    /// What everything that is drawn follows from [default: drawn, and printed].
    #[arg(long, value_name = "N")]
    seed: Option<u64>,
    /// How long to wait until all is in Glacier, and again for recovery.
    #[arg(long, value_name = "SECONDS", default_value_t = 600, value_parser = clap::value_parser!(u64).range(1..=86_400))]
    wait: u64,
    /// New folder for the ring, which is kept [default: a temporary one, removed if all went well].
    #[arg(long, value_name = "DIR")]
    dir: Option<PathBuf>,
    /// First of all ports [default: a range that is free].
    #[arg(long, value_name = "P", value_parser = clap::value_parser!(u16).range(1..))]
    port_base: Option<u16>,
    /// The report as JSON on standard output, the table on standard error.
    #[arg(long)]
    json: bool,
}

impl From<DrillArguments> for Plan {
    fn from(arguments: DrillArguments) -> Plan {
        Plan {
            dir: arguments.dir,
            nodes: arguments.nodes,
            share: arguments.kill,
            mails: arguments.mails as usize,
            seed: arguments.seed,
            wait: Duration::from_secs(arguments.wait),
            port_base: arguments.port_base,
            as_json: arguments.json,
        }
    }
}

#[derive(Debug, Args)]
struct NodeArguments {
    /// The node's configuration.
    #[arg(long, value_name = "FILE")]
    config: PathBuf,
}

#[derive(Debug, Args)]
struct StatusArguments {
    /// The folder given to `epost up`.
    #[arg(long, value_name = "DIR", default_value = "epost-data")]
    dir: PathBuf,
    /// Everything each node says, as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum StoreCommand {
    /// Read every object from the device and check every byte of it. Ends with code 1 if damage was found.
    Verify(StoreArguments),
    /// Every counter and gauge of the store, as recovery finds it.
    Stats(StoreArguments),
    /// Read all sealed data and the index, as a running node does over a month. Ends with code 1 if damage was found.
    Scrub {
        #[command(flatten)]
        store: StoreArguments,
        /// No faster than so many MiB a second.
        #[arg(long, value_name = "N", value_parser = clap::value_parser!(u32).range(1..))]
        mib_per_s: Option<u32>,
    },
}

#[derive(Debug, Args)]
struct StoreArguments {
    /// The store: the directory with shard-00 in it.
    dir: PathBuf,
    /// The report as JSON.
    #[arg(long)]
    json: bool,
}

#[derive(Debug, Subcommand)]
enum OrgCommand {
    /// Make an organisation: an authority that certifies nodes and users, and a ring without nodes.
    Init {
        /// Folder for the authority; new or empty. Keep it offline.
        dir: PathBuf,
        /// The mail domain.
        #[arg(long)]
        domain: String,
        /// The organisation's name in its certificates [default: the domain].
        #[arg(long)]
        name: Option<String>,
    },
    /// Enrol a node: write its folder, and name it in the ring document.
    AddNode(AddNode),
    /// Enrol a client: a program that asks the ring to store and find, and has no place on it.
    AddClient {
        /// The organisation's folder.
        dir: PathBuf,
        /// Folder for the client's key, certificate, and ring document.
        #[arg(long, value_name = "DIR")]
        client: PathBuf,
    },
    /// Enrol a user whose gateway is a node enrolled before.
    AddUser(AddUser),
    /// Say in the ring document whether a node takes part: to take a host away, drain it first; one that will not come
    /// back is declared dead.
    SetState {
        /// The organisation's folder.
        dir: PathBuf,
        /// Where other nodes find it.
        #[arg(value_name = "HOST:PORT")]
        host: String,
        /// What it does from now on.
        state: StateArgument,
    },
}

/// What a node does in the ring.
#[derive(Clone, Copy, Debug, ValueEnum)]
enum StateArgument {
    /// It holds its share.
    Active,
    /// It gives all it has to the others and is given nothing new.
    Draining,
    /// It is gone, for good: it counts in no quorum, and nobody waits for what it had.
    Dead,
}

#[derive(Debug, Args)]
struct AddNode {
    /// The organisation's folder.
    dir: PathBuf,
    /// Folder for the node.
    #[arg(long, value_name = "DIR")]
    node: PathBuf,
    /// Where the node listens for other nodes (QUIC, UDP).
    #[arg(long, value_name = "IP:PORT")]
    listen: SocketAddr,
    /// Where other nodes find it, if that differs.
    #[arg(long, value_name = "HOST:PORT")]
    host: Option<String>,
    /// Where its status page is; loopback only.
    #[arg(long, value_name = "IP:PORT", default_value = "127.0.0.1:4200")]
    status: SocketAddr,
    /// How many virtual nodes it carries, 1 to 64: in proportion to its disk, the ring's smallest having 1.
    #[arg(long, default_value_t = 1)]
    weight: u16,
}

#[derive(Debug, Args)]
struct AddUser {
    /// The organisation's folder.
    dir: PathBuf,
    /// The mail address.
    address: String,
    /// Folder of the node that becomes the user's gateway.
    #[arg(long, value_name = "DIR")]
    node: PathBuf,
    /// Take the password from the first line of standard input instead of making one.
    #[arg(long)]
    password_stdin: bool,
    /// The name the gateway calls itself.
    #[arg(long, value_name = "NAME", default_value = "localhost")]
    hostname: String,
    /// Where it listens for the user's mail client.
    #[arg(long, default_value_t = IpAddr::V4(Ipv4Addr::LOCALHOST))]
    ip: IpAddr,
    /// Submission, upgraded by STARTTLS.
    #[arg(long, value_name = "PORT", default_value_t = 2587)]
    smtp_starttls: u16,
    /// Submission over TLS.
    #[arg(long, value_name = "PORT", default_value_t = 2465)]
    smtp_tls: u16,
    /// IMAP, upgraded by STARTTLS.
    #[arg(long, value_name = "PORT", default_value_t = 2143)]
    imap_starttls: u16,
    /// IMAP over TLS.
    #[arg(long, value_name = "PORT", default_value_t = 2993)]
    imap_tls: u16,
}

/// What a command can fail with.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    #[error(transparent)]
    Run(#[from] RunError),
    #[error(transparent)]
    Drill(#[from] DrillError),
    #[error(transparent)]
    Config(#[from] ConfigError),
    #[error(transparent)]
    Gateway(#[from] GatewayError),
    #[error(transparent)]
    Organisation(#[from] OrganisationFolderError),
    #[error(transparent)]
    Status(#[from] StatusError),
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("the password on standard input is empty; put one line there")]
    NoPassword,
    #[error("standard input cannot be read: {0}")]
    Input(io::Error),
    #[error("the system gives no threads: {0}")]
    Runtime(io::Error),
}

impl CommandError {
    fn exit_code(&self) -> u8 {
        match self {
            CommandError::Run(error) => error.exit_code(),
            CommandError::Drill(error) => error.exit_code(),
            CommandError::Gateway(error) => error.exit_code(),
            CommandError::Store(error) => error.exit_code(),
            CommandError::Runtime(_) => 1,
            CommandError::Config(_)
            | CommandError::Organisation(_)
            | CommandError::Status(_)
            | CommandError::NoPassword
            | CommandError::Input(_) => 2,
        }
    }
}

/// Does what the command line says.
pub fn main() -> ExitCode {
    let arguments = Arguments::parse();
    match run(arguments.command) {
        Ok(code) => code,
        Err(error) => {
            eprintln!("epost: {error}");
            ExitCode::from(error.exit_code())
        }
    }
}

fn run(command: Command) -> Result<ExitCode, CommandError> {
    match command {
        Command::Up(arguments) => {
            let wish = Wish { nodes: arguments.nodes, port_base: arguments.port_base, ..Wish::default() };
            runtime()?.block_on(up::up(&arguments.dir, wish))?;
        }
        Command::Node(arguments) => {
            let config = Config::load(&arguments.config)?;
            log_to_standard_error();
            runtime()?.block_on(gateway::run(config))?;
        }
        Command::Org(command) => org(command)?,
        Command::Status(arguments) => {
            let report = runtime()?.block_on(status::status(&arguments.dir, arguments.json))?;
            print!("{}", report.text);
            return Ok(if report.is_healthy { ExitCode::SUCCESS } else { ExitCode::FAILURE });
        }
        Command::Drill(arguments) => {
            return Ok(ExitCode::from(runtime()?.block_on(drill::drill(arguments.into()))?));
        }
        Command::Store(command) => return look_at_store(command),
    }
    Ok(ExitCode::SUCCESS)
}

fn look_at_store(command: StoreCommand) -> Result<ExitCode, CommandError> {
    let (arguments, action) = match command {
        StoreCommand::Verify(arguments) => (arguments, Action::Verify),
        StoreCommand::Stats(arguments) => (arguments, Action::Stats),
        StoreCommand::Scrub { store, mib_per_s } => (store, Action::Scrub { mib_per_s }),
    };
    let report = runtime()?.block_on(store::look(&arguments.dir, action, arguments.json))?;
    store::print(&report.text);
    Ok(ExitCode::from(report.exit_code))
}

fn runtime() -> Result<tokio::runtime::Runtime, CommandError> {
    tokio::runtime::Builder::new_multi_thread().enable_all().build().map_err(CommandError::Runtime)
}

/// `EPOST_LOG` chooses what is logged, in the usual notation; without it, what an operator should know.
fn log_to_standard_error() {
    let filter = EnvFilter::try_from_env("EPOST_LOG").unwrap_or_else(|_| EnvFilter::new("warn,epost_gateway=info"));
    tracing_subscriber::fmt().with_env_filter(filter).with_writer(io::stderr).with_ansi(false).init();
}

fn org(command: OrgCommand) -> Result<(), CommandError> {
    match command {
        OrgCommand::Init { dir, domain, name } => {
            OrganisationFolder::init(&dir, name.as_deref().unwrap_or(&domain), &domain)?;
            println!("Made an organisation for {domain} in {}.", dir.display());
            println!(
                "Its authority.key can name any key as anybody's: keep the folder offline, and a copy of it safe."
            );
            println!("Next: epost org add-node {} --node NODE-DIR --listen IP:PORT", dir.display());
        }
        OrgCommand::AddNode(arguments) => add_node(&arguments)?,
        OrgCommand::AddClient { dir, client } => {
            let mut organisation = OrganisationFolder::open(&dir)?;
            let id = organisation.add_client(&client)?;
            println!("Enrolled client {id:?}; its folder is {}.", client.display());
            println!("{} is to be copied over ring.epost of the nodes.", dir.join("ring.epost").display());
        }
        OrgCommand::AddUser(arguments) => add_user(&arguments)?,
        OrgCommand::SetState { dir, host, state } => set_state(&dir, &host, state)?,
    }
    Ok(())
}

fn add_node(arguments: &AddNode) -> Result<(), CommandError> {
    let mut organisation = OrganisationFolder::open(&arguments.dir)?;
    let host = arguments.host.clone().unwrap_or_else(|| arguments.listen.to_string());
    let id = organisation.add_node(&NewNode {
        folder: &arguments.node,
        listen: arguments.listen,
        host: &host,
        status: arguments.status,
        weight: arguments.weight,
    })?;
    let ring = organisation.ring()?;
    println!("Enrolled node {id:?} at {host}; its folder is {}.", arguments.node.display());
    println!(
        "The ring document is at epoch {} with {} members; it is in the node's folder, and",
        ring.epoch,
        ring.members.len()
    );
    println!(
        "{} is to be copied over ring.epost of the nodes enrolled before.",
        arguments.dir.join("ring.epost").display()
    );
    println!("Next: epost node --config {}", arguments.node.join("node.toml").display());
    Ok(())
}

fn set_state(dir: &Path, host: &str, state: StateArgument) -> Result<(), CommandError> {
    let mut organisation = OrganisationFolder::open(dir)?;
    let (state, is_what) = match state {
        StateArgument::Active => (MemberState::Active, "active"),
        StateArgument::Draining => (MemberState::Draining, "draining"),
        StateArgument::Dead => (MemberState::Dead, "dead"),
    };
    let is_new = organisation.set_state(host, state)?;
    let epoch = organisation.ring()?.epoch;
    println!("{host} is {is_what}{}; the ring document is at epoch {epoch}.", if is_new { "" } else { " already" });
    println!(
        "{} is to be copied over ring.epost of a node, which passes it on when it is started again.",
        dir.join("ring.epost").display()
    );
    if state == MemberState::Draining {
        println!("The host may go when `to_hand_over` is 0 in its status page's JSON, under `glacier`.");
    }
    Ok(())
}

fn add_user(arguments: &AddUser) -> Result<(), CommandError> {
    let organisation = OrganisationFolder::open(&arguments.dir)?;
    let password = if arguments.password_stdin { password_from_input()? } else { made_password()? };
    organisation.add_user(&NewUser {
        address: &arguments.address,
        node: &arguments.node,
        password: &password,
        hostname: &arguments.hostname,
        ip: arguments.ip,
        ports: MailPorts {
            smtp_starttls: arguments.smtp_starttls,
            smtp_tls: arguments.smtp_tls,
            imap_starttls: arguments.imap_starttls,
            imap_tls: arguments.imap_tls,
        },
    })?;
    println!("Enrolled {} with a gateway in {}.", arguments.address, arguments.node.display());
    if !arguments.password_stdin {
        println!("Password, shown only now: {}", &*password);
    }
    println!("SMTP {ip} {} (STARTTLS) or {} (TLS)", arguments.smtp_starttls, arguments.smtp_tls, ip = arguments.ip);
    println!("IMAP {ip} {} (STARTTLS) or {} (TLS)", arguments.imap_starttls, arguments.imap_tls, ip = arguments.ip);
    println!("Next: start the node again, so that it takes the user in.");
    Ok(())
}

fn made_password() -> Result<Zeroizing<String>, CommandError> {
    let mut entropy = organisation::entropy()?;
    Ok(password::readable(|| entropy.draw::<1>()[0]))
}

fn password_from_input() -> Result<Zeroizing<String>, CommandError> {
    let mut line = Zeroizing::new(String::new());
    io::stdin().read_line(&mut line).map_err(CommandError::Input)?;
    let password = line.trim_end_matches(['\r', '\n']);
    if password.is_empty() { Err(CommandError::NoPassword) } else { Ok(Zeroizing::new(password.to_owned())) }
}

#[cfg(test)]
mod tests {
    //! Goal: the command line is sound and takes what the README says. Method: clap's own check; examples.
    use super::*;
    use clap::CommandFactory;

    #[test]
    fn the_command_line() {
        Arguments::command().debug_assert();
        for line in [
            "epost up",
            "epost up --dir x --nodes 7 --port-base 20000",
            "epost node --config node1/node.toml",
            "epost status --json --dir x",
            "epost org init org --domain epost.test",
            "epost org add-node org --node n1 --listen 10.0.0.1:4100 --weight 4",
            "epost org add-client org --client c1",
            "epost drill",
            "epost drill --kill 20% --nodes 5 --mails 40 --seed 7 --wait 60 --dir x --port-base 20000 --json",
            "epost store verify node1/store",
            "epost store stats --json node1/store",
            "epost store scrub node1/store --mib-per-s 50",
            "epost org add-user org carol@epost.test --node n1 --password-stdin",
        ] {
            Arguments::try_parse_from(line.split(' ')).unwrap_or_else(|error| panic!("{line}: {error}"));
        }
        for line in [
            "epost",
            "epost up --nodes 4",
            "epost up --port-base 0",
            "epost node",
            "epost org init org",
            "epost drill --kill 100%",
            "epost drill --kill 0",
            "epost drill --kill 9",
            "epost drill --nodes 4",
            "epost drill --mails 0",
            "epost store verify",
            "epost store scrub x --mib-per-s 0",
        ] {
            assert_eq!(Arguments::try_parse_from(line.split(' ')).unwrap_err().exit_code(), 2, "{line}");
        }
    }
}
