//! Goal: the file opens by each of its slots and in no other way, and no altered byte goes unnoticed.
//! Method: a cheap Argon2id cost; every byte of the encoded file is flipped in turn.

use super::*;

const CHEAP: PasswordCost = PasswordCost { memory_kib: 8, passes: 1, lanes: 1 };

fn secrets() -> Secrets {
    Secrets {
        address: "alice@epost.test".into(),
        generation: 2,
        root: SigningKey::from_bytes(&[1; 32]),
        signing: SigningKey::from_bytes(&[2; 32]),
        kem: vec![KemSecret::new(1, [3; 32]), KemSecret::new(2, [4; 32])],
        master: MasterKey::new([5; 32]),
        certificate: Bytes::from_static(b"a certificate"),
    }
}

fn file() -> (KeyFile, Entropy) {
    let mut entropy = Entropy::new([6; 32]);
    let mut file = KeyFile::new(&secrets(), &mut entropy);
    let master = secrets().master;
    assert_eq!(file.add_password(&master, b"correct horse", CHEAP, &mut entropy), Ok(1));
    assert_eq!(file.add_node(&master, &[7; 32], &mut entropy), Ok(2));
    (file, entropy)
}

fn assert_same(opened: &Secrets) {
    let expected = secrets();
    assert_eq!((&opened.address, opened.generation), (&expected.address, expected.generation));
    assert_eq!(opened.root.to_bytes(), expected.root.to_bytes());
    assert_eq!(opened.signing.to_bytes(), expected.signing.to_bytes());
    assert_eq!(opened.log_key("inbox").to_bytes(), expected.log_key("inbox").to_bytes());
    assert_eq!(opened.kem_key(2).unwrap().seed(), &[4; 32]);
    assert_eq!(opened.certificate, expected.certificate);
}

#[test]
fn password_and_node_open_it_and_nothing_else() {
    let file = KeyFile::decode(&file().0.encode()).unwrap();
    assert_same(&file.open(&file.unlock_password(b"correct horse").unwrap()).unwrap());
    assert_same(&file.open(&file.unlock_node(&[7; 32]).unwrap()).unwrap());
    assert_eq!(file.unlock_password(b"correct hors").unwrap_err(), KeyFileError::WrongPassword);
    assert_eq!(file.unlock_node(&[8; 32]).unwrap_err(), KeyFileError::WrongNode);
    assert_eq!(file.open(&MasterKey::new([9; 32])).unwrap_err(), KeyFileError::Altered);
}

#[test]
fn slots_come_and_go() {
    let (mut file, mut entropy) = file();
    file.change_password(b"correct horse", b"battery staple", CHEAP, &mut entropy).unwrap();
    assert_eq!(file.unlock_password(b"correct horse").unwrap_err(), KeyFileError::WrongPassword);
    assert_same(&file.open(&file.unlock_password(b"battery staple").unwrap()).unwrap());
    let refused = file.change_password(b"wrong", b"x", CHEAP, &mut entropy);
    assert_eq!(refused, Err(KeyFileError::WrongPassword));
    let slots: Vec<_> = file.slots().collect();
    assert_eq!(slots, [(2, SlotKind::Node), (3, SlotKind::Password)]);
    assert_eq!(file.remove_slot(1), Err(KeyFileError::NoSuchSlot));
    assert_eq!(file.remove_slot(3), Ok(()));
    assert_eq!(file.remove_slot(2), Err(KeyFileError::LastSlot));
    while file.slots.len() < KEY_SLOTS_MAX {
        file.add_node(&secrets().master, &[1; 32], &mut entropy).unwrap();
    }
    assert_eq!(file.add_node(&secrets().master, &[1; 32], &mut entropy), Err(KeyFileError::Full));
    let costly = PasswordCost { memory_kib: ARGON2_MEMORY_KIB_MAX + 1, passes: 1, lanes: 1 };
    file.remove_slot(4).unwrap();
    assert_eq!(file.add_password(&secrets().master, b"x", costly, &mut entropy), Err(KeyFileError::BadCost));
}

#[test]
fn a_renewed_certificate_keeps_the_slots() {
    let (mut file, mut entropy) = file();
    let mut renewed = secrets();
    renewed.certificate = Bytes::from_static(b"another certificate");
    renewed.kem.push(KemSecret::new(3, [8; 32]));
    file.replace(&renewed, &mut entropy).unwrap();
    let opened = file.open(&file.unlock_password(b"correct horse").unwrap()).unwrap();
    assert_eq!((&opened.certificate[..], opened.kem.len()), (&b"another certificate"[..], 3));
    let mut stranger = secrets();
    stranger.address = "bob@epost.test".into();
    assert_eq!(file.replace(&stranger, &mut entropy), Err(KeyFileError::Altered));
}

#[test]
fn reserved_kinds_are_kept_and_never_tried() {
    let (mut file, mut entropy) = file();
    let key = node_key(&[7; 32], &[0; 16]);
    file.add(4, [0; 16], CHEAP, &key, &secrets().master, &mut entropy).unwrap();
    let again = KeyFile::decode(&file.encode()).unwrap();
    assert_eq!(again.slots().last(), Some((3, SlotKind::Reserved(4))));
    assert_eq!(again.encode(), file.encode());
    let moved = Slot { kind: KIND_NODE, ..again.slots[2].clone() };
    let mut moved_file = again.clone();
    moved_file.slots = vec![moved];
    assert_eq!(moved_file.unlock_node(&[7; 32]).unwrap_err(), KeyFileError::WrongNode);
}

#[test]
fn every_flipped_byte_is_noticed() {
    let whole = file().0.encode();
    for at in 0..whole.len() {
        let mut broken = whole.clone();
        broken[at] ^= 1;
        let Ok(file) = KeyFile::decode(&broken) else { continue };
        let by_password = file.unlock_password(b"correct horse").and_then(|master| file.open(&master));
        let by_node = file.unlock_node(&[7; 32]).and_then(|master| file.open(&master));
        // A slot stands on its own: damage to one leaves the other.
        assert!(by_password.is_err() || by_node.is_err(), "byte {at} may be flipped");
        for opened in [by_password, by_node].into_iter().flatten() {
            assert_same(&opened);
        }
    }
    for length in 0..whole.len() {
        assert!(KeyFile::decode(&whole[..length]).is_err());
    }
    let mut newer = whole;
    newer[8] = 2;
    assert_eq!(KeyFile::decode(&newer).unwrap_err(), KeyFileError::Unknown(2));
}

#[test]
fn the_file_shows_no_secret() {
    let bytes = file().0.encode();
    for secret in [[1u8; 32], [2; 32], [3; 32], [4; 32], [5; 32], [7; 32]] {
        assert!(!bytes.windows(16).any(|window| window == &secret[..16]));
    }
    let opened = secrets();
    assert_eq!(
        format!("{opened:?} {:?} {:?}", opened.master, opened.kem[0]),
        "Secrets(alice@epost.test, generation 2) MasterKey KemSecret(1)"
    );
}
