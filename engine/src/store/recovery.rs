//! Making a store, and putting it together again after it was closed, killed, or lost power.
//!
//! The state is the newest sound checkpoint plus the batches of the log behind it, in order. All that is written behind a
//! checkpoint lies in segments that were open then or opened later; those are read (`scanning`), and a batch counts only if
//! its header, link and payloads fit. What is found beyond the end is judged like this:
//!
//! - *Abandoned batches.* A segment's header names its era: with which batch it began, and with which generation of
//!   segments. Batches with that number or a higher one in segments of a lower generation were given up before, and are
//!   void. Of two batches with one number, the one in the segment of higher generation counts.
//! - *The tail.* At the first batch that is missing, torn or does not continue the chain, the log ends: it was not
//!   acknowledged.
//! - *Rot.* Unless there are batches two or more further on: those were written only after the missing one was
//!   durable, so it was acknowledged and the disk has damaged it. It is counted, what is sound of it is kept, and
//!   recovery goes on behind it. (Rot in the very last two batches looks like a tear and is treated as one.)
//!
//! Recovery changes nothing on disk, so it can be cut short anywhere and begun again.

mod reading;
mod scanning;
#[cfg(test)]
mod tests;

use super::apply::Unsettled;
use super::arcs::hash::position;
use super::arcs::{self, Index};
use super::log::{Log, Tail};
use super::punching::Holes;
use super::rebuilding::Rebuilding;
use super::runs::RunFiles;
use super::scrub::Scrub;
use super::segments::{self, Segment, Segments, Spare, State};
use super::upkeep::Upkeep;
use super::{Settings, Store};
use crate::disk::{Disk, DiskError, FileName, Operation};
use crate::format::checkpoint::{Checkpoint, CheckpointHeader};
use crate::format::record::{Action, RecordHeader};
use crate::format::run::{PAGE, Run, RunEntry};
use crate::format::segment::Era;
use crate::format::superblock::Superblock;
use crate::format::{Damage, Identity};
use crate::limits;
use crate::stats::Stats;
use bytes::Bytes;
use reading::{list, read, read_whole, run};
use scanning::{Found, Rows, Scanned, ScannedSegment};
use std::collections::{BTreeMap, BTreeSet, HashMap, VecDeque};

/// Why a shard could not be made or opened.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum StoreError {
    /// The device failed.
    #[error(transparent)]
    Disk(#[from] DiskError),
    /// Neither copy of the superblock is readable.
    #[error("the superblock is missing or damaged")]
    NoSuperblock,
    /// The superblock is of a newer format.
    #[error("the store has format {found}, newer than this program knows")]
    Newer {
        /// The format on disk.
        found: u32,
    },
    /// The superblock is of an older format, which is not read any more.
    #[error("the store has format {found}, older than this program reads")]
    Older {
        /// The format on disk.
        found: u32,
    },
}

/// Makes an empty shard: writes its superblock, durably. Nothing else needs to exist.
///
/// # Errors
/// If the device fails.
pub fn create<D: Disk>(
    disk: &mut D,
    store: [u8; 16],
    seed: u64,
    shard: u32,
    shards: u32,
    tick_s: u32,
) -> Result<(), StoreError> {
    let superblock = Superblock::new(Identity { store, shard, seed }, shards, tick_s);
    let file = FileName::Superblock;
    run(disk, Operation::Create { file })?;
    let bytes = Bytes::from(superblock.to_file());
    run(disk, Operation::Write { file, offset: 0, bytes, durable: true })?;
    run(disk, Operation::SyncDirectory)?;
    Ok(())
}

/// Reads the superblock.
pub(crate) fn superblock<D: Disk>(disk: &mut D) -> Result<Superblock, StoreError> {
    let file = match read_whole(disk, FileName::Superblock, 2 * limits::BLOCK as u64) {
        Err(DiskError::NotFound) => return Err(StoreError::NoSuperblock),
        read => read?,
    };
    Superblock::from_file(&file).map_err(|damage| match damage {
        Damage::Newer(found) => StoreError::Newer { found },
        Damage::Older(found) => StoreError::Older { found },
        Damage::Short | Damage::Checksum | Damage::Elsewhere => StoreError::NoSuperblock,
    })
}

