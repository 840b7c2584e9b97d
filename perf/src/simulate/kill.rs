//! A writer on a real file system, killed again and again; its journal is kept by this process, which is not.
//!
//! Each round starts a writer ([`super::writer`]), lets it open the store, tell all that is in it, and change it; `SIGKILL`
//! comes at a random moment of any of the three. What was told is compared with the journal ([`super::journal`]); what was
//! acknowledged before the kill is read from the pipe to its end. A kill leaves the page cache as it is: this shows that
//! nothing is acknowledged that was not handed to the kernel and that recovery puts it together again; power cuts are
//! [`super::disk`]'s. The control is a writer that acknowledges before it submits; it must be caught.

use super::journal::{Held, Journal};
use super::{Ending, attend};
use crate::load::{Dice, LoadError};
use crate::report::{Findings, Watch, columns};
use indicatif::{ProgressBar, ProgressStyle};
use serde::Serialize;
use std::io::{BufRead, BufReader};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, channel};
use std::time::{Duration, Instant};

/// A writer that says nothing for so long, without being killed, hangs.
const PATIENCE: Duration = Duration::from_secs(60);

/// What to do.
#[derive(Clone, Debug)]
pub(crate) struct Plan {
    /// Where the store is put; it is removed afterwards.
    pub(crate) dir: PathBuf,
    /// Kills.
    pub(crate) rounds: u64,
    /// The seed of the operations and of the moments of the kills.
    pub(crate) seed: u64,
    /// The writer has the defect.
    pub(crate) control: bool,
}

#[derive(Clone, Debug, Default, Serialize)]
struct Figures {
    seed: u64,
    control: bool,
    kills: u64,
    while_opening: u64,
    while_telling: u64,
    while_writing: u64,
    of_these_in_a_sweep: u64,
    openings_checked: u64,
    objects_checked: u64,
    acknowledged: u64,
    expired: u64,
    violations: u64,
    seconds: f64,
}

/// What a writer was doing when it was last heard of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Stage {
    Opening,
    Telling,
    Writing,
}

/// Kills writers until all rounds are done, something is wrong, or the user interrupts.
pub(crate) fn simulate(plan: &Plan) -> Result<Ending, LoadError> {
    std::fs::create_dir_all(&plan.dir)?;
    let scratch = tempfile::Builder::new().prefix("perf-kill-").tempdir_in(&plan.dir)?;
    let (watch, start) = (Watch::start(), Instant::now());
    let progress = ProgressBar::new(plan.rounds);
    progress.set_style(ProgressStyle::with_template("{wide_bar} {pos}/{len} kills, {eta} left").expect("a template"));
    let stop = AtomicBool::new(false);
    let mut rounds = Rounds {
        plan,
        store: scratch.path().join("store"),
        journal: Journal::new(plan.seed),
        dice: Dice::new(plan.seed),
        figures: Figures { seed: plan.seed, control: plan.control, ..Figures::default() },
    };
    let (outcome, interrupted) = std::thread::scope(|scope| {
        let worker = scope.spawn(|| rounds.all(&stop, &progress));
        let interrupted = attend(&stop, || worker.is_finished());
        (worker.join().expect("rounds do not panic"), interrupted)
    });
    progress.finish_and_clear();
    let interrupted = interrupted?;
    let violation = match outcome {
        Ok(()) => None,
        Err(Failure::Violation(text)) => Some(text),
        Err(Failure::Other(error)) => return Err(error),
    };
    let mut figures = rounds.figures;
    figures.acknowledged = rounds.journal.acknowledged;
    figures.expired = rounds.journal.expired;
    figures.objects_checked = rounds.journal.objects_checked;
    figures.violations = u64::from(violation.is_some());
    figures.seconds = start.elapsed().as_secs_f64();
    let mut findings = Findings::new("simulate kill", &plan.dir, &watch, &figures, table(&figures))?;
    findings.note(format!(
        "seed {}, {:.0} s; SIGKILL leaves the page cache: power cuts are simulated",
        plan.seed, figures.seconds
    ));
    if interrupted {
        findings.note("interrupted: what is counted was covered, the rest was not run");
    }
    if violation.is_some() && !plan.control {
        // Evidence: moments of kills do not repeat.
        let kept = scratch.keep();
        findings.note(format!("the store is kept in {}", kept.display()));
    }
    let violation = violation.map(|text| {
        let (commit, seed) = (findings.commit(), plan.seed);
        format!("commit {commit}: {text}\nrepeat: cargo run --release -p perf -- simulate kill --seed {seed} (a kill's moment does not repeat exactly)")
    });
    Ok(Ending { findings, violation })
}

