//! The course of a drill: what is done to a running ring and its users' mail, step by step, and what is found.
//!
//! ```text
//! send ─▶ delivered ─▶ file ─▶ read all (what is to come back) ─▶ nothing exposed ─▶ kill and wipe ─▶ start anew
//!      ─▶ ready, restored ─▶ the other gateways start again ─▶ read all, until nothing is missing or time is up
//! ```
//!
//! The gateways that were not killed are stopped in order and started again, with their disks, before anything is read:
//! otherwise a process that lived through it could answer out of its memory, and hide what the ring has lost.

use super::fate::Dice;
use super::letters::{Post, number_of};
use super::mailbox::{Mailbox, Reading, compare, log_in, read};
use super::report::{GlacierReport, Report, UserReport};
use super::wipe::wipe;
use super::{DrillError, Orders};
use crate::cli::children::Order;
use crate::cli::local::LocalUser;
use crate::cli::mail_client::{ClientError, Smtp};
use crate::cli::running::{READY_MAX, RunError, Running};
use crate::cli::status::waiting_for;
use crate::cli::table;
use serde_json::Value;
use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;
use tokio::task::JoinSet;
use tokio::time::{Instant, sleep, timeout};

/// How long a mail may take from its sender to its recipient in a healthy ring.
const DELIVERY_MAX: Duration = Duration::from_secs(180);

/// How often nodes are asked how far they are.
const ASK_EVERY: Duration = Duration::from_secs(1);

/// So many answers in a row must say that nothing is to be done: what happened last may not be in the first.
const CALM_ANSWERS: usize = 5;

/// Pause before what is missing is looked for again.
const READ_AGAIN: Duration = Duration::from_secs(2);

/// The folders that a user makes: mails are moved to the first, and copied to the second; drafts are put into the third,
/// and the last stays empty.
const FOLDERS: [&str; 4] = ["Drill", "Drill/Copies", "Drill/Drafts", "Drill/Empty"];

/// One drill under way.
pub(super) struct Course<'a> {
    running: &'a mut Running,
    orders: &'a Orders,
    post: Arc<Post>,
    users: Vec<Arc<LocalUser>>,
    report: Report,
}

/// How a wait for Glacier ended.
enum Waited {
    /// No node has one.
    NoGlacier,
    /// There is nothing left to be done.
    Calm,
    /// Time is up; the nodes that answer have so much left.
    InVain { left: u64 },
}

/// What a user must find in the end, as far as it follows from what was sent and filed.
#[derive(Default)]
struct Due {
    /// Mails by number, in whatever folder.
    letters: BTreeSet<usize>,
    /// Hashes of drafts.
    drafts: BTreeSet<[u8; 32]>,
    /// Mails that are there a second time.
    copies: usize,
}

impl<'a> Course<'a> {
    pub(super) fn new(running: &'a mut Running, orders: &'a Orders) -> Self {
        let users: Vec<_> = running.local.users.iter().cloned().map(Arc::new).collect();
        let addresses = users.iter().map(|user| user.address.clone()).collect();
        let report = Report {
            seed: orders.seed,
            nodes: running.local.nodes.len(),
            kill_percent: orders.share.percent(),
            killed: orders.victims.iter().map(|node| node + 1).collect(),
            wiped_bytes: 0,
            wiped_objects: 0,
            mails_sent: orders.mails,
            glacier: None,
            not_ready: None,
            steps: Vec::new(),
            users: Vec::new(),
            is_as_before: false,
        };
        let post = Arc::new(Post { addresses, seed: orders.seed, date: orders.date.clone() });
        Course { running, orders, post, users, report }
    }

    /// All of it, on a ring whose nodes have been started.
    pub(super) async fn run(mut self) -> Result<Report, DrillError> {
        let began = Instant::now();
        let all = self.running.all();
        self.running.get_ready(&all, READY_MAX).await?;
        self.report.step(format!("{} started", nodes(self.report.nodes)), began.elapsed());
        self.send().await?;
        self.wait_for_delivery().await?;
        let due = self.file().await?;
        let before = self.read_before(&due).await?;
        self.wait_until_covered().await;
        self.kill_and_wipe().await?;
        let again = Instant::now();
        self.recover(again).await?;
        self.restart_gateways().await?;
        self.read_back(&before, again).await?;
        self.running.progress.end();
        Ok(self.report)
    }