/// Opens a shard: recovers exactly what was acknowledged.
///
/// # Errors
/// If the device fails, or the superblock is not readable.
pub fn open<D: Disk>(mut disk: D, settings: Settings) -> Result<Store<D>, StoreError> {
    assert!(settings.segment_bytes >= limits::SEGMENT_BYTES_MIN);
    assert!(settings.segment_bytes <= limits::SEGMENT_BYTES_MAX);
    assert!((settings.segment_bytes as usize).is_multiple_of(limits::BLOCK));
    let superblock = superblock(&mut disk)?;
    let identity = superblock.identity();
    // Names that a killed process made but did not sync must not vanish once they are relied on.
    run(&mut disk, Operation::SyncDirectory)?;
    let files = list(&mut disk)?;
    let (checkpoint, upkeep) = newest_checkpoint(&mut disk, &files, &identity)?;
    let runs = checkpoint.runs.clone();
    let mut recovery = Recovery::begin(identity, checkpoint, &settings);
    recovery.scan_segments(&mut disk, &segments_of(&files))?;
    #[cfg(test)]
    {
        recovery.unchained = settings.flaw == super::Flaw::Unchained;
    }
    recovery.make_room();
    recovery.find_segments();
    recovery.replay();
    let run_files = recovery.adopt_runs(&mut disk, &files, &runs)?;
    Ok(recovery.into_store(disk, superblock.tick_s, settings, upkeep, run_files))
}

struct Recovery {
    identity: Identity,
    index: Index,
    found: BTreeMap<u32, Found>,
    /// Segments of the checkpoint: generation and last batch.
    known: BTreeMap<u32, (u32, u64)>,
    /// Where in a segment the last record begins that the checkpoint's index points to: all before it is of batches that are in
    /// the checkpoint.
    last_records: BTreeMap<u16, u32>,
    scanned: Vec<ScannedSegment>,
    /// Segments that stay until the next checkpoint although nothing in them is live, so that every opening finds the same: those
    /// the checkpoint names, those whose header makes batches void that are still on the disk, and those whose batches prove
    /// that earlier ones were acknowledged.
    kept: BTreeSet<u32>,
    /// What replay has put into the index, for the recents.
    entries: Vec<RunEntry>,
    sequence: u64,
    chain: u64,
    swept_s: Option<u64>,
    generation_next: u32,
    /// Segments opened behind the checkpoint have this generation or a higher one.
    generation_floor: u32,
    log_bytes: u64,
    corrupt: u64,
    run_damage: u64,
    replayed: u64,
    #[cfg(test)]
    unchained: bool,
}

impl Recovery {
    fn begin(identity: Identity, checkpoint: Checkpoint, settings: &Settings) -> Recovery {
        let held_to = arcs::Settings {
            seed: identity.seed,
            digest_seed: limits::DIGEST_SEED,
            arc_objects_max: settings.arc_objects_max,
            recents_max: settings.recents_max,
            fan_in: settings.run_fan_in,
            tag_bits: settings.tag_bits,
        };
        let Checkpoint { moment, segments, recents, arcs, .. } = checkpoint;
        // A sound checkpoint whose arcs do not tile the ring was not written by us: then the log alone counts.
        let restored = (!arcs.is_empty()).then(|| Index::restore(held_to, arcs, &recents).ok()).flatten();
        let index = restored.unwrap_or_else(|| Index::new(held_to));
        let known = segments.iter().map(|row| (u32::from(row.segment), (row.generation, row.last_sequence)));
        Recovery {
            identity,
            last_records: index.last_records(),
            index,
            found: BTreeMap::new(),
            known: known.collect(),
            scanned: Vec::new(),
            kept: segments.iter().map(|row| u32::from(row.segment)).collect(),
            entries: Vec::new(),
            sequence: moment.sequence,
            chain: moment.chain,
            swept_s: moment.swept_s,
            generation_next: moment.generation_next,
            generation_floor: moment.generation_next,
            log_bytes: 0,
            corrupt: 0,
            run_damage: 0,
            replayed: 0,
            #[cfg(test)]
            unchained: false,
        }
    }

    /// An index without entries is made as large as the log asks for.
    fn make_room(&mut self) {
        if self.index.len() > 0 {
            return;
        }
        let batches = self.scanned.iter().flat_map(|segment| segment.batches.range(self.sequence + 1..));
        let records = batches.flat_map(|(_, batch)| &batch.records);
        let puts = records.filter(|(header, _)| header.action == Action::Put);
        let positions = puts.map(|(header, _)| position(&header.key()));
        let entries = positions.clone().count();
        let sampled = positions.step_by(entries / limits::POSITIONS_SAMPLED + 1).collect();
        self.index = Index::with_room(self.index.settings(), entries, sampled);
    }

