//! Columns in line, as Go's tabwriter sets them for docker: at least ten wide, three apart.

const MIN_WIDTH: usize = 10;
const PADDING: usize = 3;

/// Lines of tab-separated cells to aligned lines. A line's last cell is not padded.
pub(crate) fn align(lines: &[String]) -> String {
    let mut widths: Vec<usize> = Vec::new();
    for line in lines {
        let cells: Vec<&str> = line.split('\t').collect();
        for (column, cell) in cells.iter().take(cells.len() - 1).enumerate() {
            let width = (cell.chars().count() + PADDING).max(MIN_WIDTH);
            match widths.get_mut(column) {
                Some(known) => *known = width.max(*known),
                None => widths.push(width),
            }
        }
    }
    let mut out = String::new();
    for line in lines {
        let mut cells =
            line.split('\t').zip(widths.iter().map(Some).chain(std::iter::repeat(None)));
        let mut cell = cells.next();
        while let Some((text, width)) = cell {
            out.push_str(text);
            cell = cells.next();
            if let (Some(_), Some(width)) = (&cell, width) {
                out.push_str(&" ".repeat(width - text.chars().count()));
            }
        }
        out.push('\n');
    }
    out
}

#[cfg(test)]
mod tests {
    use super::align;

    #[test]
    fn columns_are_as_wide_as_their_widest_cell() {
        let lines = ["ID\tCOMMAND\tNAMES", "1\t\"ünï…\" and more\tweb", "22\t\tdb"];
        let want = "\
ID        COMMAND           NAMES
1         \"ünï…\" and more   web
22                          db
";
        assert_eq!(align(&lines.map(str::to_owned)), want);
        assert_eq!(align(&[]), "");
        assert_eq!(align(&["a\tb".to_owned(), "c".to_owned()]), "a         b\nc\n");
    }
}
