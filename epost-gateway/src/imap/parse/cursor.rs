//! The words of the grammar: atoms, strings, numbers, names.
//!
//! A [`Cursor`] walks over one framed command. Short literals stand in it as they came, `{3}` CRLF and three
//! octets; only the message of an APPEND is kept apart by the framer.

use super::{ParseError, Result};
use crate::imap::command::{FlagName, FolderName};
use crate::imap::limits;
use crate::imap::sequence::{SequenceRange, SequenceSet};
use crate::imap::utf7;
use post::mail::view::Flags;
use std::borrow::Cow;

/// A place in a framed command.
pub(super) struct Cursor<'a> {
    input: &'a [u8],
    at: usize,
}

/// `ATOM-CHAR`: printable ASCII but the specials.
pub(in crate::imap) fn is_atom_octet(octet: u8) -> bool {
    matches!(octet, 0x21..=0x7e) && !matches!(octet, b'(' | b')' | b'{' | b'%' | b'*' | b'"' | b'\\' | b']')
}

/// `ASTRING-CHAR`.
pub(super) fn is_astring_octet(octet: u8) -> bool {
    is_atom_octet(octet) || octet == b']'
}

fn is_list_octet(octet: u8) -> bool {
    is_astring_octet(octet) || matches!(octet, b'%' | b'*')
}

impl<'a> Cursor<'a> {
    pub(super) fn new(input: &'a [u8]) -> Self {
        Self { input, at: 0 }
    }

    pub(super) fn fail<T>(&self, expected: &'static str) -> Result<T> {
        Err(ParseError::Syntax { expected, at: self.at })
    }

