//! The nodes of a local organisation as child processes, each kept running by a task of its own.
//!
//! A child holds the other end of a pipe as its standard input (its lifeline): it stops in good order when the pipe
//! closes. That is how it is asked to stop, and also what happens when this process is killed, so that no child
//! outlives it. A child that ends by itself is started again, each time after a longer pause. It may also be killed by
//! order, as a power cut would, and then stays dead: that is what a drill does.
//!
//! A node's log is locked while its process lives: the lock belongs to the open file, which the child inherits as
//! its output. So a later run sees whether a child of an earlier one is still on its way out.

use std::fs::{self, File, OpenOptions, TryLockError};
use std::io::{self, Read, Seek, SeekFrom};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::process::{ExitStatus, Stdio};
use std::time::{Duration, Instant};
use tokio::process::{Child, Command};
use tokio::sync::{mpsc, watch};
use tokio::time::{sleep, timeout};

/// Tells `epost node` that the end of its standard input is the end of its life.
pub const LIFELINE: &str = "EPOST_LIFELINE";

/// How long a child may take to stop before it is killed.
pub const STOP_MAX: Duration = Duration::from_secs(30);

/// The first pause before a child is started again.
const PAUSE_MIN: Duration = Duration::from_secs(1);

/// The longest.
const PAUSE_MAX: Duration = Duration::from_secs(30);

/// A child that ran this long was not failing at its start: the pauses begin anew.
const HEALTHY_AFTER: Duration = Duration::from_secs(20);

/// A log beyond this is put aside at the next start; one older log is kept.
const LOG_BYTES_MAX: u64 = 16 << 20;

/// How much of a log's end is looked at for its last line.
const LOG_END_BYTES: u64 = 8 << 10;

const _: () = assert!(PAUSE_MIN.as_millis() < PAUSE_MAX.as_millis());

/// What is to become of a child.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Order {
    /// It runs, and is started again when it ends.
    Run,
    /// It stops in good order, and its keeper with it.
    Stop,
    /// It is killed where it stands, without a word to it, and its keeper ends.
    Kill,
}

/// What happens to a child. Nodes are counted from 0.
#[derive(Debug)]
pub enum ChildEvent {
    /// It runs.
    Started {
        /// Which.
        node: usize,
        /// Its process.
        pid: u32,
    },
    /// It ended without being asked, and will be started again.
    Ended {
        /// Which.
        node: usize,
        /// How.
        status: ExitStatus,
        /// The last line of its log.
        last_line: String,
        /// When it will be started again.
        pause: Duration,
    },
    /// It cannot be started at all; tried again after a pause.
    NotStarted {
        /// Which.
        node: usize,
        /// Why.
        error: io::Error,
    },
}

/// Keeps one node running for as long as that is the order; returns when its process is gone.
pub async fn keep(
    node: usize,
    program: PathBuf,
    folder: PathBuf,
    events: mpsc::Sender<ChildEvent>,
    mut order: watch::Receiver<Order>,
) {
    let mut pause = PAUSE_MIN;
    while *order.borrow() == Order::Run {
        let began = Instant::now();
        match start(&program, &folder) {
            Ok(mut child) => {
                let pid = child.id().unwrap_or(0);
                let _ = events.send(ChildEvent::Started { node, pid }).await;
                let Some(status) = live(&mut child, &mut order).await else { return };
                if began.elapsed() > HEALTHY_AFTER {
                    pause = PAUSE_MIN;
                }
                let last_line = last_line(&folder.join("node.log"));
                let _ = events.send(ChildEvent::Ended { node, status, last_line, pause }).await;
            }
            Err(error) => {
                let _ = events.send(ChildEvent::NotStarted { node, error }).await;
            }
        }
        tokio::select! {
            () = sleep(pause) => {}
            () = told(&mut order) => {}
        }
        pause = (pause * 2).min(PAUSE_MAX);
    }
}

/// Waits for the child's own end; or, told otherwise, brings it about and returns nothing.
async fn live(child: &mut Child, order: &mut watch::Receiver<Order>) -> Option<ExitStatus> {
    // Taken out first, because waiting for a child closes the pipe that is still in it.
    let lifeline = child.stdin.take();
    tokio::select! {
        ended = child.wait() => return ended.ok(),
        () = told(order) => {}
    }
    if *order.borrow() == Order::Kill {
        // Before the pipe closes, so that nothing of it is taken for a request to stop.
        let _ = child.kill().await;
    }
    drop(lifeline);
    if timeout(STOP_MAX, child.wait()).await.is_err() {
        let _ = child.kill().await;
    }
    None
}

/// Waits until it is to end. Whoever gave the orders being gone is one to stop.
async fn told(order: &mut watch::Receiver<Order>) {
    let _ = order.wait_for(|&order| order != Order::Run).await;
}

/// Whether a process of this node, started by an earlier run, still lives.
pub fn is_running(folder: &Path) -> bool {
    let log = OpenOptions::new().append(true).open(folder.join("node.log"));
    log.is_ok_and(|log| matches!(log.try_lock(), Err(TryLockError::WouldBlock)))
}