enum Failure {
    Violation(String),
    Other(LoadError),
}

impl From<String> for Failure {
    fn from(text: String) -> Failure {
        Failure::Violation(text)
    }
}

impl From<std::io::Error> for Failure {
    fn from(error: std::io::Error) -> Failure {
        Failure::Other(error.into())
    }
}

/// A writer that does not outlive its round, however that ends.
struct Writer(Child);

impl Drop for Writer {
    fn drop(&mut self) {
        // It has ended already, unless something was wrong; then what these say does not matter any more.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

struct Rounds<'a> {
    plan: &'a Plan,
    store: PathBuf,
    journal: Journal,
    dice: Dice,
    figures: Figures,
}

impl Rounds<'_> {
    fn all(&mut self, stop: &AtomicBool, progress: &ProgressBar) -> Result<(), Failure> {
        for round in 0..self.plan.rounds {
            if stop.load(Ordering::Relaxed) {
                return Ok(());
            }
            let at = (self.moment(), Duration::from_micros(self.dice.roll() % 400_000));
            self.round(Some(at)).map_err(|failure| in_round(failure, round))?;
            progress.inc(1);
        }
        // Twice: as the last kill left it, and closed in order.
        for _ in 0..2 {
            self.round(None).map_err(|failure| in_round(failure, self.plan.rounds))?;
        }
        Ok(())
    }

    /// The stage in which the kill shall fall: mostly while writing.
    fn moment(&mut self) -> Stage {
        match self.dice.roll() % 10 {
            0..2 => Stage::Opening,
            2 => Stage::Telling,
            _ => Stage::Writing,
        }
    }

    /// One writer's life: killed so long into that stage (less in the short ones), or closing in order.
    fn round(&mut self, kill: Option<(Stage, Duration)>) -> Result<(), Failure> {
        let mut writer = self.start(kill.is_none())?;
        let lines = listen(&mut writer.0);
        let mut stage = Stage::Opening;
        let mut deadline = Instant::now() + PATIENCE;
        let due = |stage| {
            kill.filter(|(wanted, _)| *wanted == stage)
                .map(|(wanted, wait)| Instant::now() + if wanted == Stage::Writing { wait } else { wait / 16 })
        };
        let mut kill_at = due(stage);
        let mut killed = false;
        loop {
            let until = kill_at.unwrap_or(deadline).saturating_duration_since(Instant::now());
            match if killed {
                lines.recv().map_err(|_| RecvTimeoutError::Disconnected)
            } else {
                lines.recv_timeout(until)
            } {
                Ok(line) => {
                    deadline = Instant::now() + PATIENCE;
                    let before = stage;
                    self.hear(&line, &mut stage)?;
                    if stage != before && !killed && kill_at.is_none() {
                        kill_at = due(stage);
                    }
                }
                Err(RecvTimeoutError::Timeout) => {
                    writer.0.kill()?;
                    killed = true;
                    if kill_at.is_none() {
                        return Err(Failure::Violation(format!("the writer hung while {stage:?}")));
                    }
                }
                Err(RecvTimeoutError::Disconnected) => break,
            }
        }
        let status = writer.0.wait()?;
        match (killed, kill.is_none()) {
            (true, _) => self.count_kill(stage),
            (false, true) if status.success() && stage == Stage::Writing => {}
            _ => return Err(Failure::Violation(format!("the writer ended by itself while {stage:?}: {status}"))),
        }
        if stage == Stage::Writing {
            self.figures.openings_checked += 1;
            if killed {
                self.journal.died();
            }
        } else {
            self.journal.cut_short();
        }
        Ok(())
    }