    /// Every user sends his share of the mails over one connection.
    async fn send(&mut self) -> Result<(), DrillError> {
        let (began, count) = (Instant::now(), self.orders.mails);
        self.running.progress.begin(&format!("sending {}", table::count(count, "mail")), count);
        let done = Arc::new(AtomicUsize::new(0));
        let (post, counter) = (self.post.clone(), done.clone());
        let share = move |number: usize, user: &LocalUser| {
            let mut session = Smtp::login("127.0.0.1", user.ports.smtp_tls, &user.address, &user.password)?;
            for letter in (number..count).step_by(post.addresses.len()).map(|number| post.letter(number)) {
                assert_eq!(letter.from, number);
                let to: Vec<&str> = letter.to.iter().map(|&to| post.addresses[to].as_str()).collect();
                session.send(&user.address, &to, &letter.text)?;
                counter.fetch_add(1, Ordering::Relaxed);
            }
            Ok(())
        };
        self.for_each_user("sending mail", &done, share).await?;
        self.report.step(format!("{} sent", table::count(count, "mail")), began.elapsed());
        Ok(())
    }

    /// Waits until every inbox has what was sent to it, and no sender waits for a receipt.
    async fn wait_for_delivery(&mut self) -> Result<(), DrillError> {
        let began = Instant::now();
        let mut wanted = vec![0_u64; self.users.len()];
        for number in 0..self.orders.mails {
            self.post.way(number).1.iter().for_each(|&user| wanted[user] += 1);
        }
        self.running.progress.begin("waiting until they are delivered", self.users.len());
        let done = Arc::new(AtomicUsize::new(0));
        let counter = done.clone();
        let arrive = move |number: usize, user: &LocalUser| {
            let mut inbox = log_in(user)?;
            inbox.select("INBOX")?;
            inbox.idle_until(wanted[number])?;
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(())
        };
        let late = |_| DrillError::NotDelivered { within: DELIVERY_MAX };
        timeout(DELIVERY_MAX, self.for_each_user("waiting for mail", &done, arrive)).await.map_err(late)??;
        loop {
            let answers = self.running.answers().await;
            if all_answer(&answers) && sum(&answers, "/queues/outbox") == 0 {
                break;
            }
            if began.elapsed() > DELIVERY_MAX {
                return Err(DrillError::NotDelivered { within: DELIVERY_MAX });
            }
            sleep(ASK_EVERY).await;
        }
        self.report.step("all of them delivered", began.elapsed());
        Ok(())
    }

    /// Every user makes folders, moves, copies and marks mails, and files drafts.
    async fn file(&mut self) -> Result<Vec<Due>, DrillError> {
        let began = Instant::now();
        self.running.progress.begin("filing some by IMAP", self.users.len());
        let done = Arc::new(AtomicUsize::new(0));
        let (post, counter, mails) = (self.post.clone(), done.clone(), self.orders.mails);
        let work = move |number: usize, user: &LocalUser| {
            let due = file_some(number, user, &post, mails)?;
            counter.fetch_add(1, Ordering::Relaxed);
            Ok(due)
        };
        let due = self.for_each_user("filing mail", &done, work).await?;
        self.report.step("some of them moved, copied and marked, drafts filed", began.elapsed());
        Ok(due)
    }

    /// Reads everything, which must be what was sent and filed.
    async fn read_before(&mut self, due: &[Due]) -> Result<Vec<Mailbox>, DrillError> {
        let began = Instant::now();
        self.running.progress.begin("reading all of it", self.users.len());
        let readings = self.read_all().await?;
        let mut before = Vec::new();
        for ((user, due), (reading, found)) in self.users.iter().zip(due).zip(readings) {
            if let Some(what) = found.differs_from(due, &reading) {
                return Err(DrillError::NotAsSent { address: user.address.clone(), what });
            }
            before.push(reading.mailbox);
        }
        self.report.step("all read back as sent", began.elapsed());
        Ok(before)
    }

