//! The identity block: what an account publishes about itself, as XML in a signed block under its root key.
//!
//! ```xml
//! <?xml version="1.0" encoding="UTF-8"?>
//! <identity version="1" address="alice@epost.test" generation="1" signing-key="…64 hex digits…">
//!   <contact ring="…32 hex digits…" node="…40 hex digits…"/>
//!   <kem number="1" suite="x-wing" key="…base64, 1216 bytes…"/>
//!   <log name="calendar" handle="…64 hex digits…"/>
//! </identity>
//! ```
//!
//! `contact` is the user's trusted node, absent while she has none; `kem` are the keys to seal mail to, the
//! highest number is the one to use; `log` are the heads of public logs. Elements, attributes and KEM suites that
//! are not known here are passed over, so that a newer program may add some; a newer `version` is refused. The
//! enclosing block (kind identity, public key, version, signature) is drawn in `net::past::block`.

use super::address;
use super::kem::KemPublic;
use super::xml::{self, Element};
use super::{from_hex, hex};
use crate::limits::{LOG_NAME_BYTES_MAX, PUBLIC_LOGS_MAX, PUBLISHED_KEM_KEYS_MAX};
use base64::Engine as _;
use base64::engine::general_purpose::STANDARD as BASE64;
use bytes::Bytes;
use ed25519_dalek::{Signer, SigningKey};
use net::id::{Id, Key, Kind, Name};
use net::machine::Micros;
use net::past::block::{decode_signed, encode_signed};

const VERSION: &str = "1";
const SUITE: &str = "x-wing";

/// Why bytes are not an identity block.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum IdentityError {
    /// Not a signed block of this kind, or its signature does not verify.
    #[error("not a signed identity block")]
    NotSigned,
    /// Not the XML of an identity, or over a bound.
    #[error("the identity block's XML is malformed")]
    Malformed,
    /// Made by a newer program.
    #[error("an identity block of a newer version")]
    Unknown,
}

/// A log that anybody may read.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PublicLog {
    /// What the owner calls it.
    pub name: String,
    /// The name of its head.
    pub handle: Name,
}

/// Where a user's trusted node is.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ContactAddress {
    /// The ring that the node belongs to.
    pub ring: [u8; 16],
    /// Its node id.
    pub node: Id,
}

/// What an account publishes about itself.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Identity {
    /// The mail address, in its canonical spelling.
    pub address: String,
    /// Which account of this address it is.
    pub generation: u32,
    /// The current signing key, which the certificate has too.
    pub signing_key: [u8; 32],
    /// Where to notify.
    pub contact: Option<ContactAddress>,
    /// Keys to seal mail to, ascending by number, at least one.
    pub kem: Vec<KemPublic>,
    /// Public logs, in the owner's order.
    pub logs: Vec<PublicLog>,
}

impl Identity {
    /// The key to seal new mail to.
    #[must_use]
    pub fn current_kem(&self) -> Option<&KemPublic> {
        self.kem.last()
    }

    /// Signs the identity as the block of `root`'s account. Versions only rise: see [`next_version`].
    ///
    /// # Errors
    /// [`IdentityError::Malformed`], if it breaks a bound or would not read back as it is.
    pub fn sign(&self, root: &SigningKey, version: u64) -> Result<(Key, Bytes), IdentityError> {
        let body = self.to_xml();
        if Identity::from_xml(body.as_bytes()).as_ref() != Ok(self) {
            return Err(IdentityError::Malformed);
        }
        let public_key = root.verifying_key().to_bytes();
        let block =
            encode_signed(Kind::Identity, &public_key, version, body.as_bytes(), |signed| root.sign(signed).to_bytes());
        Ok((identity_key(&public_key), block))
    }

    /// Reads an identity block of the account with this root key, and its version.
    ///
    /// # Errors
    /// [`IdentityError`].
    pub fn verify(block: &Bytes, root_key: &[u8; 32]) -> Result<(Identity, u64), IdentityError> {
        let signed = decode_signed(block).map_err(|_| IdentityError::NotSigned)?;
        if signed.kind != Kind::Identity || signed.public_key != *root_key {
            return Err(IdentityError::NotSigned);
        }
        Ok((Identity::from_xml(&signed.body)?, signed.version))
    }

