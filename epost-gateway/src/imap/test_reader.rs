//! A reader of IMAP answers for tests: written apart from everything that writes them, so that it can tell whether
//! what is written can be read.

/// One value of an answer.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) enum Value {
    /// A word outside quotes: an atom, a number, `BODY[...]`, a flag.
    Word(String),
    /// A quoted string or a literal.
    Text(Vec<u8>),
    /// Values in parentheses.
    List(Vec<Value>),
}

impl Value {
    pub(crate) fn list(&self) -> &[Value] {
        match self {
            Self::List(values) => values,
            other => panic!("a list, not {other:?}"),
        }
    }

    pub(crate) fn word(&self) -> &str {
        match self {
            Self::Word(word) => word,
            other => panic!("a word, not {other:?}"),
        }
    }

    pub(crate) fn text(&self) -> &[u8] {
        match self {
            Self::Text(text) => text,
            other => panic!("a string, not {other:?}"),
        }
    }
}

/// Reads values up to the end; panics where the grammar is broken.
pub(crate) fn read(octets: &[u8]) -> Vec<Value> {
    let mut at = 0;
    let values = values(octets, &mut at);
    assert_eq!(at, octets.len(), "unread: {:?}", String::from_utf8_lossy(&octets[at..]));
    values
}

fn values(octets: &[u8], at: &mut usize) -> Vec<Value> {
    let mut found = Vec::new();
    while *at < octets.len() {
        match octets[*at] {
            b' ' => *at += 1,
            b'(' => {
                *at += 1;
                found.push(Value::List(values(octets, at)));
                assert_eq!(octets.get(*at), Some(&b')'), "a list that ends");
                *at += 1;
            }
            b')' => break,
            b'"' => found.push(Value::Text(quoted(octets, at))),
            b'{' => {
                let end = *at + octets[*at..].iter().position(|&octet| octet == b'}').expect("a literal's length");
                let length: usize = std::str::from_utf8(&octets[*at + 1..end]).unwrap().parse().unwrap();
                assert_eq!(&octets[end..end + 3], b"}\r\n");
                found.push(Value::Text(octets[end + 3..end + 3 + length].to_vec()));
                *at = end + 3 + length;
            }
            _ => found.push(Value::Word(word(octets, at))),
        }
    }
    found
}

fn quoted(octets: &[u8], at: &mut usize) -> Vec<u8> {
    let mut text = Vec::new();
    *at += 1;
    loop {
        match octets[*at] {
            b'"' => break,
            b'\\' => *at += 1,
            b'\r' | b'\n' | 0 => panic!("a line end in a quoted string"),
            _ => {}
        }
        text.push(octets[*at]);
        *at += 1;
    }
    *at += 1;
    text
}

fn word(octets: &[u8], at: &mut usize) -> String {
    let start = *at;
    let mut in_brackets = false;
    while let Some(&octet) = octets.get(*at) {
        match octet {
            b'[' => in_brackets = true,
            b']' => in_brackets = false,
            b' ' | b'(' | b')' if !in_brackets => break,
            b'\r' | b'\n' => panic!("a line end in a word"),
            _ => {}
        }
        *at += 1;
    }
    String::from_utf8(octets[start..*at].to_vec()).unwrap()
}
