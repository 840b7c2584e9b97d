//! A ring under test: `epost up` and its nodes as real processes, driven by clients nobody here wrote.
//!
//! A [`Ring`] lives in a folder of its own, on a range of ports found free, and belongs to a keeper process
//! (clients/keeper.py) that takes it down when this test process ends, however it ends. Most tests share one ring
//! ([`shared`]): they use folders and Message-IDs of their own and do not count what others may change.
//!
//! Without Python or mbsync a test says so and passes as skipped, unless `EPOST_E2E=require` is set, as CI does.
#![allow(dead_code, reason = "each test binary uses a part of it")]

use serde_json::Value;
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{TcpListener, UdpSocket};
use std::path::{Path, PathBuf};
use std::process::{Child, ChildStdin, ChildStdout, Command, Output, Stdio};
use std::sync::{Mutex, OnceLock};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

/// The binary under test.
pub(crate) const EPOST: &str = env!("CARGO_BIN_EXE_epost");
/// Nodes in a ring, as `up` makes them by default.
pub(crate) const NODES: usize = 5;
/// Until a ring of five is ready, on a machine that does much else.
const READY_MAX: Duration = Duration::from_secs(200);
/// Until a client script is done; beyond this it hangs.
const SCRIPT_MAX: Duration = Duration::from_secs(400);
/// What a script ends with when the machine does not let it do its work.
const SKIPPED: i32 = 77;
/// Ports `up --port-base` may use from the base upwards: eight for mail, five for QUIC, five for status, and spare.
const PORTS: u16 = 32;
/// Where ranges are looked for.
const PORTS_FIRST: u16 = 20_000;
/// No range ends beyond this.
const PORTS_LAST: u16 = 32_700;

/// Whether a missing client program is a failure.
pub(crate) fn required() -> bool {
    std::env::var_os("EPOST_E2E").is_some_and(|value| value == "require")
}

/// Whether the program can be started; if not, says that the test is skipped, or fails it when it must not be.
pub(crate) fn have(program: &str) -> bool {
    let found = Command::new(program).arg("--version").stdout(Stdio::null()).stderr(Stdio::null()).status().is_ok();
    assert!(found || !required(), "{program} is not installed, and EPOST_E2E=require forbids skipping");
    if !found {
        eprintln!("skipped: {program} is not installed");
    }
    found
}

/// The seed of this run: `EPOST_SEED`, or the time. Printed, so that a failing run can be repeated.
pub(crate) fn seed() -> u64 {
    static SEED: OnceLock<u64> = OnceLock::new();
    *SEED.get_or_init(|| {
        let given = std::env::var("EPOST_SEED").ok().and_then(|text| text.parse().ok());
        let seed =
            given.unwrap_or_else(|| SystemTime::now().duration_since(UNIX_EPOCH).map_or(1, |time| time.as_secs()));
        eprintln!("EPOST_SEED={seed}");
        seed
    })
}

/// The ring that the tests of one binary share; `None` when Python is missing.
pub(crate) fn shared() -> Option<&'static Ring> {
    static RING: OnceLock<Option<Ring>> = OnceLock::new();
    RING.get_or_init(Ring::start).as_ref()
}

/// A folder of this test run, unique in the machine.
pub(crate) fn scratch(name: &str) -> PathBuf {
    let place = tempfile::Builder::new().prefix(&format!("epost-{name}-")).tempdir().expect("a scratch folder");
    place.keep()
}

/// A folder of the client scripts.
fn clients() -> PathBuf {
    Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/clients")
}

/// First port of a range in which every TCP and UDP port is free on loopback.
pub(crate) fn free_ports() -> u16 {
    // Spread by process, so that test binaries running side by side do not meet; and all below 32,768, from where the
    // kernel gives ports to outgoing connections, which could take one between our look and the ring's.
    let mut base = PORTS_FIRST + (std::process::id().wrapping_mul(97) % 120) as u16 * 100;
    for _ in 0..200 {
        let all_free = (base..base + PORTS)
            .all(|port| TcpListener::bind(("127.0.0.1", port)).is_ok() && UdpSocket::bind(("127.0.0.1", port)).is_ok());
        if all_free {
            return base;
        }
        base = if base + 100 >= PORTS_LAST { PORTS_FIRST } else { base + 100 };
    }
    panic!("no free range of {PORTS} ports on loopback");
}