fn start(program: &Path, folder: &Path) -> io::Result<Child> {
    let log = open_log(&folder.join("node.log"))?;
    log.try_lock()?;
    // A process group of its own, so that Ctrl-C reaches only us, and the children are stopped in order.
    Command::new(program)
        .arg("node")
        .arg("--config")
        .arg(folder.join("node.toml"))
        .env(LIFELINE, "1")
        .stdin(Stdio::piped())
        .stdout(log.try_clone()?)
        .stderr(log)
        .process_group(0)
        .kill_on_drop(true)
        .spawn()
}

fn open_log(path: &Path) -> io::Result<File> {
    if fs::metadata(path).is_ok_and(|log| log.len() > LOG_BYTES_MAX) {
        fs::rename(path, path.with_extension("log.1"))?;
    }
    OpenOptions::new().create(true).append(true).mode(0o600).open(path)
}

/// The last line of a log that has something in it.
pub fn last_line(path: &Path) -> String {
    let read = || {
        let mut file = File::open(path)?;
        let start = file.metadata()?.len().saturating_sub(LOG_END_BYTES);
        file.seek(SeekFrom::Start(start))?;
        let mut end = Vec::new();
        file.take(LOG_END_BYTES).read_to_end(&mut end)?;
        io::Result::Ok(String::from_utf8_lossy(&end).into_owned())
    };
    let text = read().unwrap_or_default();
    text.lines().rev().map(str::trim).find(|line| !line.is_empty()).unwrap_or("(its log is empty)").to_owned()
}

#[cfg(test)]
mod tests {
    //! Goal: a child that dies is started again with a longer pause, one that is told to stop stops by its lifeline,
    //! and what it said last is reported. Method: small shell scripts in a node's place.
    use super::*;
    use std::os::unix::fs::PermissionsExt;

    fn script(folder: &Path, text: &str) -> PathBuf {
        let path = folder.join("program");
        fs::write(&path, format!("#!/bin/sh\n{text}\n")).unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o755)).unwrap();
        path
    }

    #[tokio::test]
    async fn stopped_by_the_lifeline() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "echo \"$1 $EPOST_LIFELINE\"; cat; echo stopped in order");
        let (events, mut happened) = mpsc::channel(8);
        let (order, told) = watch::channel(Order::Run);
        let keeping = tokio::spawn(keep(0, program, folder.path().to_owned(), events, told));
        assert!(matches!(happened.recv().await, Some(ChildEvent::Started { node: 0, pid: 1.. })));
        assert!(timeout(Duration::from_millis(300), happened.recv()).await.is_err(), "it lives until it is told");
        assert!(is_running(folder.path()));
        order.send(Order::Stop).unwrap();
        keeping.await.unwrap();
        assert!(!is_running(folder.path()));
        assert!(happened.recv().await.is_none());
        assert_eq!(fs::read_to_string(folder.path().join("node.log")).unwrap(), "node 1\nstopped in order\n");
    }

    #[tokio::test]
    async fn killed_without_a_word() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "trap 'echo asked to stop' TERM INT; cat; echo stopped in order");
        let (events, mut happened) = mpsc::channel(8);
        let (order, told) = watch::channel(Order::Run);
        let keeping = tokio::spawn(keep(0, program, folder.path().to_owned(), events, told));
        assert!(matches!(happened.recv().await, Some(ChildEvent::Started { .. })));
        order.send(Order::Kill).unwrap();
        keeping.await.unwrap();
        assert!(happened.recv().await.is_none(), "it is not started again, and its end is no news");
        // The shell is dead; its `cat` ends with the pipe.
        assert_eq!(fs::read_to_string(folder.path().join("node.log")).unwrap(), "");
    }

    #[tokio::test]
    async fn started_again() {
        let folder = tempfile::tempdir().unwrap();
        let program = script(folder.path(), "echo cannot: no luck >&2; echo; exit 2");
        let (events, mut happened) = mpsc::channel(8);
        let (order, told) = watch::channel(Order::Run);
        let keeping = tokio::spawn(keep(3, program, folder.path().to_owned(), events, told));
        for round in 1..=2 {
            assert!(matches!(happened.recv().await, Some(ChildEvent::Started { node: 3, .. })));
            let Some(ChildEvent::Ended { node: 3, status, last_line, pause }) = happened.recv().await else { panic!() };
            assert_eq!((status.code(), last_line.as_str()), (Some(2), "cannot: no luck"));
            assert_eq!(pause, PAUSE_MIN * round);
        }
        order.send(Order::Stop).unwrap();
        keeping.await.unwrap();
    }

    #[test]
    fn a_long_log_is_put_aside() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("node.log");
        File::create(&path).unwrap().set_len(LOG_BYTES_MAX + 1).unwrap();
        assert_eq!(open_log(&path).unwrap().metadata().unwrap().len(), 0);
        assert!(folder.path().join("node.log.1").exists());
        assert_eq!(last_line(&path), "(its log is empty)");
    }
}
