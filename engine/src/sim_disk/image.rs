//! One file of the simulated disk: what readers see, what would survive, and what may go either way.

use super::Chance;
use crate::limits::{BLOCK, SECTOR};
use std::collections::{BTreeMap, BTreeSet};

#[derive(Clone, Debug, Default)]
pub(super) struct Image {
    current: Vec<u8>,
    /// Survives a power cut. Its length is the file's length that survives.
    durable: Vec<u8>,
    /// Sectors written since they were last durable, with every version they had.
    unsynced: BTreeMap<usize, Vec<[u8; SECTOR]>>,
    /// Blocks that were punched and not written since; they read as zeros.
    holes: BTreeSet<usize>,
    /// Those of them that a power cut may still fill again.
    holes_unsynced: BTreeSet<usize>,
}

impl Image {
    pub(super) fn bytes(&self) -> &[u8] {
        &self.current
    }

    pub(super) fn grow(&mut self, length: u64) {
        let length = usize::try_from(length).expect("simulated disks are small");
        if self.current.len() < length {
            self.current.resize(length, 0);
        }
    }

    pub(super) fn write(&mut self, offset: u64, bytes: &[u8], durable: bool) {
        let sectors = self.write_current(offset, bytes);
        for sector in sectors {
            if durable {
                self.make_durable(sector);
            } else {
                let version = self.sector(sector);
                self.unsynced.entry(sector).or_default().push(version);
            }
        }
    }

    /// A failed write: readers see it, but only some sectors arrived, and the rest will not be tried again.
    pub(super) fn write_partly(&mut self, offset: u64, bytes: &[u8], chance: &mut Chance) {
        for sector in self.write_current(offset, bytes) {
            if chance.below(2) == 0 {
                self.make_durable(sector);
            }
        }
    }

    /// Blocks given back: the new zeros go the way of a journal entry, each block whole or not at all.
    pub(super) fn punch(&mut self, offset: u64, length: u64) {
        let start = usize::try_from(offset).expect("simulated disks are small");
        let end = start + usize::try_from(length).expect("simulated disks are small");
        assert!(start.is_multiple_of(BLOCK) && end.is_multiple_of(BLOCK) && end <= self.current.len());
        self.current[start..end].fill(0);
        for sector in start / SECTOR..end / SECTOR {
            self.unsynced.remove(&sector);
        }
        let blocks = start / BLOCK..end / BLOCK;
        self.holes_unsynced.extend(blocks.clone().filter(|block| !self.holes.contains(block)));
        self.holes.extend(blocks);
    }

    /// Its length without its holes.
    pub(super) fn taken_bytes(&self) -> u64 {
        (self.current.len() - self.holes.len() * BLOCK) as u64
    }

    pub(super) fn sync(&mut self) {
        self.durable.clone_from(&self.current);
        self.unsynced.clear();
        self.holes_unsynced.clear();
    }

    pub(super) fn forget_unsynced(&mut self) {
        self.unsynced.clear();
    }

    pub(super) fn rot(&mut self, bit: u64) {
        let byte = (bit / 8) as usize;
        let mask = 1u8 << (bit % 8);
        for image in [&mut self.current, &mut self.durable] {
            if let Some(byte) = image.get_mut(byte) {
                *byte ^= mask;
            }
        }
    }

    pub(super) fn power_cut(&mut self, share: u32, chance: &mut Chance) {
        if self.current.len() > self.durable.len() && chance.per_mille(share) {
            self.durable.resize(self.current.len(), 0);
        }
        for block in std::mem::take(&mut self.holes_unsynced) {
            match self.durable.get_mut(block * BLOCK..(block + 1) * BLOCK) {
                Some(bytes) if chance.per_mille(share) => bytes.fill(0),
                _ => drop(self.holes.remove(&block)),
            }
        }
        for (sector, versions) in std::mem::take(&mut self.unsynced) {
            if !chance.per_mille(share) {
                continue;
            }
            let version = versions[chance.below(versions.len() as u64) as usize];
            let start = sector * SECTOR;
            let end = (start + SECTOR).min(self.durable.len());
            if start < end {
                self.durable[start..end].copy_from_slice(&version[..end - start]);
            }
        }
        self.current.clone_from(&self.durable);
    }

    fn write_current(&mut self, offset: u64, bytes: &[u8]) -> std::ops::Range<usize> {
        let start = usize::try_from(offset).expect("simulated disks are small");
        self.grow((start + bytes.len()) as u64);
        self.current[start..start + bytes.len()].copy_from_slice(bytes);
        for block in start / BLOCK..(start + bytes.len()).div_ceil(BLOCK) {
            // Of a block punched and written since, every sector not written is zeros, durable or not.
            self.holes.remove(&block);
            self.holes_unsynced.remove(&block);
        }
        start / SECTOR..(start + bytes.len()).div_ceil(SECTOR)
    }

    fn sector(&self, sector: usize) -> [u8; SECTOR] {
        let mut version = [0; SECTOR];
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.current.len());
        version[..end - start].copy_from_slice(&self.current[start..end]);
        version
    }

    fn make_durable(&mut self, sector: usize) {
        let start = sector * SECTOR;
        let end = (start + SECTOR).min(self.current.len());
        if self.durable.len() < end {
            self.durable.resize(end, 0);
        }
        self.durable[start..end].copy_from_slice(&self.current[start..end]);
        self.unsynced.remove(&sector);
    }
}
