//! Lists: keyset pages with opaque cursors. Refuses a cursor of another list and limits
//! out of bounds; no page costs more the further back it lies.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde::{Deserialize, Serialize};
use utoipa::{IntoParams, ToSchema};

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
    Verbs,
    Plugins,
    Rollouts,
    Tokens,
    Audit,
    Plans,
    Approvers,
    Receipts,
    ReceiptKeys,
    Anchors,
}

/// The query of a list without filters.
#[derive(Debug, Deserialize, IntoParams)]
#[serde(deny_unknown_fields)]
#[into_params(parameter_in = Query)]
pub struct PageQuery {
    /// 1 to 1000; 100 if absent.
    #[param(minimum = 1, maximum = 1000)]
    pub limit: Option<u32>,
    /// The `next` of the page before.
    pub after: Option<String>,
}

impl List {
    fn tag(self) -> &'static str {
        match self {
            Self::Agents => "a:",
            Self::Telemetry => "t:",
            Self::Commands => "c:",
            Self::Invocations => "i:",
            Self::Verbs => "v:",
            Self::Plugins => "p:",
            Self::Rollouts => "r:",
            Self::Tokens => "k:",
            Self::Audit => "l:",
            Self::Plans => "d:",
            Self::Approvers => "o:",
            Self::Receipts => "r:",
            Self::ReceiptKeys => "y:",
            Self::Anchors => "n:",
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

    /// A page of a list that is held whole: the items after the one with the cursor's key.
    pub fn of_all<T>(self, all: Vec<T>, page: &PageOf, key: impl Fn(&T) -> &str) -> model::Page<T> {
        let start = match &page.after {
            None => 0,
            // An item that is gone meanwhile: nothing follows it.
            Some(after) => all.iter().position(|item| key(item) == after).map_or(all.len(), |at| at + 1),
        };
        let limit = page.limit() as usize;
        let next = all.get(start + limit).and(all.get(start + limit - 1)).map(|last| key(last).to_owned());
        model::Page { items: all.into_iter().skip(start).take(limit).collect(), next }
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
    fn a_whole_list_is_paged_by_key() {
        let all = || vec!["a", "b", "c"];
        let page = |limit, after: Option<&str>| {
            let page = PageOf { limit, after: after.map(str::to_owned) };
            let model::Page { items, next } = List::Verbs.of_all(all(), &page, |item| item);
            (items, next)
        };
        assert_eq!(page(2, None), (vec!["a", "b"], Some("b".into())));
        assert_eq!(page(2, Some("b")), (vec!["c"], None));
        assert_eq!(page(3, None), (all(), None));
        assert_eq!(page(3, Some("z")), (vec![], None));
    }

    #[test]
    fn limits_are_bounded() {
        assert_eq!(List::Agents.page(Some(1_000), None).unwrap().limit, 1_000);
        assert!(List::Agents.page(Some(0), None).is_err() && List::Agents.page(Some(1_001), None).is_err());
    }
}
