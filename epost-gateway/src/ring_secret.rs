//! The file that holds a ring's convergence secret, for its gateways.
//!
//! ```text
//!   0  "ePOSTsec"   8 bytes
//!   8  epoch        u32 LE
//!  12  secret      32 bytes
//! ```

use post::seal::RingSecret;
use zeroize::Zeroizing;

const MAGIC: &[u8; 8] = b"ePOSTsec";

/// Length of the file in bytes.
pub const RING_SECRET_FILE_BYTES: usize = 44;

/// The bytes are not a ring secret: damaged, or another file.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
#[error("not a ring secret file; take a copy from the organisation's folder")]
pub struct NotARingSecret;

/// The file's content.
#[must_use]
pub fn encode(secret: &RingSecret) -> Zeroizing<Vec<u8>> {
    let mut out = Zeroizing::new(Vec::with_capacity(RING_SECRET_FILE_BYTES));
    out.extend_from_slice(MAGIC);
    out.extend_from_slice(&secret.epoch().to_le_bytes());
    out.extend_from_slice(secret.bytes());
    assert!(out.len() == RING_SECRET_FILE_BYTES);
    out
}

/// The secret in a file's content.
///
/// # Errors
/// [`NotARingSecret`].
pub fn decode(bytes: &[u8]) -> Result<RingSecret, NotARingSecret> {
    let rest = bytes.strip_prefix(MAGIC).ok_or(NotARingSecret)?;
    let (epoch, secret) = rest.split_first_chunk::<4>().ok_or(NotARingSecret)?;
    let secret: [u8; 32] = secret.try_into().map_err(|_| NotARingSecret)?;
    Ok(RingSecret::new(u32::from_le_bytes(*epoch), secret))
}

#[cfg(test)]
mod tests {
    //! Goal: what is written is read; nothing else is. Method: round trip and damage.
    use super::*;

    #[test]
    fn round_trip_and_damage() {
        let secret = RingSecret::new(7, [9; 32]);
        let file = encode(&secret);
        let read = decode(&file).unwrap();
        assert_eq!((read.epoch(), read.bytes()), (7, &[9; 32]));
        assert_eq!(decode(&file[..43]).unwrap_err(), NotARingSecret);
        let mut other = file.to_vec();
        other[0] ^= 1;
        assert_eq!(decode(&other).unwrap_err(), NotARingSecret);
    }
}