    fn count_kill(&mut self, stage: Stage) {
        self.figures.kills += 1;
        match stage {
            Stage::Opening => self.figures.while_opening += 1,
            Stage::Telling => self.figures.while_telling += 1,
            Stage::Writing => {
                self.figures.while_writing += 1;
                self.figures.of_these_in_a_sweep += u64::from(self.journal.is_sweeping());
            }
        }
    }

    fn start(&self, last: bool) -> Result<Writer, Failure> {
        let mut command = Command::new(std::env::current_exe()?);
        command.args(["simulate", "writer", "--seed", &self.plan.seed.to_string()]);
        command.args(["--from", &self.journal.next().to_string(), "--dir"]).arg(&self.store);
        if last {
            command.arg("--last");
        }
        if self.plan.control {
            command.arg("--acknowledge-early");
        }
        Ok(Writer(command.stdin(Stdio::null()).stdout(Stdio::piped()).spawn()?))
    }

    fn hear(&mut self, line: &str, stage: &mut Stage) -> Result<(), Failure> {
        let words: Vec<&str> = line.split(' ').collect();
        match (words.as_slice(), *stage) {
            (["opened"], Stage::Opening) => *stage = Stage::Telling,
            (["held", kind, number, version, expiry, length, print], Stage::Telling) => {
                let held = Held { version: parse(version)?, expiry_s: parse(expiry)? };
                let kind = u8::try_from(parse(kind)?).map_err(|_| format!("no kind: {line}"))?;
                self.journal.told(kind, parse(number)?, held, (parse(length)?, parse(print)?))?;
            }
            (["lost", ..], Stage::Telling) => {
                return Err(Failure::Violation(format!("listed by a scan, not given by a get: {line}")));
            }
            (["writing"], Stage::Telling) => {
                self.journal.told_all()?;
                *stage = Stage::Writing;
            }
            (["answer", number, ..], Stage::Writing) => {
                let answer = line.splitn(3, ' ').nth(2).unwrap_or_default();
                self.journal.answer(parse(number)?, answer)?;
            }
            _ => return Err(Failure::Violation(format!("the writer said {line:?} while {stage:?}"))),
        }
        Ok(())
    }
}

fn in_round(failure: Failure, round: u64) -> Failure {
    match failure {
        Failure::Violation(text) => Failure::Violation(format!("round {round}: {text}")),
        other => other,
    }
}

fn parse(word: &str) -> Result<u64, String> {
    word.parse().map_err(|_| format!("not a number: {word:?}"))
}

/// Whole lines of the writer; what a kill cut off in the middle was not said.
fn listen(child: &mut Child) -> Receiver<String> {
    let (sender, lines) = channel();
    let pipe = child.stdout.take().expect("it is piped");
    std::thread::spawn(move || {
        let mut pipe = BufReader::new(pipe);
        let mut line = String::new();
        while pipe.read_line(&mut line).is_ok_and(|length| length > 0) {
            if !line.ends_with('\n') || sender.send(line.trim_end().to_owned()).is_err() {
                return;
            }
            line.clear();
        }
    });
    lines
}

fn table(figures: &Figures) -> String {
    let line = |name: &str, figure: u64| (name.to_owned(), vec![figure.to_string()]);
    columns(&[
        line("kills", figures.kills),
        line("  while opening", figures.while_opening),
        line("  while telling what is there", figures.while_telling),
        line("  while writing", figures.while_writing),
        line("    of these in a sweep", figures.of_these_in_a_sweep),
        line("openings checked", figures.openings_checked),
        line("objects checked", figures.objects_checked),
        line("changes acknowledged", figures.acknowledged),
        line("objects expired", figures.expired),
        line("violations", figures.violations),
    ])
}