    /// Waits until Glacier has everything, where the nodes have one.
    async fn wait_until_covered(&mut self) {
        let began = Instant::now();
        self.running.progress.begin("waiting until nothing is exposed", 0);
        let say = |left| format!("{} still exposed", table::bytes(left));
        let (is_covered, exposed_bytes) = match self.wait_for_calm(began, "/glacier/exposed_bytes", say).await {
            Waited::NoGlacier => {
                self.running.progress.say("the nodes have no Glacier; going on without it");
                return;
            }
            Waited::Calm => (true, 0),
            Waited::InVain { left } => (false, left),
        };
        self.report.glacier = Some(GlacierReport { is_covered, exposed_bytes, ..GlacierReport::default() });
        let what = if is_covered { "nothing exposed any more" } else { "gave up waiting for Glacier" };
        self.report.step(what, began.elapsed());
    }

    /// Waits until all nodes say that this figure of Glacier's is 0, several times in a row, or time is up.
    async fn wait_for_calm(&mut self, since: Instant, figure: &str, say: impl Fn(u64) -> String) -> Waited {
        let mut calm = 0;
        loop {
            let answers = self.running.answers().await;
            let left = sum(&answers, figure);
            if !all_answer(&answers) {
                calm = 0;
                self.running.progress.stands("not all nodes answer");
            } else if answers.iter().flatten().all(|answer| answer.get("glacier").is_none()) {
                return Waited::NoGlacier;
            } else {
                calm = if left == 0 { calm + 1 } else { 0 };
                self.running.progress.stands(&say(left));
            }
            if calm >= CALM_ANSWERS {
                return Waited::Calm;
            }
            if since.elapsed() > self.orders.wait {
                return Waited::InVain { left };
            }
            self.running.beside(&AtomicUsize::new(0), sleep(ASK_EVERY)).await;
        }
    }

    async fn kill_and_wipe(&mut self) -> Result<(), DrillError> {
        let victims = &self.orders.victims;
        let answers = self.running.answers().await;
        let objects = victims.iter().filter_map(|&node| answers[node].as_ref()?.pointer("/engine/objects")?.as_u64());
        self.report.wiped_objects = objects.sum();
        let began = Instant::now();
        self.running.progress.begin(&format!("killing and wiping {}", nodes(victims.len())), 0);
        self.running.end(victims, Order::Kill).await;
        let folders: Vec<_> = victims.iter().map(|&node| self.running.local.nodes[node].folder.clone()).collect();
        let wipe_all = move || folders.iter().map(|folder| wipe(folder)).sum::<Result<u64, _>>();
        let wiped = tokio::task::spawn_blocking(wipe_all);
        self.report.wiped_bytes = joined(wiped.await)?;
        self.report.step(format!("{} killed and wiped", nodes(victims.len())), began.elapsed());
        Ok(())
    }

    /// Starts the dead anew with empty disks, and waits until all is ready and restored, or time is up.
    async fn recover(&mut self, began: Instant) -> Result<(), DrillError> {
        let victims = &self.orders.victims;
        self.running
            .progress
            .begin(&format!("starting {} anew, without what was on their disks", nodes(victims.len())), victims.len());
        self.running.start_again(victims);
        let all = self.running.all();
        match self.running.get_ready(&all, self.orders.wait).await {
            Ok(()) => self.report.step("all nodes ready again", began.elapsed()),
            Err(RunError::NotReady { .. }) => {
                self.note_unready().await;
                self.report.step("gave up waiting for all nodes", began.elapsed());
            }
            Err(error) => return Err(error.into()),
        }
        if self.report.glacier.is_none() {
            return Ok(());
        }
        self.running.progress.begin("waiting until all is restored", 0);
        let say = |left| format!("{left} still to be restored");
        let what = match self.wait_for_calm(began, "/glacier/to_restore", say).await {
            Waited::Calm => "everything restored, from the new start",
            Waited::NoGlacier | Waited::InVain { .. } => "gave up waiting for everything to be restored",
        };
        self.report.step(what, began.elapsed());
        Ok(())
    }

