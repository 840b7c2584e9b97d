//! `epost up`: a local organisation, running, until Ctrl-C.

use super::children::{ChildEvent, STOP_MAX, is_running, keep};
use super::folder::{DataFolder, FolderError};
use super::http;
use super::local::{Local, LocalError, Wish};
use super::ports::{PortError, local};
use super::record::{NodeRecord, UpRecord, UserRecord};
use super::table;
use engine::OpenError;
use engine::ring::{Bell, RingDisk};
use indicatif::{ProgressBar, ProgressStyle};
use serde_json::Value;
use std::io::{self, IsTerminal, Write};
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::process::ExitStatus;
use std::sync::Arc;
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How long the nodes may take until all are ready.
const READY_MAX: Duration = Duration::from_secs(180);

/// How often they are asked.
const ASK_EVERY: Duration = Duration::from_millis(200);

/// Deaths of one node before it was ever ready, after which it is given up.
const DEATHS_MAX: u32 = 3;

/// Events of children not yet looked at.
const EVENTS_MAX: usize = 256;

/// Exit code of a node that cannot run in this environment, and says why.
const UNFIT: i32 = 2;

/// Why nothing runs.
#[derive(Debug, thiserror::Error)]
pub enum UpError {
    /// The organisation cannot be made or found.
    #[error(transparent)]
    Local(#[from] LocalError),
    /// The data folder.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// The ports.
    #[error(transparent)]
    Port(#[from] PortError),
    /// The kernel gives no io_uring, or too little memory may be locked.
    #[error(transparent)]
    Environment(#[from] OpenError),
    /// A node of an earlier run does not stop.
    #[error("node {number} of an earlier run is still running; wait until it stops, or kill it")]
    StillRunning {
        /// Counted from 1.
        number: usize,
    },
    /// A node says that it cannot run here, and what to do.
    #[error("{reason}")]
    Unfit {
        /// The node's own words.
        reason: String,
    },
    /// A node died again and again before it was ready.
    #[error("node {number} does not start: {reason} (more in {})", log.display())]
    NodeFails {
        /// Counted from 1.
        number: usize,
        /// The last line of its log.
        reason: String,
        /// Its log.
        log: PathBuf,
    },
    /// Some nodes were not ready in time.
    #[error("not ready after {} s: {missing}; see node.log in the nodes' folders", READY_MAX.as_secs())]
    NotReady {
        /// Which.
        missing: String,
    },
    /// This program cannot find itself, or cannot listen for signals.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

impl UpError {
    /// 2 when the user can put it right, 1 when something broke.
    pub fn exit_code(&self) -> u8 {
        match self {
            UpError::Environment(_)
            | UpError::Local(_)
            | UpError::Folder(_)
            | UpError::Port(_)
            | UpError::StillRunning { .. }
            | UpError::Unfit { .. } => 2,
            UpError::NodeFails { .. } | UpError::NotReady { .. } | UpError::System(_) => 1,
        }
    }
}

/// Runs a local organisation in `path` until it is told to stop.
pub async fn up(path: &Path, wish: Wish) -> Result<(), UpError> {
    let mut signals = Signals::new()?;
    let mut folder = DataFolder::open(path)?;
    check_environment(folder.path())?;
    let local = Local::prepare(&mut folder, wish)?;
    UpRecord::remove(folder.path())?;
    wait_for_earlier_run(&local).await?;
    local.ports().check()?;
    let mut running = Running::start(folder, local)?;
    let outcome = running.run(&mut signals).await;
    running.stop(&mut signals, outcome.is_ok()).await;
    outcome
}

/// Whether a store could work here, tried on a ring of our own before five processes find out.
fn check_environment(folder: &Path) -> Result<(), UpError> {
    RingDisk::open(folder, Arc::new(Bell::new()?))?;
    Ok(())
}

/// Ctrl-C, and what `kill` sends.
struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    fn new() -> io::Result<Self> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The children of a run that was killed need a moment to stop in good order.
async fn wait_for_earlier_run(local: &Local) -> Result<(), UpError> {
    let since = Instant::now();
    while let Some(number) = local.nodes.iter().position(|node| is_running(&node.folder)) {
        if since.elapsed() > STOP_MAX {
            return Err(UpError::StillRunning { number: number + 1 });
        }
        sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// What is known of a node.
#[derive(Clone, Default)]
struct NodeState {
    pid: u32,
    deaths: u32,
    /// Its id on the ring, since it was first ready.
    id: Option<String>,
}

/// A running organisation.
struct Running {
    folder: DataFolder,
    local: Local,
    states: Vec<NodeState>,
    events: mpsc::Receiver<ChildEvent>,
    keepers: JoinSet<()>,
    stop: watch::Sender<bool>,
    progress: Progress,
}

impl Running {
    fn start(folder: DataFolder, local: Local) -> io::Result<Self> {
        let program = std::env::current_exe()?;
        let (happened, events) = mpsc::channel(EVENTS_MAX);
        let (stop, told) = watch::channel(false);
        let mut keepers = JoinSet::new();
        for (node, place) in local.nodes.iter().enumerate() {
            keepers.spawn(keep(node, program.clone(), place.folder.clone(), happened.clone(), told.clone()));
        }
        let states = vec![NodeState::default(); local.nodes.len()];
        let progress = Progress::new(local.nodes.len());
        Ok(Running { folder, local, states, events, keepers, stop, progress })
    }

    /// Until a signal: gets everything ready, says so, and keeps `up.json` true.
    async fn run(&mut self, signals: &mut Signals) -> Result<(), UpError> {
        tokio::select! {
            ready = self.get_ready() => ready?,
            () = signals.next() => return Ok(()),
        }
        self.progress.end();
        self.record().write(self.folder.path())?;
        print(&announcement(&self.local, self.folder.path()));
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => self.note(event)?,
                () = signals.next() => return Ok(()),
            }
        }
    }

    async fn get_ready(&mut self) -> Result<(), UpError> {
        let since = Instant::now();
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => self.note_before_ready(event)?,
                _ = ask.tick() => self.ask().await,
            }
            let missing: Vec<String> = self.unready().map(|node| format!("node {}", node + 1)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if since.elapsed() > READY_MAX {
                return Err(UpError::NotReady { missing: missing.join(", ") });
            }
        }
    }

    fn unready(&self) -> impl Iterator<Item = usize> {
        self.states.iter().enumerate().filter(|(_, state)| state.id.is_none()).map(|(node, _)| node)
    }

    /// Asks every node that was not ready whether it is now, mail listeners included.
    async fn ask(&mut self) {
        for node in self.unready().collect::<Vec<_>>() {
            let Some(id) = ready_id(self.local.nodes[node].ports.status).await else { continue };
            let mail = self.local.users.get(node).map(|user| user.ports);
            let listeners = mail.map(|p| [p.smtp_starttls, p.smtp_tls, p.imap_starttls, p.imap_tls]);
            if listens_on(&listeners.unwrap_or_default()).await {
                self.states[node].id = Some(id);
                self.progress.ready(node, self.unready().count());
            }
        }
    }

    fn note_before_ready(&mut self, event: ChildEvent) -> Result<(), UpError> {
        if let ChildEvent::Ended { node, status, last_line, .. } = &event {
            let state = &mut self.states[*node];
            state.deaths += 1;
            state.id = None;
            if status.code() == Some(UNFIT) {
                return Err(UpError::Unfit { reason: without_prefix(last_line) });
            }
            if state.deaths >= DEATHS_MAX {
                let log = self.local.nodes[*node].folder.join("node.log");
                return Err(UpError::NodeFails { number: node + 1, reason: last_line.clone(), log });
            }
        }
        self.note(event)
    }

    /// Keeps track of a child, and says what the user should know.
    fn note(&mut self, event: ChildEvent) -> Result<(), UpError> {
        match event {
            ChildEvent::Started { node, pid } => {
                self.states[node].pid = pid;
                if self.unready().next().is_none() {
                    self.record().write(self.folder.path())?;
                    self.progress.say(&format!("node {} runs again, process {pid}", node + 1));
                }
            }
            ChildEvent::Ended { node, status, last_line, pause } => {
                let how = how_it_ended(status);
                let next = format!("starting it again in {} s", pause.as_secs());
                let said = if status.signal().is_some() { String::new() } else { format!(": {last_line}") };
                self.progress.say(&format!("node {} {how}{said}; {next}", node + 1));
            }
            ChildEvent::NotStarted { node, error } => {
                self.progress.say(&format!("node {} cannot be started: {error}", node + 1));
            }
        }
        Ok(())
    }

    /// Stops all children; a second signal kills them. After a failure, the failure is all that is said.
    async fn stop(mut self, signals: &mut Signals, say_so: bool) {
        self.progress.end();
        if say_so {
            self.progress.say("stopping the nodes; once more Ctrl-C kills them");
        }
        if let Err(error) = UpRecord::remove(self.folder.path()) {
            self.progress.say(&error.to_string());
        }
        let _ = self.stop.send(true);
        // Room for what the keepers still have to say, so that none of them waits for us.
        self.events.close();
        let all_gone = async { while self.keepers.join_next().await.is_some() {} };
        tokio::select! {
            () = all_gone => {}
            () = signals.next() => {}
        }
        self.keepers.shutdown().await;
        if say_so {
            self.progress.say("all nodes are stopped");
        }
    }

    fn record(&self) -> UpRecord {
        let users = self.local.users.iter().map(|user| UserRecord::new(&user.address, &user.password, user.ports));
        let nodes = self.local.nodes.iter().zip(&self.states).map(|(node, state)| NodeRecord {
            pid: state.pid,
            node_id: state.id.clone().unwrap_or_default(),
            dir: node.folder.clone(),
            status_url: format!("http://{}/status", local(node.ports.status)),
        });
        UpRecord { domain: self.local.domain.clone(), users: users.collect(), nodes: nodes.collect() }
    }
}

/// The node's id, if it says that it is ready.
async fn ready_id(status: u16) -> Option<String> {
    let body = http::get(local(status), "/status").await.ok()?;
    let answer: Value = serde_json::from_slice(&body).ok()?;
    (answer.get("ready")? == &Value::Bool(true)).then_some(())?;
    Some(answer.get("node_id")?.as_str()?.to_owned())
}

/// Whether somebody listens on each port; 0 stands for none.
async fn listens_on(ports: &[u16]) -> bool {
    for &port in ports.iter().filter(|&&port| port != 0) {
        if TcpStream::connect(local(port)).await.is_err() {
            return false;
        }
    }
    true
}

/// `epost: reason` as a node prints it, without its first word.
fn without_prefix(line: &str) -> String {
    line.strip_prefix("epost: ").unwrap_or(line).to_owned()
}

fn how_it_ended(status: ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("ended with code {code}"),
        (None, Some(signal)) => format!("was killed by signal {signal}"),
        (None, None) => "ended".to_owned(),
    }
}

/// What the user is told when all is ready.
fn announcement(local: &Local, folder: &Path) -> String {
    let pair = |starttls: u16, tls: u16| format!("127.0.0.1  {starttls} / {tls}");
    let rows: Vec<Vec<String>> = local
        .users
        .iter()
        .map(|user| {
            let ports = user.ports;
            vec![
                user.address.clone(),
                user.password.to_string(),
                pair(ports.imap_starttls, ports.imap_tls),
                pair(ports.smtp_starttls, ports.smtp_tls),
            ]
        })
        .collect();
    let headings = ["user name", "password", "IMAP       STARTTLS / TLS", "SMTP       STARTTLS / TLS"];
    format!(
        "\nePOST is running: {} nodes on this machine, mail domain {}.\n\n{}\n\
         Any mail client will do. It will ask once whether to trust the server's certificate.\n\
         Status: epost status --dir {dir}   For programs: {}\nCtrl-C stops everything; the mail stays in {dir}.\n",
        local.nodes.len(),
        local.domain,
        table::render(&headings, &rows),
        UpRecord::path(folder).display(),
        dir = folder.display(),
    )
}

/// To standard output, at once; a reader that went away does not end the ring.
fn print(text: &str) {
    let mut out = io::stdout().lock();
    let _ = out.write_all(text.as_bytes()).and_then(|()| out.flush());
}

/// Tells how far the start is: a spinner on a terminal, lines elsewhere. On standard error.
struct Progress {
    spinner: Option<ProgressBar>,
    total: usize,
}

impl Progress {
    fn new(total: usize) -> Self {
        let spinner = io::stderr().is_terminal().then(|| {
            let bar = ProgressBar::new_spinner().with_message(format!("starting {total} nodes"));
            bar.set_style(ProgressStyle::default_spinner());
            bar.enable_steady_tick(Duration::from_millis(100));
            bar
        });
        let progress = Progress { spinner, total };
        if progress.spinner.is_none() {
            progress.say(&format!("starting {total} nodes"));
        }
        progress
    }

    fn ready(&self, node: usize, missing: usize) {
        match &self.spinner {
            Some(bar) => bar.set_message(format!("{} of {} nodes are ready", self.total - missing, self.total)),
            None => self.say(&format!("node {} is ready", node + 1)),
        }
    }

    fn say(&self, text: &str) {
        let write = || {
            let _ = writeln!(io::stderr(), "epost: {text}");
        };
        match &self.spinner {
            Some(bar) => bar.suspend(write),
            None => write(),
        }
    }

    fn end(&mut self) {
        if let Some(bar) = self.spinner.take() {
            bar.finish_and_clear();
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: the user is told everything a mail client asks for, in line. Method: by hand.
    use super::*;
    use crate::cli::local::LocalUser;
    use crate::cli::ports::PortPlan;

    #[test]
    fn the_announcement() {
        let ports = PortPlan::standard(2, 5).users;
        let user = |address: &str, number: usize| LocalUser {
            address: address.into(),
            password: String::from("kabetu-sinore").into(),
            ports: ports[number],
        };
        let users = vec![user("alice@epost.test", 0), user("bob@epost.test", 1)];
        let text = announcement(&Local { domain: "epost.test".into(), users, nodes: Vec::new() }, Path::new("/data"));
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(lines[3], "user name         password       IMAP       STARTTLS / TLS  SMTP       STARTTLS / TLS");
        assert_eq!(lines[4], "alice@epost.test  kabetu-sinore  127.0.0.1  2143 / 2993     127.0.0.1  2587 / 2465");
        assert_eq!(lines[5], "bob@epost.test    kabetu-sinore  127.0.0.1  3143 / 3993     127.0.0.1  3587 / 3465");
        assert!(text.contains("/data/up.json"));
    }

    #[test]
    fn what_a_node_said() {
        assert_eq!(without_prefix("epost: io_uring is not available"), "io_uring is not available");
        assert_eq!(how_it_ended(ExitStatus::from_raw(9)), "was killed by signal 9");
        assert_eq!(how_it_ended(ExitStatus::from_raw(1 << 8)), "ended with code 1");
    }
}
