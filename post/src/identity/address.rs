//! Mail addresses as account names.
//!
//! An account is found from its address alone, so two spellings must never name two accounts. An address is an
//! ASCII dot-atom at a host name, and is compared in lower case, local part included.

use crate::limits::{ADDRESS_BYTES_MAX, LOCAL_PART_BYTES_MAX};

/// Why text is not an address that an account can have.
#[derive(Clone, Copy, Debug, PartialEq, Eq, thiserror::Error)]
pub enum AddressError {
    /// Empty, or longer than mail allows.
    #[error("the address is empty or too long")]
    Length,
    /// Not `name@domain` of the characters that need no quoting.
    #[error("not a plain name@domain address")]
    Form,
}

/// The one spelling of `address` under which an account is stored.
///
/// # Errors
/// [`AddressError`], when no account can have this address.
pub fn canonical(address: &str) -> Result<String, AddressError> {
    if address.is_empty() || address.len() > ADDRESS_BYTES_MAX {
        return Err(AddressError::Length);
    }
    let (local, domain) = address.split_once('@').ok_or(AddressError::Form)?;
    if local.len() > LOCAL_PART_BYTES_MAX {
        return Err(AddressError::Length);
    }
    if local.split('.').all(is_atom) && domain.split('.').all(is_label) {
        Ok(address.to_ascii_lowercase())
    } else {
        Err(AddressError::Form)
    }
}

/// RFC 5322 `atext`, one or more.
fn is_atom(text: &str) -> bool {
    let is_atext = |byte: u8| byte.is_ascii_alphanumeric() || b"!#$%&'*+-/=?^_`{|}~".contains(&byte);
    !text.is_empty() && text.bytes().all(is_atext)
}

/// A label of a host name.
fn is_label(text: &str) -> bool {
    let is_inside = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-';
    (1..=63).contains(&text.len()) && text.bytes().all(is_inside) && !text.starts_with('-') && !text.ends_with('-')
}

#[cfg(test)]
mod tests {
    //! Goal: one spelling for an account, and nothing that could pass for another. Method: examples of each rule.
    use super::*;

    #[test]
    fn spellings_fold_and_oddities_are_refused() {
        assert_eq!(canonical("Alice.B+tag@ePOST.Test").as_deref(), Ok("alice.b+tag@epost.test"));
        for odd in ["alice", "@epost.test", "alice@", "a b@c", "\"a\"@b", "a@b@c", "a@-b", "a@b-", ".a@b", "a..b@c"] {
            assert_eq!(canonical(odd), Err(AddressError::Form), "{odd}");
        }
        for odd in ["a@b.", "a@b..c", "ä@b", "a@b\0", "a\r\n@b", "<a@b>"] {
            assert_eq!(canonical(odd), Err(AddressError::Form), "{odd}");
        }
        let long = |local: usize, domain: usize| format!("{}@{}", "a".repeat(local), "b.".repeat(domain) + "c");
        assert_eq!(canonical(""), Err(AddressError::Length));
        assert_eq!(canonical(&long(65, 1)), Err(AddressError::Length));
        assert_eq!(canonical(&long(64, 95)), Err(AddressError::Length));
        assert!(canonical(&long(64, 94)).is_ok());
    }
}