    /// Applies the batches behind the checkpoint, in order, up to the log's end.
    fn replay(&mut self) {
        let mut log = self.join_segments();
        loop {
            let next = self.sequence + 1;
            // A batch this far on was submitted only after `next` was durable.
            let proof = next.saturating_add(limits::BATCHES_IN_FLIGHT as u64);
            let acknowledged = log.range(proof..).next().is_some();
            let fits = log.get(&next).is_some_and(|batch| batch.chain_before == self.chain);
            #[cfg(test)]
            let fits = fits || (self.unchained && log.contains_key(&next));
            let whole = log.get(&next).is_some_and(|batch| batch.damaged == 0);
            if fits && (whole || acknowledged) {
                let batch = log.remove(&next).expect("looked at above");
                self.apply(next, &batch);
            } else if acknowledged {
                self.skip(&mut log, next);
            } else {
                self.kept.extend(log.values().map(|batch| batch.segment));
                return self.index.remember_all(&std::mem::take(&mut self.entries));
            }
        }
    }

    /// Batch `next` was acknowledged and is gone: goes on with the one after it that there is.
    fn skip(&mut self, log: &mut BTreeMap<u64, Scanned>, next: u64) {
        self.corrupt += 1;
        log.remove(&next);
        let (sequence, batch) = log.range(next..).next().expect("there is proof further on");
        self.sequence = *sequence - 1;
        self.chain = batch.chain_before;
    }

    /// One log out of all segments: a later segment makes void what it was opened in place of.
    fn join_segments(&mut self) -> BTreeMap<u64, Scanned> {
        self.scanned.sort_by_key(|segment| segment.generation);
        let eras: Vec<(u32, Era)> = self.scanned.iter().map(|segment| (segment.number, segment.era)).collect();
        let mut log = BTreeMap::new();
        for mut segment in std::mem::take(&mut self.scanned) {
            for (number, era) in &eras {
                #[cfg(test)]
                if self.unchained {
                    continue;
                }
                if era.generation > segment.generation && !segment.batches.split_off(&era.sequence).is_empty() {
                    self.kept.insert(*number);
                }
            }
            // Of two batches with one number, the one in the segment of higher generation counts, also where that segment has
            // lost the header that would say so.
            for (sequence, batch) in segment.batches {
                if log.insert(sequence, batch).is_some() {
                    self.kept.insert(segment.number);
                }
            }
        }
        log.split_off(&(self.sequence + 1))
    }

    fn apply(&mut self, sequence: u64, batch: &Scanned) {
        self.sequence = sequence;
        self.chain = batch.chain;
        self.replayed += 1;
        self.corrupt += u64::from(batch.damaged);
        if let Some(found) = self.found.get_mut(&batch.segment) {
            assert_eq!(found.generation, batch.generation, "only batches of the file's own generation are read");
            found.last_sequence = sequence;
        }
        for (header, rows) in &batch.records {
            self.apply_record(header, rows);
        }
    }

    fn apply_record(&mut self, header: &RecordHeader, rows: &Rows) {
        match (header.action, rows) {
            (Action::Put, _) => self.place(header),
            (Action::Remove, _) => self.take_replaced(header),
            (Action::Lease, Rows::Leases(rows)) => rows.iter().for_each(|row| {
                self.index.extend(row.address, row.tick, |_, _| ());
            }),
            (Action::Expired, Rows::Expired(rows)) => rows.iter().for_each(|row| {
                self.index.remove_at(row);
            }),
            (Action::Swept, _) => self.swept_s = Some(self.swept_s.unwrap_or(0).max(header.version)),
            (Action::Confirmed, _) => self.swept_s = Some(header.version),
            (Action::Nothing | Action::Lease | Action::Expired, _) => {}
        }
    }

    fn place(&mut self, header: &RecordHeader) {
        self.take_replaced(header);
        let Some(locator) = header.locator() else {
            self.corrupt += 1;
            return;
        };
        let (key, version, length, generation) = (header.key(), header.version, header.length, header.generation);
        let entry = RunEntry { key, version, locator, length, generation };
        // Rot may have hidden a removal of what lay here before.
        if self.index.insert_replayed(&entry, header.expiry) {
            self.entries.push(entry);
        }
    }

