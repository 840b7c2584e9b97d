//! The messages that the packaged `mail-parser` brings along: legal ones, broken ones, and hostile ones.
#![allow(clippy::disallowed_methods, clippy::disallowed_types, reason = "tests read their files")]

use std::path::{Path, PathBuf};
use std::process::Command;

/// Every `.eml` file of the corpus, with its bytes.
pub(super) fn messages() -> Vec<(PathBuf, Vec<u8>)> {
    let mut found = Vec::new();
    collect(&package().join("resources"), &mut found);
    found.sort();
    let read = |path: PathBuf| {
        let bytes = std::fs::read(&path).expect("a file that was just listed");
        (path, bytes)
    };
    let messages: Vec<_> = found.into_iter().map(read).collect();
    assert!(messages.len() >= 100, "the corpus has {} messages", messages.len());
    messages
}

/// Where cargo has unpacked `mail-parser`.
fn package() -> PathBuf {
    let cargo = std::env::var("CARGO").unwrap_or_else(|_| "cargo".to_owned());
    let arguments = ["metadata", "--format-version", "1", "--offline", "--manifest-path"];
    let manifest = concat!(env!("CARGO_MANIFEST_DIR"), "/Cargo.toml");
    let output = Command::new(cargo).args(arguments).arg(manifest).output().expect("cargo runs the tests");
    let metadata = String::from_utf8(output.stdout).expect("cargo writes UTF-8");
    let marker = "\"manifest_path\":\"";
    let paths = metadata.match_indices(marker).map(|(at, _)| &metadata[at + marker.len()..]);
    let manifests = paths.filter_map(|rest| rest.split('"').next());
    let ours = manifests.map(PathBuf::from).find(|path| {
        let folder = path.parent().and_then(Path::file_name).and_then(|name| name.to_str());
        folder.is_some_and(|folder| folder.starts_with("mail-parser-"))
    });
    ours.and_then(|path| path.parent().map(Path::to_owned)).expect("mail-parser is a dependency")
}

fn collect(folder: &Path, found: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).expect("the package is unpacked").flatten() {
        let path = entry.path();
        if path.is_dir() {
            collect(&path, found);
        } else if path.extension().is_some_and(|extension| extension == "eml") {
            found.push(path);
        }
    }
}
