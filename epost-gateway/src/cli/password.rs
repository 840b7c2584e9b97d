//! Passwords a person can read, type and say: four groups of three syllables, 75 bits.

use zeroize::Zeroizing;

/// How a password stands in a file only its owner may read.
pub(super) mod in_file {
    use serde::{Deserialize, Deserializer, Serializer};
    use zeroize::Zeroizing;

    /// As a string.
    pub(in crate::cli) fn serialize<S: Serializer>(
        password: &Zeroizing<String>,
        serializer: S,
    ) -> Result<S::Ok, S::Error> {
        serializer.serialize_str(password)
    }

    /// From a string, which becomes the password itself.
    pub(in crate::cli) fn deserialize<'de, D: Deserializer<'de>>(
        deserializer: D,
    ) -> Result<Zeroizing<String>, D::Error> {
        String::deserialize(deserializer).map(Zeroizing::new)
    }
}

const CONSONANTS: &[u8; 16] = b"bdfghjklmnprstvz";
const VOWELS: &[u8; 5] = b"aeiou";
const SYLLABLES: usize = 12;

/// Makes a password from bytes of a cryptographic generator; `more` is asked for one at a time.
pub(super) fn readable(mut more: impl FnMut() -> u8) -> Zeroizing<String> {
    let mut password = Zeroizing::new(String::with_capacity(SYLLABLES * 2 + 3));
    for number in 0..SYLLABLES {
        if number > 0 && number % 3 == 0 {
            password.push('-');
        }
        let count = CONSONANTS.len() * VOWELS.len();
        // Bytes beyond the last whole multiple of 80 are passed over, so that every syllable is as likely.
        let chosen = loop {
            let byte = usize::from(more());
            if byte < 256 / count * count {
                break byte % count;
            }
        };
        password.push(CONSONANTS[chosen / VOWELS.len()] as char);
        password.push(VOWELS[chosen % VOWELS.len()] as char);
    }
    password
}

#[cfg(test)]
mod tests {
    //! Goal: every syllable as likely, and the shape a person can type. Method: all bytes in turn.
    use super::*;
    use std::collections::BTreeMap;

    #[test]
    fn uniform_and_readable() {
        let mut next = 0u8;
        let mut counts = BTreeMap::<String, usize>::new();
        for _ in 0..20 {
            let password = readable(|| {
                next = next.wrapping_add(1);
                next
            });
            assert_eq!(password.len(), 27);
            let letters = password.replace('-', "");
            for at in (0..24).step_by(2) {
                *counts.entry(letters[at..at + 2].to_owned()).or_default() += 1;
            }
        }
        assert_eq!(counts.len(), 80);
        assert!(counts.values().all(|&count| count == 3), "240 syllables, each of 80 three times");
    }
}
