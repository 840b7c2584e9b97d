//! Goal: C47, C48, C56 and C73; that what is altered, forged, replayed or passed on is not believed. Method: two
//! accounts over a recording store, each check broken in turn by whoever could try; packets against random bytes.

use super::notification::{Letter, Notification, NotificationError, check_outer, open, recipient_of, seal};
use super::notify::{Answer, NotifyError, notify};
use super::receipt::{ReceiptError, sign_receipt, verify_receipt};
use super::*;
use crate::identity::block::Identity;
use crate::identity::kem::KemSecret;
use crate::identity::resolve::{CertificateRefusal, Contact, publish, resolve};
use crate::identity::secrets::Secrets;
use crate::limits::{CERTIFICATE_GRACE_S, NOTIFICATION_HOLD_S, USER_VALIDITY_S};
use crate::log::journal::JournalState;
use crate::mail::deliveries::Delivery;
use crate::mail::folder::{Effect, Folder};
use crate::seal::{RingSecret, Secret, store as store_sealed};
use crate::store::{ObjectStore, StoreError};
use crate::testbed::{START_S, Testbed};
use net::machine::Micros;
use proptest::prelude::*;
use std::sync::{Arc, Mutex};
use zeroize::Zeroizing;

const ALICE: &str = "alice@epost.test";
const BOB: &str = "bob@epost.test";
const START: Micros = START_S * 1_000_000;
const DAY: Micros = 86_400_000_000;

fn letter(id: u8) -> Letter {
    Letter { id: [id; 32], root: [id ^ 0xff; 32], message: Zeroizing::new(b"the way to the message".to_vec()) }
}

fn contact(bed: &Testbed, address: &str) -> Contact {
    bed.run(resolve(&bed.store, &bed.trust, address)).unwrap()
}

/// A bed with alice and bob, and a notification from her to him as of the start.
fn notified() -> (Testbed, Secrets, Secrets, Bytes) {
    let bed = Testbed::new();
    let (alice, bob) = (bed.enrol(ALICE), bed.enrol(BOB));
    let sealed = seal(&alice, &contact(&bed, BOB), &letter(1), START, &mut bed.entropy()).unwrap();
    (bed, alice, bob, sealed)
}

/// What only the recipient gets to see, read by hand.
fn inside(recipient: &Secrets, sealed: &[u8]) -> Zeroizing<Vec<u8>> {
    let (_, body, _) = split_signed(sealed, b"ePN1").unwrap();
    let mut decoder = minicbor::Decoder::new(body);
    decoder.array().unwrap();
    let (header, ciphertext) = (decoder.bytes().unwrap(), decoder.bytes().unwrap());
    recipient.kem[0].open(b"ePOST 2026 notification", header, ciphertext).unwrap()
}

/// An inside in a new outside, as whoever has these keys can make it.
fn reseal(
    bed: &Testbed,
    to: &Contact,
    inner: &[u8],
    certificate: &[u8],
    signing: &ed25519_dalek::SigningKey,
) -> Vec<u8> {
    let mut header = minicbor::Encoder::new(Vec::new());
    header.map(4).unwrap().u8(0).unwrap().str(to.address()).unwrap().u8(1).unwrap().u32(1).unwrap();
    header.u8(2).unwrap().u64(START_S + 60).unwrap().u8(3).unwrap().bytes(certificate).unwrap();
    let header = header.into_writer();
    let sealed = to.kem().seal(b"ePOST 2026 notification", &header, inner, &mut bed.entropy()).unwrap();
    let mut outer = b"ePN1".to_vec();
    let mut cbor = minicbor::Encoder::new(&mut outer);
    cbor.array(2).unwrap().bytes(&header).unwrap().bytes(&sealed).unwrap();
    let signature = ed25519_dalek::Signer::sign(signing, &outer);
    outer.extend_from_slice(&signature.to_bytes());
    outer
}

/// The record of the paper, {A, B, S, T, H, H(X), sig}: what alice signed for bob. The subject is in the message,
/// which the root and the reference name.
#[derive(Clone)]
struct Record {
    sender: String,
    recipient: String,
    time: Micros,
    id: [u8; 32],
    root: [u8; 32],
    message: Vec<u8>,
    signature: Vec<u8>,
}

