//! Routing tables of near nodes: how a node learns who is near, and puts them into its table.
//!
//! Any node with the right prefix may have a slot, so the nearest that is known should: then most hops of a message are
//! short, and only the last goes wherever the root happens to be. As in Pastry's table maintenance, nodes compare rows: a row
//! of somebody who shares as many digits with us fits our table, and of somebody *near* it is of near nodes. Rows come with
//! the sender's round trips. By the triangle inequality a node is no nearer to us than its distance from the sender less
//! ours; only whom that leaves a chance is pinged, and only a measured node replaces another. Rounds follow each other
//! quickly at first and then ever more slowly, for most is gained at once.

use super::Pastry;
use super::join::Join;
use crate::id::Id;
use crate::limits::{MEASURES_PER_ROUND, ROWS_PAUSE_MAX, ROWS_PAUSE_MIN};
use crate::machine::Micros;
use crate::site::{Due, Turn};
use crate::wire::{Body, Row, RowRequest};

/// Where the comparison of rows stands.
#[derive(Debug, Default)]
pub(super) struct Proximity {
    rounds: u64,
    pause: Micros,
    /// Whom we asked for a row, by which request.
    asked: Option<(Id, u64)>,
    /// How many pings of this round are left.
    measures: usize,
}

impl Pastry {
    /// The rounds begin, or begin anew.
    pub(super) fn begin_comparing(&mut self, turn: &mut Turn<'_>) {
        self.proximity = Proximity { pause: ROWS_PAUSE_MIN, ..Proximity::default() };
        turn.due_about(ROWS_PAUSE_MIN, Due::Rows);
    }

    /// A round: a near peer is asked for a row, and entries of unknown distance are measured.
    pub(super) fn compare_rows(&mut self, turn: &mut Turn<'_>) {
        if !self.is_ready() {
            return; // Becoming ready begins these rounds anew.
        }
        turn.due_about(self.proximity.pause, Due::Rows);
        self.proximity.pause = (self.proximity.pause + self.proximity.pause / 3).min(ROWS_PAUSE_MAX);
        self.proximity.rounds += 1;
        self.proximity.measures = MEASURES_PER_ROUND;
        self.fill_table(turn);
        let unmeasured: Vec<Id> = self.table.unmeasured().take(MEASURES_PER_ROUND / 2).collect();
        for id in unmeasured {
            self.measure(turn, id);
        }
        let rows = self.table.rows();
        if rows == 0 {
            return;
        }
        // The first row every other time, the next half as often: the upper rows have the most to choose from.
        let row = self.proximity.rounds.trailing_zeros() as u8 % rows;
        if let Some(partner) = self.near_partner(turn, row) {
            let request = turn.site.number();
            self.proximity.asked = Some((partner, request));
            turn.send(partner, request, Body::RowRequest(RowRequest { row }));
        }
    }

    /// Of two peers drawn from those who share at least `row` digits with us, the nearer.
    fn near_partner(&self, turn: &mut Turn<'_>, row: u8) -> Option<Id> {
        let me = turn.site.me;
        let near = self.leaf_set.members().into_iter().filter(|id| me.shared_digits(*id) >= usize::from(row));
        let peers: Vec<Id> = self.table.row_and_below(row).chain(near).collect();
        let mut draw = || peers.get((turn.site.random() % peers.len().max(1) as u64) as usize).copied();
        let far = |id: &Id| self.liveness.round_trip(*id).unwrap_or(Micros::MAX);
        [draw(), draw()].into_iter().flatten().min_by_key(far)
    }

    /// A row as others are told of it.
    pub(super) fn row_told(&self, row: u8) -> Row {
        let entries = self.table.row(row);
        let told = |round_trip: Option<Micros>| round_trip.map_or(0, |taken| taken.min(u64::from(u32::MAX)) as u32);
        let round_trips = entries.iter().map(|(_, round_trip)| told(*round_trip)).collect();
        Row { row, entries: entries.into_iter().map(|(id, _)| id).collect(), round_trips: Some(round_trips) }
    }

    /// Somebody's row has come. Its entries fill free slots; of one that we asked for, those that may be nearer than what we
    /// have are measured.
    pub(super) fn row_received(&mut self, turn: &mut Turn<'_>, from: Id, request: u64, row: Row) {
        let was_asked = self.proximity.asked.take_if(|asked| *asked == (from, request)).is_some();
        let is_for_join = self.joining.as_ref().is_some_and(|join: &Join| join.asked_by(request));
        let to_sender = self.liveness.round_trip(from);
        let mut told = row.round_trips.unwrap_or_default().into_iter();
        self.suggest(turn, &row.entries);
        for id in row.entries {
            let taken = told.next().filter(|taken| *taken > 0);
            let least = taken.zip(to_sender).map_or(0, |(taken, ours)| Micros::from(taken).abs_diff(ours));
            let is_known = self.liveness.round_trip(id).is_some();
            if (was_asked || is_for_join) && !is_known && self.table.would_gain(id, least) {
                self.measure(turn, id);
            }
        }
    }

    /// Pings somebody to learn how far away it is, as long as this round's pings last.
    fn measure(&mut self, turn: &mut Turn<'_>, id: Id) {
        let may_be_there = turn.site.roster.contains(id) && !self.liveness.is_departed(id);
        if self.proximity.measures > 0 && id != turn.site.me && may_be_there {
            self.proximity.measures -= 1;
            let presence = self.presence(turn);
            self.liveness.call_out(turn, id, presence);
        }
    }

    /// Fills free slots from the ring document.
    pub(super) fn fill_table(&mut self, turn: &mut Turn<'_>) {
        let roster = turn.site.roster.clone();
        let liveness = &self.liveness;
        self.table.fill(&roster, || turn.site.random(), |id| !liveness.is_departed(id));
    }

    /// While a node joins, the rows that its hops send are measured too.
    pub(super) fn measure_while_joining(&mut self) {
        self.proximity.measures = 4 * MEASURES_PER_ROUND;
    }
}
