//! The ring document: who belongs to the ring, and by which rules it runs.
//!
//! One CA-signed, versioned document, kept by every node. "The hosts of an object" always means its *members*
//! computed from here, never who happens to answer, so that a quorum does not shrink in a partition. Members
//! leave it only by the CA's hand. The signature covers the exact CBOR bytes; they are kept and passed on as
//! received, never re-encoded.
//!
//! ```text
//! signed document   0  "ePOSTrng"            8 bytes
//!                   8  signature (Ed25519)  64 bytes   over everything from offset 72
//!                  72  CBOR map, integer keys          RingDocument
//! ```

use crate::id::Id;
use bytes::Bytes;
use ed25519_dalek::{Signature, VerifyingKey};
use minicbor::{Decode, Encode};

const MAGIC: &[u8; 8] = b"ePOSTrng";
const BODY_AT: usize = 72;

/// Largest signed ring document accepted, in bytes.
pub const DOCUMENT_BYTES_MAX: usize = 1 << 20;
/// Most members a document may list.
pub const MEMBERS_MAX: usize = 4096;

/// Why bytes are not an acceptable ring document.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum RingError {
    /// Not a ring document, damaged, or over a bound.
    #[error("not a ring document")]
    Malformed,
    /// The signature is not the CA's.
    #[error("the ring document is not signed by the organisation's CA")]
    BadSignature,
    /// The parameters contradict each other.
    #[error("the ring document's parameters contradict each other")]
    BadParameters,
}

/// What every member agrees on.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct RingDocument {
    /// Random id of the ring; part of every node id.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub ring: [u8; 16],
    /// Version of this document; the highest wins.
    #[n(1)]
    pub epoch: u64,
    /// The rules.
    #[n(2)]
    pub parameters: Parameters,
    /// The hosts.
    #[n(3)]
    pub members: Vec<Member>,
    /// Serial numbers of certificates that are no longer good.
    #[n(4)]
    pub revocations: Vec<Revocation>,
    /// Mail domain served by this ring's organisation.
    #[n(5)]
    pub domain: String,
}

/// The rules of a ring.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Parameters {
    /// Replicas of a content block.
    #[n(0)]
    pub k: u8,
    /// Replicas of a signed block (head, identity, certificate).
    #[n(1)]
    pub k_head: u8,
    /// Length of a lease in seconds.
    #[n(2)]
    pub lease_s: u64,
    /// How long after its expiry an object is kept, in seconds.
    #[n(3)]
    pub grace_s: u64,
    /// Members of a leaf set (both sides together).
    #[n(4)]
    pub leaf_set: u8,
    /// Erasure profile: fragments needed to rebuild (reserved).
    #[n(5)]
    pub fragments_needed: u8,
    /// Erasure profile: fragments made (reserved).
    #[n(6)]
    pub fragments_total: u8,
}

impl Parameters {
    /// The defaults of a ring: k = 3, heads on 5, leases of 28 days with 3 days of grace, leaf set 24, Glacier 5 of 56.
    pub const DEFAULT: Parameters = Parameters {
        k: 3,
        k_head: 5,
        lease_s: 28 * 86_400,
        grace_s: 3 * 86_400,
        leaf_set: 24,
        fragments_needed: 5,
        fragments_total: 56,
    };

    /// Replicas that must acknowledge a content block: a majority of k.
    #[must_use]
    pub fn content_quorum(&self) -> usize {
        usize::from(self.k) / 2 + 1
    }

    /// Faulty head replicas tolerated: f = ⌊(k_head − 1) / 3⌋.
    #[must_use]
    pub fn head_faults(&self) -> usize {
        (usize::from(self.k_head) - 1) / 3
    }

    /// Read and write quorum of heads: ⌈(k_head + f + 1) / 2⌉, so that any two quorums share a correct replica.
    #[must_use]
    pub fn head_quorum(&self) -> usize {
        (usize::from(self.k_head) + self.head_faults() + 1).div_ceil(2)
    }

