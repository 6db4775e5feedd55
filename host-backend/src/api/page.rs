//! Lists: keyset pages with opaque cursors. Refuses a cursor of another list and limits
//! out of bounds; no page costs more the further back it lies.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::Serialize;
use utoipa::ToSchema;

use super::problem::Problem;
use crate::store::model::{self, PageOf};

pub const DEFAULT_LIMIT: u32 = 100;
pub const MAX_LIMIT: u32 = model::MAX_PAGE;

/// One page of a list.
#[derive(Debug, Serialize, ToSchema)]
pub struct Page<T: ToSchema> {
    pub items: Vec<T>,
    /// Send it as `after` to get the next page; null at the end.
    pub next: Option<String>,
}

/// Which list a cursor belongs to.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum List {
    Agents,
    Telemetry,
    Commands,
    Invocations,
    Tokens,
    Audit,
}

impl List {
    fn tag(self) -> &'static str {
        match self {
            Self::Agents => "a:",
            Self::Telemetry => "t:",
            Self::Commands => "c:",
            Self::Invocations => "i:",
            Self::Tokens => "k:",
            Self::Audit => "l:",
        }
    }

    /// What the client asked for.
    ///
    /// # Errors
    /// When the limit is out of bounds or another list gave the cursor.
    pub fn page(self, limit: Option<u32>, after: Option<&str>) -> Result<PageOf, Problem> {
        let limit = limit.unwrap_or(DEFAULT_LIMIT);
        if !(1..=MAX_LIMIT).contains(&limit) {
            return Err(Problem::invalid(format!("limit {limit} is not between 1 and {MAX_LIMIT}")));
        }
        let after = after.map(|after| self.open(after).ok_or_else(Problem::wrong_cursor)).transpose()?;
        Ok(PageOf { after, limit })
    }

    /// What the client gets.
    pub fn answer<T, U: ToSchema>(self, page: model::Page<T>, item: impl FnMut(T) -> U) -> Page<U> {
        Page { items: page.items.into_iter().map(item).collect(), next: page.next.map(|key| self.seal(&key)) }
    }

    /// The store's cursor in the client's form.
    pub fn seal(self, key: &str) -> String {
        URL_SAFE_NO_PAD.encode(format!("{}{key}", self.tag()))
    }

    fn open(self, after: &str) -> Option<String> {
        let text = String::from_utf8(URL_SAFE_NO_PAD.decode(after).ok()?).ok()?;
        text.strip_prefix(self.tag()).map(str::to_owned)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_is_good_for_its_own_list_only() {
        let cursor = List::Audit.seal("42");
        assert_eq!(List::Audit.page(None, Some(&cursor)).unwrap(), PageOf { after: Some("42".into()), limit: 100 });
        assert!(List::Agents.page(None, Some(&cursor)).is_err());
        assert!(List::Audit.page(None, Some("42")).is_err());
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(List::Agents.page(Some(1_000), None).unwrap().limit, 1_000);
        assert!(List::Agents.page(Some(0), None).is_err() && List::Agents.page(Some(1_001), None).is_err());
    }
}