    pub(super) fn rest(&self) -> &'a [u8] {
        self.input.get(self.at..).unwrap_or_default()
    }

    pub(super) fn peek(&self) -> Option<u8> {
        self.input.get(self.at).copied()
    }

    /// Takes one octet if it is this one.
    pub(super) fn accept(&mut self, octet: u8) -> bool {
        let there = self.peek() == Some(octet);
        self.at += usize::from(there);
        there
    }

    pub(super) fn expect(&mut self, octet: u8, name: &'static str) -> Result<()> {
        if self.accept(octet) { Ok(()) } else { self.fail(name) }
    }

    pub(super) fn space(&mut self) -> Result<()> {
        self.expect(b' ', "a space")
    }

    pub(super) fn end(&self) -> Result<()> {
        if self.at == self.input.len() { Ok(()) } else { self.fail("the end of the command") }
    }

    pub(super) fn take_while(&mut self, wanted: impl Fn(u8) -> bool) -> &'a [u8] {
        let rest = self.rest();
        let length = rest.iter().position(|&octet| !wanted(octet)).unwrap_or(rest.len());
        self.at += length;
        rest.get(..length).unwrap_or_default()
    }

    fn some_while(&mut self, name: &'static str, wanted: impl Fn(u8) -> bool) -> Result<&'a str> {
        let start = self.at;
        let word = self.take_while(wanted);
        match std::str::from_utf8(word) {
            Ok(word) if !word.is_empty() => Ok(word),
            _ => {
                self.at = start;
                self.fail(name)
            }
        }
    }

    pub(super) fn atom(&mut self) -> Result<&'a str> {
        self.some_while("an atom", is_atom_octet)
    }

    /// An atom in capitals.
    pub(super) fn keyword(&mut self) -> Result<String> {
        Ok(self.atom()?.to_ascii_uppercase())
    }

    /// Takes this word if it is next, whatever its case. The caller looks at what follows it.
    pub(super) fn accept_word(&mut self, word: &str) -> bool {
        let there = self.rest().get(..word.len()).is_some_and(|next| next.eq_ignore_ascii_case(word.as_bytes()));
        self.at += if there { word.len() } else { 0 };
        there
    }

    pub(super) fn number(&mut self) -> Result<u32> {
        let start = self.at;
        let number = self.some_while("a number", |octet| octet.is_ascii_digit())?.parse();
        number.or_else(|_| {
            self.at = start;
            self.fail("a number below 2^32")
        })
    }

    pub(super) fn number_from_one(&mut self) -> Result<u32> {
        let start = self.at;
        match self.number()? {
            0 => {
                self.at = start;
                self.fail("a number from 1")
            }
            number => Ok(number),
        }
    }

    /// A quoted string. Eight-bit octets are let through: clients write UTF-8 there, and what may not be UTF-8 is
    /// checked where text is wanted.
    fn quoted(&mut self) -> Result<Cow<'a, [u8]>> {
        self.expect(b'"', "a quoted string")?;
        let plain = self.take_while(|octet| !matches!(octet, b'"' | b'\\' | 0 | b'\r' | b'\n'));
        if self.accept(b'"') {
            return Ok(Cow::Borrowed(plain));
        }
        let mut unescaped = plain.to_vec();
        loop {
            match self.peek() {
                Some(b'"') => {
                    self.at += 1;
                    return Ok(Cow::Owned(unescaped));
                }
                Some(b'\\') => {
                    self.at += 1;
                    match self.peek() {
                        Some(octet @ (b'"' | b'\\')) => unescaped.push(octet),
                        _ => return self.fail("an escaped quote or backslash"),
                    }
                    self.at += 1;
                }
                Some(0 | b'\r' | b'\n') | None => return self.fail("the end of a quoted string"),
                Some(octet) => {
                    unescaped.push(octet);
                    self.at += 1;
                }
            }
        }
    }

    /// `{5}` CRLF, or `{5+}` CRLF; returns the number.
    pub(super) fn literal_length(&mut self) -> Result<usize> {
        self.expect(b'{', "a literal")?;
        let length = self.number()?;
        self.accept(b'+');
        self.expect(b'}', "the end of a literal's length")?;
        self.expect(b'\r', "a line's end after a literal's length")?;
        self.expect(b'\n', "a line's end after a literal's length")?;
        Ok(length as usize)
    }

    fn literal(&mut self) -> Result<&'a [u8]> {
        let length = self.literal_length()?;
        let Some(octets) = self.rest().get(..length) else { return self.fail("a whole literal") };
        if octets.contains(&0) {
            return self.fail("a literal without NUL");
        }
        self.at += length;
        Ok(octets)
    }

    pub(super) fn string(&mut self) -> Result<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"') => self.quoted(),
            Some(b'{') => Ok(Cow::Borrowed(self.literal()?)),
            _ => self.fail("a string"),
        }
    }

    pub(super) fn astring(&mut self) -> Result<Cow<'a, [u8]>> {
        match self.peek() {
            Some(b'"' | b'{') => self.string(),
            _ => Ok(Cow::Borrowed(self.some_while("a string", is_astring_octet)?.as_bytes())),
        }
    }

    /// A string that must be UTF-8.
    pub(super) fn text(&mut self) -> Result<String> {
        let start = self.at;
        let octets = self.astring()?.into_owned();
        String::from_utf8(octets).or_else(|_| {
            self.at = start;
            self.fail("UTF-8")
        })
    }

    /// A string or NIL.
    pub(super) fn nstring(&mut self) -> Result<()> {
        if self.accept_word("NIL") { Ok(()) } else { self.string().map(|_| ()) }
    }

    fn decode_name(octets: &[u8], levels_max: usize) -> Result<String> {
        let name = utf7::decode(octets).map_err(ParseError::FolderName)?;
        if name.len() > limits::FOLDER_NAME_BYTES_MAX || name.split('/').count() > levels_max {
            return Err(ParseError::TooMany("octets or levels in a folder name"));
        }
        Ok(name)
    }

    /// A folder name; INBOX, whatever its case, in capitals.
    pub(super) fn folder(&mut self) -> Result<FolderName> {
        // One level more than may exist: CREATE allows a hierarchy separator at the end.
        let name = Self::decode_name(&self.astring()?, limits::FOLDER_LEVELS_MAX + 1)?;
        Ok(capital_inbox(name))
    }

    /// The reference or pattern of LIST.
    pub(super) fn pattern(&mut self) -> Result<String> {
        let octets = match self.peek() {
            Some(b'"' | b'{') => self.string()?,
            _ => Cow::Borrowed(self.some_while("a folder pattern", is_list_octet)?.as_bytes()),
        };
        let pattern = Self::decode_name(&octets, usize::MAX)?;
        if pattern.bytes().filter(|octet| matches!(octet, b'*' | b'%')).count() > limits::WILDCARDS_MAX {
            return Err(ParseError::TooMany("wildcards"));
        }
        Ok(pattern)
    }

    /// Items in parentheses, at least one, between single spaces.
    pub(super) fn parenthesised<T>(
        &mut self,
        at_most: usize,
        of_what: &'static str,
        mut item: impl FnMut(&mut Self) -> Result<T>,
    ) -> Result<Vec<T>> {
        self.expect(b'(', "an opening parenthesis")?;
        let mut items = vec![item(self)?];
        while self.accept(b' ') {
            if items.len() == at_most {
                return Err(ParseError::TooMany(of_what));
            }
            items.push(item(self)?);
        }
        self.expect(b')', "a closing parenthesis")?;
        Ok(items)
    }

    fn sequence_number(&mut self) -> Result<Option<u32>> {
        if self.accept(b'*') { Ok(None) } else { self.number_from_one().map(Some) }
    }

    pub(super) fn sequence_set(&mut self) -> Result<SequenceSet> {
        let mut ranges = Vec::new();
        loop {
            if ranges.len() == limits::SEQUENCE_RANGES_MAX {
                return Err(ParseError::TooMany("ranges in a sequence set"));
            }
            let first = self.sequence_number()?;
            let last = if self.accept(b':') { self.sequence_number()? } else { first };
            ranges.push(SequenceRange { first, last });
            if !self.accept(b',') {
                return Ok(SequenceSet(ranges));
            }
        }
    }

    pub(super) fn flag(&mut self) -> Result<FlagName> {
        if !self.accept(b'\\') {
            let start = self.at;
            let keyword = self.atom()?;
            if keyword.len() > limits::KEYWORD_BYTES_MAX {
                self.at = start;
                return Err(ParseError::TooMany("octets in a keyword"));
            }
            return Ok(FlagName::Keyword(keyword.to_owned()));
        }
        match self.keyword()?.as_str() {
            "SEEN" => Ok(FlagName::Seen),
            "ANSWERED" => Ok(FlagName::Answered),
            "FLAGGED" => Ok(FlagName::Flagged),
            "DELETED" => Ok(FlagName::Deleted),
            "DRAFT" => Ok(FlagName::Draft),
            // \Recent is the server's to set, and RFC 3501 defines no other.
            _ => self.fail("a system flag a client may set"),
        }
    }

    /// Flags in parentheses, perhaps none.
    pub(super) fn flag_list(&mut self) -> Result<Flags> {
        let mut flags = Flags::default();
        if self.rest().starts_with(b"()") {
            self.at += 2;
            return Ok(flags);
        }
        for flag in self.parenthesised(limits::FLAGS_MAX, "flags", Self::flag)? {
            add_flag(&mut flags, flag);
        }
        Ok(flags)
    }

    /// Flags between spaces without parentheses, as STORE also allows.
    pub(super) fn bare_flags(&mut self) -> Result<Flags> {
        let mut flags = Flags::default();
        for _ in 0..limits::FLAGS_MAX {
            add_flag(&mut flags, self.flag()?);
            if !self.accept(b' ') {
                return Ok(flags);
            }
        }
        Err(ParseError::TooMany("flags"))
    }
}

fn add_flag(flags: &mut Flags, flag: FlagName) {
    match flag {
        FlagName::Seen => flags.seen = true,
        FlagName::Answered => flags.answered = true,
        FlagName::Flagged => flags.flagged = true,
        FlagName::Deleted => flags.deleted = true,
        FlagName::Draft => flags.draft = true,
        // Keywords differ not by case; the first spelling stays.
        FlagName::Keyword(keyword) => {
            if !flags.keywords.iter().any(|known| known.eq_ignore_ascii_case(&keyword)) {
                flags.keywords.insert(keyword);
            }
        }
    }
}

/// INBOX, and the first level of a name below it, means the same in any case.
fn capital_inbox(name: String) -> String {
    match name.split_once('/') {
        None if name.eq_ignore_ascii_case("INBOX") => "INBOX".to_owned(),
        Some((first, rest)) if first.eq_ignore_ascii_case("INBOX") => format!("INBOX/{rest}"),
        _ => name,
    }
}