    fn take_replaced(&mut self, header: &RecordHeader) {
        if let Some((locator, version)) = header.replaced() {
            self.index.remove(&header.key(), version, locator);
        }
    }

    /// Tells the index which segments there are. What lies in others, or in an earlier life of one, is gone.
    fn find_segments(&mut self) {
        for (number, found) in &self.found {
            if let Ok(number) = u16::try_from(*number) {
                self.index.set_generation(number, Some(found.generation));
            }
        }
        let is_same =
            |number: &u32, generation: u32| self.found.get(number).is_some_and(|found| found.generation == generation);
        let gone = |number: &u16| {
            let number = u32::from(*number);
            !self.known.get(&number).is_some_and(|(generation, _)| is_same(&number, *generation))
        };
        let gone: BTreeSet<u16> = self.last_records.keys().copied().filter(gone).collect();
        if !gone.is_empty() {
            // Not counted as damage: what the log removes further on is among it.
            self.index.forget_segments(&gone);
        }
    }

    /// Reads headers and fences of the runs that the checkpoint names. A run that it does not name goes: its entries came back
    /// from the log, or those of the runs it was merged from are there.
    fn adopt_runs<D: Disk>(
        &mut self,
        disk: &mut D,
        files: &[(FileName, u64)],
        named: &[u32],
    ) -> Result<RunFiles, StoreError> {
        let mut run_files = RunFiles::default();
        let mut runs = Vec::new();
        for (file, length) in files {
            let FileName::Run(number) = file else { continue };
            run_files.number_next = run_files.number_next.max(number.saturating_add(1));
            run_files.note_bytes(*number, *length);
            if !named.contains(number) {
                run_files.orphans.push(*number);
                continue;
            }
            match read_run(disk, &self.identity, *number)? {
                Ok(run) => runs.push(run),
                Err(_) => self.run_damage += run_files.note_damage(*number, 1),
            }
        }
        let missing = named.iter().filter(|number| !run_files.has(**number));
        let missing: Vec<u32> = missing.copied().collect();
        self.run_damage += missing.into_iter().map(|number| run_files.note_damage(number, 1)).sum::<u64>();
        let superseded = self.index.adopt_runs(runs);
        run_files.orphans.extend(superseded);
        Ok(run_files)
    }

    fn into_store<D: Disk>(
        mut self,
        disk: D,
        tick_s: u32,
        settings: Settings,
        upkeep: Upkeep,
        run_files: RunFiles,
    ) -> Store<D> {
        let mut segments = self.segment_table();
        segments.limit_spares(settings.capacity_bytes / u64::from(settings.segment_bytes));
        let kept = std::mem::take(&mut self.kept);
        let log = Log {
            sequence_next: self.sequence + 1,
            chain: self.chain,
            durable: self.sequence,
            generation_next: self.generation_next.max(1),
            bytes_since_checkpoint: self.log_bytes,
            ..Log::default()
        };
        let Recovery { corrupt, run_damage, replayed, .. } = self;
        let counters = Stats { corrupt, run_damage, replayed_batches: replayed, ..Stats::default() };
        let mut store = Store {
            disk,
            identity: self.identity,
            tick_s,
            settings,
            index: self.index,
            segments,
            log,
            tail: Tail::default(),
            changes: VecDeque::new(),
            survivors: VecDeque::new(),
            pending: HashMap::new(),
            token_next: 0,
            unsettled: Unsettled::default(),
            waiting: BTreeMap::new(),
            readings: VecDeque::new(),
            readings_in_flight: 0,
            finished: VecDeque::new(),
            upkeep,
            walks: BTreeMap::new(),
            walk_next: 0,
            run_files,
            rebuilding: Rebuilding::default(),
            scrub: Scrub::default(),
            holes: Holes::default(),
            swept_s: self.swept_s,
            write_faults: 0,
            read_only: false,
            open_requests: 0,
            counters,
        };
        store.count_live();
        store.count_holes();
        store.discard_empty_files(&kept);
        for number in std::mem::take(&mut store.run_files.orphans) {
            store.unlink_run(number);
        }
        store
    }

