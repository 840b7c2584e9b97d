//! What runs have covered, so that a reader can see that something was tested.

/// Something a store does, as far as it matters where a crash falls.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Activity {
    /// It is being opened.
    Recovery,
    /// A batch is being made durable.
    Commit,
    /// The removals of a sweep are on their way.
    Sweep,
    /// Live records are moved out of a segment.
    Cleaning,
    /// A checkpoint is being written.
    Checkpoint,
    /// Segments are given back.
    Freeing,
}

impl Activity {
    /// All there are.
    pub const ALL: [Activity; 6] = [
        Activity::Recovery,
        Activity::Commit,
        Activity::Sweep,
        Activity::Cleaning,
        Activity::Checkpoint,
        Activity::Freeing,
    ];

    /// For a table's head.
    #[must_use]
    pub fn name(self) -> &'static str {
        match self {
            Activity::Recovery => "recovery",
            Activity::Commit => "commit",
            Activity::Sweep => "sweep",
            Activity::Cleaning => "cleaning",
            Activity::Checkpoint => "checkpoint",
            Activity::Freeing => "freeing",
        }
    }
}

/// What a store does at one moment: any number of [`Activity`]s at once.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Activities(u16);

impl Activities {
    pub(crate) const RECOVERY: Activities = Activities(1 << Activity::Recovery as u16);

    /// With this one too, if it `happens`.
    #[must_use]
    pub(crate) fn with(self, activity: Activity, happens: bool) -> Activities {
        Activities(self.0 | (u16::from(happens) << activity as u16))
    }

    /// Whether this is among them.
    #[must_use]
    pub fn has(self, activity: Activity) -> bool {
        self.0 & (1 << activity as u16) != 0
    }
}

/// What runs have covered.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Coverage {
    /// Times that a store died with the power or by a kill, each followed by an opening that was checked or died in turn.
    pub crash_points: u64,
    /// Those that were power cuts.
    pub cuts: u64,
    /// Those that were kills, the machine going on.
    pub kills: u64,
    /// Of the crash points, those that fell while something was under way, in the order of [`Activity::ALL`]. The store
    /// does several things at once, so that these add up to more.
    pub fell_in: [u64; Activity::ALL.len()],
    /// Of the crash points, those that fell while nothing was under way.
    pub at_rest: u64,
    /// Openings whose state was compared with the model, object by object.
    pub openings_checked: u64,
    /// Changes acknowledged.
    pub acknowledged: u64,
    /// Objects removed by sweeps.
    pub expired: u64,
    /// Records moved by cleaning.
    pub cleaned: u64,
    /// Checkpoints written.
    pub checkpoints: u64,
    /// Lives that ended with several classes' segments open.
    pub several_classes_open: u64,
    /// Segments opened in a file used before.
    pub recycled: u64,
    /// Zeros written ahead of need.
    pub prewritten_bytes: u64,
    /// Segments given back.
    pub segments_freed: u64,
    /// Bytes of holes punched.
    pub punched_bytes: u64,
    /// Arcs of the index split.
    pub splits: u64,
    /// Tables of the index rebuilt.
    pub rebuilds: u64,
    /// Runs written from memory.
    pub runs_written: u64,
    /// Runs merged into others.
    pub runs_merged: u64,
    /// Records read that were another key's with the same tag.
    pub false_matches: u64,
    /// Changes refused for want of room.
    pub refused: u64,
    /// Damage noticed.
    pub corrupt: u64,
    /// Lives that ended read-only after repeated write faults.
    pub read_only: u64,
    /// Changes answered with a device error.
    pub failed: u64,
    /// Bytes read by scrub.
    pub scrubbed: u64,
    /// Damage scrub has noticed, live or not.
    pub scrub_damaged: u64,
    /// Damaged objects that scrub found before anybody read them.
    pub found_by_scrub: u64,
    /// Openings after whose first pass of scrub no reader was to find damage.
    pub scrubs_judged: u64,
}

impl Coverage {
    /// Crash points that fell while this was under way.
    #[must_use]
    pub fn fell_in(&self, activity: Activity) -> u64 {
        self.fell_in[activity as usize]
    }

    /// A store dies while this is under way.
    pub(crate) fn count_crash(&mut self, under_way: Activities) {
        self.crash_points += 1;
        self.at_rest += u64::from(under_way == Activities::default());
        for activity in Activity::ALL {
            self.fell_in[activity as usize] += u64::from(under_way.has(activity));
        }
    }

    /// Adds what another run covered.
    pub fn add(&mut self, other: &Coverage) {
        self.crash_points += other.crash_points;
        self.cuts += other.cuts;
        self.kills += other.kills;
        for (sum, more) in self.fell_in.iter_mut().zip(other.fell_in) {
            *sum += more;
        }
        self.at_rest += other.at_rest;
        self.openings_checked += other.openings_checked;
        self.acknowledged += other.acknowledged;
        self.expired += other.expired;
        self.cleaned += other.cleaned;
        self.checkpoints += other.checkpoints;
        self.several_classes_open += other.several_classes_open;
        self.recycled += other.recycled;
        self.prewritten_bytes += other.prewritten_bytes;
        self.segments_freed += other.segments_freed;
        self.punched_bytes += other.punched_bytes;
        self.splits += other.splits;
        self.rebuilds += other.rebuilds;
        self.runs_written += other.runs_written;
        self.runs_merged += other.runs_merged;
        self.false_matches += other.false_matches;
        self.refused += other.refused;
        self.corrupt += other.corrupt;
        self.read_only += other.read_only;
        self.failed += other.failed;
        self.scrubbed += other.scrubbed;
        self.scrub_damaged += other.scrub_damaged;
        self.found_by_scrub += other.found_by_scrub;
        self.scrubs_judged += other.scrubs_judged;
    }
}
