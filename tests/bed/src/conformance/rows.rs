//! The rows of `docs/CONFORMANCE.md`, and which row a test belongs to.

/// A row.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub struct ConformanceRow {
    /// `C02`.
    pub id: String,
    /// Whether a real Xen can be brought to it, so that a test there is owed.
    pub real: bool,
    /// What is done.
    pub stimulus: String,
    /// What Xen answers.
    pub expected: String,
}

impl ConformanceRow {
    /// Returns the hypercall that the row is about, as a trace names it.
    pub fn operation(&self) -> &'static str {
        let named = |name: &&str| self.stimulus.contains(*name);
        let others = ["decrease_reservation", "populate_physmap", "get_mem_type"];
        others.into_iter().find(named).unwrap_or("exchange")
    }
}

/// Reads the table: each line whose first cell is an anchor and an id, `<a id="C02"></a>C02`.
pub fn parse(text: &str) -> Vec<ConformanceRow> {
    text.lines().filter_map(row).collect()
}

fn row(line: &str) -> Option<ConformanceRow> {
    let mut cells = line.strip_prefix('|')?.split('|').map(str::trim);
    let id = cells.next().and_then(anchored)?;
    let real = cells.next()? == "R";
    let stimulus = plain(cells.next()?);
    let expected = plain(cells.next()?);
    Some(ConformanceRow { id: id.to_owned(), real, stimulus, expected })
}

/// Returns the text of a cell without its marks: `` `a` of [b](#c) `` is `a of b`.
fn plain(cell: &str) -> String {
    let mut parts = cell.split("](");
    let mut text = parts.next().unwrap_or_default().to_owned();
    for part in parts {
        text.push_str(part.split_once(')').map_or(part, |(_, rest)| rest));
    }
    text.replace(['`', '['], "")
}

/// The id of a cell that begins with the anchor of the same id.
fn anchored(cell: &str) -> Option<&str> {
    let (anchor, id) = cell.strip_prefix("<a id=\"")?.split_once("\"></a>")?;
    (is_id(id) && anchor == id).then_some(id)
}

fn is_id(word: &str) -> bool {
    word.strip_prefix('C')
        .is_some_and(|digits| digits.len() == 2 && digits.bytes().all(|b| b.is_ascii_digit()))
}

/// The rows that a test is named after: `c15-unknown-domain`, `tests::c15_c16_other_domains`.
pub fn ids_of(test: &str) -> Vec<String> {
    let name = test.rsplit("::").next().unwrap_or(test);
    name.split(['-', '_']).map(str::to_ascii_uppercase).take_while(|word| is_id(word)).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_are_told_from_the_text_around_them() {
        let text = "# C01\n| id | | stimulus |\n|---|---|---|\n\
                    | <a id=\"C01\"></a>C01 |  | a `b` | c |\n\
                    | <a id=\"C02\"></a>C02 | R | `HVMOP_get_mem_type` | as [C01](#C01) says |\n\
                    | C03 | R | no anchor | f |\n\
                    | <a id=\"C04\"></a>C05 | R | an anchor of another row | g |\nCxy | R |";
        let row = |id: &str, real, stimulus: &str, expected: &str| ConformanceRow {
            id: id.to_owned(),
            real,
            stimulus: stimulus.to_owned(),
            expected: expected.to_owned(),
        };
        let rows = parse(text);
        let second = row("C02", true, "HVMOP_get_mem_type", "as C01 says");
        assert_eq!(rows, [row("C01", false, "a b", "c"), second]);
        assert_eq!([rows[0].operation(), rows[1].operation()], ["exchange", "get_mem_type"]);
    }

    #[test]
    fn a_test_may_be_of_several_rows() {
        assert_eq!(ids_of("c02-order-above-limit"), ["C02"]);
        assert_eq!(ids_of("tests::c24_c35_a_rollback_is_no_tear"), ["C24", "C35"]);
        assert_eq!(ids_of("count_of_c24"), Vec::<String>::new());
        assert_eq!(ids_of("c123-no"), Vec::<String>::new());
    }

    #[test]
    fn the_table_of_this_repository_is_read_whole() {
        let path = concat!(env!("CARGO_MANIFEST_DIR"), "/../../docs/CONFORMANCE.md");
        let rows = parse(&std::fs::read_to_string(path).unwrap());
        let mut ids: Vec<&str> = rows.iter().map(|row| row.id.as_str()).collect();
        assert!(ids.len() > 40, "{ids:?}");
        assert!(ids.is_sorted(), "{ids:?}");
        ids.dedup();
        assert_eq!(ids.len(), rows.len(), "an id stands there twice");
    }
}
