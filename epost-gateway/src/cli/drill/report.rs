//! What a drill has found: for a person as tables, for a program as JSON.

use super::mailbox::{Difference, Fault, Mailbox, Reading, compare};
use crate::cli::table;
use serde::Serialize;
use std::fmt::Write;
use std::time::Duration;

/// Differences that are listed one by one for each user; the rest are counted.
const LISTED_MAX: usize = 6;

/// The whole report.
#[derive(Debug, Serialize)]
pub(super) struct Report {
    /// What everything that was drawn follows from.
    pub(super) seed: u64,
    /// Nodes in the ring.
    pub(super) nodes: usize,
    /// The share asked for.
    pub(super) kill_percent: u16,
    /// The nodes that were killed and wiped, counted from 1.
    pub(super) killed: Vec<usize>,
    /// Bytes of disk wiped.
    pub(super) wiped_bytes: u64,
    /// Objects on those disks.
    pub(super) wiped_objects: u64,
    /// Mails sent by SMTP.
    pub(super) mails_sent: usize,
    /// What the erasure-coded copies said; nothing where the nodes have none.
    pub(super) glacier: Option<GlacierReport>,
    /// The nodes that were not ready again in time.
    pub(super) not_ready: Option<String>,
    /// Whatever happened, in order.
    pub(super) steps: Vec<Step>,
    /// The users.
    pub(super) users: Vec<UserReport>,
    /// Whether every mail and every folder was as before.
    pub(super) is_as_before: bool,
}

/// What Glacier said.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, Serialize)]
pub(super) struct GlacierReport {
    /// Whether all nodes said that they had nothing that was not in Glacier, before any was killed.
    pub(super) is_covered: bool,
    /// Bytes that were not in Glacier yet when the nodes were killed.
    pub(super) exposed_bytes: u64,
    /// What still had to be restored when everything was read.
    pub(super) to_restore: u64,
    /// What still had to be repaired then.
    pub(super) to_repair: u64,
}

/// One step, and how long it took.
#[derive(Debug, Serialize)]
pub(super) struct Step {
    /// What was done.
    pub(super) what: String,
    /// In how many seconds.
    pub(super) seconds: f64,
}

/// One user's mail.
#[derive(Debug, Serialize)]
pub(super) struct UserReport {
    /// Whose.
    pub(super) address: String,
    /// The node with the gateway, counted from 1.
    pub(super) gateway: usize,
    /// Whether that node was killed and wiped.
    pub(super) is_gateway_wiped: bool,
    /// Folders before.
    pub(super) folders: usize,
    /// Mails before.
    pub(super) mails: usize,
    /// Bytes of them, as far as they were read before.
    pub(super) bytes: u64,
    /// Mails that are gone.
    pub(super) missing: usize,
    /// Mails that are listed and cannot be read.
    pub(super) unreadable: usize,
    /// Mails of which octets or flags are others.
    pub(super) altered: usize,
    /// Mails that were not there before.
    pub(super) extra: usize,
    /// All that is not as before, in words.
    pub(super) differences: Vec<String>,
}

impl UserReport {
    /// Of a user whose mail was `before` and is `after`.
    pub(super) fn new(
        address: &str,
        gateway: usize,
        is_gateway_wiped: bool,
        before: &Mailbox,
        after: &Reading,
    ) -> Self {
        let differences = compare(before, &after.mailbox);
        let count = |is: fn(&Difference) -> bool| differences.iter().filter(|difference| is(difference)).count();
        let mails = || before.values().flat_map(|folder| folder.mails.values());
        UserReport {
            address: address.to_owned(),
            gateway,
            is_gateway_wiped,
            folders: before.len(),
            mails: mails().count(),
            bytes: mails().filter_map(|mail| mail.content.as_ref().ok()).map(|content| content.bytes).sum(),
            missing: differences.iter().map(|difference| difference.fault.missing()).sum(),
            unreadable: count(|difference| matches!(difference.fault, Fault::Unreadable(_))),
            altered: count(|difference| matches!(difference.fault, Fault::OtherBytes | Fault::OtherFlags)),
            extra: differences.iter().map(|difference| difference.fault.extra()).sum(),
            differences: after.failures.iter().cloned().chain(differences.iter().map(Difference::to_string)).collect(),
        }
    }