    /// Which nodes are not ready, and what each says that it waits for.
    async fn note_unready(&mut self) {
        let answers = self.running.answers().await;
        let why = |node: usize| match &answers[node] {
            Some(answer) => {
                waiting_for(answer).map_or_else(|| "joining".to_owned(), |what| format!("waits for {what}"))
            }
            None => "does not answer".to_owned(),
        };
        let unready = self.running.unready().map(|node| format!("node {} ({})", node + 1, why(node)));
        self.report.not_ready = Some(unready.collect::<Vec<_>>().join(", "));
    }

    /// Starts those gateways again that were not killed.
    async fn restart_gateways(&mut self) -> Result<(), DrillError> {
        let began = Instant::now();
        let gateways = 0..self.users.len();
        let left: Vec<usize> = gateways.filter(|node| !self.orders.victims.contains(node)).collect();
        if left.is_empty() {
            return Ok(());
        }
        self.running.progress.begin("starting the other gateways again, with their disks", left.len());
        self.running.end(&left, Order::Stop).await;
        self.running.start_again(&left);
        match self.running.get_ready(&left, READY_MAX.min(self.orders.wait)).await {
            Ok(()) => {}
            Err(RunError::NotReady { .. }) => self.note_unready().await,
            Err(error) => return Err(error.into()),
        }
        self.report.step("the other gateways started again", began.elapsed());
        Ok(())
    }

    /// Reads everything, and again for as long as something is missing and there is time.
    async fn read_back(&mut self, before: &[Mailbox], since: Instant) -> Result<(), DrillError> {
        let mut began = Instant::now();
        self.running.progress.begin("reading everything back", 0);
        let readings = loop {
            let readings: Vec<Reading> = self.read_all().await?.into_iter().map(|(reading, _)| reading).collect();
            let differences = before.iter().zip(&readings).flat_map(|(before, after)| compare(before, &after.mailbox));
            let lost = differences.filter(|difference| difference.fault.is_loss()).count();
            if lost == 0 || since.elapsed() > self.orders.wait {
                break readings;
            }
            self.running.progress.stands(&format!("{lost} mails and folders are not there yet"));
            self.running.beside(&AtomicUsize::new(0), sleep(READ_AGAIN)).await;
            began = Instant::now();
        };
        self.report.step("everything read back", began.elapsed());
        self.report.step("from the new start until all was read", since.elapsed());
        for (number, (user, (before, after))) in self.users.iter().zip(before.iter().zip(&readings)).enumerate() {
            let is_wiped = self.orders.victims.contains(&number);
            self.report.users.push(UserReport::new(&user.address, number + 1, is_wiped, before, after));
        }
        self.report.is_as_before = self.report.users.iter().all(UserReport::is_as_before);
        if let Some(glacier) = &mut self.report.glacier {
            let answers = self.running.answers().await;
            glacier.to_restore = sum(&answers, "/glacier/to_restore");
            glacier.to_repair = sum(&answers, "/glacier/to_repair");
        }
        Ok(())
    }

    async fn read_all(&mut self) -> Result<Vec<(Reading, Found)>, DrillError> {
        let done = Arc::new(AtomicUsize::new(0));
        let (post, counter) = (self.post.clone(), done.clone());
        let work = move |number: usize, user: &LocalUser| {
            let mut found = Found::default();
            let reading = read(user, |octets| found.note(octets, number, &post));
            counter.fetch_add(1, Ordering::Relaxed);
            Ok((reading, found))
        };
        self.for_each_user("reading mail", &done, work).await
    }

    /// Does something as every user at once, each on a thread, and returns what came of it in their order.
    async fn for_each_user<T: Send + 'static>(
        &mut self,
        doing: &'static str,
        done: &AtomicUsize,
        work: impl Fn(usize, &LocalUser) -> Result<T, ClientError> + Clone + Send + 'static,
    ) -> Result<Vec<T>, DrillError> {
        let mut threads = JoinSet::new();
        for (number, user) in self.users.iter().cloned().enumerate() {
            let work = work.clone();
            threads.spawn_blocking(move || (number, work(number, &user)));
        }
        let mut results = BTreeMap::new();
        while let Some(ended) = self.running.beside(done, threads.join_next()).await {
            let (number, result) = joined(ended);
            let address = &self.users[number].address;
            let result = result.map_err(|source| DrillError::Mail { doing, address: address.clone(), source })?;
            results.insert(number, result);
        }
        Ok(results.into_values().collect())
    }
}

