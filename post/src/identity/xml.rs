//! The small, strict part of XML that identity blocks are written in: elements with attributes, nothing else.
//!
//! The published design describes a user in XML; a signed block from a stranger is no place for the rest of that
//! language. There is no text between elements but white space, no comment, no processing instruction after the
//! declaration, no document type, no namespace, and no entity but the five predefined. Everything is bounded
//! before it is kept. Whatever else is in the input is an error, never skipped.

use crate::limits::{IDENTITY_BYTES_MAX, XML_ATTRIBUTES_MAX, XML_DEPTH_MAX, XML_ELEMENTS_MAX};
use std::borrow::Cow;

const DECLARATION: &str = r#"<?xml version="1.0" encoding="UTF-8"?>"#;

/// The input is not of the accepted form, or over a bound.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct NotAccepted;

/// One element.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Element<'a> {
    pub(crate) name: &'a str,
    attributes: Vec<(&'a str, Cow<'a, str>)>,
    pub(crate) children: Vec<Element<'a>>,
}

impl<'a> Element<'a> {
    /// An element without attributes or children, to be written.
    pub(crate) fn new(name: &'a str) -> Element<'a> {
        Element { name, attributes: Vec::new(), children: Vec::new() }
    }

    /// The element with one more attribute.
    pub(crate) fn with(mut self, name: &'a str, value: impl Into<Cow<'a, str>>) -> Element<'a> {
        self.attributes.push((name, value.into()));
        self
    }

    /// An attribute's value.
    pub(crate) fn get(&self, name: &str) -> Option<&str> {
        self.attributes.iter().find(|(key, _)| *key == name).map(|(_, value)| value.as_ref())
    }

    /// The children of this name.
    pub(crate) fn all<'b>(&'b self, name: &'b str) -> impl Iterator<Item = &'b Element<'a>> {
        self.children.iter().filter(move |child| child.name == name)
    }
}

/// Writes a document with this root.
pub(crate) fn write(root: &Element<'_>) -> String {
    let mut text = String::from(DECLARATION);
    write_element(root, 0, &mut text);
    text.push('\n');
    text
}

/// Reads a document.
pub(crate) fn read(bytes: &[u8]) -> Result<Element<'_>, NotAccepted> {
    if bytes.len() > IDENTITY_BYTES_MAX {
        return Err(NotAccepted);
    }
    let text = std::str::from_utf8(bytes).map_err(|_| NotAccepted)?;
    let mut reader = Reader { rest: text.strip_prefix(DECLARATION).unwrap_or(text), elements: 0 };
    reader.skip_space();
    let root = reader.element(XML_DEPTH_MAX)?;
    reader.skip_space();
    if reader.rest.is_empty() { Ok(root) } else { Err(NotAccepted) }
}

fn write_element(element: &Element<'_>, depth: usize, text: &mut String) {
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
    text.push('<');
    text.push_str(element.name);
    for (name, value) in &element.attributes {
        text.push(' ');
        text.push_str(name);
        text.push_str("=\"");
        escape(value, text);
        text.push('"');
    }
    if element.children.is_empty() {
        text.push_str("/>");
        return;
    }
    text.push('>');
    element.children.iter().for_each(|child| write_element(child, depth + 1, text));
    text.push('\n');
    text.push_str(&"  ".repeat(depth));
    text.push_str("</");
    text.push_str(element.name);
    text.push('>');
}

fn escape(value: &str, text: &mut String) {
    for character in value.chars() {
        match character {
            '<' => text.push_str("&lt;"),
            '>' => text.push_str("&gt;"),
            '&' => text.push_str("&amp;"),
            '"' => text.push_str("&quot;"),
            '\'' => text.push_str("&apos;"),
            other => text.push(other),
        }
    }
}

fn unescape(value: &str) -> Result<Cow<'_, str>, NotAccepted> {
    // Line ends and tabs in a value are normalised by other readers: refused, so that all read the same.
    if value.contains('<') || value.chars().any(char::is_control) {
        return Err(NotAccepted);
    }
    if !value.contains('&') {
        return Ok(Cow::Borrowed(value));
    }
    let mut plain = String::with_capacity(value.len());
    let mut pieces = value.split('&');
    plain.push_str(pieces.next().unwrap_or_default());
    for piece in pieces {
        let (entity, rest) = piece.split_once(';').ok_or(NotAccepted)?;
        plain.push(match entity {
            "lt" => '<',
            "gt" => '>',
            "amp" => '&',
            "quot" => '"',
            "apos" => '\'',
            _ => return Err(NotAccepted),
        });
        plain.push_str(rest);
    }
    Ok(Cow::Owned(plain))
}

struct Reader<'a> {
    rest: &'a str,
    elements: usize,
}

