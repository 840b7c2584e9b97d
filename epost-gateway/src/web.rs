//! The status page: JSON for programs, OpenMetrics for Prometheus, plain HTML for people. Loopback only.
//!
//! It shows counts, sizes and node ids; never a key, an address book or a subject. Nothing can be changed through it.

use crate::node::Readiness;
use crate::node::limits::REQUEST_BYTES_MAX;
use crate::node::status::{DROPS, REFUSED_PEERS, Registry};
use axum::Router;
use axum::extract::{DefaultBodyLimit, State};
use axum::http::header::{CACHE_CONTROL, CONTENT_SECURITY_POLICY, CONTENT_TYPE};
use axum::response::{IntoResponse, Response};
use axum::routing::get;
use net::id::Id;
use net::overlay::OverlayStatus;
use serde_json::{Map, Value, json};
use std::fmt::Write;
use std::sync::Arc;
use tokio::net::TcpListener;
use tokio::sync::watch;

/// What the page shows.
#[derive(Clone)]
pub struct Page {
    /// Who runs the node.
    pub organisation: String,
    /// The host's first node id.
    pub node_id: Id,
    /// The overlay's state, a moment ago.
    pub overlay: watch::Receiver<Arc<OverlayStatus>>,
    /// What the node still waits for.
    pub readiness: Readiness,
    /// Everything that counts.
    pub registry: Registry,
}

/// Answers requests until the listener fails; the caller has bound it to a loopback address.
pub async fn serve(listener: TcpListener, page: Page) {
    let routes = Router::new()
        .route("/status", get(status))
        .route("/metrics", get(metrics))
        .route("/", get(html))
        .layer(DefaultBodyLimit::max(REQUEST_BYTES_MAX))
        .with_state(page);
    if let Err(error) = axum::serve(listener, routes).await {
        tracing::error!(%error, "the status page has ended");
    }
}

async fn status(State(page): State<Page>) -> Response {
    answer("application/json", page.to_json().to_string())
}

async fn metrics(State(page): State<Page>) -> Response {
    answer("application/openmetrics-text; version=1.0.0; charset=utf-8", page.registry.to_open_metrics())
}

async fn html(State(page): State<Page>) -> Response {
    answer("text/html; charset=utf-8", page.to_html())
}

fn answer(content_type: &'static str, body: String) -> Response {
    let headers = [
        (CONTENT_TYPE, content_type),
        (CACHE_CONTROL, "no-store"),
        (CONTENT_SECURITY_POLICY, "default-src 'none'; style-src 'unsafe-inline'"),
    ];
    (headers, body).into_response()
}

impl Page {
    /// The whole state as one JSON object.
    #[must_use]
    pub fn to_json(&self) -> Value {
        let overlay = self.overlay.borrow().clone();
        let waiting_for = self.readiness.waiting_for();
        let mut counters = self.registry.to_json();
        let mut take = |name: &str| counters.remove(name).unwrap_or_else(|| json!({}));
        let (drops, refused) = (take(DROPS), take(REFUSED_PEERS));
        let (peers_connected, engine) = (take("peers_connected"), take("engine"));
        let queues: Map<String, Value> = counters
            .iter()
            .filter_map(|(name, value)| Some((name.strip_prefix("queue_")?.to_owned(), value.clone())))
            .collect();
        counters.retain(|name, _| !name.starts_with("queue_"));
        let mut page = json!({
            "node_id": self.node_id.to_string(),
            "organisation": self.organisation,
            "ready": overlay.ready && waiting_for.is_empty(),
            "waiting_for": waiting_for,
            "ring": {
                "epoch": overlay.epoch,
                "members": overlay.members,
                "ready": overlay.ready,
                "leaf_set": overlay.leaf_set.iter().map(Id::to_string).collect::<Vec<_>>(),
                "routing_entries": overlay.routing_entries,
                "in_flight": overlay.in_flight,
                "groups": overlay.groups,
                "group_children": overlay.group_children,
            },
            "engine": engine,
            "peers_connected": peers_connected,
            "queues": queues,
            "drops": drops,
            "refused_peers": refused,
            "counters": counters,
        });
        if let (Value::Object(fields), false) = (&mut page, overlay.above.is_empty()) {
            let glacier: Map<String, Value> =
                overlay.above.iter().map(|(name, figure)| ((*name).to_owned(), json!(figure))).collect();
            fields.insert("glacier".to_owned(), Value::Object(glacier));
        }
        page
    }

    fn to_html(&self) -> String {
        let mut page = String::from(
            "<!DOCTYPE html><html lang=en><meta charset=utf-8><title>ePOST node</title>\
             <style>body{font:15px/1.5 sans-serif;margin:2em}td{padding:0 1.5em 0 0;vertical-align:top}\
             td+td{font-variant-numeric:tabular-nums}</style><h1>ePOST node</h1><table>",
        );
        rows(&mut page, "", &self.to_json());
        page.push_str("</table><p><a href=/status>JSON</a> <a href=/metrics>metrics</a></html>");
        page
    }
}

/// One row a value, nested names joined by blanks. Names and values are ours, but are escaped like anybody's.
fn rows(page: &mut String, name: &str, value: &Value) {
    if let Value::Object(fields) = value {
        for (field, value) in fields {
            let name = if name.is_empty() { field.clone() } else { format!("{name} {field}") };
            rows(page, &name, value);
        }
        return;
    }
    let text = match value {
        Value::String(text) => text.clone(),
        Value::Array(items) => items.iter().map(|i| i.as_str().unwrap_or_default()).collect::<Vec<_>>().join(" "),
        other => other.to_string(),
    };
    write!(page, "<tr><td>{}<td>{}", escaped(&name.replace('_', " ")), escaped(&text))
        .expect("writing to a String cannot fail");
}

fn escaped(text: &str) -> String {
    text.replace('&', "&amp;").replace('<', "&lt;").replace('>', "&gt;").replace('"', "&quot;")
}