/// Waits until `probe` returns something, and fails with `what` when that takes too long.
pub(crate) fn until<T>(what: &str, patience: Duration, mut probe: impl FnMut() -> Option<T>) -> T {
    let end = Instant::now() + patience;
    loop {
        if let Some(found) = probe() {
            return found;
        }
        assert!(Instant::now() < end, "waited {} s in vain for {what}", patience.as_secs());
        std::thread::sleep(Duration::from_millis(100));
    }
}

/// A running `epost up`.
pub(crate) struct Ring {
    /// Holds the ring's folder and what `up` prints; removed by the keeper.
    root: PathBuf,
    base: u16,
    keeper: Mutex<Keeper>,
}

struct Keeper {
    process: Child,
    orders: Option<ChildStdin>,
    answers: BufReader<ChildStdout>,
}

impl Keeper {
    /// Gives one order and returns the answer.
    fn order(&mut self, order: &str) -> String {
        let orders = self.orders.as_mut().expect("the keeper takes orders");
        writeln!(orders, "{order}").and_then(|()| orders.flush()).expect("the keeper lives");
        let mut answer = String::new();
        self.answers.read_line(&mut answer).expect("the keeper answers");
        answer.trim().to_owned()
    }
}

impl Drop for Ring {
    fn drop(&mut self) {
        let Ok(keeper) = self.keeper.get_mut() else { return };
        keeper.orders = None;
        let _ = keeper.process.wait();
    }
}

impl Ring {
    /// A fresh ring, ready; `None` when Python is missing and that is allowed.
    pub(crate) fn start() -> Option<Ring> {
        if !have("python3") {
            return None;
        }
        let ring = Ring::prepare();
        ring.up();
        Some(ring)
    }

    /// A keeper for a ring that does not run yet.
    fn prepare() -> Ring {
        let root = scratch("ring");
        let base = free_ports();
        let mut process = Command::new("python3")
            .arg(clients().join("keeper.py"))
            .arg(&root)
            .args([EPOST, "up", "--port-base", &base.to_string(), "--dir"])
            .arg(root.join("ring"))
            .stdin(Stdio::piped())
            .stdout(Stdio::piped())
            .spawn()
            .expect("python3 starts");
        let orders = process.stdin.take();
        let answers = BufReader::new(process.stdout.take().expect("a pipe"));
        Ring { root, base, keeper: Mutex::new(Keeper { process, orders, answers }) }
    }

    /// The folder given to `up --dir`.
    pub(crate) fn dir(&self) -> PathBuf {
        self.root.join("ring")
    }

    /// A place for a test's own files, removed with the ring.
    pub(crate) fn place(&self, name: &str) -> PathBuf {
        let place = self.root.join(name);
        fs::create_dir_all(&place).expect("a folder in the ring's root");
        place
    }

    /// The first of the ring's ports.
    pub(crate) fn base(&self) -> u16 {
        self.base
    }

    fn order(&self, order: &str) -> String {
        self.keeper.lock().unwrap_or_else(std::sync::PoisonError::into_inner).order(order)
    }

    /// Starts `up` (again) and waits until it says in up.json that all is ready.
    pub(crate) fn up(&self) {
        let file = self.dir().join("up.json");
        let before = fs::metadata(&file).and_then(|metadata| metadata.modified()).ok();
        self.order("start");
        until("`epost up` to be ready", READY_MAX, || {
            let state = self.order("poll");
            assert!(state == "running", "`epost up` ended with {state}:\n{}", self.said());
            let now = fs::metadata(&file).and_then(|metadata| metadata.modified()).ok()?;
            (Some(now) != before).then_some(())
        });
    }

    /// Ctrl-C; returns the exit code.
    pub(crate) fn interrupt(&self) -> String {
        self.order("interrupt")
    }

