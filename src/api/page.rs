//! Which part of a list is asked for.

use axum::extract::Query;
use axum::http::Uri;
use homing_protocol::code::ErrorCode;
use homing_protocol::id::EntryId;
use serde::Deserialize;

use super::problem::Problem;

/// Items of a page unless the request says otherwise.
pub(super) const PAGE_ITEMS: usize = 50;
/// Most items of a page: with payloads at their limit, a page has 6.4 MB.
pub(super) const PAGE_ITEMS_MAX: usize = 100;

/// Which part of a list is asked for.
#[derive(Debug, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Page {
    #[serde(default = "page_items")]
    pub(crate) limit: usize,
    pub(super) cursor: Option<String>,
}

fn page_items() -> usize {
    PAGE_ITEMS
}

impl Page {
    pub(crate) fn parse(uri: &Uri) -> Result<Self, Problem> {
        let Query(page) = Query::<Self>::try_from_uri(uri)
            .map_err(|rejection| Problem::new(ErrorCode::BadValue, rejection.body_text()))?;
        if !(1..=PAGE_ITEMS_MAX).contains(&page.limit) {
            return Err(Problem::new(ErrorCode::BadValue, format!("'limit' must be 1 to {PAGE_ITEMS_MAX}"))
                .with_limit("page_items_max", PAGE_ITEMS_MAX as u64));
        }
        Ok(page)
    }

    /// The cursor of a list of entries: the last one of the page before.
    pub(super) fn entry(&self) -> Result<EntryId, Problem> {
        match self.cursor.as_deref() {
            None => Ok(EntryId::MIN),
            Some(cursor) => EntryId::parse(cursor.as_bytes()).map_err(|_| foreign_cursor()),
        }
    }

    /// The cursor of a list that Redis scans.
    pub(super) fn scan(&self) -> Result<u64, Problem> {
        self.cursor.as_deref().map_or(Ok(0), |cursor| cursor.parse().map_err(|_| foreign_cursor()))
    }
}

fn foreign_cursor() -> Problem {
    Problem::new(ErrorCode::BadValue, "'cursor' is not one that this list answered")
}
