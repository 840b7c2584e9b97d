//! The nodes of a local organisation, running: started as children, watched until all are ready, stopped; or killed, for a
//! drill, and started again.

use super::children::{ChildEvent, Order, STOP_MAX, is_running, keep};
use super::folder::FolderError;
use super::http;
use super::local::{Local, LocalError};
use super::ports::{PortError, local};
use super::progress::Progress;
use engine::OpenError;
use engine::ring::{Bell, RingDisk};
use serde_json::Value;
use std::io;
use std::os::unix::process::ExitStatusExt;
use std::path::{Path, PathBuf};
use std::pin::pin;
use std::process::ExitStatus;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::net::TcpStream;
use tokio::signal::unix::{Signal, SignalKind, signal};
use tokio::sync::{mpsc, watch};
use tokio::task::JoinSet;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep};

/// How long the nodes may take until all are ready.
pub const READY_MAX: Duration = Duration::from_secs(180);

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
pub enum RunError {
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
    #[error("not ready after {} s: {missing}; see node.log in the nodes' folders", within.as_secs())]
    NotReady {
        /// How long was waited.
        within: Duration,
        /// Which.
        missing: String,
    },
    /// This program cannot find itself, or cannot listen for signals.
    #[error("the system refuses: {0}")]
    System(#[from] io::Error),
}

impl RunError {
    /// 2 when the user can put it right, 1 when something broke.
    pub fn exit_code(&self) -> u8 {
        match self {
            RunError::Environment(_)
            | RunError::Local(_)
            | RunError::Folder(_)
            | RunError::Port(_)
            | RunError::StillRunning { .. }
            | RunError::Unfit { .. } => 2,
            RunError::NodeFails { .. } | RunError::NotReady { .. } | RunError::System(_) => 1,
        }
    }
}

/// Whether a store could work here, tried on a ring of our own before five processes find out.
pub fn check_environment(folder: &Path) -> Result<(), RunError> {
    RingDisk::open(folder, Arc::new(Bell::new()?))?;
    Ok(())
}

/// Ctrl-C, and what `kill` sends.
pub struct Signals {
    interrupt: Signal,
    terminate: Signal,
}

impl Signals {
    /// Listens from now on.
    pub fn new() -> io::Result<Self> {
        Ok(Signals { interrupt: signal(SignalKind::interrupt())?, terminate: signal(SignalKind::terminate())? })
    }

    /// Waits for one.
    pub async fn next(&mut self) {
        tokio::select! {
            _ = self.interrupt.recv() => {}
            _ = self.terminate.recv() => {}
        }
    }
}

/// The children of a run that was killed need a moment to stop in good order.
pub async fn wait_for_earlier_run(local: &Local) -> Result<(), RunError> {
    let since = Instant::now();
    while let Some(number) = local.nodes.iter().position(|node| is_running(&node.folder)) {
        if since.elapsed() > STOP_MAX {
            return Err(RunError::StillRunning { number: number + 1 });
        }
        sleep(ASK_EVERY).await;
    }
    Ok(())
}

/// What is known of a node.
#[derive(Clone, Default)]
pub struct NodeState {
    /// Its process.
    pub pid: u32,
    /// Its id on the ring, since it was first ready.
    pub id: Option<String>,
    deaths: u32,
}

/// One node's keeper.
struct Keeper {
    order: watch::Sender<Order>,
    /// A set of one, because a set ends its tasks when it is dropped, and a killed task takes its child with it.
    task: JoinSet<()>,
}

impl Keeper {
    async fn ended(&mut self) {
        while self.task.join_next().await.is_some() {}
    }
}

/// A running organisation.
pub struct Running {
    /// What runs.
    pub local: Local,
    /// Where the user is told of it.
    pub progress: Progress,
    program: PathBuf,
    states: Vec<NodeState>,
    keepers: Vec<Keeper>,
    events: mpsc::Receiver<ChildEvent>,
    happened: mpsc::Sender<ChildEvent>,
}

impl Running {
    /// Starts every node; [`Running::get_ready`] waits for them.
    pub fn start(local: Local, mut progress: Progress) -> io::Result<Self> {
        let count = local.nodes.len();
        let (happened, events) = mpsc::channel(EVENTS_MAX);
        progress.begin(&format!("starting {count} nodes"), count);
        let states = vec![NodeState::default(); count];
        let program = std::env::current_exe()?;
        let mut running = Running { local, progress, program, states, keepers: Vec::new(), events, happened };
        running.keepers = (0..count).map(|node| running.keeper(node)).collect();
        Ok(running)
    }

    fn keeper(&self, node: usize) -> Keeper {
        let (order, told) = watch::channel(Order::Run);
        let folder = self.local.nodes[node].folder.clone();
        let mut task = JoinSet::new();
        task.spawn(keep(node, self.program.clone(), folder, self.happened.clone(), told));
        Keeper { order, task }
    }

    /// Ends these nodes at once, in good order or not, and returns when their processes are gone. They stay so until
    /// [`Running::start_again`].
    pub async fn end(&mut self, nodes: &[usize], order: Order) {
        assert!(order != Order::Run);
        for &node in nodes {
            self.keepers[node].order.send_replace(order);
        }
        for &node in nodes {
            self.keepers[node].ended().await;
        }
        // What their keepers still had to say is of processes that are gone.
        while let Ok(event) = self.events.try_recv() {
            self.note(event);
        }
        for &node in nodes {
            self.states[node] = NodeState::default();
        }
    }

