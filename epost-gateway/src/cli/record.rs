//! `up.json`: what a program needs to know of a running local organisation.

use super::folder::{FolderError, replace};
use super::ports::MailPorts;
use serde::Serialize;
use std::fs;
use std::path::{Path, PathBuf};
use zeroize::Zeroizing;

/// The whole file.
#[derive(Clone, Serialize)]
pub struct UpRecord {
    /// The mail domain.
    pub domain: String,
    /// The users, with what their mail clients need.
    pub users: Vec<UserRecord>,
    /// The running nodes.
    pub nodes: Vec<NodeRecord>,
}

/// One user.
#[derive(Clone, Serialize)]
pub struct UserRecord {
    /// Mail address, and name to log in with.
    pub address: String,
    /// The password.
    #[serde(serialize_with = "super::password::in_file::serialize")]
    pub password: Zeroizing<String>,
    /// Submission.
    pub smtp: ServerRecord,
    /// IMAP.
    pub imap: ServerRecord,
}

/// One server of a user.
#[derive(Clone, Debug, Serialize)]
pub struct ServerRecord {
    /// Where it is.
    pub host: String,
    /// Port that is upgraded by STARTTLS.
    pub starttls: u16,
    /// Port with TLS from the first byte.
    pub tls: u16,
}

/// One node.
#[derive(Clone, Debug, Serialize)]
pub struct NodeRecord {
    /// Its process.
    pub pid: u32,
    /// Its place on the ring, as it says itself.
    pub node_id: String,
    /// Its folder.
    pub dir: PathBuf,
    /// Its status page.
    pub status_url: String,
}

impl UserRecord {
    /// A user whose gateway listens on this machine.
    pub fn new(address: &str, password: &str, ports: MailPorts) -> Self {
        let server = |starttls, tls| ServerRecord { host: "127.0.0.1".to_owned(), starttls, tls };
        UserRecord {
            address: address.to_owned(),
            password: Zeroizing::new(password.to_owned()),
            smtp: server(ports.smtp_starttls, ports.smtp_tls),
            imap: server(ports.imap_starttls, ports.imap_tls),
        }
    }
}

impl UpRecord {
    /// Where it is in a data folder.
    pub fn path(folder: &Path) -> PathBuf {
        folder.join("up.json")
    }

    /// Writes it, whole or not at all.
    pub fn write(&self, folder: &Path) -> Result<(), FolderError> {
        let Ok(mut text) = serde_json::to_vec_pretty(self) else { unreachable!("strings and numbers only") };
        text.push(b'\n');
        replace(&Self::path(folder), &text)
    }

    /// Removes it: nothing is running, or not ready.
    pub fn remove(folder: &Path) -> Result<(), FolderError> {
        let path = Self::path(folder);
        match fs::remove_file(&path) {
            Err(source) if source.kind() != std::io::ErrorKind::NotFound => Err(FolderError::System { path, source }),
            _ => Ok(()),
        }
    }
}

#[cfg(test)]
mod tests {
    //! Goal: exactly the promised shape. Method: compared with it as JSON.
    use super::*;
    use serde_json::{Value, json};

    #[test]
    fn the_promised_shape() {
        let folder = tempfile::tempdir().unwrap();
        let ports = MailPorts { smtp_starttls: 2587, smtp_tls: 2465, imap_starttls: 2143, imap_tls: 2993 };
        let node = NodeRecord {
            pid: 4711,
            node_id: "00ff".into(),
            dir: "/data/node1".into(),
            status_url: "http://127.0.0.1:4201/status".into(),
        };
        let users = vec![UserRecord::new("alice@epost.test", "secret", ports)];
        let record = UpRecord { domain: "epost.test".into(), users, nodes: vec![node] };
        UpRecord::remove(folder.path()).unwrap();
        record.write(folder.path()).unwrap();
        let read: Value = serde_json::from_slice(&fs::read(folder.path().join("up.json")).unwrap()).unwrap();
        let expected = json!({
            "domain": "epost.test",
            "users": [{
                "address": "alice@epost.test",
                "password": "secret",
                "smtp": {"host": "127.0.0.1", "starttls": 2587, "tls": 2465},
                "imap": {"host": "127.0.0.1", "starttls": 2143, "tls": 2993},
            }],
            "nodes": [{
                "pid": 4711, "node_id": "00ff", "dir": "/data/node1", "status_url": "http://127.0.0.1:4201/status",
            }],
        });
        assert_eq!(read, expected);
        UpRecord::remove(folder.path()).unwrap();
        assert!(!UpRecord::path(folder.path()).exists());
    }
}