    fn to_xml(&self) -> String {
        let mut root = Element::new("identity")
            .with("version", VERSION)
            .with("address", self.address.as_str())
            .with("generation", self.generation.to_string())
            .with("signing-key", hex(&self.signing_key));
        root.children.extend(self.contact.iter().map(|contact| {
            Element::new("contact").with("ring", hex(&contact.ring)).with("node", hex(&contact.node.0))
        }));
        root.children.extend(self.kem.iter().map(|key| {
            Element::new("kem")
                .with("number", key.number().to_string())
                .with("suite", SUITE)
                .with("key", BASE64.encode(key.bytes()))
        }));
        root.children.extend(
            self.logs
                .iter()
                .map(|log| Element::new("log").with("name", log.name.as_str()).with("handle", hex(&log.handle.0))),
        );
        xml::write(&root)
    }

    fn from_xml(body: &[u8]) -> Result<Identity, IdentityError> {
        let root = xml::read(body).map_err(|_| IdentityError::Malformed)?;
        let get = |name| root.get(name).ok_or(IdentityError::Malformed);
        if root.name != "identity" {
            return Err(IdentityError::Malformed);
        }
        if get("version")? != VERSION {
            return Err(IdentityError::Unknown);
        }
        let address = get("address")?;
        if address::canonical(address).as_deref() != Ok(address) {
            return Err(IdentityError::Malformed);
        }
        let mut contacts = root.all("contact");
        let contact = contacts.next().map(read_contact).transpose()?;
        let kem: Vec<KemPublic> =
            root.all("kem").filter(|kem| kem.get("suite") == Some(SUITE)).map(read_kem).collect::<Result<_, _>>()?;
        let logs: Vec<PublicLog> = root.all("log").map(read_log).collect::<Result<_, _>>()?;
        let is_bounded = kem.len() <= PUBLISHED_KEM_KEYS_MAX && logs.len() <= PUBLIC_LOGS_MAX;
        let is_ordered = !kem.is_empty() && kem.is_sorted_by(|a, b| a.number() < b.number());
        if contacts.next().is_some() || !is_bounded || !is_ordered {
            return Err(IdentityError::Malformed);
        }
        Ok(Identity {
            address: address.to_owned(),
            generation: number(get("generation")?)?,
            signing_key: from_hex(get("signing-key")?).ok_or(IdentityError::Malformed)?,
            contact,
            kem,
            logs,
        })
    }
}

/// The key that the identity block of an account is stored under. Its placement id is also the account's
/// notification group.
#[must_use]
pub fn identity_key(root_key: &[u8; 32]) -> Key {
    Key::of(Kind::Identity, root_key)
}

/// The version for the next block: the time, unless the last one is already there or later.
#[must_use]
pub fn next_version(last: Option<u64>, now: Micros) -> u64 {
    last.map_or(now, |last| now.max(last.saturating_add(1)))
}

fn read_contact(element: &Element<'_>) -> Result<ContactAddress, IdentityError> {
    let ring = element.get("ring").and_then(from_hex).ok_or(IdentityError::Malformed)?;
    let node = element.get("node").and_then(from_hex).map(Id).ok_or(IdentityError::Malformed)?;
    Ok(ContactAddress { ring, node })
}

fn read_kem(element: &Element<'_>) -> Result<KemPublic, IdentityError> {
    let key = element.get("key").and_then(|key| BASE64.decode(key).ok()).ok_or(IdentityError::Malformed)?;
    KemPublic::new(number(element.get("number").unwrap_or_default())?, &key).map_err(|_| IdentityError::Malformed)
}

fn read_log(element: &Element<'_>) -> Result<PublicLog, IdentityError> {
    let name = element.get("name").filter(|name| name.len() <= LOG_NAME_BYTES_MAX).ok_or(IdentityError::Malformed)?;
    let handle = element.get("handle").and_then(from_hex).map(Name).ok_or(IdentityError::Malformed)?;
    Ok(PublicLog { name: name.to_owned(), handle })
}

