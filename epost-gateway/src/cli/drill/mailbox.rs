//! What a user's mail client is shown, and what of it another time is not as it was.
//!
//! A message is known by its folder and its UID, as to every IMAP client; what counts of it are its flags and all of its
//! octets (by their BLAKE3 hash). A folder whose UIDVALIDITY has changed is another folder.

use crate::cli::local::LocalUser;
use crate::cli::mail_client::{ClientError, Imap};
use crate::cli::table;
use std::collections::BTreeMap;
use std::fmt;

/// Everything a user has, by folder.
pub(super) type Mailbox = BTreeMap<String, Folder>;

/// One folder.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Folder {
    /// Changes when its UIDs mean something else.
    pub(super) uid_validity: u32,
    /// Its messages by UID.
    pub(super) mails: BTreeMap<u32, Mail>,
}

/// One message.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Mail {
    /// Its flags, in order.
    pub(super) flags: Vec<String>,
    /// Its octets; or why they cannot be read.
    pub(super) content: Result<Content, String>,
}

/// The octets of a message.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Content {
    /// How many.
    pub(super) bytes: u64,
    /// Their hash.
    pub(super) digest: [u8; 32],
}

impl Content {
    /// Of these octets.
    pub(super) fn of(octets: &[u8]) -> Content {
        Content { bytes: octets.len() as u64, digest: *blake3::hash(octets).as_bytes() }
    }
}

/// What could be read of a mailbox.
#[derive(Debug, Default)]
pub(super) struct Reading {
    /// The folders and messages.
    pub(super) mailbox: Mailbox,
    /// Why folders, or all of them, are not there: each with its reason.
    pub(super) failures: Vec<String>,
}

/// A session with the user's gateway.
pub(super) fn log_in(user: &LocalUser) -> Result<Imap, ClientError> {
    Imap::login("127.0.0.1", user.ports.imap_tls, &user.address, &user.password)
}

/// Reads everything of a user that can be read; `see` is shown every message.
pub(super) fn read(user: &LocalUser, mut see: impl FnMut(&[u8])) -> Reading {
    let mut reading = Reading::default();
    let opened = log_in(user).and_then(|mut imap| imap.folders().map(|folders| (imap, folders)));
    let (mut imap, folders) = match opened {
        Ok(opened) => opened,
        Err(error) => {
            reading.failures.push(error.to_string());
            return reading;
        }
    };
    for name in folders {
        match read_folder(&mut imap, &name, &mut see) {
            Ok(folder) => {
                reading.mailbox.insert(name, folder);
            }
            Err(error) => reading.failures.push(format!("{name}: {error}")),
        }
    }
    reading
}

fn read_folder(imap: &mut Imap, name: &str, see: &mut impl FnMut(&[u8])) -> Result<Folder, ClientError> {
    let mut folder = Folder { uid_validity: imap.select(name)?, mails: BTreeMap::new() };
    for (uid, flags) in imap.listing()? {
        let content = match imap.message(uid) {
            Ok(octets) => {
                see(&octets);
                Ok(Content::of(&octets))
            }
            // The server says why it cannot; the next message may be had all the same.
            Err(ClientError::Unexpected { got, .. }) => Err(got),
            Err(broken) => return Err(broken),
        };
        folder.mails.insert(uid, Mail { flags, content });
    }
    Ok(folder)
}

/// What is not as it was.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) enum Fault {
    /// The folder is not there, or is another, and so are the mails that were in it.
    FolderMissing {
        /// How many they were.
        mails: usize,
    },
    /// The folder was not there before, nor were the mails in it.
    FolderExtra {
        /// How many they are.
        mails: usize,
    },
    /// The message is not there.
    Missing,
    /// The message is listed, and cannot be read.
    Unreadable(String),
    /// Its octets differ.
    OtherBytes,
    /// Its flags differ.
    OtherFlags,
    /// The message was not there before.
    Extra,
}

/// A fault, and where it is.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Difference {
    /// In which folder.
    pub(super) folder: String,
    /// Which message, where it is one.
    pub(super) uid: Option<u32>,
    /// What is wrong.
    pub(super) fault: Fault,
}

impl Fault {
    /// How many mails are gone with it.
    pub(super) fn missing(&self) -> usize {
        match self {
            Fault::Missing => 1,
            Fault::FolderMissing { mails } => *mails,
            _ => 0,
        }
    }

    /// How many mails have come with it.
    pub(super) fn extra(&self) -> usize {
        match self {
            Fault::Extra => 1,
            Fault::FolderExtra { mails } => *mails,
            _ => 0,
        }
    }

    /// Whether something that was there cannot be had: time may bring it back.
    pub(super) fn is_loss(&self) -> bool {
        matches!(self, Fault::FolderMissing { .. } | Fault::Missing | Fault::Unreadable(_))
    }
}

impl fmt::Display for Difference {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}", self.folder)?;
        if let Some(uid) = self.uid {
            write!(f, ", UID {uid}")?;
        }
        match &self.fault {
            Fault::FolderMissing { mails } => {
                write!(f, ": the folder is missing, with {}", table::count(*mails, "mail"))
            }
            Fault::FolderExtra { mails } => {
                write!(f, ": a folder that was not there before, with {}", table::count(*mails, "mail"))
            }
            Fault::Missing => f.write_str(": missing"),
            Fault::Unreadable(why) => write!(f, ": cannot be read: {why}"),
            Fault::OtherBytes => f.write_str(": its octets are others"),
            Fault::OtherFlags => f.write_str(": its flags are others"),
            Fault::Extra => f.write_str(": a mail that was not there before"),
        }
    }
}