impl Record {
    fn read(inner: &[u8]) -> Record {
        let (_, body, signature) = split_signed(inner, b"ePI1").unwrap();
        let mut cbor = minicbor::Decoder::new(body);
        assert_eq!(cbor.map().unwrap(), Some(6));
        let key = |cbor: &mut minicbor::Decoder<'_>, number| assert_eq!(cbor.u8().unwrap(), number);
        key(&mut cbor, 0);
        let sender = cbor.str().unwrap().to_owned();
        key(&mut cbor, 1);
        let recipient = cbor.str().unwrap().to_owned();
        key(&mut cbor, 2);
        let time = cbor.u64().unwrap();
        key(&mut cbor, 3);
        let id = cbor.bytes().unwrap().try_into().unwrap();
        key(&mut cbor, 4);
        let root = cbor.bytes().unwrap().try_into().unwrap();
        key(&mut cbor, 5);
        let message = cbor.bytes().unwrap().to_vec();
        Record { sender, recipient, time, id, root, message, signature: signature.to_vec() }
    }

    fn write(&self) -> Vec<u8> {
        let mut inner = b"ePI1".to_vec();
        let mut cbor = minicbor::Encoder::new(&mut inner);
        cbor.map(6).unwrap().u8(0).unwrap().str(&self.sender).unwrap().u8(1).unwrap().str(&self.recipient).unwrap();
        cbor.u8(2).unwrap().u64(self.time).unwrap().u8(3).unwrap().bytes(&self.id).unwrap();
        cbor.u8(4).unwrap().bytes(&self.root).unwrap().u8(5).unwrap().bytes(&self.message).unwrap();
        inner.extend_from_slice(&self.signature);
        inner
    }
}

/// Lets bob's node answer what is told to it, as a gateway does: open, take in once, acknowledge.
fn serve(bed: &Testbed, bob: Secrets) -> Arc<Mutex<Vec<Notification>>> {
    serve_with(bed, bob, true)
}

fn serve_with(bed: &Testbed, bob: Secrets, remembers: bool) -> Arc<Mutex<Vec<Notification>>> {
    let inbox = Arc::new(Mutex::new(Vec::new()));
    let (inbox_there, trust, store) = (inbox.clone(), bed.trust.clone(), bed.store.clone());
    let folder = Mutex::new(Folder::new(1));
    bed.store.set_listener(Box::new(move |node, payload| {
        assert_eq!(node, Testbed::node_of(BOB));
        let Ok(Packet::Notification(sealed)) = Packet::decode(&payload) else { return Err(StoreError::Refused) };
        let now = store.now();
        let answer = match open(&bob, &trust, &sealed, now) {
            Err(error) => Packet::Refused(error.reason()),
            Ok(notification) => {
                let id = notification.letter.id;
                let mut folder = folder.lock().unwrap();
                if !(remembers && folder.has_delivered(&id)) {
                    let deliveries = vec![Delivery { id, at_s: now / 1_000_000 }];
                    folder.apply(&Effect::Remember { deliveries }).unwrap();
                    inbox_there.lock().unwrap().push(notification);
                }
                Packet::Receipt(sign_receipt(&bob, id, now))
            }
        };
        Ok(answer.encode())
    }));
    inbox
}

#[test]
fn claim_47_online_is_one_message_and_a_cached_certificate_saves_the_look_up() {
    let bed = Testbed::new();
    let (alice, bob) = (bed.enrol(ALICE), bed.enrol(BOB));
    let inbox = serve(&bed, bob);
    let before = bed.store.counts();
    let to_bob = contact(&bed, BOB);
    let answer = bed.run(notify(&bed.store, &bed.trust, &alice, &to_bob, &letter(1))).unwrap();
    assert!(matches!(answer, Answer::Received(receipt) if receipt.id == [1; 32] && receipt.recipient == BOB));
    let after = bed.store.counts();
    assert_eq!((after.tell - before.tell, after.get_signed - before.get_signed), (1, 2));
    for id in 2..12 {
        bed.run(notify(&bed.store, &bed.trust, &alice, &to_bob, &letter(id))).unwrap();
    }
    let cached = bed.store.counts();
    assert_eq!((cached.tell - after.tell, cached.get_signed - after.get_signed, cached.get - after.get), (10, 0, 0));
    let inbox = inbox.lock().unwrap();
    assert_eq!(inbox.len(), 11);
    let first = &inbox[0];
    assert_eq!((first.sender.as_str(), first.time, first.letter.root), (ALICE, START, [0xfe; 32]));
    assert_eq!(&first.letter.message[..], b"the way to the message");
    assert!(first.is_from("Alice@EPOST.test") && !first.is_from(BOB) && !first.is_from("alice"));
}