    fn is_sound(&self) -> bool {
        (1..=16).contains(&self.k)
            && (1..=16).contains(&self.k_head)
            && self.leaf_set >= 2
            && self.leaf_set.is_multiple_of(2)
            && self.lease_s >= 1
            && self.fragments_needed <= self.fragments_total
    }
}

/// One host of the ring.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Member {
    /// Drawn by the CA at enrolment and kept for the host's life: it fixes the host's node ids.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub nonce: [u8; 16],
    /// `address:port` of the host's QUIC endpoint; empty for a client.
    #[n(1)]
    pub host: String,
    /// Who runs it.
    #[n(2)]
    pub organisation: String,
    /// How many virtual node ids the host has.
    #[n(3)]
    pub weight: u16,
    /// Whether it takes part.
    #[n(4)]
    pub state: MemberState,
}

/// Whether a member takes part.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(index_only)]
pub enum MemberState {
    /// Holds objects and counts in quorums.
    #[n(0)]
    Active,
    /// Still serves what it has, is given nothing new, and counts in no quorum.
    #[n(1)]
    Draining,
    /// Declared dead by the CA; counts in no quorum.
    #[n(2)]
    Dead,
    /// Asks others to store, find and keep, and does nothing for them: it has no place on the ring. It is never dialled; what
    /// it asks is answered on the connection that it has made.
    #[n(3)]
    Client,
}

impl MemberState {
    /// Whether a member has places on the ring: it is known to its neighbours, and routed through.
    #[must_use]
    pub fn has_place(self) -> bool {
        matches!(self, MemberState::Active | MemberState::Draining)
    }
}

/// A certificate that is no longer good.
#[derive(Clone, Debug, PartialEq, Eq, Encode, Decode)]
#[cbor(map)]
pub struct Revocation {
    /// The certificate's serial number, big-endian.
    #[cbor(n(0), with = "minicbor::bytes")]
    pub serial: Vec<u8>,
    /// Since when, in seconds since the Unix epoch.
    #[n(1)]
    pub since: u64,
}

impl RingDocument {
    /// The bytes to keep and pass on, signed by `sign` (Ed25519 under the CA key).
    #[must_use]
    pub fn encode_signed(&self, sign: impl FnOnce(&[u8]) -> [u8; 64]) -> Bytes {
        let body = minicbor::to_vec(self).expect("encoding into a Vec cannot fail");
        let mut document = Vec::with_capacity(BODY_AT + body.len());
        document.extend_from_slice(MAGIC);
        document.extend_from_slice(&sign(&body));
        document.extend_from_slice(&body);
        Bytes::from(document)
    }

    /// Reads a signed document, checking bounds, the CA's signature, and that the parameters make sense.
    ///
    /// # Errors
    /// [`RingError`], telling which of these failed.
    pub fn decode_verified(document: &[u8], authority: &[u8; 32]) -> Result<RingDocument, RingError> {
        if document.len() < BODY_AT || document.len() > DOCUMENT_BYTES_MAX || &document[..8] != MAGIC {
            return Err(RingError::Malformed);
        }
        let signature = Signature::from_slice(&document[8..BODY_AT]).map_err(|_| RingError::Malformed)?;
        let body = &document[BODY_AT..];
        let authority = VerifyingKey::from_bytes(authority).map_err(|_| RingError::BadSignature)?;
        authority.verify_strict(body, &signature).map_err(|_| RingError::BadSignature)?;
        let ring: RingDocument = minicbor::decode(body).map_err(|_| RingError::Malformed)?;
        if ring.members.len() > MEMBERS_MAX {
            return Err(RingError::Malformed);
        }
        if !ring.parameters.is_sound() || ring.members.iter().any(|m| m.weight == 0) {
            return Err(RingError::BadParameters);
        }
        Ok(ring)
    }

