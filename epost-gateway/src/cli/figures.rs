//! The numbers of a store in groups and words for people. Which numbers there are is the engine's matter: one that is not in
//! a group here is shown all the same, at the end.

use super::table;
use engine::Stats;
use serde_json::{Map, Value, json};
use std::collections::BTreeSet;

/// Groups of numbers, each with a name and a label.
const GROUPS: [(&str, &[(&str, &str)]); 7] = [
    (
        "what is stored",
        &[
            ("shards", "shards"),
            ("objects", "objects"),
            ("leases", "leases"),
            ("live_bytes", "live records"),
            ("dead_bytes", "to be reclaimed"),
            ("total_bytes", "files"),
            ("capacity_bytes", "capacity"),
            ("segments", "segments"),
        ],
    ),
    (
        "the index",
        &[
            ("index_bytes", "index in memory"),
            ("arcs", "arcs"),
            ("stashed", "objects in stashes"),
            ("recents", "objects in no run yet"),
            ("runs", "runs"),
            ("run_bytes", "runs on disk"),
        ],
    ),
    (
        "what was asked",
        &[
            ("puts", "puts acknowledged"),
            ("gets", "gets answered"),
            ("gets_mapped", "gets without a copy"),
            ("gets_cold", "gets that waited for the disk"),
            ("touches", "leases extended"),
            ("confirmations", "records read to be sure"),
            ("false_matches", "records that were another key's"),
            ("crowded", "changes that waited for a table"),
            ("refused", "refused (full, read-only, too large)"),
            ("queue_depth", "waiting or in flight"),
        ],
    ),
    (
        "what was written",
        &[
            ("batches", "batches made durable"),
            ("batch_bytes", "bytes in batches"),
            ("prewritten_bytes", "zeros ahead of need"),
            ("recycled_segments", "segments in files used before"),
            ("runs_written", "runs"),
            ("run_bytes_written", "bytes in runs"),
            ("syncs", "other syncs"),
            ("checkpoints", "checkpoints"),
        ],
    ),
    (
        "upkeep",
        &[
            ("sweeps", "sweeps"),
            ("expired", "objects expired"),
            ("cleaning_bytes", "bytes read by cleaning"),
            ("cleaned", "records moved by cleaning"),
            ("segments_freed", "segments freed"),
            ("punched_bytes", "bytes punched out of segments"),
            ("runs_merged", "runs merged"),
            ("run_reads", "reads of runs"),
            ("rebuilds", "tables rebuilt"),
            ("splits", "arcs split"),
            ("scrub_passes", "scrub: passes"),
            ("scrubbed_bytes", "scrub: bytes read"),
            ("scrubbed_records", "scrub: sound records"),
        ],
    ),
    (
        DAMAGE,
        &[
            ("corrupt", "damaged records and batches found"),
            ("scrub_damaged", "scrub: damaged, live or dead"),
            ("run_damage", "damage found in runs"),
            ("damaged_runs", "damaged runs"),
            ("device_errors", "operations the device failed"),
            ("read_only", "shards that take no changes"),
            ("deletion_suspended", "shards that delete nothing (clock jumped)"),
        ],
    ),
    ("the last opening", &[("replayed_batches", "batches replayed")]),
];

/// The groups that count what a store at work has done.
const AT_WORK: [&str; 3] = ["what was asked", "what was written", "upkeep"];

/// Whether a number counts what is done, which a store that is only looked at has no share in.
pub fn counts_work(name: &str) -> bool {
    GROUPS.iter().any(|(title, group)| AT_WORK.contains(title) && group.iter().any(|(member, _)| *member == name))
}

/// The group that is shown even where all of it is 0.
const DAMAGE: &str = "damage";

/// Whether a number would tell of damage: that it is 0 is worth saying.
pub fn tells_of_damage(name: &str) -> bool {
    GROUPS.iter().any(|(title, group)| *title == DAMAGE && group.iter().any(|(member, _)| *member == name))
}

/// Whether a number counts bytes.
fn is_bytes(name: &str) -> bool {
    name.ends_with("_bytes")
}

fn text_of(name: &str, value: u64) -> String {
    if is_bytes(name) { table::bytes(value) } else { value.to_string() }
}

/// All numbers of one or more columns, in groups: a heading a group, a row a number. Numbers for which `is_shown` is false are
/// left out.
pub fn grouped(headings: &[String], columns: &[Map<String, Value>], is_shown: impl Fn(&str) -> bool) -> String {
    assert_eq!(headings.len(), columns.len());
    let known: BTreeSet<&str> = columns.iter().flat_map(|column| column.keys().map(String::as_str)).collect();
    let in_groups: BTreeSet<&str> = GROUPS.iter().flat_map(|(_, group)| group.iter().map(|(name, _)| *name)).collect();
    let others: Vec<(&str, &str)> = known.difference(&in_groups).map(|name| (*name, *name)).collect();
    let groups = GROUPS.iter().copied().chain([("more", others.as_slice())]);
    let mut rows = Vec::new();
    for (title, group) in groups {
        let shown: Vec<_> = group.iter().filter(|(name, _)| known.contains(name) && is_shown(name)).collect();
        if shown.is_empty() {
            continue;
        }
        rows.push(vec![title.to_owned()].into_iter().chain(columns.iter().map(|_| String::new())).collect());
        for (name, label) in shown {
            let figure = |column: &Map<String, Value>| {
                column.get(*name).and_then(Value::as_u64).map_or_else(|| "-".to_owned(), |value| text_of(name, value))
            };
            let label = format!("  {}", label.replace('_', " "));
            rows.push([label].into_iter().chain(columns.iter().map(figure)).collect());
        }
    }
    let headings: Vec<&str> = std::iter::once("").chain(headings.iter().map(String::as_str)).collect();
    table::render(&headings, &rows)
}

/// A store's numbers by name.
pub fn named(stats: &Stats) -> Map<String, Value> {
    stats.fields().into_iter().map(|(name, value)| (name.to_owned(), json!(value))).collect()
}

#[cfg(test)]
mod tests {
    //! Goal: every number of the engine is shown once, whether this file knows it or not. Method: all of them, and one more.
    use super::*;

    #[test]
    fn every_number_is_shown_once() {
        let mut column = named(&Stats { live_bytes: 3 << 20, objects: 17, ..Stats::default() });
        column.insert("unheard_of".to_owned(), json!(9));
        let text = grouped(&["total".to_owned()], &[column.clone()], |_| true);
        let groups = text.lines().skip(1).filter(|line| !line.starts_with("  ")).count();
        assert_eq!(text.lines().count(), 1 + groups + column.len(), "{text}");
        assert!(text.lines().any(|line| line.starts_with("  live records") && line.ends_with("3.0 MiB")), "{text}");
        assert!(text.lines().any(|line| line.starts_with("  unheard of") && line.ends_with('9')), "{text}");
        let without = grouped(&["total".to_owned()], &[column], |name| name != "objects");
        assert!(!without.contains("  objects  "), "{without}");
    }

    #[test]
    fn groups_name_numbers_that_there_are() {
        for (name, _) in GROUPS.iter().flat_map(|(_, group)| group.iter()) {
            assert!(Stats::meaning(name).is_some(), "{name}");
        }
    }
}