/// A decimal number in its only spelling.
fn number(text: &str) -> Result<u32, IdentityError> {
    let number: u32 = text.parse().map_err(|_| IdentityError::Malformed)?;
    if number.to_string() == text { Ok(number) } else { Err(IdentityError::Malformed) }
}

#[cfg(test)]
mod tests {
    //! Goal: an identity reads back as published, under its own root key only, and newer additions do no harm.
    //! Method: every flipped byte, a stranger's key, and hand-written XML.
    use super::*;
    use crate::identity::kem::KemSecret;

    fn identity() -> Identity {
        Identity {
            address: "alice@epost.test".into(),
            generation: 3,
            signing_key: [0xab; 32],
            contact: Some(ContactAddress { ring: [1; 16], node: Id([0x2c; 20]) }),
            kem: vec![KemSecret::new(1, [1; 32]).public(), KemSecret::new(4, [2; 32]).public()],
            logs: vec![PublicLog { name: "R&D <list> \"x\"".into(), handle: Name([7; 32]) }],
        }
    }

    #[test]
    fn it_reads_back_under_its_own_key_only() {
        let root = SigningKey::from_bytes(&[5; 32]);
        let root_key = root.verifying_key().to_bytes();
        let (key, block) = identity().sign(&root, 77).unwrap();
        assert_eq!(key, identity_key(&root_key));
        assert_eq!(Identity::verify(&block, &root_key), Ok((identity(), 77)));
        assert_eq!(identity().current_kem().unwrap().number(), 4);
        assert_eq!(Identity::verify(&block, &[1; 32]), Err(IdentityError::NotSigned));
        for at in (0..block.len()).step_by(13) {
            let mut broken = block.to_vec();
            broken[at] ^= 1;
            assert_eq!(Identity::verify(&broken.into(), &root_key), Err(IdentityError::NotSigned));
        }
    }

    #[test]
    fn what_breaks_a_bound_is_not_signed() {
        let root = SigningKey::from_bytes(&[5; 32]);
        let refused = |change: fn(&mut Identity)| {
            let mut identity = identity();
            change(&mut identity);
            assert_eq!(identity.sign(&root, 1), Err(IdentityError::Malformed));
        };
        refused(|identity| identity.kem.clear());
        refused(|identity| identity.kem.reverse());
        refused(|identity| identity.address = "Alice@epost.test".into());
        refused(|identity| identity.logs = vec![identity.logs[0].clone(); PUBLIC_LOGS_MAX + 1]);
        refused(|identity| identity.logs[0].name = "x".repeat(LOG_NAME_BYTES_MAX + 1));
        refused(|identity| identity.kem = (0..9).map(|n| KemSecret::new(n, [1; 32]).public()).collect());
    }

    #[test]
    fn additions_are_passed_over_and_newer_versions_refused() {
        let written = identity().to_xml();
        let added = written
            .replace("<contact ", "<photo size=\"1\"/><kem number=\"9\" suite=\"new\" key=\"?\"/><contact ")
            .replace("generation=", "colour=\"red\" generation=");
        assert_eq!(Identity::from_xml(added.as_bytes()), Ok(identity()));
        let newer = written.replace("<identity version=\"1\"", "<identity version=\"2\"");
        assert_eq!(Identity::from_xml(newer.as_bytes()), Err(IdentityError::Unknown));
        for (from, to) in
            [("\"3\"", "\"03\""), ("number=\"4\"", "number=\"1\""), ("abab", "ABAB"), ("<log ", "<log x ")]
        {
            assert_eq!(Identity::from_xml(written.replace(from, to).as_bytes()), Err(IdentityError::Malformed));
        }
        let twice = written.replace("<contact ", "<contact ring=\"\" node=\"\"/><contact ");
        assert_eq!(Identity::from_xml(twice.as_bytes()), Err(IdentityError::Malformed));
    }

    #[test]
    fn versions_rise_with_the_time_and_never_fall() {
        assert_eq!((next_version(None, 5), next_version(Some(3), 5), next_version(Some(5), 5)), (5, 5, 6));
        assert_eq!(next_version(Some(9), 5), 10);
    }
}
