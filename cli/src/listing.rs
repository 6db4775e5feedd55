//! Lists of the API as tables: the one home of what all list commands do. A column is a
//! header and what of an item stands under it.

use serde_json::Value;

use crate::client::{Client, Query};
use crate::error::{Error, Exit};
use crate::output::{Out, Table, cell, moment};

/// A header, and what of an item stands under it.
pub type Column = (&'static str, Cell);

/// How a cell is read from an item.
#[derive(Debug, Clone, Copy)]
pub enum Cell {
    /// A field as it is.
    Field(&'static str),
    /// A field that is a moment.
    Moment(&'static str),
    By(fn(&Value) -> String),
}

impl Cell {
    fn of(self, item: &Value) -> String {
        match self {
            Self::Field(name) => cell(&item[name]),
            Self::Moment(name) => moment(&item[name]),
            Self::By(read) => read(item),
        }
    }
}

/// The most items of lists that have no `--limit`.
pub const MOST: u32 = 10_000;

/// Parameters that were given.
#[must_use]
pub fn given<'a>(options: &[(&'a str, &Option<String>)]) -> Vec<(&'a str, String)> {
    options.iter().filter_map(|(name, value)| Some((*name, value.as_deref()?.to_owned()))).collect()
}

/// Show up to `limit` items of the list at `path`.
///
/// # Errors
/// The backend's refusal, or that it can't be reached.
pub fn show(
    client: &Client,
    out: &Out,
    path: &str,
    query: Query<'_>,
    limit: u32,
    columns: &[Column],
) -> Result<Exit, Error> {
    out.list(&client.list(path, query, limit as usize)?, |items| table(items, columns))?;
    Ok(Exit::Succeeded)
}

/// `items` under these columns.
#[must_use]
pub fn table(items: &[Value], columns: &[Column]) -> Table {
    let mut table = Table::headed(columns.iter().map(|(header, _)| (*header).to_owned()).collect());
    for item in items {
        table.line(columns.iter().map(|(_, cell)| cell.of(item)).collect());
    }
    table
}

#[cfg(test)]
mod tests {
    use super::*;
    use serde_json::json;

    #[test]
    fn columns_take_fields_moments_and_functions() {
        let columns =
            [("ID", Cell::Field("id")), ("AT", Cell::Moment("when")), ("N", Cell::By(|i| format!("{}!", i["n"])))];
        let items = [json!({ "id": "a", "when": "2031-05-04T10:20:30.123Z", "n": 3 })];
        assert_eq!(table(&items, &columns).to_string(), "ID  AT                    N\na   2031-05-04 10:20:30Z  3!\n");
    }

    #[test]
    fn only_what_was_given_is_asked() {
        assert_eq!(given(&[("a", &None), ("b", &Some("x".into()))]), [("b", "x".to_owned())]);
    }
}
