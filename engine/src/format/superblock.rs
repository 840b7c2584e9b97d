//! The superblock of a shard: whose files these are and in which format. Written once, twice over.

use super::{Damage, Identity, VERSION, fixed_layout, self_checked};
use crate::limits::BLOCK;
use rkyv::{Archive, Deserialize, Serialize};

const MAGIC: [u8; 8] = *b"ePOSTsup";
/// The superblock holds the seed of everything else, so its own checksum has a fixed one.
const SUPERBLOCK_SEED: u64 = 0x6550_4f53_5420_0001;

#[derive(Archive, Serialize, Deserialize, Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Superblock {
    pub(crate) check: u64,
    pub(crate) magic: [u8; 8],
    pub(crate) store: [u8; 16],
    pub(crate) seed: u64,
    pub(crate) version: u32,
    pub(crate) shard: u32,
    pub(crate) shards: u32,
    pub(crate) tick_s: u32,
    pub(crate) reserved: u64,
}
fixed_layout!(Superblock, ArchivedSuperblock, 64);
self_checked!(Superblock);

impl Superblock {
    pub(crate) fn new(identity: Identity, shards: u32, tick_s: u32) -> Superblock {
        assert!(tick_s > 0);
        assert!(identity.shard < shards);
        let Identity { store, shard, seed } = identity;
        Superblock { check: 0, magic: MAGIC, store, seed, version: VERSION, shard, shards, tick_s, reserved: 0 }
    }

    pub(crate) fn identity(&self) -> Identity {
        Identity { store: self.store, shard: self.shard, seed: self.seed }
    }

    /// The whole file: two copies, a block each.
    pub(crate) fn to_file(self) -> Vec<u8> {
        let mut file = vec![0; 2 * BLOCK];
        let sealed = self.seal(SUPERBLOCK_SEED);
        for copy in file.chunks_exact_mut(BLOCK) {
            copy[..Self::SIZE].copy_from_slice(&sealed);
        }
        file
    }

    /// The first sound copy.
    pub(crate) fn from_file(file: &[u8]) -> Result<Superblock, Damage> {
        let second = file.get(BLOCK..).unwrap_or(&[]);
        Self::from_copy(file).or_else(|first| match first {
            Damage::Newer(_) | Damage::Older(_) => Err(first),
            _ => Self::from_copy(second),
        })
    }

    fn from_copy(bytes: &[u8]) -> Result<Superblock, Damage> {
        let superblock = Self::open(bytes, SUPERBLOCK_SEED)?;
        if superblock.magic != MAGIC {
            return Err(Damage::Elsewhere);
        }
        // Checked before anything else is believed: another format may mean other things by its fields.
        if superblock.version > VERSION {
            return Err(Damage::Newer(superblock.version));
        }
        if superblock.version < VERSION {
            return Err(Damage::Older(superblock.version));
        }
        if superblock.tick_s == 0 || superblock.shard >= superblock.shards {
            return Err(Damage::Checksum);
        }
        Ok(superblock)
    }
}
