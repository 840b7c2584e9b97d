//! Every byte on disk: superblock, segment header, batch, record, lease log, checkpoint.
//!
//! `docs/formats.md` draws them. All of it is fixed-size rkyv headers (little-endian, no pointers) around raw
//! payload. A header's first eight bytes are a checksum over the rest of it, seeded with the store's secret seed, so that
//! nothing is believed because it merely looks right. Bytes from disk are checked by checksum *and* by bytecheck before a
//! single field is used, and turned into plain structs; no archived reference leaves this room.

pub(crate) mod batch;
pub(crate) mod checkpoint;
pub(crate) mod checksum;
pub(crate) mod record;
pub(crate) mod run;
pub(crate) mod segment;
pub(crate) mod superblock;

#[cfg(test)]
mod tests;

/// The format this program reads and writes. Version 1 was never in a release.
pub(crate) const VERSION: u32 = 3;

/// Who wrote a file; repeated in every header, so that a misdirected write or a file in the wrong directory is noticed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Identity {
    /// The store, drawn at random when it was made.
    pub(crate) store: [u8; 16],
    /// The shard within it.
    pub(crate) shard: u32,
    /// Seed of all checksums: what is in a value cannot be made to look like our own header.
    pub(crate) seed: u64,
}

/// Why bytes from disk were not believed.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub(crate) enum Damage {
    /// Fewer bytes than the structure has.
    #[error("cut short")]
    Short,
    /// The checksum or bytecheck does not fit.
    #[error("checksum does not fit")]
    Checksum,
    /// Sound, but of another store, shard, segment, generation or offset.
    #[error("belongs elsewhere")]
    Elsewhere,
    /// Sound, but of a newer format.
    #[error("newer format {0}")]
    Newer(u32),
    /// Sound, but of an older format than is read here.
    #[error("older format {0}")]
    Older(u32),
}

/// Whether a structure is of the format read here. Checked before any other field is believed: another format may mean other
/// things by its fields.
fn check_version(found: u32) -> Result<(), Damage> {
    match found.cmp(&VERSION) {
        std::cmp::Ordering::Less => Err(Damage::Older(found)),
        std::cmp::Ordering::Equal => Ok(()),
        std::cmp::Ordering::Greater => Err(Damage::Newer(found)),
    }
}

/// `N` bytes aligned for rkyv, wherever they came from.
#[repr(C, align(16))]
struct Aligned<const N: usize>([u8; N]);

/// Encoding and decoding of a fixed-size header whose first field is `check: u64`.
macro_rules! fixed_layout {
    ($native:ident, $archived:ident, $size:expr) => {
        const _: () = assert!(std::mem::size_of::<$archived>() == $size);

        impl $native {
            /// Bytes on disk.
            pub(crate) const SIZE: usize = $size;

            /// The bytes, with the checksum field as it is in the struct.
            pub(crate) fn encode(&self) -> [u8; $size] {
                let bytes = rkyv::to_bytes::<rkyv::rancor::Error>(self).expect("a fixed-size value serialises");
                let mut fixed = [0; $size];
                fixed.copy_from_slice(&bytes);
                fixed
            }

            /// The struct, by bytecheck only: the caller checks the checksum.
            pub(crate) fn decode(bytes: &[u8]) -> Result<$native, $crate::format::Damage> {
                let bytes = bytes.get(..$size).ok_or($crate::format::Damage::Short)?;
                let mut aligned = $crate::format::Aligned([0; $size]);
                aligned.0.copy_from_slice(bytes);
                let archived = rkyv::access::<$archived, rkyv::rancor::Error>(&aligned.0)
                    .map_err(|_| $crate::format::Damage::Checksum)?;
                rkyv::deserialize::<$native, rkyv::rancor::Error>(archived)
                    .map_err(|_| $crate::format::Damage::Checksum)
            }
        }
    };
}
pub(crate) use fixed_layout;

/// Sealing and opening of a header that carries the checksum of the rest of itself.
macro_rules! self_checked {
    ($native:ident) => {
        impl $native {
            /// The bytes with the checksum over everything behind it.
            pub(crate) fn seal(&self, seed: u64) -> [u8; $native::SIZE] {
                let mut bytes = self.encode();
                let check = $crate::format::checksum::of(&bytes[8..], seed);
                bytes[..8].copy_from_slice(&check.to_le_bytes());
                bytes
            }

            /// The struct, if checksum and bytecheck fit.
            pub(crate) fn open(bytes: &[u8], seed: u64) -> Result<$native, $crate::format::Damage> {
                let header = Self::decode(bytes)?;
                let check = $crate::format::checksum::of(&bytes[8..$native::SIZE], seed);
                if header.check == check { Ok(header) } else { Err($crate::format::Damage::Checksum) }
            }
        }
    };
}
pub(crate) use self_checked;
