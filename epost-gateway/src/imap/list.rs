//! LIST and LSUB: which folders match a pattern, and what is said of each.
//!
//! `*` matches anything, `%` anything within one level. INBOX matches in any case.

use super::response;
use post::mail::view::{FolderListing, SpecialUse};
use std::collections::{BTreeMap, BTreeSet};

/// Between the levels of a name.
pub(super) const SEPARATOR: char = '/';

/// Whether a name matches a pattern. At most length × length steps, whatever the wildcards.
pub(super) fn matches(pattern: &str, name: &str) -> bool {
    if name == "INBOX" && !pattern.contains(['*', '%']) {
        return pattern.eq_ignore_ascii_case(name);
    }
    let is_inbox = name == "INBOX";
    let name: Vec<char> = name.chars().collect();
    // reached[i]: the pattern so far matches the first i characters of the name.
    let mut reached = vec![false; name.len() + 1];
    reached[0] = true;
    for wanted in pattern.chars() {
        match wanted {
            '*' | '%' => {
                for at in 1..=name.len() {
                    let may_cross = wanted == '*' || name[at - 1] != SEPARATOR;
                    reached[at] |= reached[at - 1] && may_cross;
                }
            }
            _ => {
                for at in (1..=name.len()).rev() {
                    let same =
                        if is_inbox { wanted.eq_ignore_ascii_case(&name[at - 1]) } else { wanted == name[at - 1] };
                    reached[at] = reached[at - 1] && same;
                }
                reached[0] = false;
            }
        }
    }
    reached[name.len()]
}

/// Writes the answers to LIST.
pub(super) fn write_list(folders: &[FolderListing], pattern: &str, out: &mut Vec<u8>) {
    let parents = parents(folders.iter().map(|folder| folder.name.as_str()));
    for folder in folders.iter().filter(|folder| matches(pattern, &folder.name)) {
        let mut attributes = Vec::new();
        if !folder.selectable {
            attributes.push("\\Noselect");
        }
        let has_children = parents.contains(folder.name.as_str());
        attributes.push(if has_children { "\\HasChildren" } else { "\\HasNoChildren" });
        attributes.extend(folder.special_use.map(attribute_of));
        write_line("LIST", &attributes, &folder.name, out);
    }
}

/// Writes the answers to LSUB. With `%`, a name that is only on the way to a subscribed one is told as `\Noselect`.
pub(super) fn write_subscribed(folders: &[FolderListing], pattern: &str, out: &mut Vec<u8>) {
    let mut found: BTreeMap<&str, bool> = BTreeMap::new();
    for folder in folders.iter().filter(|folder| folder.subscribed) {
        if matches(pattern, &folder.name) {
            found.insert(&folder.name, true);
        } else if pattern.contains('%') {
            for ancestor in ancestors(&folder.name).filter(|ancestor| matches(pattern, ancestor)) {
                found.entry(ancestor).or_insert(false);
            }
        }
    }
    for (name, subscribed) in found {
        let attributes: &[&str] = if subscribed { &[] } else { &["\\Noselect"] };
        write_line("LSUB", attributes, name, out);
    }
}

fn ancestors(name: &str) -> impl Iterator<Item = &str> {
    name.match_indices(SEPARATOR).filter_map(|(at, _)| name.get(..at))
}

fn parents<'a>(names: impl Iterator<Item = &'a str>) -> BTreeSet<&'a str> {
    names.flat_map(ancestors).collect()
}

fn attribute_of(special_use: SpecialUse) -> &'static str {
    match special_use {
        SpecialUse::Archive => "\\Archive",
        SpecialUse::Drafts => "\\Drafts",
        SpecialUse::Junk => "\\Junk",
        SpecialUse::Sent => "\\Sent",
        SpecialUse::Trash => "\\Trash",
    }
}

fn write_line(command: &str, attributes: &[&str], name: &str, out: &mut Vec<u8>) {
    out.extend_from_slice(format!("* {command} ({}) \"{SEPARATOR}\" ", attributes.join(" ")).as_bytes());
    response::folder_name(name, out);
    out.extend_from_slice(b"\r\n");
}

/// Writes the answer to an empty pattern: the separator, and no folder.
pub(super) fn write_separator(command: &str, out: &mut Vec<u8>) {
    write_line(command, &["\\Noselect"], "", out);
}

#[cfg(test)]
mod tests {
    //! Goal: patterns match what RFC 3501 §6.3.8 says. Method: against a matcher that follows the definition by
    //! trying everything, over random short patterns and names; then whole answers by hand.
    use super::*;
    use proptest::prelude::*;

    fn naive(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern.split_first(), name.split_first()) {
            (None, None) => true,
            (None, Some(_)) => false,
            (Some((b'*', rest)), _) => (0..=name.len()).any(|taken| naive(rest, &name[taken..])),
            (Some((b'%', rest)), _) => {
                let level = name.iter().position(|&octet| octet == b'/').unwrap_or(name.len());
                (0..=level).any(|taken| naive(rest, &name[taken..]))
            }
            (Some((wanted, rest)), Some((got, after))) => wanted == got && naive(rest, after),
            (Some(_), None) => false,
        }
    }

    proptest! {
        #[test]
        fn as_the_naive_matcher(pattern in "[ab/*%]{0,8}", name in "[ab/]{0,8}") {
            prop_assert_eq!(matches(&pattern, &name), naive(pattern.as_bytes(), name.as_bytes()));
        }
    }

    #[test]
    fn inbox_in_any_case() {
        for pattern in ["inbox", "InBox", "in%", "*", "%", "i*X"] {
            assert!(matches(pattern, "INBOX"), "{pattern}");
        }
        assert!(!matches("inbox", "Inboxes"));
        assert!(!matches("sent", "Sent"));
    }

    fn folder(name: &str, special_use: Option<SpecialUse>, subscribed: bool, selectable: bool) -> FolderListing {
        FolderListing { name: name.to_owned(), special_use, subscribed, selectable }
    }

    #[test]
    fn answers() {
        let folders = [
            folder("INBOX", None, true, true),
            folder("Sent", Some(SpecialUse::Sent), false, true),
            folder("a", None, false, false),
            folder("a/b", None, true, true),
            folder("a/b/ü", None, true, true),
        ];
        let text = |write: &dyn Fn(&mut Vec<u8>)| {
            let mut out = Vec::new();
            write(&mut out);
            String::from_utf8(out).unwrap()
        };
        assert_eq!(
            text(&|out| write_list(&folders, "%", out)),
            "* LIST (\\HasNoChildren) \"/\" \"INBOX\"\r\n* LIST (\\HasNoChildren \\Sent) \"/\" \"Sent\"\r\n\
             * LIST (\\Noselect \\HasChildren) \"/\" \"a\"\r\n"
        );
        assert_eq!(text(&|out| write_list(&folders, "a/*/*", out)), "* LIST (\\HasNoChildren) \"/\" \"a/b/&APw-\"\r\n");
        assert_eq!(
            text(&|out| write_subscribed(&folders, "%", out)),
            "* LSUB () \"/\" \"INBOX\"\r\n* LSUB (\\Noselect) \"/\" \"a\"\r\n"
        );
        assert_eq!(
            text(&|out| write_subscribed(&folders, "*", out)),
            "* LSUB () \"/\" \"INBOX\"\r\n* LSUB () \"/\" \"a/b\"\r\n* LSUB () \"/\" \"a/b/&APw-\"\r\n"
        );
        assert_eq!(text(&|out| write_separator("LIST", out)), "* LIST (\\Noselect) \"/\" \"\"\r\n");
    }
}