    /// SIGKILL of `up` itself; its nodes must notice.
    pub(crate) fn kill_up(&self) {
        self.order("kill");
    }

    /// What `up` and the nodes have printed, for a failure's message.
    pub(crate) fn said(&self) -> String {
        let mut said = String::new();
        for name in ["up.out", "up.err"] {
            said += &fs::read_to_string(self.root.join(name)).unwrap_or_default();
        }
        for number in 1..=NODES {
            let log = fs::read_to_string(self.dir().join(format!("node{number}/node.log"))).unwrap_or_default();
            let tail: Vec<&str> = log.lines().rev().take(15).collect();
            said += &format!("--- node{number}\n");
            for line in tail.iter().rev() {
                said += &format!("{line}\n");
            }
        }
        said
    }

    /// The contents of up.json as it is now.
    pub(crate) fn described(&self) -> Value {
        let text = fs::read_to_string(self.dir().join("up.json")).expect("up.json");
        serde_json::from_str(&text).expect("up.json is JSON")
    }

    /// Process ids of the nodes, by up.json.
    pub(crate) fn pids(&self) -> Vec<u64> {
        let described = self.described();
        let nodes = described["nodes"].as_array().expect("nodes");
        nodes.iter().map(|node| node["pid"].as_u64().expect("a pid")).collect()
    }

    /// SIGKILLs these nodes (counted from 1) at one time.
    pub(crate) fn kill_nodes(&self, numbers: &[usize]) {
        self.signal_nodes("KILL", numbers);
    }

    /// Stops these nodes from doing anything, without ending them, until the result is dropped.
    pub(crate) fn freeze_nodes(&self, numbers: &[usize]) -> Frozen {
        Frozen(self.signal_nodes("STOP", numbers))
    }

    /// Sends a signal to nodes; returns their process ids.
    fn signal_nodes(&self, signal: &str, numbers: &[usize]) -> String {
        let pids = self.pids();
        let list: Vec<String> = numbers.iter().map(|number| pids[number - 1].to_string()).collect();
        let list = list.join(" ");
        assert!(kill(signal, &list), "kill -{signal} {list}");
        list
    }

    /// Waits until `up` has started the killed nodes again (other pids in up.json) and every node says it is ready.
    pub(crate) fn wait_restarted(&self, before: &[u64], numbers: &[usize]) {
        until("killed nodes to be started again", READY_MAX, || {
            let now = self.pids();
            numbers.iter().all(|number| now[number - 1] != before[number - 1]).then_some(())
        });
        self.wait_ready();
    }

    /// Waits until `epost status` calls every node ready.
    pub(crate) fn wait_ready(&self) {
        until("every node to be ready", READY_MAX, || {
            let status = self.try_status()?;
            let nodes = status["nodes"].as_array()?;
            (nodes.len() == NODES && nodes.iter().all(|node| node["status"]["ready"] == true)).then_some(())
        });
    }

    fn try_status(&self) -> Option<Value> {
        let output = Command::new(EPOST).args(["status", "--json", "--dir"]).arg(self.dir()).output().ok()?;
        serde_json::from_slice(&output.stdout).ok()
    }

    /// `epost status --json`.
    pub(crate) fn status(&self) -> Value {
        self.try_status().expect("`epost status --json` prints JSON")
    }

    /// Sums one number of the status over all nodes, named by its path in a node's object.
    pub(crate) fn total(&self, path: &str) -> u64 {
        let status = self.status();
        let nodes = status["nodes"].as_array().expect("nodes");
        nodes
            .iter()
            .map(|node| {
                let value = node.pointer(path).unwrap_or_else(|| panic!("no {path} in the status of a node: {node}"));
                value.as_u64().unwrap_or_else(|| panic!("{path} is no number in {node}"))
            })
            .sum()
    }

    fn script(&self, script: &str, arguments: &[&str]) -> Command {
        let mut command = Command::new("python3");
        // `-B`: no compiled files in the source tree.
        command.arg("-B").arg(clients().join(script)).args(arguments);
        command.env("EPOST_UP", self.dir().join("up.json")).env("EPOST_SEED", seed().to_string());
        command
    }

