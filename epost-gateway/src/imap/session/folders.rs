//! Commands about folders: choosing one, making and removing them, listing, STATUS, APPEND.

use super::{Outcome, Selected, Session, refused, refused_at};
use crate::account::{Account, Folder};
use crate::imap::command::{Command, StatusItem};
use crate::imap::list;
use crate::imap::response::{self, Code, Completion};
use crate::imap::selected::Numbering;
use crate::imap::wire::Wire;
use bytes::Bytes;
use post::mail::view::{Flags, FolderView};
use post::store::ObjectStore;
use std::collections::VecDeque;
use std::sync::Arc;

impl<S: ObjectStore> Session<S> {
    /// SELECT and EXAMINE. Whatever was selected is left, even if this fails (RFC 3501 §6.3.1).
    pub(super) async fn select(
        &mut self,
        account: &Account<S>,
        name: &str,
        read_only: bool,
        wire: &mut Wire,
    ) -> Completion {
        self.selected = None;
        let folder = match account.open(name).await {
            Ok(folder) => folder,
            Err(error) => return refused(&error),
        };
        let mut changes = folder.watch();
        let view = Arc::clone(&changes.borrow_and_update());
        let numbering = Numbering::new(&view);
        write_selected(&view, &numbering, read_only, wire.out());
        self.selected = Some(Selected { folder, changes, numbering, read_only, cached: VecDeque::new() });
        match read_only {
            true => Completion::ok_with(Code::ReadOnly, "EXAMINE completed"),
            false => Completion::ok_with(Code::ReadWrite, "SELECT completed"),
        }
    }

    /// CLOSE and UNSELECT.
    pub(super) async fn leave(&mut self, command: Command) -> Completion {
        let Some(selected) = &self.selected else { return Completion::bad("select a folder first") };
        if command == Command::Close
            && !selected.read_only
            && let Err(error) = selected.folder.expunge(None).await
        {
            // The folder stays selected: the client must know that its messages are still there.
            return refused(&error);
        }
        self.selected = None;
        Completion::ok("folder closed")
    }

    pub(super) async fn delete(&mut self, account: &Account<S>, name: &str) -> Completion {
        let is_selected = self.selected.as_ref().is_some_and(|selected| selected.folder.name() == name);
        if let Err(error) = account.delete(name).await {
            return refused(&error);
        }
        if is_selected {
            // Whoever deletes the folder he stands in knows it; other sessions are told by BYE.
            self.selected = None;
        }
        Completion::ok("DELETE completed")
    }
}

fn write_selected(view: &FolderView, numbering: &Numbering, read_only: bool, out: &mut Vec<u8>) {
    numbering.write_flags(read_only, out);
    out.extend_from_slice(format!("* {} EXISTS\r\n* 0 RECENT\r\n", numbering.count()).as_bytes());
    if let Some(first) = numbering.entries().iter().position(|entry| !entry.flags.seen) {
        out.extend_from_slice(format!("* OK [UNSEEN {}] First unseen\r\n", first + 1).as_bytes());
    }
    let FolderView { uid_validity, uid_next, .. } = view;
    out.extend_from_slice(format!("* OK [UIDVALIDITY {uid_validity}] UIDs valid\r\n").as_bytes());
    out.extend_from_slice(format!("* OK [UIDNEXT {uid_next}] Predicted next UID\r\n").as_bytes());
}

/// Whether a folder of this name may be made: no empty level, nothing LIST would take for a wildcard or a client
/// could not show.
fn is_folder_name(name: &str) -> bool {
    let is_level = |level: &str| {
        let printable = level.chars().all(|character| !character.is_control() && !matches!(character, '*' | '%'));
        !level.is_empty() && printable
    };
    name.split(list::SEPARATOR).all(is_level)
}

const NOT_A_NAME: &str = "no folder can have this name";

