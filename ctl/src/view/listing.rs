//! Lists in the form that `--format` asks for: a table, a template's lines, or JSON lines.

use super::table::align;
use crate::template::{Lookup, Template, TemplateError, Value};

/// A column of a table: the field it shows, and its heading.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Column {
    pub(crate) field: &'static str,
    pub(crate) heading: &'static str,
}

/// How to show a list of records.
#[derive(Debug)]
pub(crate) enum Listing {
    Json,
    Lines(Template),
    Table { template: Template, headings: Value },
}

impl Listing {
    /// `format` as the user gave it, or the `default` template's table. `columns` are the headings
    /// of every field that a table can have.
    pub(crate) fn new(
        format: Option<&str>,
        default: &str,
        columns: &[Column],
    ) -> Result<Self, TemplateError> {
        let format = match format {
            None | Some("" | "table") => default,
            Some("json" | "{{json .}}") => return Ok(Self::Json),
            Some(format) => format,
        };
        let unescaped = format.replace("\\t", "\t").replace("\\n", "\n");
        let Some(template) = unescaped.strip_prefix("table ") else {
            return Ok(Self::Lines(Template::parse(&unescaped)?));
        };
        let headings = columns
            .iter()
            .map(|column| match column.field {
                "Label" => (column.field, Value::Lookup(Lookup::Heading)),
                field => (field, column.heading.into()),
            })
            .collect();
        Ok(Self::Table {
            template: Template::parse(template.trim())?,
            headings: Value::Record(headings),
        })
    }

    /// The whole list, each line with its end.
    pub(crate) fn render(&self, rows: &[Value]) -> Result<String, TemplateError> {
        match self {
            Self::Json => Ok(rows.iter().map(|row| row.json() + "\n").collect()),
            Self::Lines(template) => {
                rows.iter().map(|row| Ok(template.render(row)? + "\n")).collect()
            }
            Self::Table { template, headings } => {
                let lines = std::iter::once(headings).chain(rows).map(|row| template.render(row));
                Ok(align(&lines.collect::<Result<Vec<_>, _>>()?))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::record;

    const COLUMNS: [Column; 3] = [
        Column { field: "ID", heading: "CONTAINER ID" },
        Column { field: "Names", heading: "NAMES" },
        Column { field: "Label", heading: "" },
    ];

    fn shown(format: Option<&str>) -> String {
        let label = Lookup::In([("tier".to_owned(), "front".to_owned())].into());
        let row =
            record([("ID", "1".into()), ("Names", "web".into()), ("Label", Value::Lookup(label))]);
        let listing = Listing::new(format, "table {{.ID}}\\t{{.Names}}", &COLUMNS).unwrap();
        listing.render(&[row]).unwrap()
    }

    #[test]
    fn a_list_in_every_form() {
        let table = "CONTAINER ID   NAMES\n1              web\n";
        for (format, want) in [
            (None, table),
            (Some("table"), table),
            (Some(""), table),
            (Some("json"), "{\"ID\":\"1\",\"Names\":\"web\"}\n"),
            (Some("{{json .}}"), "{\"ID\":\"1\",\"Names\":\"web\"}\n"),
            (Some("{{.ID}}"), "1\n"),
            (Some("{{.ID}}\\t{{.Names}}"), "1\tweb\n"),
            (Some("table {{.Names}}\\t{{.Label \"tier\"}}"), "NAMES     TIER\nweb       front\n"),
            (Some("table {{upper .Names}}"), "NAMES\nWEB\n"),
        ] {
            assert_eq!(shown(format), want, "{format:?}");
        }
    }

    #[test]
    fn a_wrong_field_is_an_error() {
        let listing = Listing::new(Some("{{.Id}}"), "", &COLUMNS).unwrap();
        let error = listing.render(&[record([("ID", "1".into())])]).unwrap_err();
        assert!(error.to_string().contains(".Id"), "{error}");
    }
}
