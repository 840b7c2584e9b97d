//! How an organisation comes to be and grows: its authority and ring, its nodes, its users.
//!
//! Pure functions, bytes in and bytes out: each takes the ring document as it is and returns it as it shall be, one epoch
//! later, signed. The command line keeps the files and draws the seeds. Nodes carry a nonce drawn here, from which
//! their ids follow, so nobody chooses where on the ring a node stands.

use super::address;
use super::authority::{Authority, AuthorityError, NodeRequest, UserRequest, Validity, private_key_der};
use super::kem::KemSecret;
use super::secrets::{MasterKey, Secrets};
use crate::entropy::Entropy;
use crate::limits::{
    AUTHORITY_VALIDITY_S, CLOCK_SKEW_S, HOST_BYTES_MAX, NODE_VALIDITY_S, NODE_WEIGHT_MAX, USER_VALIDITY_S,
};
use crate::seal::RingSecret;
use bytes::Bytes;
use ed25519_dalek::{SigningKey, VerifyingKey};
use net::id::Id;
use net::machine::Seconds;
use net::ring::{MEMBERS_MAX, Member, MemberState, Parameters, Revocation, RingDocument, RingError};
use zeroize::Zeroizing;

/// Why the organisation could not be changed as asked.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum OrganisationError {
    /// The authority cannot issue what was asked for.
    #[error(transparent)]
    Authority(#[from] AuthorityError),
    /// The ring document is damaged, not this authority's, or its parameters contradict each other.
    #[error(transparent)]
    Ring(#[from] RingError),
    /// Not a mail domain.
    #[error("not a mail domain")]
    BadDomain,
    /// Not `host:port`.
    #[error("a node's address is host:port")]
    BadHost,
    /// Another member that takes part already has this address.
    #[error("another node already has this address")]
    HostTaken,
    /// Zero, or beyond what one host may carry.
    #[error("a node's weight is 1 to {NODE_WEIGHT_MAX}")]
    BadWeight,
    /// The address belongs to another domain.
    #[error("the address is not in the organisation's domain")]
    WrongDomain,
    /// No member has this nonce.
    #[error("no such node in the ring document")]
    NoSuchMember,
    /// The ring document is full.
    #[error("the ring document lists as many nodes as it can")]
    TooManyMembers,
}

/// A new organisation.
pub struct Founded {
    /// Its authority: the private key goes offline.
    pub authority: Authority,
    /// The first ring document, signed; it has no members yet.
    pub document: Bytes,
    /// The ring's first convergence secret, for its gateways.
    pub secret: RingSecret,
}

/// A new node.
pub struct EnrolledNode {
    /// Drawn now, kept for the host's life.
    pub nonce: [u8; 16],
    /// The first of its node ids.
    pub node_id: Id,
    /// Its certificate (DER).
    pub certificate: Bytes,
    /// The private key of the certificate, as PKCS#8 DER.
    pub private_key: Zeroizing<Vec<u8>>,
    /// What unlocks the node slots of its users' key files.
    pub node_secret: Zeroizing<[u8; 32]>,
    /// The ring document with the node in it, signed.
    pub document: Bytes,
}

/// Founds an organisation for a mail domain.
///
/// # Errors
/// [`OrganisationError`]: name, domain or parameters are unusable.
pub fn found(
    name: &str,
    domain: &str,
    parameters: Parameters,
    now: Seconds,
    entropy: &mut Entropy,
) -> Result<Founded, OrganisationError> {
    // A domain is what can stand behind the @ of an address.
    let probe = address::canonical(&format!("a@{domain}")).map_err(|_| OrganisationError::BadDomain)?;
    let domain = probe.trim_start_matches("a@").to_owned();
    let seed = Zeroizing::new(entropy.draw::<32>());
    let authority = Authority::found(name, &seed, entropy.draw(), validity(now, AUTHORITY_VALIDITY_S))?;
    let ring = RingDocument {
        ring: entropy.draw(),
        epoch: 1,
        parameters,
        members: Vec::new(),
        revocations: Vec::new(),
        domain,
    };
    let document = signed(&authority, &ring)?;
    Ok(Founded { authority, document, secret: RingSecret::new(1, entropy.draw()) })
}

/// Enrols a node at `host` (`address:port`), with `weight` virtual node ids.
///
/// # Errors
/// [`OrganisationError`]; nothing has changed then.
pub fn enrol_node(
    authority: &Authority,
    document: &[u8],
    host: &str,
    weight: u16,
    now: Seconds,
    entropy: &mut Entropy,
) -> Result<EnrolledNode, OrganisationError> {
    if !(1..=NODE_WEIGHT_MAX).contains(&weight) {
        return Err(OrganisationError::BadWeight);
    }
    check_host(host)?;
    enrol(authority, document, host, weight, MemberState::Active, now, entropy)
}

/// Enrols a client: a program that has no place on the ring, and asks those that do.
///
/// # Errors
/// [`OrganisationError`]; nothing has changed then.
pub fn enrol_client(
    authority: &Authority,
    document: &[u8],
    now: Seconds,
    entropy: &mut Entropy,
) -> Result<EnrolledNode, OrganisationError> {
    enrol(authority, document, "", 1, MemberState::Client, now, entropy)
}

fn enrol(
    authority: &Authority,
    document: &[u8],
    host: &str,
    weight: u16,
    state: MemberState,
    now: Seconds,
    entropy: &mut Entropy,
) -> Result<EnrolledNode, OrganisationError> {
    let nonce: [u8; 16] = entropy.draw();
    let document = changed(authority, document, |ring| {
        if ring.members.len() >= MEMBERS_MAX {
            return Err(OrganisationError::TooManyMembers);
        }
        let is_taken = |member: &Member| member.state.has_place() && member.host == host;
        if state.has_place() && ring.members.iter().any(is_taken) {
            return Err(OrganisationError::HostTaken);
        }
        let (host, organisation) = (host.to_owned(), authority.organisation().to_owned());
        ring.members.push(Member { nonce, host, organisation, weight, state });
        Ok(())
    })?;
    let ring = RingDocument::decode_verified(&document, &authority.public_key())?.ring;
    let key = SigningKey::from_bytes(&entropy.draw());
    let public_key = key.verifying_key().to_bytes();
    let certificate = certify_node(authority, ring, nonce, weight, public_key, now, entropy)?;
    Ok(EnrolledNode {
        nonce,
        node_id: RingDocument::node_id(&ring, &nonce, 0),
        certificate,
        private_key: private_key_der(&key),
        node_secret: Zeroizing::new(entropy.draw()),
        document,
    })
}

/// Issues another certificate for a member of the ring: a renewal, or a new key. Its ids stay.
///
/// # Errors
/// [`OrganisationError`], above all [`NoSuchMember`](OrganisationError::NoSuchMember).
pub fn renew_node(
    authority: &Authority,
    document: &[u8],
    nonce: [u8; 16],
    public_key: [u8; 32],
    now: Seconds,
    entropy: &mut Entropy,
) -> Result<Bytes, OrganisationError> {
    let ring = RingDocument::decode_verified(document, &authority.public_key())?;
    let member = ring.members.iter().find(|member| member.nonce == nonce);
    let member = member.filter(|member| member.state != MemberState::Dead).ok_or(OrganisationError::NoSuchMember)?;
    Ok(certify_node(authority, ring.ring, nonce, member.weight, public_key, now, entropy)?)
}

/// Makes an account for `address`, with fresh keys and a certificate. `generation` is 1 for the address's first
/// account, and higher than any before if the address is given out again.
///
/// # Errors
/// [`OrganisationError`]: the address is unusable or of another domain.
pub fn enrol_user(
    authority: &Authority,
    document: &[u8],
    address: &str,
    generation: u32,
    now: Seconds,
    entropy: &mut Entropy,
) -> Result<Secrets, OrganisationError> {
    let ring = RingDocument::decode_verified(document, &authority.public_key())?;
    let address = address::canonical(address).map_err(AuthorityError::BadAddress)?;
    if address.split_once('@').map(|(_, domain)| domain) != Some(ring.domain.as_str()) {
        return Err(OrganisationError::WrongDomain);
    }
    let mut secrets = Secrets {
        address,
        generation,
        root: SigningKey::from_bytes(&entropy.draw()),
        signing: SigningKey::from_bytes(&entropy.draw()),
        kem: vec![KemSecret::new(1, entropy.draw())],
        master: MasterKey::new(entropy.draw()),
        certificate: Bytes::new(),
    };
    secrets.certificate = renew_user(authority, &secrets, now, entropy)?;
    Ok(secrets)
}

/// Issues a certificate for the account's current signing key: at enrolment, at renewal, after a new key.
///
/// Replicas order an address's certificates by day: a second one on the same day is refused by those who hold the
/// first.
///
/// # Errors
/// [`AuthorityError`].
pub fn renew_user(
    authority: &Authority,
    secrets: &Secrets,
    now: Seconds,
    entropy: &mut Entropy,
) -> Result<Bytes, AuthorityError> {
    let request = UserRequest {
        address: &secrets.address,
        root_key: secrets.root.verifying_key().to_bytes(),
        signing_key: secrets.signing.verifying_key().to_bytes(),
        generation: secrets.generation,
        validity: validity(now, USER_VALIDITY_S),
    };
    authority.issue_user(&request, entropy.draw())
}

/// Changes whether a member takes part. A dead one counts in no quorum any more: its objects are copied elsewhere.
///
/// # Errors
/// [`OrganisationError`], above all [`NoSuchMember`](OrganisationError::NoSuchMember).
pub fn set_state(
    authority: &Authority,
    document: &[u8],
    nonce: [u8; 16],
    state: MemberState,
) -> Result<Bytes, OrganisationError> {
    changed(authority, document, |ring| {
        member_mut(ring, nonce)?.state = state;
        Ok(())
    })
}

/// Declares a member dead.
///
/// # Errors
/// As [`set_state`].
pub fn declare_dead(authority: &Authority, document: &[u8], nonce: [u8; 16]) -> Result<Bytes, OrganisationError> {
    set_state(authority, document, nonce, MemberState::Dead)
}

/// Gives a member another `address:port`; its ids stay.
///
/// # Errors
/// [`OrganisationError`].
pub fn set_host(
    authority: &Authority,
    document: &[u8],
    nonce: [u8; 16],
    host: &str,
) -> Result<Bytes, OrganisationError> {
    check_host(host)?;
    changed(authority, document, |ring| {
        let is_taken = |member: &Member| member.nonce != nonce && member.host == host && member.state.has_place();
        if ring.members.iter().any(is_taken) {
            return Err(OrganisationError::HostTaken);
        }
        member_mut(ring, nonce)?.host = host.to_owned();
        Ok(())
    })
}

/// Revokes the certificate with this serial number. Nothing it signed is believed any more, whenever it was signed.
///
/// # Errors
/// [`OrganisationError`].
pub fn revoke(authority: &Authority, document: &[u8], serial: &[u8], now: Seconds) -> Result<Bytes, OrganisationError> {
    changed(authority, document, |ring| {
        if !ring.revocations.iter().any(|revocation| revocation.serial == serial) {
            ring.revocations.push(Revocation { serial: serial.to_vec(), since: now });
        }
        Ok(())
    })
}

fn certify_node(
    authority: &Authority,
    ring: [u8; 16],
    nonce: [u8; 16],
    weight: u16,
    public_key: [u8; 32],
    now: Seconds,
    entropy: &mut Entropy,
) -> Result<Bytes, AuthorityError> {
    VerifyingKey::from_bytes(&public_key).map_err(|_| AuthorityError::BadKey)?;
    let request = NodeRequest { ring, nonce, weight, public_key, validity: validity(now, NODE_VALIDITY_S) };
    authority.issue_node(&request, entropy.draw())
}

/// Reads the document, applies `change`, and signs it as the next epoch.
fn changed(
    authority: &Authority,
    document: &[u8],
    change: impl FnOnce(&mut RingDocument) -> Result<(), OrganisationError>,
) -> Result<Bytes, OrganisationError> {
    let mut ring = RingDocument::decode_verified(document, &authority.public_key())?;
    change(&mut ring)?;
    ring.epoch += 1;
    signed(authority, &ring)
}

/// Signs the document, and reads it back: what members would refuse is never given out.
fn signed(authority: &Authority, ring: &RingDocument) -> Result<Bytes, OrganisationError> {
    let document = ring.encode_signed(|body| authority.sign(body));
    let read = RingDocument::decode_verified(&document, &authority.public_key())?;
    assert!(read == *ring, "a ring document reads back as it was written");
    Ok(document)
}

fn member_mut(ring: &mut RingDocument, nonce: [u8; 16]) -> Result<&mut Member, OrganisationError> {
    ring.members.iter_mut().find(|member| member.nonce == nonce).ok_or(OrganisationError::NoSuchMember)
}

fn check_host(host: &str) -> Result<(), OrganisationError> {
    let (name, port) = host.rsplit_once(':').ok_or(OrganisationError::BadHost)?;
    let is_name = !name.is_empty() && host.len() <= HOST_BYTES_MAX && name.bytes().all(|b| b.is_ascii_graphic());
    let is_port = port.bytes().all(|b| b.is_ascii_digit()) && port.parse::<u16>().is_ok_and(|port| port != 0);
    if is_name && is_port { Ok(()) } else { Err(OrganisationError::BadHost) }
}

/// From a little before `now`, because clocks differ.
fn validity(now: Seconds, length_s: Seconds) -> Validity {
    let not_before = now.saturating_sub(CLOCK_SKEW_S);
    Validity { not_before, not_after: now.saturating_add(length_s) }
}