/// Everything in which `after` is not `before`.
pub(super) fn compare(before: &Mailbox, after: &Mailbox) -> Vec<Difference> {
    let mut differences = Vec::new();
    let mut note = |folder: &str, uid, fault| differences.push(Difference { folder: folder.to_owned(), uid, fault });
    for (name, folder) in before {
        let Some(same) = after.get(name).filter(|found| found.uid_validity == folder.uid_validity) else {
            note(name, None, Fault::FolderMissing { mails: folder.mails.len() });
            continue;
        };
        for (&uid, mail) in &folder.mails {
            if let Some(fault) = fault_of(mail, same.mails.get(&uid)) {
                note(name, Some(uid), fault);
            }
        }
    }
    for (name, folder) in after {
        let Some(same) = before.get(name).filter(|known| known.uid_validity == folder.uid_validity) else {
            note(name, None, Fault::FolderExtra { mails: folder.mails.len() });
            continue;
        };
        for &uid in folder.mails.keys().filter(|uid| !same.mails.contains_key(uid)) {
            note(name, Some(uid), Fault::Extra);
        }
    }
    differences
}

fn fault_of(before: &Mail, after: Option<&Mail>) -> Option<Fault> {
    let Some(after) = after else { return Some(Fault::Missing) };
    match &after.content {
        Err(why) => Some(Fault::Unreadable(why.clone())),
        content if *content != before.content => Some(Fault::OtherBytes),
        _ if after.flags != before.flags => Some(Fault::OtherFlags),
        _ => None,
    }
}

#[cfg(test)]
mod tests {
    //! Goal: whatever is not as it was is told, and nothing else. Method: one change at a time to a mailbox made by hand.
    use super::*;

    fn mail(text: &str) -> Mail {
        Mail { flags: vec!["\\Seen".to_owned()], content: Ok(Content::of(text.as_bytes())) }
    }

    fn mailbox() -> Mailbox {
        let inbox = Folder { uid_validity: 7, mails: BTreeMap::from([(1, mail("one")), (3, mail("three"))]) };
        let empty = Folder { uid_validity: 8, mails: BTreeMap::new() };
        BTreeMap::from([("INBOX".to_owned(), inbox), ("Papers".to_owned(), empty)])
    }

    fn faults(change: impl FnOnce(&mut Mailbox)) -> Vec<(String, Option<u32>, Fault)> {
        let mut after = mailbox();
        change(&mut after);
        let differences = compare(&mailbox(), &after).into_iter();
        differences.map(|difference| (difference.folder, difference.uid, difference.fault)).collect()
    }

    fn inbox(mailbox: &mut Mailbox) -> &mut BTreeMap<u32, Mail> {
        &mut mailbox.get_mut("INBOX").unwrap().mails
    }

    #[test]
    fn every_difference_is_told() {
        let at = |uid, fault| vec![("INBOX".to_owned(), Some(uid), fault)];
        assert_eq!(faults(|_| {}), []);
        assert_eq!(faults(|all| drop(inbox(all).remove(&3))), at(3, Fault::Missing));
        assert_eq!(faults(|all| drop(inbox(all).insert(3, mail("thrae")))), at(3, Fault::OtherBytes));
        assert_eq!(faults(|all| drop(inbox(all).insert(2, mail("one")))), at(2, Fault::Extra));
        assert_eq!(faults(|all| inbox(all).get_mut(&1).unwrap().flags.clear()), at(1, Fault::OtherFlags));
        let why = "NO [UNAVAILABLE]".to_owned();
        let unreadable = Fault::Unreadable(why.clone());
        assert_eq!(faults(|all| inbox(all).get_mut(&1).unwrap().content = Err(why)), at(1, unreadable));
        let papers = |fault| vec![("Papers".to_owned(), None, fault)];
        assert_eq!(faults(|all| drop(all.remove("Papers"))), papers(Fault::FolderMissing { mails: 0 }));
        let more = faults(|all| drop(all.insert("Quotes".to_owned(), Folder::default())));
        assert_eq!(more, [("Quotes".to_owned(), None, Fault::FolderExtra { mails: 0 })]);
    }

    #[test]
    fn a_folder_with_other_numbers_is_another() {
        let found = faults(|all| all.get_mut("INBOX").unwrap().uid_validity = 9);
        let kinds: Vec<Fault> = found.into_iter().map(|(_, _, fault)| fault).collect();
        let expected = [Fault::FolderMissing { mails: 2 }, Fault::FolderExtra { mails: 2 }];
        assert_eq!(kinds, expected);
    }

    #[test]
    fn what_time_may_mend() {
        assert!(
            Fault::Missing.is_loss()
                && Fault::FolderMissing { mails: 1 }.is_loss()
                && Fault::Unreadable(String::new()).is_loss()
        );
        assert!(!Fault::OtherBytes.is_loss() && !Fault::OtherFlags.is_loss() && !Fault::Extra.is_loss());
    }
}
