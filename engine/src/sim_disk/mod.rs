//! A disk in memory that does what disks do to software, from one seed.
//!
//! It completes operations in any order and keeps two images of every file: what a reader sees now, and what would survive
//! a power cut. [`SimDisk::power_cut`] keeps any subset of the 512-byte sectors that were written but not synced (and any of
//! the versions a sector had since), any subset of names created or unlinked without a directory sync, and any subset of the
//! sectors of writes in flight; a hole punched since the last sync it keeps or not, block by block. [`Faults`] adds what
//! should not happen and does: failed syncs after which the pages are clean but lost, failed reads, writes that are lost or go
//! elsewhere although they were reported done. [`SimDisk::rot`] flips a bit. What it has in memory of a segment may be out of
//! date where the segment is written (`page_cache`). The capacity gives out with ENOSPC.
//!
//! Handles are clones of one disk: the store under test owns one, the test another. Not for threads.

mod image;
mod page_cache;

use crate::disk::{Disk, DiskError, Done, FileName, Operation, Outcome, Resident, Token};
use bytes::Bytes;
use image::Image;
use page_cache::PageCache;
use std::cell::RefCell;
use std::collections::{BTreeMap, VecDeque};
use std::rc::Rc;

/// How often something goes wrong, in thousandths.
#[derive(Clone, Copy, Debug, Default)]
pub struct Faults {
    /// A read fails.
    pub read_error: u32,
    /// A durable write fails; some of its sectors may have arrived.
    pub write_error: u32,
    /// A sync fails; what it should have made durable is lost at the next power cut, though readers still see it.
    pub sync_error: u32,
    /// A write is reported done and never happened.
    pub lost_write: u32,
    /// A write is reported done and went to another block of the file.
    pub misdirected_write: u32,
    /// Control: durable writes and syncs are reported done without being durable. No store survives this.
    pub lying_sync: bool,
}

/// What a disk has done so far.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Tally {
    /// Operations completed.
    pub operations: u64,
    /// Faults injected, of any kind.
    pub faults: u64,
    /// Power cuts.
    pub cuts: u64,
}

/// A simulated disk. See the module.
#[derive(Clone)]
pub struct SimDisk {
    state: Rc<RefCell<State>>,
}

struct State {
    chance: Chance,
    images: BTreeMap<u64, Image>,
    image_next: u64,
    cache: PageCache,
    names: BTreeMap<FileName, u64>,
    durable_names: BTreeMap<FileName, u64>,
    in_flight: Vec<(Token, Operation)>,
    done: VecDeque<Done>,
    faults: Faults,
    capacity_bytes: u64,
    /// The power fails when so many operations have been completed.
    cut_at: Option<u64>,
    is_cut: bool,
    /// Somebody waits: the next poll completes something.
    pressed: bool,
    tally: Tally,
}

/// SplitMix64: all chance in a simulation, from its seed.
#[derive(Clone, Debug)]
pub struct Chance(u64);

impl Chance {
    /// A sequence for this seed.
    #[must_use]
    pub fn new(seed: u64) -> Chance {
        Chance(seed)
    }