    /// Starts nodes again that were ended; [`Running::get_ready`] waits for them.
    pub fn start_again(&mut self, nodes: &[usize]) {
        for &node in nodes {
            self.keepers[node] = self.keeper(node);
        }
    }

    /// Does some work, of which so many pieces are `done`, and meanwhile says what happens to the nodes.
    pub async fn beside<T>(&mut self, done: &AtomicUsize, work: impl Future<Output = T>) -> T {
        let mut work = pin!(work);
        let mut look = interval(ASK_EVERY);
        loop {
            tokio::select! {
                result = &mut work => return result,
                () = self.restarted() => {}
                _ = look.tick() => self.progress.reach(done.load(Ordering::Relaxed)),
            }
        }
    }

    /// What every node says of itself; nothing of those that do not answer.
    pub async fn answers(&self) -> Vec<Option<Value>> {
        let mut answers = Vec::new();
        for node in &self.local.nodes {
            answers.push(answer(node.ports.status).await);
        }
        answers
    }

    /// What is known of the nodes, in their order.
    pub fn states(&self) -> &[NodeState] {
        &self.states
    }

    /// All nodes, as those that wait for them name them.
    pub fn all(&self) -> Vec<usize> {
        (0..self.states.len()).collect()
    }

    /// Waits until these nodes are ready, mail listeners included, but no longer than `within`.
    pub async fn get_ready(&mut self, nodes: &[usize], within: Duration) -> Result<(), RunError> {
        let since = Instant::now();
        let mut ask = interval(ASK_EVERY);
        ask.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                Some(event) = self.events.recv() => self.note_before_ready(event)?,
                _ = ask.tick() => self.ask().await,
            }
            let missing = self.unready().filter(|node| nodes.contains(node));
            let missing: Vec<String> = missing.map(|node| format!("node {}", node + 1)).collect();
            if missing.is_empty() {
                return Ok(());
            }
            if since.elapsed() > within {
                return Err(RunError::NotReady { within, missing: missing.join(", ") });
            }
        }
    }

    /// The nodes that have not been ready since they were started.
    pub fn unready(&self) -> impl Iterator<Item = usize> {
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
                self.progress.advance(&format!("node {} is ready", node + 1));
            }
        }
    }

    fn note_before_ready(&mut self, event: ChildEvent) -> Result<(), RunError> {
        if let ChildEvent::Ended { node, status, last_line, .. } = &event {
            let state = &mut self.states[*node];
            state.deaths += 1;
            state.id = None;
            if status.code() == Some(UNFIT) {
                return Err(RunError::Unfit { reason: without_prefix(last_line) });
            }
            if state.deaths >= DEATHS_MAX {
                let log = self.local.nodes[*node].folder.join("node.log");
                return Err(RunError::NodeFails { number: node + 1, reason: last_line.clone(), log });
            }
        }
        self.note(event);
        Ok(())
    }

    /// Says what happens to the nodes until one that had been ready was started again: its process is another.
    pub async fn restarted(&mut self) {
        while let Some(event) = self.events.recv().await {
            let is_start = matches!(event, ChildEvent::Started { .. });
            self.note(event);
            if is_start && self.unready().next().is_none() {
                return;
            }
        }
    }

    /// Keeps track of a child, and says what the user should know.
    fn note(&mut self, event: ChildEvent) {
        match event {
            ChildEvent::Started { node, pid } => {
                self.states[node].pid = pid;
                if self.unready().next().is_none() {
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
    }

    /// Stops all children; a second signal kills them. After a failure, the failure is all that is said.
    pub async fn stop(mut self, signals: &mut Signals, say_so: bool) {
        self.progress.end();
        if say_so {
            self.progress.say("stopping the nodes; once more Ctrl-C kills them");
        }
        for keeper in &self.keepers {
            // One that was killed stays so; its keeper hears nothing any more.
            keeper.order.send_replace(Order::Stop);
        }
        // Room for what the keepers still have to say, so that none of them waits for us.
        self.events.close();
        let all_gone = async {
            for keeper in &mut self.keepers {
                keeper.ended().await;
            }
        };
        tokio::select! {
            () = all_gone => {}
            () = signals.next() => {}
        }
        for keeper in &mut self.keepers {
            keeper.task.shutdown().await;
        }
        if say_so {
            self.progress.say("all nodes are stopped");
        }
    }
}

/// What a node says of itself.
async fn answer(status: u16) -> Option<Value> {
    let body = http::get(local(status), "/status").await.ok()?;
    serde_json::from_slice(&body).ok()
}

/// The node's id, if it says that it is ready.
async fn ready_id(status: u16) -> Option<String> {
    let answer = answer(status).await?;
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

#[cfg(test)]
mod tests {
    //! Goal: what is said of a node is what it said, or how it ended. Method: by hand.
    use super::*;

    #[test]
    fn what_a_node_said() {
        assert_eq!(without_prefix("epost: io_uring is not available"), "io_uring is not available");
        assert_eq!(how_it_ended(ExitStatus::from_raw(9)), "was killed by signal 9");
        assert_eq!(how_it_ended(ExitStatus::from_raw(1 << 8)), "ended with code 1");
    }
}