    /// The `index`-th virtual node id of the host with this nonce: BLAKE3-160(ring ‖ nonce ‖ index).
    #[must_use]
    pub fn node_id(ring: &[u8; 16], nonce: &[u8; 16], index: u16) -> Id {
        let mut hasher = blake3::Hasher::new_derive_key("ePOST 2026 node id");
        hasher.update(ring);
        hasher.update(nonce);
        hasher.update(&index.to_le_bytes());
        let mut id = [0u8; Id::LEN];
        id.copy_from_slice(&hasher.finalize().as_bytes()[..Id::LEN]);
        Id(id)
    }

    /// Every virtual node id that has a place on the ring, with the index of its host in `members`.
    pub fn node_ids(&self) -> impl Iterator<Item = (Id, usize)> + '_ {
        self.members.iter().enumerate().filter(|(_, m)| m.state.has_place()).flat_map(move |(host, member)| {
            (0..member.weight).map(move |index| (RingDocument::node_id(&self.ring, &member.nonce, index), host))
        })
    }

    /// The `count` active members nearest to `placement`, nearest first, at most one id per host: the eligible
    /// replicas, whether or not they answer. This is a scan of all ids; keep a sorted list where it is hot.
    #[must_use]
    pub fn eligible(&self, placement: Id, count: usize) -> Vec<Id> {
        let mut ids: Vec<(Id, usize)> =
            self.node_ids().filter(|(_, host)| self.members[*host].state == MemberState::Active).collect();
        ids.sort_by_key(|(id, _)| (id.distance(placement), *id));
        let mut hosts = Vec::with_capacity(count);
        let mut chosen = Vec::with_capacity(count);
        for (id, host) in ids {
            if chosen.len() == count {
                break;
            }
            if !hosts.contains(&host) {
                hosts.push(host);
                chosen.push(id);
            }
        }
        chosen
    }
}

#[cfg(test)]
mod tests {
    //! Goal: only the CA's exact bytes are accepted, and quorums are the design's. Method: flip every byte.
    use super::*;
    use ed25519_dalek::{Signer, SigningKey};

    fn document() -> RingDocument {
        RingDocument {
            ring: [7; 16],
            epoch: 3,
            parameters: Parameters::DEFAULT,
            members: (0..5)
                .map(|i| Member {
                    nonce: [i; 16],
                    host: format!("127.0.0.1:{}", 4000 + u16::from(i)),
                    organisation: "epost.test".into(),
                    weight: 1 + u16::from(i % 2),
                    state: MemberState::Active,
                })
                .collect(),
            revocations: vec![Revocation { serial: vec![1, 2, 3], since: 17 }],
            domain: "epost.test".into(),
        }
    }

    #[test]
    fn any_flipped_byte_is_refused() {
        let ca = SigningKey::from_bytes(&[9; 32]);
        let authority = ca.verifying_key().to_bytes();
        let bytes = document().encode_signed(|body| ca.sign(body).to_bytes());
        assert_eq!(RingDocument::decode_verified(&bytes, &authority), Ok(document()));
        for at in 0..bytes.len() {
            let mut broken = bytes.to_vec();
            broken[at] ^= 0x40;
            assert!(RingDocument::decode_verified(&broken, &authority).is_err(), "byte {at} may be flipped");
        }
        assert_eq!(RingDocument::decode_verified(&bytes, &[1; 32]), Err(RingError::BadSignature));
    }

    #[test]
    fn quorums_are_the_designs() {
        let with = |k_head| Parameters { k_head, ..Parameters::DEFAULT };
        assert_eq!((with(7).head_quorum(), with(5).head_quorum(), with(1).head_quorum()), (5, 4, 1));
        assert_eq!(Parameters::DEFAULT.content_quorum(), 2);
    }

    #[test]
    fn eligible_replicas_are_on_distinct_hosts_and_nearest() {
        let ring = document();
        for byte in 0..=255u8 {
            let key = Id([byte; 20]);
            let chosen = ring.eligible(key, 5);
            assert_eq!(chosen.len(), 5);
            let nearest = ring.node_ids().map(|(id, _)| id).min_by_key(|id| (id.distance(key), *id));
            assert_eq!(chosen.first().copied(), nearest);
        }
    }
}