fn nodes(count: usize) -> String {
    table::count(count, "node")
}

/// A thread's result; a panic in it goes on here.
fn joined<T>(ended: Result<T, tokio::task::JoinError>) -> T {
    ended.unwrap_or_else(|error| std::panic::resume_unwind(error.into_panic()))
}

/// Whether every node answers.
fn all_answer(answers: &[Option<Value>]) -> bool {
    answers.iter().all(Option::is_some)
}

/// The sum of a figure over the nodes that answer; one that does not have it counts for 0.
fn sum(answers: &[Option<Value>], figure: &str) -> u64 {
    answers.iter().flatten().filter_map(|answer| answer.pointer(figure)?.as_u64()).sum()
}

/// One user's filing: of his inbox about a third is moved, a sixth copied, a third marked; a twentieth as many drafts as
/// there are mails are filed.
fn file_some(number: usize, user: &LocalUser, post: &Post, mails: usize) -> Result<Due, ClientError> {
    let mut dice = Dice::new("what is filed", post.seed.wrapping_add((number as u64) << 32));
    let mut imap = log_in(user)?;
    for folder in FOLDERS {
        imap.create(folder)?;
    }
    let mut due = Due::default();
    due.letters.extend((0..mails).filter(|&letter| post.way(letter).1.contains(&number)));
    imap.select("INBOX")?;
    for (uid, _) in imap.listing()? {
        match dice.below(6) {
            0 | 1 => imap.move_to(uid, FOLDERS[0])?,
            2 => {
                imap.copy_to(uid, FOLDERS[1])?;
                due.copies += 1;
            }
            3 => imap.add_flag(uid, "\\Seen")?,
            4 => imap.add_flag(uid, "\\Flagged")?,
            _ => {}
        }
    }
    for draft in 0..mails.div_ceil(20) {
        let text = post.draft(number, draft);
        imap.append(FOLDERS[2], "\\Draft", &text)?;
        due.drafts.insert(*blake3::hash(&text).as_bytes());
    }
    Ok(due)
}

/// What was seen while a user's mail was read.
#[derive(Default)]
struct Found {
    letters: BTreeSet<usize>,
    drafts: BTreeSet<[u8; 32]>,
    altered: usize,
}

impl Found {
    /// Below the trace that delivery puts in front, a mail is what was sent; a draft is what was filed.
    fn note(&mut self, octets: &[u8], user: usize, post: &Post) {
        match number_of(octets) {
            None => drop(self.drafts.insert(*blake3::hash(octets).as_bytes())),
            Some(number) => {
                let letter = post.letter(number);
                if letter.to.contains(&user) && octets.ends_with(&letter.text) {
                    self.letters.insert(number);
                } else {
                    self.altered += 1;
                }
            }
        }
    }

    /// What is wrong with it, in words.
    fn differs_from(&self, due: &Due, reading: &Reading) -> Option<String> {
        let unreadable = reading.mailbox.values().flat_map(|folder| folder.mails.values());
        let unreadable = unreadable.filter(|mail| mail.content.is_err()).count();
        let mails: usize = reading.mailbox.values().map(|folder| folder.mails.len()).sum();
        let wanted = due.letters.len() + due.copies + due.drafts.len();
        if let Some(failure) = reading.failures.first() {
            Some(failure.clone())
        } else if unreadable + self.altered > 0 {
            Some(format!("{unreadable} mails cannot be read, {} are not what was sent", self.altered))
        } else if self.letters != due.letters || self.drafts != due.drafts || mails != wanted {
            Some(format!("{wanted} mails should be there, and {mails} are"))
        } else {
            FOLDERS.iter().find(|&&folder| !reading.mailbox.contains_key(folder)).map(|folder| format!("no {folder}"))
        }
    }
}
