//! `epost status`: what each node of a local organisation says of itself, side by side: a line a node, and below it every
//! number of their stores. `--json` has all that a node says.

use super::figures;
use super::folder::{FolderError, node_folders};
use super::http::{FetchError, get};
use super::organisation::{OrganisationFolderError, written_config};
use super::table;
use serde_json::{Map, Value, json};
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use tokio::task::JoinSet;

/// Why there is nothing to show.
#[derive(Debug, thiserror::Error)]
pub enum StatusError {
    /// No organisation is there.
    #[error(transparent)]
    Folder(#[from] FolderError),
    /// A node's configuration cannot be read.
    #[error(transparent)]
    Node(#[from] OrganisationFolderError),
}

/// One node, and its answer.
struct NodeStatus {
    folder: PathBuf,
    address: SocketAddr,
    answer: Result<Value, FetchError>,
}

/// What to print, and whether every node is ready.
pub struct Report {
    /// The table, or JSON.
    pub text: String,
    /// Whether every node answered and is ready.
    pub is_healthy: bool,
}

/// Asks all nodes of the organisation in `folder` at once.
pub async fn status(folder: &Path, as_json: bool) -> Result<Report, StatusError> {
    let mut asking = JoinSet::new();
    for (number, folder) in node_folders(folder)?.into_iter().enumerate() {
        let address = written_config(&folder)?.node.status;
        asking.spawn(async move { (number, NodeStatus { folder, address, answer: ask(address).await }) });
    }
    let mut nodes = asking.join_all().await;
    nodes.sort_by_key(|(number, _)| *number);
    let nodes: Vec<NodeStatus> = nodes.into_iter().map(|(_, node)| node).collect();
    let is_healthy = nodes.iter().all(NodeStatus::is_ready);
    Ok(Report {
        text: if as_json {
            as_json_text(&nodes)
        } else {
            as_table(&nodes) + &glacier_words(&nodes) + &store_figures(&nodes)
        },
        is_healthy,
    })
}

async fn ask(address: SocketAddr) -> Result<Value, FetchError> {
    let body = get(address, "/status").await?;
    serde_json::from_slice(&body).map_err(|_| FetchError::NotAnAnswer)
}

impl NodeStatus {
    fn is_ready(&self) -> bool {
        self.answer.as_ref().is_ok_and(|answer| answer.get("ready") == Some(&Value::Bool(true)))
    }

    fn name(&self) -> String {
        self.folder.file_name().unwrap_or_default().to_string_lossy().into_owned()
    }

    /// How it is, in a word or a reason.
    fn state(&self) -> String {
        match &self.answer {
            Ok(_) if self.is_ready() => "ready".to_owned(),
            Ok(answer) => match waiting_for(answer) {
                Some(what) => format!("waits for {what}"),
                None => "joining".to_owned(),
            },
            Err(error) => error.to_string(),
        }
    }

    /// A number in the answer, or the sum of the numbers below; nothing where there is none.
    fn figure(&self, path: &str) -> Option<u64> {
        self.answer.as_ref().ok()?.pointer(path).and_then(total)
    }

    fn count(&self, path: &str) -> String {
        self.figure(path).map_or_else(|| "-".to_owned(), |figure| figure.to_string())
    }

    fn size(&self, path: &str) -> String {
        self.figure(path).map_or_else(|| "-".to_owned(), table::bytes)
    }
}

/// What a node says it waits for, besides its place in the ring.
pub fn waiting_for(answer: &Value) -> Option<String> {
    let named: Vec<&str> = answer.get("waiting_for")?.as_array()?.iter().filter_map(Value::as_str).collect();
    (!named.is_empty()).then(|| named.join(", "))
}

fn total(value: &Value) -> Option<u64> {
    match value {
        Value::Number(number) => number.as_u64(),
        Value::Array(members) => Some(members.len() as u64),
        Value::Object(parts) => Some(parts.values().filter_map(total).fold(0, u64::saturating_add)),
        _ => None,
    }
}

/// Columns: heading, where the figure is in the answer, and whether it is a count of bytes.
const COLUMNS: [(&str, &str, bool); 10] = [
    ("epoch", "/ring/epoch", false),
    ("members", "/ring/members", false),
    ("leaf set", "/ring/leaf_set", false),
    ("peers", "/peers_connected", false),
    ("objects", "/engine/objects", false),
    ("bytes", "/engine/live_bytes", true),
    ("leases", "/engine/leases", false),
    ("queued", "/queues", false),
    ("dropped", "/drops", false),
    ("refused", "/refused_peers", false),
];

fn as_table(nodes: &[NodeStatus]) -> String {
    let headings: Vec<&str> = ["node", "state"].into_iter().chain(COLUMNS.map(|(heading, _, _)| heading)).collect();
    let row = |node: &NodeStatus| {
        let figures = COLUMNS.map(|(_, path, is_bytes)| if is_bytes { node.size(path) } else { node.count(path) });
        [node.name(), node.state()].into_iter().chain(figures).collect::<Vec<_>>()
    };
    table::render(&headings, &nodes.iter().map(row).collect::<Vec<_>>())
}

/// What Glacier is worth on this ring today, computed by a node that answered, and what it has yet to do, over all of them.
fn glacier_words(nodes: &[NodeStatus]) -> String {
    let of = |node: &NodeStatus, name: &str| node.figure(&format!("/glacier/{name}"));
    let sum = |name: &str| nodes.iter().filter_map(|node| of(node, name)).fold(0, u64::saturating_add);
    let Some(teller) = nodes.iter().find(|node| of(node, "total").is_some()) else { return String::new() };
    let figure = |name: &str| of(teller, name).unwrap_or(0);
    format!(
        "\nglacier: any {} of {} fragments give an object back; {} hosts, of which any {} may be lost at once\n\
         \x20        if 60 % of them fail at once, drawn by chance, at most {} in 10^9 objects are lost\n\
         \x20        exposed {}, to repair {}, to look through {}, put back {}\n{}{}",
        figure("needed"),
        figure("total"),
        figure("hosts"),
        figure("hosts_that_may_be_lost"),
        figure("lost_in_a_billion"),
        table::bytes(sum("exposed_bytes")),
        sum("to_repair"),
        sum("to_restore"),
        sum("restored"),
        ledger_words(nodes, "repair"),
        ledger_words(nodes, "restore"),
    )
}

/// How fast the nodes repair, or restore, and how long the slowest has to go; nothing if there is nothing to do.
fn ledger_words(nodes: &[NodeStatus], what: &str) -> String {
    let figure = |node: &NodeStatus, name: String| node.figure(&format!("/glacier/{name}"));
    let busy: Vec<&NodeStatus> =
        nodes.iter().filter(|node| figure(node, format!("to_{what}")).is_some_and(|count| count > 0)).collect();
    if busy.is_empty() {
        return String::new();
    }
    let an_hour = busy.iter().filter_map(|node| figure(node, format!("{what}s_an_hour"))).fold(0, u64::saturating_add);
    let to_go: Option<Vec<u64>> = busy.iter().map(|node| figure(node, format!("{what}_seconds_to_go"))).collect();
    let rest = match to_go.and_then(|to_go| to_go.into_iter().max()) {
        Some(seconds) => format!("through in about {}", table::duration(seconds)),
        None if an_hour == 0 => return format!("         {what}: not one aggregate yet\n"),
        None => "no telling when it will be through".to_owned(),
    };
    format!("         {what}: {an_hour} aggregates an hour, {rest}\n")
}

/// The numbers of the stores of those nodes that answered, without those that are 0 everywhere, unless they would tell of
/// damage.
fn store_figures(nodes: &[NodeStatus]) -> String {
    let engine = |node: &NodeStatus| node.answer.as_ref().ok()?.get("engine")?.as_object().cloned();
    let (names, stores): (Vec<String>, Vec<Map<String, Value>>) =
        nodes.iter().filter_map(|node| Some((node.name(), engine(node)?))).unzip();
    if stores.is_empty() {
        return String::new();
    }
    let is_shown = |name: &str| {
        let counts =
            |store: &Map<String, Value>| store.get(name).and_then(Value::as_u64).is_some_and(|value| value > 0);
        figures::tells_of_damage(name) || stores.iter().any(counts)
    };
    format!("\n{}", figures::grouped(&names, &stores, is_shown))
}

fn as_json_text(nodes: &[NodeStatus]) -> String {
    let node = |node: &NodeStatus| {
        json!({
            "dir": node.folder,
            "status_url": format!("http://{}/status", node.address),
            "state": node.state(),
            "status": node.answer.as_ref().ok(),
        })
    };
    let nodes: Vec<Value> = nodes.iter().map(node).collect();
    format!("{:#}\n", json!({ "nodes": nodes }))
}

#[cfg(test)]
mod tests {
    //! Goal: figures where they belong, absent ones shown as absent, an unreachable node as such.
    //! Method: answers by hand.
    use super::*;

    fn node(number: usize, answer: Result<Value, FetchError>) -> NodeStatus {
        let folder = PathBuf::from(format!("/data/node{number}"));
        NodeStatus { folder, address: "127.0.0.1:4201".parse().unwrap(), answer }
    }

    #[test]
    fn side_by_side() {
        let good = json!({
            "ready": true, "node_id": "00", "peers_connected": 4,
            "ring": {"epoch": 6, "members": 5, "leaf_set": ["a", "b", "c", "d"]},
            "engine": {"objects": 12, "live_bytes": 2048, "leases": 12},
            "glacier": {"needed": 1, "total": 5, "hosts": 5, "hosts_that_may_be_lost": 3, "exposed_bytes": 2048},
            "queues": {"events": 1, "commands": 2}, "drops": {"full": 3, "late": 4}, "refused_peers": {},
        });
        let nodes = [
            node(1, Ok(good)),
            node(2, Ok(json!({"ready": false}))),
            node(3, Err(FetchError::Slow)),
            node(4, Ok(json!({"waiting_for": ["accounts"]}))),
        ];
        let text = as_table(&nodes);
        let lines: Vec<Vec<&str>> = text
            .lines()
            .map(|line| line.split("  ").filter(|cell| !cell.is_empty()).map(str::trim).collect())
            .collect();
        assert_eq!(lines[1], ["node1", "ready", "6", "5", "4", "4", "12", "2.0 KiB", "12", "3", "7", "0"]);
        assert_eq!(lines[2][..4], ["node2", "joining", "-", "-"]);
        assert_eq!(lines[3][..3], ["node3", "no answer in 3 s", "-"]);
        assert_eq!(lines[4][..2], ["node4", "waits for accounts"]);
        let words = glacier_words(&nodes);
        assert!(words.contains("any 1 of 5 fragments") && words.contains("any 3 may be lost"), "{words}");
        assert!(words.contains("exposed 2.0 KiB") && glacier_words(&nodes[1..]).is_empty(), "{words}");
        let behind = json!({"glacier": {"to_repair": 7, "repairs_an_hour": 14, "repair_seconds_to_go": 1_800}});
        let stuck = json!({"glacier": {"to_repair": 1, "repairs_an_hour": 0}});
        assert_eq!(ledger_words(&nodes, "repair"), "");
        let behind = [node(1, Ok(behind)), node(2, Ok(stuck))];
        let words = ledger_words(&behind[..1], "repair");
        assert!(words.ends_with("repair: 14 aggregates an hour, through in about 30 min\n"), "{words}");
        assert!(ledger_words(&behind, "repair").contains("no telling"));
        assert!(ledger_words(&behind[1..], "repair").ends_with("repair: not one aggregate yet\n"));
        let below = store_figures(&nodes);
        assert!(below.lines().any(|line| line.starts_with("  live records ") && line.ends_with(" 2.0 KiB")), "{below}");
        assert!(store_figures(&nodes[1..]).is_empty());
        let read: Value = serde_json::from_str(&as_json_text(&nodes)).unwrap();
        assert_eq!(read["nodes"][0]["status"]["ring"]["epoch"], 6);
        assert_eq!(read["nodes"][2]["status"], Value::Null);
        assert!(nodes[0].is_ready() && !nodes[1].is_ready() && !nodes[2].is_ready());
    }

    #[tokio::test]
    async fn unreachable_nodes_say_so() {
        let closed = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap();
        let asked = ask(closed).await;
        assert!(matches!(asked, Err(FetchError::NotRunning)), "{asked:?}");
    }
}