    /// The next 64 bits.
    pub fn draw(&mut self) -> u64 {
        self.0 = self.0.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut bits = self.0;
        bits = (bits ^ (bits >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        bits = (bits ^ (bits >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        bits ^ (bits >> 31)
    }

    /// A number below `bound`, which must not be 0.
    pub fn below(&mut self, bound: u64) -> u64 {
        self.draw() % bound
    }

    /// True in so many of a thousand cases.
    pub fn per_mille(&mut self, share: u32) -> bool {
        share > 0 && self.below(1000) < u64::from(share)
    }
}

impl SimDisk {
    /// An empty disk.
    #[must_use]
    pub fn new(seed: u64, capacity_bytes: u64) -> SimDisk {
        let state = State {
            chance: Chance::new(seed),
            images: BTreeMap::new(),
            image_next: 0,
            cache: PageCache::default(),
            names: BTreeMap::new(),
            durable_names: BTreeMap::new(),
            in_flight: Vec::new(),
            done: VecDeque::new(),
            faults: Faults::default(),
            capacity_bytes,
            cut_at: None,
            is_cut: false,
            pressed: false,
            tally: Tally::default(),
        };
        SimDisk { state: Rc::new(RefCell::new(state)) }
    }

    /// Sets what goes wrong from now on.
    pub fn set_faults(&self, faults: Faults) {
        self.state.borrow_mut().faults = faults;
    }

    /// Sets how many bytes there are.
    pub fn set_capacity(&self, capacity_bytes: u64) {
        self.state.borrow_mut().capacity_bytes = capacity_bytes;
    }

    /// Lets the power fail after so many more operations: from then on every operation fails.
    pub fn cut_after(&self, operations: u64) {
        let mut state = self.state.borrow_mut();
        state.cut_at = Some(state.tally.operations + operations);
    }

    /// Whether the power has failed.
    #[must_use]
    pub fn is_cut(&self) -> bool {
        self.state.borrow().is_cut
    }

    /// The power fails, if it has not yet, and comes back: only what is durable is left, and of the rest what chance keeps.
    pub fn power_cut(&self) {
        self.state.borrow_mut().power_cut();
    }

    /// The process is killed, the machine goes on: what was handed over is seen by the next process, durable or not.
    pub fn kill(&self) {
        let mut state = self.state.borrow_mut();
        let in_flight = std::mem::take(&mut state.in_flight);
        for (_, operation) in in_flight {
            if state.chance.below(2) == 0 {
                let _ = state.perform(operation);
            }
        }
        state.restart();
    }

    /// Flips a bit, durably and in memory.
    pub fn rot(&self, file: FileName, bit: u64) {
        let mut state = self.state.borrow_mut();
        let image = state.names.get(&file).copied().expect("the file is there");
        state.images.get_mut(&image).expect("names lead to images").rot(bit);
        state.cache.rot(image, bit);
    }

    /// The files there are, with their lengths.
    #[must_use]
    pub fn files(&self) -> Vec<(FileName, u64)> {
        self.state.borrow().list()
    }

    /// Bytes that all files take: their lengths without their holes.
    #[must_use]
    pub fn taken_bytes(&self) -> u64 {
        let state = self.state.borrow();
        state.names.values().map(|image| state.images[image].taken_bytes()).sum()
    }

    /// What a reader sees of a file.
    #[must_use]
    pub fn contents(&self, file: FileName) -> Option<Vec<u8>> {
        let state = self.state.borrow();
        state.names.get(&file).map(|image| state.images[image].bytes().to_vec())
    }

    /// What happened so far.
    #[must_use]
    pub fn tally(&self) -> Tally {
        self.state.borrow().tally
    }
}

impl State {
    fn list(&self) -> Vec<(FileName, u64)> {
        self.names.iter().map(|(file, image)| (*file, self.images[image].bytes().len() as u64)).collect()
    }

    fn image(&mut self, file: FileName) -> Result<&mut Image, DiskError> {
        let image = self.names.get(&file).ok_or(DiskError::NotFound)?;
        Ok(self.images.get_mut(image).expect("names lead to images"))
    }

    fn fault(&mut self, share: u32) -> bool {
        let happens = self.chance.per_mille(share);
        self.tally.faults += u64::from(happens);
        happens
    }

    fn perform(&mut self, operation: Operation) -> Result<Outcome, DiskError> {
        match operation {
            Operation::Create { file } => {
                if !self.names.contains_key(&file) {
                    self.images.insert(self.image_next, Image::default());
                    self.names.insert(file, self.image_next);
                    self.image_next += 1;
                }
            }
            Operation::Reserve { file, length } => self.reserve(file, length)?,
            Operation::Write { file, offset, bytes, durable } => self.write(file, offset, &bytes, durable)?,
            Operation::Read { file, offset, length, keep } => {
                if self.fault(self.faults.read_error) {
                    return Err(EIO);
                }
                if keep
                    && self.chance.below(2) == 0
                    && let Some(bytes) = self.in_memory(file, offset, length)
                {
                    return Ok(Outcome::Read(bytes));
                }
                let all = self.image(file)?.bytes();
                let start = usize::try_from(offset).unwrap_or(usize::MAX).min(all.len());
                let end = start.saturating_add(length).min(all.len());
                return Ok(Outcome::Read(Bytes::copy_from_slice(&all[start..end])));
            }
            Operation::Sync { file } => {
                let (fails, lies) = (self.fault(self.faults.sync_error), self.faults.lying_sync);
                let image = self.image(file)?;
                if fails {
                    image.forget_unsynced();
                    return Err(EIO);
                }
                if !lies {
                    image.sync();
                }
            }
            Operation::Punch { file, offset, length } => {
                if self.fault(self.faults.write_error) {
                    return Err(EIO);
                }
                self.image(file)?.punch(offset, length);
            }
            Operation::Unlink { file } => {
                self.names.remove(&file).ok_or(DiskError::NotFound)?;
            }
            Operation::List => return Ok(Outcome::Listed(self.list())),
            Operation::SyncDirectory => {
                if self.fault(self.faults.sync_error) {
                    return Err(EIO);
                }
                if !self.faults.lying_sync {
                    self.durable_names = self.names.clone();
                }
            }
        }
        Ok(Outcome::Done)
    }

    /// A range of a file as memory has it, if all of it is there and nothing wrong was found in the file's pages.
    fn in_memory(&mut self, file: FileName, offset: u64, length: usize) -> Option<Bytes> {
        let number = *self.names.get(&file)?;
        // Runs are written through the cache, which is never behind them.
        if !matches!(file, FileName::Segment(_)) || self.cache.is_distrusted(number) {
            return None;
        }
        let start = usize::try_from(offset).ok()?;
        let current = self.images.get(&number).expect("names lead to images").bytes();
        let end = start.checked_add(length).filter(|end| *end <= current.len())?;
        Some(Bytes::from(self.cache.read(number, current, start..end, &mut self.chance)))
    }

    fn reserve(&mut self, file: FileName, length: u64) -> Result<(), DiskError> {
        let used: u64 = self.names.values().map(|image| self.images[image].taken_bytes()).sum();
        let image = self.image(file)?;
        let more = length.saturating_sub(image.bytes().len() as u64);
        if used + more > self.capacity_bytes {
            return Err(DiskError::NoSpace);
        }
        self.image(file)?.grow(length);
        Ok(())
    }

    fn write(&mut self, file: FileName, offset: u64, bytes: &[u8], durable: bool) -> Result<(), DiskError> {
        let end = offset + bytes.len() as u64;
        self.reserve(file, end)?;
        if self.fault(self.faults.lost_write) {
            return Ok(());
        }
        let mut offset = offset;
        if self.fault(self.faults.misdirected_write) {
            let blocks = self.image(file)?.bytes().len() as u64 / 4096 + 1;
            offset = self.chance.below(blocks) * 4096;
        }
        let fails = durable && self.fault(self.faults.write_error);
        let durable = durable && !self.faults.lying_sync;
        let mut chance = self.chance.clone();
        self.chance.draw();
        let number = self.names.get(&file).copied().ok_or(DiskError::NotFound)?;
        self.cache.written(number, offset as usize..offset as usize + bytes.len(), &mut self.chance);
        let image = self.image(file)?;
        if fails {
            image.write_partly(offset, bytes, &mut chance);
            return Err(EIO);
        }
        image.write(offset, bytes, durable);
        Ok(())
    }

    fn power_cut(&mut self) {
        // From nothing to everything: how much of the unsynced survives differs from cut to cut.
        let share = [0, 100, 500, 900, 1000][self.chance.below(5) as usize];
        for (_, operation) in std::mem::take(&mut self.in_flight) {
            match operation {
                Operation::Write { file, offset, bytes, .. } => {
                    if let Ok(image) = self.image(file) {
                        image.write(offset, &bytes, false);
                    }
                }
                other if self.chance.per_mille(share) => drop(self.perform(other)),
                _ => {}
            }
        }
        self.cut_names(share);
        let mut chance = self.chance.clone();
        for image in self.images.values_mut() {
            image.power_cut(share, &mut chance);
        }
        self.chance = chance;
        self.tally.cuts += 1;
        self.cache.clear();
        self.restart();
    }

    /// Each name made or removed since the last directory sync is kept or not.
    fn cut_names(&mut self, share: u32) {
        let mut kept = self.durable_names.clone();
        let files: Vec<FileName> = self.names.keys().chain(self.durable_names.keys()).copied().collect();
        for file in files {
            if self.names.get(&file) == self.durable_names.get(&file) || !self.chance.per_mille(share) {
                continue;
            }
            match self.names.get(&file) {
                Some(image) => kept.insert(file, *image),
                None => kept.remove(&file),
            };
        }
        self.names = kept.clone();
        self.durable_names = kept;
        let named: Vec<u64> = self.names.values().copied().collect();
        self.images.retain(|image, _| named.contains(image));
    }

    fn restart(&mut self) {
        self.cache.restart();
        self.done.clear();
        self.in_flight.clear();
        self.cut_at = None;
        self.is_cut = false;
    }

    fn complete_one(&mut self) {
        if self.in_flight.is_empty() {
            return;
        }
        let chosen = self.chance.below(self.in_flight.len() as u64) as usize;
        let (token, operation) = self.in_flight.swap_remove(chosen);
        let result = self.perform(operation);
        self.done.push_back(Done { token, result });
        self.tally.operations += 1;
        if self.cut_at.is_some_and(|at| self.tally.operations >= at) {
            self.fail_power();
        }
    }

    /// From here on everything fails. What was in flight stays so, for the cut to decide about.
    fn fail_power(&mut self) {
        self.is_cut = true;
        let tokens: Vec<Token> = self.in_flight.iter().map(|(token, _)| *token).collect();
        self.done.extend(tokens.into_iter().map(|token| Done { token, result: Err(EIO) }));
    }
}

const EIO: DiskError = DiskError::Failed { errno: libc::EIO };

impl Disk for SimDisk {
    fn submit(&mut self, token: Token, operation: Operation) {
        let mut state = self.state.borrow_mut();
        if state.is_cut {
            state.done.push_back(Done { token, result: Err(EIO) });
        } else {
            state.in_flight.push((token, operation));
        }
    }

    fn poll(&mut self) -> Option<Done> {
        let mut state = self.state.borrow_mut();
        if state.done.is_empty() && !state.is_cut && (state.pressed || state.chance.below(3) == 0) {
            state.pressed = false;
            state.complete_one();
        }
        state.done.pop_front()
    }

    fn wait(&mut self) {
        self.state.borrow_mut().pressed = true;
    }

    fn resident(&mut self, file: FileName, offset: u64, length: usize) -> Option<Resident> {
        let mut state = self.state.borrow_mut();
        if state.is_cut || state.chance.below(2) == 0 {
            return None;
        }
        let bytes = state.in_memory(file, offset, length)?;
        Some(Resident { checked: bytes.clone(), given: bytes })
    }

    fn taken(&mut self, file: FileName, length: u64) -> u64 {
        let mut state = self.state.borrow_mut();
        state.image(file).map_or(length, |image| length.min(image.taken_bytes()))
    }

    fn release(&mut self, file: FileName) -> bool {
        let mut state = self.state.borrow_mut();
        if let Some(image) = state.names.get(&file).copied() {
            state.cache.release(image);
        }
        // Whether some reader still holds a mapping is chance: both ways must work.
        state.chance.below(4) > 0
    }

    fn distrust(&mut self, file: FileName) {
        let mut state = self.state.borrow_mut();
        if let Some(image) = state.names.get(&file).copied() {
            state.cache.distrust(image);
        }
    }
}