    fn segment_table(&mut self) -> Segments {
        let mut table = Segments::default();
        for (number, found) in &self.found {
            // What the index does not name and no batch was replayed from is freed by the first round that comes by.
            let segment = Segment {
                generation: found.generation,
                allocated: found.allocated,
                live: 0,
                last_sequence: found.last_sequence,
                state: State::Sealed,
                readers: 0,
            };
            self.generation_next = self.generation_next.max(found.generation.saturating_add(1));
            table.insert(*number, segment);
        }
        table
    }
}

impl<D: Disk> Store<D> {
    /// What is live in each segment is what the recovered index points to.
    fn count_live(&mut self) {
        for (number, bytes) in self.index.live_bytes() {
            self.segments.charge(u32::from(number), bytes);
        }
    }

    /// What a power cut has left of the holes, the files say.
    fn count_holes(&mut self) {
        let lengths: Vec<(u32, u64)> =
            self.segments.iter().map(|(number, segment)| (number, u64::from(segment.allocated))).collect();
        for (number, length) in lengths {
            let taken = self.disk.taken(segments::file(number), length);
            if taken < length {
                self.segments.note_punched(number, length - taken);
            }
        }
    }

    /// Files that hold nothing the log needs: opened but never written, or freed before the checkpoint. One is kept to be
    /// written again. Those in `kept` go like dead segments, behind a checkpoint.
    fn discard_empty_files(&mut self, kept: &BTreeSet<u32>) {
        let unneeded: Vec<u32> = self
            .segments
            .iter()
            .filter(|(number, segment)| segment.live == 0 && segment.last_sequence == 0 && !kept.contains(number))
            .map(|(number, _)| number)
            .collect();
        for number in unneeded {
            let is_whole = self.segments.punched(number) == 0;
            let Some(segment) = self.segments.remove(number) else { continue };
            self.set_generation(number, None);
            let spare = Spare { number, allocated: segment.allocated };
            let usable = is_whole
                && segment.allocated as usize >= 2 * limits::BLOCK
                && segment.allocated <= self.settings.segment_bytes;
            if !(usable && self.segments.add_spare(spare)) {
                self.unlink(number);
            }
        }
    }
}

/// The segments among these files, by number.
fn segments_of(files: &[(FileName, u64)]) -> Vec<(u32, u64)> {
    let segment = |(file, length): &(FileName, u64)| match file {
        // A higher number cannot be ours: a record has no room for it.
        FileName::Segment(number) if *number <= limits::SEGMENT_NUMBER_MAX => Some((*number, *length)),
        _ => None,
    };
    files.iter().filter_map(segment).collect()
}

fn newest_checkpoint<D: Disk>(
    disk: &mut D,
    files: &[(FileName, u64)],
    identity: &Identity,
) -> Result<(Checkpoint, Upkeep), StoreError> {
    let mut slots = [None, None];
    let mut headers: Vec<(u8, u64, CheckpointHeader)> = Vec::new();
    for (file, length) in files {
        let FileName::Checkpoint(slot) = file else { continue };
        slots[usize::from(*slot)] = Some(*length);
        let block = read(disk, *file, 0, limits::BLOCK)?;
        if let Ok(header) = CheckpointHeader::of_file(&block, identity) {
            headers.push((*slot, *length, header));
        }
    }
    headers.sort_by_key(|(_, _, header)| std::cmp::Reverse(header.number));
    for (slot, length, header) in headers {
        let file = FileName::Checkpoint(slot);
        // It may have been read from memory that a failed process never synced.
        run(disk, Operation::Sync { file })?;
        let bytes = read_whole(disk, file, length)?;
        if let Ok(checkpoint) = Checkpoint::from_file(&bytes, identity) {
            return Ok((checkpoint, Upkeep::new(slots, slot, header.number)));
        }
    }
    Ok((Checkpoint::default(), Upkeep::new(slots, 1, 0)))
}

/// A run's header and fences.
fn read_run<D: Disk>(disk: &mut D, identity: &Identity, number: u32) -> Result<Result<Run, Damage>, StoreError> {
    let file = FileName::Run(number);
    let header = read(disk, file, 0, PAGE)?;
    let mut run = match Run::read_header(&header, identity, number) {
        Ok(run) => run,
        Err(damage) => return Ok(Err(damage)),
    };
    let (offset, length) = run.fences_at();
    let fences = read(disk, file, offset, length)?;
    Ok(run.read_fences(&fences, identity).map(|()| run))
}
