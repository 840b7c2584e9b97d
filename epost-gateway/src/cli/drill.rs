//! `epost drill`: a disaster, rehearsed on a ring of real processes in a folder of its own.
//!
//! A share of the nodes is killed at once and their disks are wiped; then all mail of all users is read again and
//! compared with what was there before. Start with `course`, which is what happens; `fate` draws who dies, `wipe` is what
//! a node loses, `letters` the mail, `mailbox` how it is compared, `report` what is told.
//!
//! A drill destroys stores. It therefore never touches a ring that it has not founded itself: a folder in which an
//! organisation is already is refused.

mod course;
pub mod fate;
mod letters;
mod mailbox;
mod report;
mod wipe;

pub use letters::LETTERS_MAX;
pub use wipe::WipeError;

use super::folder::{DataFolder, FolderError};
use super::local::{Local, Wish};
use super::mail_client::ClientError;
use super::ports::PortPlan;
use super::progress::Progress;
use super::running::{RunError, Running, Signals, check_environment};
use course::Course;
use fate::{Share, draw};
use report::Report;
use std::fs::{self, DirBuilder};
use std::io::{self, Write};
use std::os::unix::fs::DirBuilderExt;
use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime, UNIX_EPOCH};

/// Users of the ring: the first four nodes are their gateways.
const USERS: u16 = 4;

/// Exit code after Ctrl-C.
const INTERRUPTED: u8 = 130;

/// What was asked for on the command line.
#[derive(Debug)]
pub struct Plan {
    /// The ring's folder; a temporary one if none is named.
    pub dir: Option<PathBuf>,
    /// How many nodes.
    pub nodes: u16,
    /// Which share of them dies.
    pub share: Share,
    /// How many mails are sent.
    pub mails: usize,
    /// What the drawing follows from; drawn itself if not given.
    pub seed: Option<u64>,
    /// How long is waited for Glacier, and again for recovery.
    pub wait: Duration,
    /// The first of all ports; a free range if not given.
    pub port_base: Option<u16>,
    /// Whether the report on standard output is JSON.
    pub as_json: bool,
}

/// What is carried out: the plan, and what was drawn.
struct Orders {
    share: Share,
    /// Who dies, counted from 0, in ascending order.
    victims: Vec<usize>,
    mails: usize,
    seed: u64,
    wait: Duration,
    /// For the mails' headers.
    date: String,
}