impl<'a> Reader<'a> {
    fn element(&mut self, depth_left: usize) -> Result<Element<'a>, NotAccepted> {
        self.elements += 1;
        if depth_left == 0 || self.elements > XML_ELEMENTS_MAX {
            return Err(NotAccepted);
        }
        self.take("<")?;
        let mut element = Element::new(self.name()?);
        let is_empty = self.attributes(&mut element)?;
        if is_empty {
            return Ok(element);
        }
        loop {
            self.skip_space();
            if self.rest.starts_with("</") {
                break;
            }
            element.children.push(self.element(depth_left - 1)?);
        }
        self.take("</")?;
        self.take(element.name)?;
        self.skip_space();
        self.take(">")?;
        Ok(element)
    }

    /// Reads attributes to the end of the tag; whether the element ends there too.
    fn attributes(&mut self, element: &mut Element<'a>) -> Result<bool, NotAccepted> {
        loop {
            let has_space = self.skip_space();
            if self.rest.starts_with("/>") {
                return self.take("/>").map(|()| true);
            }
            if self.rest.starts_with('>') {
                return self.take(">").map(|()| false);
            }
            let name = self.name()?;
            if !has_space || element.attributes.len() == XML_ATTRIBUTES_MAX || element.get(name).is_some() {
                return Err(NotAccepted);
            }
            self.take("=\"")?;
            let (value, rest) = self.rest.split_once('"').ok_or(NotAccepted)?;
            element.attributes.push((name, unescape(value)?));
            self.rest = rest;
        }
    }

    fn name(&mut self) -> Result<&'a str, NotAccepted> {
        let is_in_name = |c: char| c.is_ascii_alphanumeric() || c == '-' || c == '_';
        let end = self.rest.find(|c| !is_in_name(c)).unwrap_or(self.rest.len());
        let (name, rest) = self.rest.split_at(end);
        if !name.starts_with(|c: char| c.is_ascii_alphabetic()) {
            return Err(NotAccepted);
        }
        self.rest = rest;
        Ok(name)
    }

    fn take(&mut self, expected: &str) -> Result<(), NotAccepted> {
        self.rest = self.rest.strip_prefix(expected).ok_or(NotAccepted)?;
        Ok(())
    }

    fn skip_space(&mut self) -> bool {
        let trimmed = self.rest.trim_start_matches([' ', '\t', '\r', '\n']);
        let has_space = trimmed.len() < self.rest.len();
        self.rest = trimmed;
        has_space
    }
}

#[cfg(test)]
mod tests {
    //! Goal: what is written reads back, and nothing outside of the small language is taken. Method: random trees,
    //! examples of every refused construct, and random damage.
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn only_elements_and_attributes_are_taken() {
        let read_str = |text: &'static str| read(text.as_bytes());
        let root =
            read_str("<?xml version=\"1.0\" encoding=\"UTF-8\"?>\n<a b=\"&lt;1&amp;\" >\n<c/><c d=\"\"></c ></a>\n");
        let expected = Element {
            children: vec![Element::new("c"), Element::new("c").with("d", "")],
            ..Element::new("a").with("b", "<1&")
        };
        assert_eq!(root, Ok(expected));
        for refused in [
            "",
            "<a>",
            "<a/><b/>",
            "<a>text</a>",
            "<a><!-- --></a>",
            "<!DOCTYPE a><a/>",
            "<a><![CDATA[x]]></a>",
            "<a b='c'/>",
            "<a b=\"1\" b=\"2\"/>",
            "<a b=\"1\"c=\"2\"/>",
            "<a b=\"&x;\"/>",
            "<a b=\"&#65;\"/>",
            "<a b=\"<\"/>",
            "<a b=\"\n\"/>",
            "<a></b>",
            "<1/>",
            "<a:b/>",
            "<a b/>",
            "</a>",
            "<a/>x",
            "<?pi?><a/>",
            "<a><b><c><d><e/></d></c></b></a>",
        ] {
            assert_eq!(read_str(refused), Err(NotAccepted), "{refused}");
        }
        let many = format!("<a>{}</a>", "<b/>".repeat(XML_ELEMENTS_MAX));
        assert_eq!(read(many.as_bytes()), Err(NotAccepted));
        let attributes: String = (0..=XML_ATTRIBUTES_MAX).map(|i| format!(" a{i}=\"\"")).collect();
        assert_eq!(read(format!("<a{attributes}/>").as_bytes()), Err(NotAccepted));
    }

    proptest! {
        #[test]
        fn what_is_written_reads_back(values in proptest::collection::vec("[^\\p{Cc}]{0,12}", 0..12)) {
            let child = |value: &String| Element::new("child").with("value", value.clone());
            let root = Element { children: values.iter().map(child).collect(), ..Element::new("root") };
            let text = write(&root);
            prop_assert_eq!(read(text.as_bytes()), Ok(root));
        }

        #[test]
        fn damage_never_panics(text in "[<>/a= \"&;?!x\\n-]{0,80}", bytes: Vec<u8>) {
            let _ = read(text.as_bytes());
            let _ = read(&bytes);
        }
    }
}