#[test]
fn claim_48_neither_subject_nor_body_nor_key_is_seen_by_anybody() {
    let bed = Testbed::new();
    let (alice, bob) = (bed.enrol(ALICE), bed.enrol(BOB));
    let ring_secret = [0x77; 32];
    let subject = b"Subject: The merger is off";
    let body = b"Dear Bob, the board has voted against the merger this morning. ".repeat(2_000);
    let attachment = b"%PDF-1.7 figures nobody else may see until Friday, quarter by quarter ".repeat(2_000);
    let store = |secret: &Secret, bytes: &[u8]| bed.run(store_sealed(&bed.store, [1; 16], secret, bytes, 9)).unwrap();
    let references = [
        store(&Secret::salted(bed.store.entropy()), subject),
        store(&Secret::salted(bed.store.entropy()), &body),
        store(&Secret::Convergent(RingSecret::new(1, ring_secret)), &attachment),
    ];
    let message: Vec<u8> = references.iter().flat_map(|reference| reference.encode().to_vec()).collect();
    let letter = Letter { id: [1; 32], root: [2; 32], message: Zeroizing::new(message.clone()) };
    let mut seeds: Vec<[u8; 32]> = vec![ring_secret];
    for account in [&alice, &bob] {
        seeds.extend([account.root.to_bytes(), account.signing.to_bytes(), *account.master.bytes()]);
        seeds.extend([*account.kem[0].seed(), *account.log_seal_key("INBOX"), account.log_key("INBOX").to_bytes()]);
    }
    let inbox = serve(&bed, bob);
    let answer = bed.run(notify(&bed.store, &bed.trust, &alice, &contact(&bed, BOB), &letter));
    assert!(matches!(answer, Ok(Answer::Received(_))));
    assert_eq!(inbox.lock().unwrap()[0].letter.message.as_slice(), message);

    // Everything ever written or told, in windows of eight bytes.
    let has_seen_any = |secret: &[u8]| secret.windows(8).any(|window| bed.store.has_seen(window));
    assert!(has_seen_any(BOB.as_bytes()), "control: what is in clear is found");
    assert!(!has_seen_any(subject) && !has_seen_any(&body[..80]) && !has_seen_any(&attachment[..80]));
    for secret in seeds.iter().chain(references.iter().map(|reference| &*reference.key)) {
        assert!(!has_seen_any(secret));
    }
    for reference in &references {
        assert!(!has_seen_any(&reference.plain_hash()));
        // The handle of a part, which would tell who sends whom the same file, is not in the notification either.
        let told = bed.store.told();
        assert!(!told.iter().any(|(_, told)| told.windows(32).any(|window| window == reference.block_key().name.0)));
    }
}

#[test]
fn claim_56_the_same_notification_twice_is_one_mail() {
    let bed = Testbed::new();
    let (alice, bob) = (bed.enrol(ALICE), bed.enrol(BOB));
    let inbox = serve(&bed, bob);
    let to_bob = contact(&bed, BOB);
    let send = |id| bed.run(notify(&bed.store, &bed.trust, &alice, &to_bob, &letter(id)));
    // The sender did not get the receipt and says it again; a stranger replays the very bytes.
    assert!(matches!(send(1), Ok(Answer::Received(_))) && matches!(send(1), Ok(Answer::Received(_))));
    let recorded = bed.store.told()[0].1.clone();
    let replay =
        || bed.run(bed.store.tell(Testbed::node_of(BOB), recorded.clone())).map(|answer| Packet::decode(&answer));
    for day in 0..90 {
        let answer = replay();
        if day < 60 {
            assert!(matches!(answer, Ok(Ok(Packet::Receipt(_)))), "day {day}");
        } else if day > 60 {
            assert_eq!(answer, Ok(Ok(Packet::Refused(Reason::Untimely))), "day {day}, after the longest hold");
        }
        assert_eq!(inbox.lock().unwrap().len(), 1);
        bed.store.advance(DAY);
    }
    assert!(matches!(send(2), Ok(Answer::Received(_))));
    assert_eq!(inbox.lock().unwrap().len(), 2);
}

