//! The cover of a log's blocks: how a private log is opaque to its holders.
//!
//! ```text
//! 0  cover     u8    0: public, the body follows in clear   1: AES-256-GCM-SIV under the log's sealing key
//! 1  nonce     12    only in cover 1; random
//! 13 body            with a tag of 16 bytes in cover 1
//! ```
//!
//! What the block is, whose log it belongs to and (for a head) its version are associated data, so that no block can be
//! shown in the place of another. GCM-SIV, because after a crash the same record may be written twice; should a
//! nonce ever repeat, only equality of two bodies would show.

use super::keys::ReadKeys;
use aes_gcm_siv::aead::Payload;
use aes_gcm_siv::{Aes256GcmSiv, KeyInit, aead::Aead};
use zeroize::Zeroizing;

const PUBLIC: u8 = 0;
const PRIVATE: u8 = 1;
const NONCE_BYTES: usize = 12;

/// Covers `body`, a block of the kind that `place` says, with fresh `entropy`.
pub(super) fn cover(keys: &ReadKeys, place: &[u8], entropy: &[u8; 32], body: &[u8]) -> Vec<u8> {
    let Some(seal) = keys.seal() else {
        return [&[PUBLIC], body].concat();
    };
    let mut nonce = [0; NONCE_BYTES];
    nonce.copy_from_slice(&entropy[..NONCE_BYTES]);
    let associated = associated(keys, place);
    let sealed = Aes256GcmSiv::new(&(*seal).into())
        .encrypt(&nonce.into(), Payload { msg: body, aad: &associated })
        .expect("a block is far below the cipher's bound");
    [&[PRIVATE], &nonce[..], &sealed[..]].concat()
}

/// Uncovers a body; `None` when it is not a block of this log in this place.
pub(super) fn uncover(keys: &ReadKeys, place: &[u8], covered: &[u8]) -> Option<Zeroizing<Vec<u8>>> {
    let (kind, rest) = covered.split_first()?;
    match (*kind, keys.seal()) {
        (PUBLIC, None) => Some(Zeroizing::new(rest.to_vec())),
        (PRIVATE, Some(seal)) => {
            let (nonce, sealed) = rest.split_first_chunk::<NONCE_BYTES>()?;
            let associated = associated(keys, place);
            let cipher = Aes256GcmSiv::new(&(*seal).into());
            let body = cipher.decrypt(&(*nonce).into(), Payload { msg: sealed, aad: &associated }).ok()?;
            Some(Zeroizing::new(body))
        }
        _ => None,
    }
}

fn associated(keys: &ReadKeys, place: &[u8]) -> Vec<u8> {
    [keys.public_key(), place].concat()
}