pub(super) async fn create<S: ObjectStore>(account: &Account<S>, name: &str) -> Completion {
    // A separator at the end announces folders below (RFC 3501 §6.3.3); any folder here may have them.
    let name = name.strip_suffix(list::SEPARATOR).unwrap_or(name);
    if !is_folder_name(name) {
        return Completion::no_with(Code::Cannot, NOT_A_NAME);
    }
    match account.create(name, None).await {
        Ok(()) => Completion::ok("CREATE completed"),
        Err(error) => refused(&error),
    }
}

pub(super) async fn rename<S: ObjectStore>(account: &Account<S>, from: &str, to: &str) -> Completion {
    if !is_folder_name(to) {
        return Completion::no_with(Code::Cannot, NOT_A_NAME);
    }
    match account.rename(from, to).await {
        Ok(()) => Completion::ok("RENAME completed"),
        Err(error) => refused(&error),
    }
}

pub(super) async fn subscribe<S: ObjectStore>(account: &Account<S>, name: &str, subscribed: bool) -> Completion {
    match account.subscribe(name, subscribed).await {
        Ok(()) => Completion::ok(if subscribed { "SUBSCRIBE completed" } else { "UNSUBSCRIBE completed" }),
        Err(error) => refused(&error),
    }
}

pub(super) async fn list<S: ObjectStore>(
    account: &Account<S>,
    reference: &str,
    pattern: &str,
    subscribed: bool,
    wire: &mut Wire,
) -> Outcome {
    let command = if subscribed { "LSUB" } else { "LIST" };
    if pattern.is_empty() {
        list::write_separator(command, wire.out());
    } else {
        let folders = account.folders();
        let pattern = format!("{reference}{pattern}");
        match subscribed {
            true => list::write_subscribed(&folders, &pattern, wire.out()),
            false => list::write_list(&folders, &pattern, wire.out()),
        }
    }
    wire.relieve().await?;
    Ok(Completion::ok(if subscribed { "LSUB completed" } else { "LIST completed" }))
}

pub(super) async fn status<S: ObjectStore>(
    account: &Account<S>,
    name: &str,
    items: &[StatusItem],
    wire: &mut Wire,
) -> Completion {
    let view = match account.open(name).await {
        Ok(folder) => folder.view(),
        Err(error) => return refused(&error),
    };
    let values: Vec<String> = items.iter().map(|item| status_value(&view, *item)).collect();
    let out = wire.out();
    out.extend_from_slice(b"* STATUS ");
    response::folder_name(name, out);
    out.extend_from_slice(format!(" ({})\r\n", values.join(" ")).as_bytes());
    Completion::ok("STATUS completed")
}

fn status_value(view: &FolderView, item: StatusItem) -> String {
    match item {
        StatusItem::Messages => format!("MESSAGES {}", view.entries.len()),
        StatusItem::Recent => "RECENT 0".to_owned(),
        StatusItem::UidNext => format!("UIDNEXT {}", view.uid_next),
        StatusItem::UidValidity => format!("UIDVALIDITY {}", view.uid_validity),
        StatusItem::Unseen => {
            format!("UNSEEN {}", view.entries.iter().filter(|entry| !entry.flags.seen).count())
        }
    }
}

pub(super) async fn append<S: ObjectStore>(
    account: &Account<S>,
    name: &str,
    message: Bytes,
    flags: Flags,
    internal_date_s: Option<i64>,
) -> Completion {
    if message.is_empty() {
        return Completion::no_with(Code::Cannot, "a message is not empty");
    }
    let folder: Folder<S> = match account.open(name).await {
        Ok(folder) => folder,
        Err(error) => return refused_at(&error),
    };
    match folder.append(message, flags, internal_date_s).await {
        Ok(uid) => {
            let uid_validity = folder.view().uid_validity;
            Completion::ok_with(Code::AppendUid { uid_validity, uid }, "APPEND completed")
        }
        Err(error) => refused_at(&error),
    }
}