#[test]
fn claim_56_control_without_the_memory_a_replay_is_a_second_mail() {
    let bed = Testbed::new();
    let (alice, bob) = (bed.enrol(ALICE), bed.enrol(BOB));
    let inbox = serve_with(&bed, bob, false);
    bed.run(notify(&bed.store, &bed.trust, &alice, &contact(&bed, BOB), &letter(1))).unwrap();
    let recorded = bed.store.told()[0].1.clone();
    bed.run(bed.store.tell(Testbed::node_of(BOB), recorded)).unwrap();
    assert_eq!(inbox.lock().unwrap().len(), 2);
}

#[test]
fn claim_56_the_certificate_counts_as_of_the_signed_time() {
    let (mut bed, alice, bob, sealed) = notified();
    let open_at = |bed: &Testbed, sealed: &Bytes, now| open(&bob, &bed.trust, sealed, now).map(|_| ());
    // Held through a holiday: accepted to the end of the hold, and not after.
    let hold = NOTIFICATION_HOLD_S * 1_000_000;
    assert_eq!(open_at(&bed, &sealed, START + 45 * DAY), Ok(()));
    assert_eq!(open_at(&bed, &sealed, START + hold), Ok(()));
    assert_eq!(open_at(&bed, &sealed, START + hold + DAY), Err(NotificationError::Untimely));
    assert_eq!(open_at(&bed, &sealed, START - DAY), Err(NotificationError::Untimely));
    // Signed while the certificate was good, opened when it no longer is: accepted.
    let last = (START_S + USER_VALIDITY_S + CERTIFICATE_GRACE_S) * 1_000_000;
    let mut entropy = bed.entropy();
    let to_bob = contact(&bed, BOB);
    let mut sealed_at = |time| seal(&alice, &to_bob, &letter(2), time, &mut entropy).unwrap();
    let (in_time, late) = (sealed_at(last), sealed_at(last + 1_000_000));
    assert_eq!(open_at(&bed, &in_time, last + 30 * DAY), Ok(()));
    // Signed when it no longer was: refused, though certificate and signature are otherwise right.
    let refused = NotificationError::Certificate(CertificateRefusal::NotValid);
    assert_eq!(open_at(&bed, &late, last + 1_000_000), Err(refused));
    // Revoked: refused, whenever it was signed.
    let serial = contact(&bed, ALICE).certificate().serial.clone();
    bed.revoke(&serial);
    let refused = NotificationError::Certificate(CertificateRefusal::Revoked);
    assert_eq!(open_at(&bed, &sealed, START), Err(refused));
}

#[test]
fn every_flipped_byte_is_noticed() {
    let (bed, _, bob, sealed) = notified();
    assert!(open(&bob, &bed.trust, &sealed, START).is_ok());
    for at in 0..sealed.len() {
        let mut broken = sealed.to_vec();
        broken[at] ^= 1;
        assert!(open(&bob, &bed.trust, &broken, START).is_err(), "byte {at} may be flipped");
        assert!(check_outer(&broken, &bed.trust, START).is_err(), "a delegate overlooks byte {at}");
    }
    for length in (0..sealed.len()).step_by(9) {
        assert!(open(&bob, &bed.trust, &sealed[..length], START).is_err());
    }
}

#[test]
fn a_delegate_checks_the_signature_and_reads_nothing() {
    let (bed, alice, _, sealed) = notified();
    let certificate = check_outer(&sealed, &bed.trust, START).unwrap();
    assert_eq!(certificate.signing_key, alice.signing.verifying_key().to_bytes());
    assert_eq!(recipient_of(&sealed).as_deref(), Ok(BOB));
    // Somebody else with an account of her own has no key to it, even under bob's name.
    let mallory = Secrets { address: BOB.into(), ..bed.enrol("mallory@epost.test") };
    assert_eq!(open(&mallory, &bed.trust, &sealed, START).unwrap_err(), NotificationError::DoesNotOpen);
    let stranger = Testbed::with_seed(7);
    let refused = open(&mallory, &stranger.trust, &sealed, START).unwrap_err();
    assert!(matches!(refused, NotificationError::Certificate(CertificateRefusal::NotCertified(_))));
}