    /// Runs a client script to its end; fails with all that was said when it fails, hangs or may not skip.
    pub(crate) fn client(&self, script: &str, arguments: &[&str]) -> String {
        let child = self.script(script, arguments).stdout(Stdio::piped()).stderr(Stdio::piped()).spawn();
        let output = finish(child.expect("python3 starts"), script);
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if output.status.code() == Some(SKIPPED) {
            assert!(!required(), "{script} could not do its work here, and EPOST_E2E=require forbids skipping");
            eprintln!("skipped: {script} may not do its work here");
            return String::new();
        }
        assert!(
            output.status.success(),
            "{script} {arguments:?} failed:\n{said}{}\n{}",
            String::from_utf8_lossy(&output.stderr),
            self.said()
        );
        eprint!("{said}");
        said
    }

    /// Starts a script whose lines are to be followed.
    pub(crate) fn follow(&self, script: &str, arguments: &[&str]) -> Followed {
        let mut child =
            self.script(script, arguments).stdout(Stdio::piped()).stderr(Stdio::inherit()).spawn().expect("python3");
        let lines = BufReader::new(child.stdout.take().expect("a pipe"));
        Followed { child, lines, script: script.to_owned() }
    }
}

/// Sends a signal through the shell's own `kill`: one call, and no crate for a signal.
fn kill(signal: &str, pids: &str) -> bool {
    Command::new("sh").arg("-c").arg(format!("kill -{signal} {pids}")).status().is_ok_and(|status| status.success())
}

/// Nodes that do nothing until this is dropped; holds their process ids.
pub(crate) struct Frozen(String);

impl Drop for Frozen {
    fn drop(&mut self) {
        kill("CONT", &self.0);
    }
}

/// A client script that is still at work.
pub(crate) struct Followed {
    child: Child,
    lines: BufReader<ChildStdout>,
    script: String,
}

impl Followed {
    /// Reads on until a line is exactly this.
    pub(crate) fn wait_for(&mut self, wanted: &str) {
        let mut line = String::new();
        loop {
            line.clear();
            let read = self.lines.read_line(&mut line).expect("the script's output");
            assert!(read > 0, "{} ended before it said {wanted:?}", self.script);
            if line.trim_end() == wanted {
                return;
            }
        }
    }

    /// Waits for the end, which must be a good one.
    pub(crate) fn finish(mut self) {
        let mut rest = String::new();
        self.lines.read_to_string(&mut rest).expect("the script's output");
        let status = self.child.wait().expect("the script ends");
        assert!(status.success(), "{} failed: {rest}", self.script);
        eprint!("{}", rest.lines().last().map(|line| format!("{line}\n")).unwrap_or_default());
    }
}

impl Drop for Followed {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Collects the output of a child within the time limit.
fn finish(mut child: Child, what: &str) -> Output {
    // Both pipes are drained while we wait, so that a talkative child does not block.
    let out = drain(child.stdout.take().expect("a pipe"));
    let err = drain(child.stderr.take().expect("a pipe"));
    let end = Instant::now() + SCRIPT_MAX;
    let status = loop {
        if let Some(status) = child.try_wait().expect("the child can be waited for") {
            break status;
        }
        if Instant::now() > end {
            let _ = child.kill();
            let _ = child.wait();
            panic!("{what} did not end within {} s", SCRIPT_MAX.as_secs());
        }
        std::thread::sleep(Duration::from_millis(50));
    };
    Output { status, stdout: out.join().unwrap_or_default(), stderr: err.join().unwrap_or_default() }
}

/// Reads a pipe to its end on a thread of its own.
fn drain(mut pipe: impl Read + Send + 'static) -> std::thread::JoinHandle<Vec<u8>> {
    std::thread::spawn(move || {
        let mut bytes = Vec::new();
        let _ = pipe.read_to_end(&mut bytes);
        bytes
    })
}
