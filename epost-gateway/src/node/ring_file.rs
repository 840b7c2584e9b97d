//! Newer ring documents, both ways between the overlay and the file a node reads at its start.
//!
//! The organisation changes the document (a node more, a certificate revoked) and puts it into the file of any one node;
//! that node's overlay takes it and passes it on. Wherever it is taken, the transport goes by it at once, and the file is
//! replaced, so that the next start begins with it.

use super::RingStore;
use super::limits::RING_FILE_TIME;
use super::transport::{Directory, Quic};
use crate::config::public_file;
use bytes::Bytes;
use net::machine::{Command, Reply};
use net::roster::Roster;
use std::fs::File;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::SystemTime;
use tokio::sync::watch;

/// Follows the ring document that the machines have put in force, until they are gone. `path` is the file this node
/// reads at its start.
pub(super) async fn follow(mut ring: watch::Receiver<Arc<Roster>>, quic: Quic, authority: [u8; 32], path: PathBuf) {
    while ring.changed().await.is_ok() {
        let roster = ring.borrow_and_update().clone();
        quic.adopt(Arc::new(Directory::new(Arc::new(roster.ring().clone()), authority)));
        let (document, path) = (roster.document().clone(), path.clone());
        match tokio::task::spawn_blocking(move || replace(&path, &document)).await {
            Ok(Ok(())) => tracing::info!(epoch = roster.ring().epoch, "a newer ring document is in force"),
            Ok(Err(error)) => tracing::error!(%error, "a newer ring document is in force but could not be kept"),
            // The runtime is ending.
            Err(_) => return,
        }
    }
}

/// Looks at the file for a document that somebody has put there, and gives it to the overlay. For ever.
pub(super) async fn watch(store: RingStore, path: PathBuf) {
    let mut known = version(&path);
    loop {
        tokio::time::sleep(RING_FILE_TIME).await;
        let found = version(&path);
        if found.is_none() || found == known {
            continue;
        }
        let Ok(document) = public_file(&path) else { continue };
        match store.ask(Command::AdoptRing { document: Bytes::from(document) }).await {
            Ok(Reply::Done) => known = found,
            Ok(Reply::BadRing(error)) => {
                tracing::warn!(path = %path.display(), %error, "the changed ring document is not used");
                known = found;
            }
            // Busy; the next look will find it again.
            Ok(_) | Err(_) => {}
        }
    }
}

/// What changes when somebody changes the file.
fn version(path: &Path) -> Option<(SystemTime, u64)> {
    let metadata = std::fs::metadata(path).ok()?;
    Some((metadata.modified().ok()?, metadata.len()))
}

/// Replaces a file whole or not at all, durably.
fn replace(path: &Path, bytes: &[u8]) -> io::Result<()> {
    let fresh = path.with_extension("new");
    let mut file = File::create(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(&fresh, path)?;
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty()).unwrap_or(Path::new("."));
    File::open(folder)?.sync_all()
}

#[cfg(test)]
mod tests {
    //! Goal: the file is replaced whole and nothing else stays. Method: replace a longer one by a shorter one.
    use super::*;

    #[test]
    fn a_file_is_replaced_whole() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ring.epost");
        replace(&path, b"a rather long document").unwrap();
        replace(&path, b"short").unwrap();
        assert_eq!(std::fs::read(&path).unwrap(), b"short");
        assert_eq!(std::fs::read_dir(folder.path()).unwrap().count(), 1);
    }
}