#[test]
fn nobody_passes_a_notification_off_as_her_own_or_to_another() {
    let (bed, alice, bob, sealed) = notified();
    let carol = bed.enrol("carol@epost.test");
    let opened = open(&bob, &bed.trust, &sealed, START).unwrap();
    assert_eq!(open(&carol, &bed.trust, &sealed, START).unwrap_err(), NotificationError::WrongRecipient);
    // Bob seals alice's signed inside anew, to carol, under his own outside or a copy of hers.
    let inner = inside(&bob, &sealed);
    for certificate in [&bob.certificate, &alice.certificate] {
        let outer = reseal(&bed, &contact(&bed, "carol@epost.test"), &inner, certificate, &bob.signing);
        assert_eq!(open(&carol, &bed.trust, &outer, START).unwrap_err(), NotificationError::NotSigned);
    }
    assert_eq!(opened.sender, ALICE);
}

/// C73: only bob opens alice's record, no field of it can be altered, and carol cannot send it on as her own.
#[test]
fn claim_73_a_record_is_for_its_recipient_whole_and_its_senders() {
    let (bed, alice, bob, sealed) = notified();
    let carol = bed.enrol("carol@epost.test");
    for other in [&carol, &alice] {
        assert_eq!(open(other, &bed.trust, &sealed, START).unwrap_err(), NotificationError::WrongRecipient);
    }
    let under_his_name = Secrets { address: BOB.into(), ..bed.enrol("mallory@epost.test") };
    assert_eq!(open(&under_his_name, &bed.trust, &sealed, START).unwrap_err(), NotificationError::DoesNotOpen);

    // The forger may even have alice's signature over any outside: the one inside must hold alone.
    let to_bob = contact(&bed, BOB);
    let record = Record::read(&inside(&bob, &sealed));
    let opened = |record: &Record, certificate: &[u8], signing| {
        let outer = reseal(&bed, &to_bob, &record.write(), certificate, signing);
        open(&bob, &bed.trust, &outer, START).map(|notification| notification.sender)
    };
    let as_alice = |record: &Record| opened(record, &alice.certificate, &alice.signing);
    assert_eq!(as_alice(&record).as_deref(), Ok(ALICE), "control: written anew and unaltered, it is believed");
    type Alter = fn(&mut Record);
    let altered: [(&str, Alter); 7] = [
        ("sender", |record| record.sender = carol_address()),
        ("recipient", |record| record.recipient = carol_address()),
        ("time", |record| record.time += 1),
        ("id", |record| record.id[31] ^= 1),
        ("root", |record| record.root[0] ^= 0x80),
        ("message", |record| record.message[3] ^= 4),
        ("signature", |record| record.signature[63] ^= 1),
    ];
    for (field, alter) in altered {
        let mut forged = record.clone();
        alter(&mut forged);
        assert_eq!(as_alice(&forged), Err(NotificationError::NotSigned), "{field} was altered");
    }

    // Carol sends it on in an outside of her own: as it is, and with her name in it.
    let as_carol = |record: &Record| opened(record, &carol.certificate, &carol.signing);
    assert_eq!(as_carol(&record), Err(NotificationError::NotSigned));
    assert_eq!(as_carol(&Record { sender: carol_address(), ..record.clone() }), Err(NotificationError::NotSigned));
}

fn carol_address() -> String {
    "carol@epost.test".into()
}

#[test]
fn an_older_key_still_opens_and_an_unknown_one_is_told() {
    let (bed, _, mut bob, sealed) = notified();
    bob.kem.push(KemSecret::new(2, [9; 32]));
    assert!(open(&bob, &bed.trust, &sealed, START).is_ok());
    bob.kem.remove(0);
    let refused = open(&bob, &bed.trust, &sealed, START).unwrap_err();
    assert_eq!((refused, refused.reason()), (NotificationError::UnknownKey, Reason::UnknownKey));
}