    /// Whether all is as it was.
    pub(super) fn is_as_before(&self) -> bool {
        self.differences.is_empty()
    }
}

impl Report {
    /// Notes a step.
    pub(super) fn step(&mut self, what: impl Into<String>, took: Duration) {
        self.steps.push(Step { what: what.into(), seconds: took.as_secs_f64() });
    }

    /// For a program.
    pub(super) fn to_json(&self) -> String {
        let Ok(text) = serde_json::to_string_pretty(self) else { unreachable!("strings and numbers only") };
        text + "\n"
    }

    /// For a person.
    pub(super) fn to_text(&self) -> String {
        let steps: Vec<Vec<String>> =
            self.steps.iter().map(|step| vec![step.what.clone(), format!("{:.1} s", step.seconds)]).collect();
        let users: Vec<Vec<String>> = self.users.iter().map(row).collect();
        let headings = ["user", "gateway", "folders", "mails", "bytes", "missing", "unreadable", "altered", "extra"];
        let mut text = format!(
            "\nKilled and wiped {} of {} nodes ({} %, --seed {}): {}.\n{}\n\n{}\n{}\n",
            self.killed.len(),
            self.nodes,
            self.kill_percent,
            self.seed,
            self.killed.iter().map(usize::to_string).collect::<Vec<_>>().join(", "),
            self.losses_by_disk(),
            table::render(&["step", "took"], &steps),
            table::render(&headings, &users),
        );
        self.write_differences(&mut text);
        text + &self.verdict()
    }

    fn losses_by_disk(&self) -> String {
        let disks = format!(
            "Their disks held {} objects and {}; certificates, keys, configuration and the users' key files were kept.",
            self.wiped_objects,
            table::bytes(self.wiped_bytes)
        );
        let glacier = match self.glacier {
            None => {
                "The nodes have no Glacier: only what some of the remaining nodes hold whole can come back.".to_owned()
            }
            Some(GlacierReport { is_covered: true, .. }) => "Everything was in Glacier before.".to_owned(),
            Some(glacier) => format!(
                "Not everything was in Glacier, though it was waited for: {} were exposed.",
                table::bytes(glacier.exposed_bytes)
            ),
        };
        format!("{disks}\n{glacier}")
    }

    fn write_differences(&self, text: &mut String) {
        // A String takes everything that is written to it.
        for user in self.users.iter().filter(|user| !user.is_as_before()) {
            for difference in user.differences.iter().take(LISTED_MAX) {
                let _ = writeln!(text, "{}: {difference}", user.address);
            }
            if let Some(more @ 1..) = user.differences.len().checked_sub(LISTED_MAX) {
                let _ = writeln!(text, "{}: and {more} more, all of them with --json", user.address);
            }
        }
        if let Some(GlacierReport { to_restore: left @ 1.., .. }) = self.glacier {
            let _ = writeln!(text, "Glacier still had {left} to restore when everything was read.");
        }
        if let Some(nodes) = &self.not_ready {
            let _ = writeln!(text, "Not ready in time: {nodes}.");
        }
        if !self.is_as_before || self.not_ready.is_some() {
            text.push('\n');
        }
    }

    fn verdict(&self) -> String {
        let sum = |of: fn(&UserReport) -> usize| self.users.iter().map(of).sum::<usize>();
        let (mails, folders) = (sum(|user| user.mails), sum(|user| user.folders));
        if self.is_as_before {
            return format!("Nothing was lost: {mails} mails in {folders} folders came back byte for byte.\n");
        }
        format!(
            "NOT AS BEFORE: of {mails} mails in {folders} folders {} are missing, {} cannot be read, {} are altered; {} are new.\n",
            sum(|user| user.missing),
            sum(|user| user.unreadable),
            sum(|user| user.altered),
            sum(|user| user.extra),
        )
    }
}

