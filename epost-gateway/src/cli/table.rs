//! Plain tables for a terminal: columns as wide as their widest cell, two spaces between, numbers to the right.

/// Renders rows under their headings.
pub fn render(headings: &[&str], rows: &[Vec<String>]) -> String {
    assert!(rows.iter().all(|row| row.len() == headings.len()));
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row[column].chars().count());
        cells.chain([headings[column].chars().count()]).max().unwrap_or(0)
    };
    let is_number = |column: usize| {
        let is_numeric = |cell: &str| {
            cell.is_empty() || cell == "-" || cell.split(' ').next().is_some_and(|word| word.parse::<f64>().is_ok())
        };
        rows.iter().all(|row| is_numeric(&row[column])) && !rows.is_empty()
    };
    let columns: Vec<(usize, bool)> = (0..headings.len()).map(|column| (width(column), is_number(column))).collect();
    let line = |cells: Vec<&str>| {
        let padded = cells.iter().zip(&columns).map(|(cell, &(width, is_number))| {
            if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
        });
        padded.collect::<Vec<_>>().join("  ").trim_end().to_owned() + "\n"
    };
    let mut out = line(headings.to_vec());
    rows.iter().for_each(|row| out += &line(row.iter().map(String::as_str).collect()));
    out
}

/// A count of things whose plural has an s.
pub fn count(count: usize, thing: &str) -> String {
    if count == 1 { format!("1 {thing}") } else { format!("{count} {thing}s") }
}

/// A time for a person, to the unit that matters.
pub fn duration(seconds: u64) -> String {
    match seconds {
        0..120 => format!("{seconds} s"),
        120..7_200 => format!("{} min", seconds.div_ceil(60)),
        7_200..172_800 => format!("{} h", seconds.div_ceil(3_600)),
        _ => format!("{} days", seconds.div_ceil(86_400)),
    }
}

/// A count of bytes for a person.
pub fn bytes(count: u64) -> String {
    let units = ["B", "KiB", "MiB", "GiB", "TiB"];
    let mut size = count as f64;
    let mut unit = 0;
    while size >= 1024.0 && unit + 1 < units.len() {
        size /= 1024.0;
        unit += 1;
    }
    if unit == 0 { format!("{count} B") } else { format!("{size:.1} {}", units[unit]) }
}

#[cfg(test)]
mod tests {
    //! Goal: aligned and without trailing spaces. Method: by hand.
    use super::*;

    #[test]
    fn aligned() {
        let rows = vec![vec!["node1".to_owned(), "7".to_owned()], vec!["ä".to_owned(), "123".to_owned()]];
        assert_eq!(render(&["node", "objects"], &rows), "node   objects\nnode1        7\nä          123\n");
        assert_eq!(render(&["a", "b"], &[vec!["x".into(), "y".into()]]), "a  b\nx  y\n");
    }

    #[test]
    fn counts() {
        assert_eq!([0, 1, 2].map(|number| count(number, "node")), ["0 nodes", "1 node", "2 nodes"]);
        let said = [0, 119, 120, 121, 7_199, 7_201, 172_800].map(duration);
        assert_eq!(said, ["0 s", "119 s", "2 min", "3 min", "120 min", "3 h", "2 days"]);
    }

    #[test]
    fn sizes() {
        assert_eq!(bytes(0), "0 B");
        assert_eq!(bytes(1536), "1.5 KiB");
        assert_eq!(bytes(u64::MAX), "16777216.0 TiB");
    }
}
