//! What a node loses with its disk, and what it has again when it is set up anew.
//!
//! Kept is only what its owner has elsewhere, and would put on a new disk:
//!
//! ```text
//! node.toml                                    its configuration
//! node.key node.crt node.secret                who it is
//! authority.crt ring.epost ring.secret         the organisation's, the same on every node or gateway
//! NAME.key                                     key files: the users' own copies of their keys
//! node.log                                     for whoever looks into a drill; no node reads it
//! ```
//!
//! Everything else goes, whether this file knows it or not: above all the store. So do `mail.crt` and `mail.key`, which the
//! node makes anew (a mail program will ask again whether it trusts it); and `NAME.versions`, with which a gateway that was
//! stopped in order knows the last versions of its users' logs. A device of the user's that remembers them would notice
//! a rollback; the lost disk is not that device, so the ring has to tell the truth without its help.

use crate::cli::organisation::{OrganisationFolderError, written_config};
use std::collections::BTreeSet;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

/// Why a node's disk could not be wiped.
#[derive(Debug, thiserror::Error)]
pub enum WipeError {
    /// Its configuration, which says what is to be kept.
    #[error(transparent)]
    Node(#[from] OrganisationFolderError),
    /// The system refused.
    #[error("{}: {source}", path.display())]
    System {
        /// The file or folder.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
}

/// Removes what is not kept; returns how many bytes of the disk that was.
pub(super) fn wipe(folder: &Path) -> Result<u64, WipeError> {
    let kept = kept(folder)?;
    let system = |path: &Path| {
        let path = path.to_owned();
        move |source| WipeError::System { path, source }
    };
    let mut bytes = 0;
    for entry in fs::read_dir(folder).map_err(system(folder))? {
        let path = entry.map_err(system(folder))?.path();
        if kept.contains(&path) {
            continue;
        }
        bytes += size(&path).map_err(system(&path))?;
        let is_folder = path.is_dir() && !path.is_symlink();
        let removed = if is_folder { fs::remove_dir_all(&path) } else { fs::remove_file(&path) };
        removed.map_err(system(&path))?;
    }
    Ok(bytes)
}

fn kept(folder: &Path) -> Result<BTreeSet<PathBuf>, WipeError> {
    let config = written_config(folder)?;
    let node = config.node;
    let mut kept = vec![PathBuf::from("node.toml"), PathBuf::from("node.log")];
    kept.extend([node.certificate, node.key, node.authority, node.ring, node.secret]);
    kept.extend(config.mail.map(|mail| mail.ring_secret));
    kept.extend(config.account.into_iter().map(|account| account.key_file));
    Ok(kept.into_iter().map(|name| folder.join(name)).collect())
}

/// Bytes on the disk, which is not what files claim where they have holes.
fn size(path: &Path) -> io::Result<u64> {
    use std::os::unix::fs::MetadataExt;
    /// The unit in which the system counts, whatever the file system's blocks are.
    const BLOCK_BYTES: u64 = 512;
    let metadata = fs::symlink_metadata(path)?;
    if !metadata.is_dir() {
        return Ok(metadata.blocks() * BLOCK_BYTES);
    }
    let mut bytes = 0;
    for entry in fs::read_dir(path)? {
        bytes += size(&entry?.path())?;
    }
    Ok(bytes)
}

#[cfg(test)]
mod tests {
    //! Goal: what is listed as kept is all that is left, whatever else there was. Method: a gateway's folder, made as `up` makes it,
    //! with what a running node and a later version might put beside.
    use super::*;
    use crate::cli::folder::DataFolder;
    use crate::cli::local::{Local, Wish};

    #[test]
    fn only_what_is_kept_is_left() {
        let place = tempfile::tempdir().unwrap();
        let mut folder = DataFolder::open(place.path()).unwrap();
        let wish = Wish { port_base: Some(21_700), ..Wish::default() };
        let local = Local::prepare(&mut folder, wish).unwrap();
        let gateway = &local.nodes[0].folder;
        let made = names(gateway);
        fs::create_dir_all(gateway.join("store/shard-00")).unwrap();
        fs::write(gateway.join("store/shard-00/segment"), vec![1; 100_000]).unwrap();
        for name in ["node.log", "mail.crt", "mail.key", "alice.versions", "heard of nowhere"] {
            fs::write(gateway.join(name), "x").unwrap();
        }
        let bytes = wipe(gateway).unwrap();
        assert!((100_000..1_000_000).contains(&bytes), "{bytes}");
        let mut expected = made;
        expected.insert("node.log".to_owned());
        assert_eq!(names(gateway), expected);
        assert!(expected.contains("alice.key") && expected.contains("node.key"));
        assert_eq!(wipe(gateway).unwrap(), 0);
    }

    fn names(folder: &Path) -> BTreeSet<String> {
        let entries = fs::read_dir(folder).unwrap();
        entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
    }
}