fn row(user: &UserReport) -> Vec<String> {
    let wiped = if user.is_gateway_wiped { ", wiped" } else { "" };
    let counts = [user.missing, user.unreadable, user.altered, user.extra].map(|count| count.to_string());
    let [missing, unreadable, altered, extra] = counts;
    vec![
        user.address.clone(),
        format!("node {}{wiped}", user.gateway),
        user.folders.to_string(),
        user.mails.to_string(),
        table::bytes(user.bytes),
        missing,
        unreadable,
        altered,
        extra,
    ]
}

#[cfg(test)]
mod tests {
    //! Goal: the verdict follows from the mail alone, and both forms of the report tell it. Method: one user by hand, whole and with a
    //! mail gone.
    use super::super::mailbox::{Content, Folder, Mail};
    use super::*;
    use std::collections::BTreeMap;

    fn mailbox(count: u32) -> Mailbox {
        let mail = |uid| (uid, Mail { flags: Vec::new(), content: Ok(Content::of(b"twelve bytes")) });
        BTreeMap::from([("INBOX".to_owned(), Folder { uid_validity: 1, mails: (1..=count).map(mail).collect() })])
    }

    fn report(left: u32) -> Report {
        let after = Reading { mailbox: mailbox(left), failures: Vec::new() };
        let alice = UserReport::new("alice@epost.test", 1, true, &mailbox(30), &after);
        Report {
            seed: 42,
            nodes: 16,
            kill_percent: 60,
            killed: vec![1, 4],
            wiped_bytes: 2048,
            wiped_objects: 17,
            mails_sent: 30,
            glacier: None,
            not_ready: None,
            steps: vec![Step { what: "30 mails sent".to_owned(), seconds: 1.25 }],
            is_as_before: alice.is_as_before(),
            users: vec![alice],
        }
    }

    #[test]
    fn nothing_lost() {
        let text = report(30).to_text();
        assert!(text.contains("2 of 16 nodes (60 %, --seed 42): 1, 4."), "{text}");
        assert!(text.ends_with("\n\nNothing was lost: 30 mails in 1 folders came back byte for byte.\n"), "{text}");
        let read: serde_json::Value = serde_json::from_str(&report(30).to_json()).unwrap();
        assert_eq!((read["is_as_before"].as_bool(), read["users"][0]["bytes"].as_u64()), (Some(true), Some(360)));
        assert_eq!(read["glacier"], serde_json::Value::Null);
    }

    #[test]
    fn what_is_lost_is_told_and_counted() {
        let text = report(5).to_text();
        assert!(text.contains("alice@epost.test: INBOX, UID 6: missing\n"), "{text}");
        assert!(text.contains("alice@epost.test: and 19 more"), "{text}");
        assert!(text.contains("NOT AS BEFORE: of 30 mails in 1 folders 25 are missing"), "{text}");
        let mut none = report(5);
        let nothing = Reading { mailbox: Mailbox::new(), failures: vec!["no answer".to_owned()] };
        none.users = vec![UserReport::new("alice@epost.test", 1, false, &mailbox(30), &nothing)];
        let text = none.to_text();
        assert!(text.contains("alice@epost.test: INBOX: the folder is missing, with 30 mails\n"), "{text}");
        assert!(text.contains("NOT AS BEFORE: of 30 mails in 1 folders 30 are missing"), "{text}");
        let read: serde_json::Value = serde_json::from_str(&report(5).to_json()).unwrap();
        assert_eq!(read["users"][0]["differences"].as_array().map(Vec::len), Some(25));
        assert_eq!(read["is_as_before"], false);
    }
}