#[test]
fn only_the_recipient_can_end_the_retries() {
    let (bed, alice, bob, _) = notified();
    let verify = |receipt: &[u8], now| verify_receipt(receipt, &bed.trust, [1; 32], BOB, now);
    let receipt = sign_receipt(&bob, [1; 32], START);
    let read = verify(&receipt, START).unwrap();
    assert_eq!((read.id, read.recipient.as_str(), read.time), ([1; 32], BOB, START));
    assert_eq!(verify(&sign_receipt(&bob, [2; 32], START), START), Err(ReceiptError::WrongNotification));
    assert_eq!(verify(&sign_receipt(&alice, [1; 32], START), START), Err(ReceiptError::WrongRecipient));
    let as_bob = Secrets { address: BOB.into(), ..alice };
    let refused = ReceiptError::Certificate(CertificateRefusal::WrongAddress);
    assert_eq!(verify(&sign_receipt(&as_bob, [1; 32], START), START), Err(refused));
    let with_his_certificate = Secrets { certificate: bob.certificate.clone(), ..as_bob };
    assert_eq!(verify(&sign_receipt(&with_his_certificate, [1; 32], START), START), Err(ReceiptError::NotSigned));
    assert_eq!(verify(&sign_receipt(&bob, [1; 32], START + DAY), START), Err(ReceiptError::Untimely));
    for at in 0..receipt.len() {
        let mut broken = receipt.to_vec();
        broken[at] ^= 1;
        assert!(verify(&broken, START).is_err(), "byte {at} may be flipped");
    }
}

#[test]
fn bad_answers_prove_nothing() {
    let bed = Testbed::new();
    let (alice, bob) = (bed.enrol(ALICE), bed.enrol(BOB));
    let mut to_bob = contact(&bed, BOB);
    let answered = |answer: Result<Bytes, StoreError>, to_bob: &Contact| {
        bed.store.set_listener(Box::new(move |_, _| answer.clone()));
        bed.run(notify(&bed.store, &bed.trust, &alice, to_bob, &letter(1)))
    };
    assert_eq!(answered(Ok(Bytes::from_static(b"junk")), &to_bob), Err(NotifyError::BadAnswer));
    let forged = Packet::Receipt(sign_receipt(&alice, [1; 32], START)).encode();
    assert_eq!(answered(Ok(forged), &to_bob), Err(NotifyError::BadAnswer));
    assert_eq!(answered(Ok(Packet::Busy.encode()), &to_bob), Ok(Answer::Busy));
    let refused = Packet::Refused(Reason::UnknownRecipient).encode();
    assert_eq!(answered(Ok(refused), &to_bob), Ok(Answer::Refused(Reason::UnknownRecipient)));
    assert_eq!(answered(Err(StoreError::Unavailable), &to_bob), Err(NotifyError::Store(StoreError::Unavailable)));
    // While he has no node, nobody is told.
    let told = bed.store.counts().tell;
    let nowhere = Identity { contact: None, ..bed.identity_of(&bob) };
    bed.run(publish(&bed.store, &bob, &nowhere, START + 1, 1)).unwrap();
    bed.run(to_bob.renew(&bed.store, &bed.trust)).unwrap();
    assert_eq!(answered(Ok(Packet::Busy.encode()), &to_bob), Err(NotifyError::NoNode));
    assert_eq!(bed.store.counts().tell, told);
}

#[test]
fn a_letter_over_its_bound_is_not_sealed() {
    let (bed, alice, ..) = notified();
    let message = Zeroizing::new(vec![0; crate::limits::MESSAGE_REFERENCE_BYTES_MAX + 1]);
    let large = Letter { message, ..letter(1) };
    let refused = seal(&alice, &contact(&bed, BOB), &large, START, &mut bed.entropy());
    assert_eq!(refused, Err(NotificationError::Malformed));
}

proptest! {
    #[test]
    fn packets_decode_only_what_is_encoded(bytes in proptest::collection::vec(any::<u8>(), 0..40), reason: u8) {
        let bytes = Bytes::from(bytes);
        if let Ok(packet) = Packet::decode(&bytes) {
            prop_assert!(packet.encode() == bytes || matches!(packet, Packet::Refused(Reason::Other)));
        }
        let known = Packet::decode(&Bytes::from(vec![1, 3, reason])).unwrap();
        prop_assert!(matches!(known, Packet::Refused(_)));
    }
}