/// Why a drill came to nothing.
#[derive(Debug, thiserror::Error)]
pub enum DrillError {
    /// The share is less than one node.
    #[error("{}% of {nodes} nodes is less than one; use --kill {}% or more, or more --nodes", share.percent(), Share::least(*nodes).percent())]
    NobodyDies {
        /// The share.
        share: Share,
        /// Of how many.
        nodes: usize,
    },
    /// The folder has an organisation in it.
    #[error("there is an organisation in {} already, and a drill wipes disks; choose a new folder with --dir", path.display())]
    NotNew {
        /// The folder.
        path: PathBuf,
    },
    /// The temporary folder cannot be made.
    #[error("{}: {source}; choose a folder with --dir", path.display())]
    Temporary {
        /// Where it was to be.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The ring.
    #[error(transparent)]
    Run(#[from] RunError),
    /// A mail client did not get what it asked for while the ring was whole.
    #[error("{doing} as {address}: {source}")]
    Mail {
        /// What it was doing.
        doing: &'static str,
        /// As whom.
        address: String,
        /// What came instead.
        source: ClientError,
    },
    /// Mail did not arrive while the ring was whole.
    #[error("not all mail was delivered within {} s, before anything was killed", within.as_secs())]
    NotDelivered {
        /// How long was waited.
        within: Duration,
    },
    /// What was read before the disaster is not what was sent.
    #[error("before anything was killed, the mail of {address} is not what was sent: {what}")]
    NotAsSent {
        /// Whose.
        address: String,
        /// In what way.
        what: String,
    },
    /// A disk cannot be wiped.
    #[error("a disk cannot be wiped: {0}")]
    Wipe(#[from] WipeError),
    /// No randomness for a seed.
    #[error("the system gives no randomness; name a --seed")]
    NoRandomness,
}

impl DrillError {
    /// 2 when the user can put it right, 1 when something broke.
    pub fn exit_code(&self) -> u8 {
        match self {
            DrillError::Run(error) => error.exit_code(),
            DrillError::NobodyDies { .. }
            | DrillError::NotNew { .. }
            | DrillError::Temporary { .. }
            | DrillError::NoRandomness => 2,
            DrillError::Mail { .. }
            | DrillError::NotDelivered { .. }
            | DrillError::NotAsSent { .. }
            | DrillError::Wipe(_) => 1,
        }
    }
}

impl From<FolderError> for DrillError {
    fn from(error: FolderError) -> Self {
        DrillError::Run(error.into())
    }
}

/// Carries out a drill; returns the exit code: 0 when all mail came back, 1 when not.
pub async fn drill(plan: Plan) -> Result<u8, DrillError> {
    let mut signals = Signals::new().map_err(RunError::from)?;
    let orders = orders(&plan)?;
    let place = Place::of(&plan)?;
    let outcome = carry_out(&plan, &orders, &place.path, &mut signals).await;
    place.leave(&outcome);
    let Some(report) = outcome? else { return Ok(INTERRUPTED) };
    let (text, json) = (report.to_text(), plan.as_json.then(|| report.to_json()));
    // With JSON on standard output the table is still for whoever watches.
    match json {
        Some(json) => {
            eprint!("{text}");
            print(&json);
        }
        None => print(&text),
    }
    Ok(if report.is_as_before { 0 } else { 1 })
}

/// What is to be done; whatever is wrong with the plan is found here, before anything is made.
fn orders(plan: &Plan) -> Result<Orders, DrillError> {
    let nodes = usize::from(plan.nodes);
    let count = plan.share.of(nodes);
    if count == 0 {
        return Err(DrillError::NobodyDies { share: plan.share, nodes });
    }
    let seed = plan.seed.map_or_else(|| getrandom::u32().map(u64::from), Ok).map_err(|_| DrillError::NoRandomness)?;
    let now_s = SystemTime::now().duration_since(UNIX_EPOCH).map_or(0, |since| since.as_secs() as i64);
    Ok(Orders {
        share: plan.share,
        victims: draw(seed, nodes, count),
        mails: plan.mails,
        seed,
        wait: plan.wait,
        date: mail_parser::DateTime::from_timestamp(now_s).to_rfc822(),
    })
}

/// Founds and runs the ring; nothing is returned when it was interrupted. All processes are gone when this returns.
async fn carry_out(
    plan: &Plan,
    orders: &Orders,
    path: &Path,
    signals: &mut Signals,
) -> Result<Option<Report>, DrillError> {
    let mut folder = DataFolder::open(path)?;
    if folder.is_complete() {
        return Err(DrillError::NotNew { path: path.to_owned() });
    }
    check_environment(folder.path())?;
    let free = || PortPlan::free_base(USERS, plan.nodes, std::process::id());
    let port_base = plan.port_base.map_or_else(free, Ok).map_err(RunError::from)?;
    let wish = Wish { nodes: Some(plan.nodes), users: Some(USERS), port_base: Some(port_base) };
    let local = Local::prepare(&mut folder, wish).map_err(RunError::from)?;
    let progress = Progress::new();
    progress.say(&format!(
        "a drill in which {} of {} nodes die; --seed {} draws the same nodes and mails again",
        orders.victims.len(),
        plan.nodes,
        orders.seed,
    ));
    let mut running = Running::start(local, progress).map_err(RunError::from)?;
    let outcome = tokio::select! {
        outcome = Course::new(&mut running, orders).run() => outcome.map(Some),
        () = signals.next() => Ok(None),
    };
    running.stop(signals, outcome.is_ok()).await;
    outcome
}

/// Where the ring's files are.
struct Place {
    path: PathBuf,
    is_temporary: bool,
}

impl Place {
    fn of(plan: &Plan) -> Result<Place, DrillError> {
        if let Some(path) = &plan.dir {
            return Ok(Place { path: path.clone(), is_temporary: false });
        }
        let name = getrandom::u64().map_err(|_| DrillError::NoRandomness)?;
        let path = std::env::temp_dir().join(format!("epost-drill-{name:016x}"));
        // Not over what another user may have put there: keys will be in it.
        let made = DirBuilder::new().mode(0o700).create(&path);
        made.map_err(|source| DrillError::Temporary { path: path.clone(), source })?;
        Ok(Place { path, is_temporary: true })
    }

    /// Removes what is temporary, unless there is something to be looked into; says where the rest is.
    fn leave(self, outcome: &Result<Option<Report>, DrillError>) {
        let path = self.path.display();
        let is_of_interest = match outcome {
            Ok(report) => report.as_ref().is_some_and(|report| !report.is_as_before),
            Err(error) => error.exit_code() == 1,
        };
        if self.is_temporary && !is_of_interest {
            if let Err(error) = fs::remove_dir_all(&self.path) {
                eprintln!("epost: {path}: {error}; the folder is no longer needed");
            }
        } else if self.is_temporary {
            eprintln!("epost: the ring is kept in {path}, with what its nodes said in node.log");
        } else if outcome.is_ok() {
            eprintln!("epost: the ring is in {path}; `epost up --dir {path}` runs it again");
        }
    }
}

/// To standard output; a reader that went away changes nothing about the outcome.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

#[cfg(test)]
mod tests {
    //! Goal: a drill never touches what it has not made, and leaves nothing that is not wanted. Method: folders by hand.
    use super::*;

    fn plan(dir: Option<PathBuf>, nodes: u16, kill: &str) -> Plan {
        let (share, wait) = (kill.parse().unwrap(), Duration::from_secs(1));
        Plan { dir, nodes, share, mails: 1, seed: Some(1), wait, port_base: None, as_json: false }
    }

    #[test]
    fn too_small_a_share_names_the_least() {
        let Err(error) = orders(&plan(None, 16, "6%")) else { panic!("6 % of 16 is nobody") };
        assert_eq!(error.exit_code(), 2);
        assert_eq!(error.to_string(), "6% of 16 nodes is less than one; use --kill 7% or more, or more --nodes");
        assert_eq!(orders(&plan(None, 16, "7%")).unwrap().victims.len(), 1);
        assert_eq!(orders(&plan(None, 16, "60%")).unwrap().victims.len(), 9);
    }

    #[tokio::test]
    async fn an_organisation_that_is_there_is_left_alone() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = DataFolder::open(place.path()).unwrap();
        Local::prepare(&mut folder, Wish { port_base: Some(21_800), ..Wish::default() }).unwrap();
        drop(folder);
        let Err(error) = drill(plan(Some(place.path().to_owned()), 5, "20%")).await else { panic!("it was wiped") };
        assert!(matches!(error, DrillError::NotNew { .. }), "{error}");
        assert_eq!(error.exit_code(), 2);
    }

    #[test]
    fn temporary_folders_go_unless_there_is_something_to_look_into() {
        let broke = DrillError::NotDelivered { within: Duration::ZERO };
        for (outcome, is_kept) in [(Ok(None), false), (Err(broke), true), (Err(DrillError::NoRandomness), false)] {
            let place = Place::of(&plan(None, 5, "20%")).unwrap();
            let path = place.path.clone();
            fs::write(path.join("x"), "x").unwrap();
            place.leave(&outcome);
            assert_eq!(path.exists(), is_kept, "{outcome:?}");
            let _ = fs::remove_dir_all(path);
        }
    }
}
