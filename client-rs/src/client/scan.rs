//! Scans: pages of rows, and streams of them.
//!
//! Consistent per key, not a snapshot (DESIGN §6). A page says whether it is `complete`; a stream says so at its end.
//! Shape of a cursor: MessagePack of (scope number, the node's own cursor), as hex text.

use std::collections::VecDeque;
use std::fmt;
use std::pin::Pin;
use std::str::FromStr;
use std::sync::Arc;
use std::task::{Context, Poll, ready};
use std::time::Duration;

use bytes::Bytes;
use futures_core::Stream;
use serde::de::DeserializeOwned;
use serde::{Deserialize, Serialize};
use shoal_protocol::causality::EncodedContext;
use shoal_protocol::client::{self, ClientRequest, ClientResponse, KeyspaceInfo, SCAN_LIMIT_MAX, ScanScope};
use shoal_protocol::codec;
use shoal_protocol::object::View;

use super::Client;
use super::engine::Ask;
use super::operate::{decode, not_a};
use crate::error::Error;
use crate::retry::Repeat;
use crate::value;

/// A scan to be made.
#[derive(Clone, Debug)]
pub struct Scan {
    client: Client,
    info: Arc<KeyspaceInfo>,
    scopes: Vec<ScanScope>,
    prefix: Bytes,
    cursor: Option<Cursor>,
    reverse: bool,
    limit: Option<u64>,
    page_rows: u32,
    values: bool,
    r: Option<u8>,
    deadline: Option<Duration>,
}

/// Where a scan can go on, later or in another process.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Cursor {
    scope: u16,
    at: Option<Bytes>,
}

/// One row.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Row {
    /// The collection; empty in a keyspace with layout `key`.
    pub collection: Bytes,
    /// The key.
    pub key: Bytes,
    /// What is there; `None` in a scan of keys only.
    pub view: Option<View>,
    /// Its context; `None` in a scan of keys only.
    pub context: Option<EncodedContext>,
}

impl Row {
    /// The one value of a register; `None` when the row is something else, or a scan of keys only.
    ///
    /// # Errors
    /// `siblings` when there are several, `value` when it is no `T`.
    pub fn value<T: DeserializeOwned>(&self) -> Result<Option<T>, Error> {
        match &self.view {
            Some(View::Register { values }) => match &values[..] {
                [one] => value::decode(one).map(Some),
                several => Err(Error::Siblings { count: several.len() }),
            },
            _ => Ok(None),
        }
    }
}

/// Some rows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Page {
    /// In the order asked.
    pub rows: Vec<Row>,
    /// Where to go on; `None` at the end.
    pub cursor: Option<Cursor>,
    /// False when fewer than r replicas could be asked: rows may be missing.
    pub complete: bool,
}

/// A number of rows.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Count {
    /// How many have live content.
    pub rows: u64,
    /// False when fewer than r replicas could be asked: some may be missing.
    pub complete: bool,
}

impl Scan {
    pub(super) const fn new(client: Client, info: Arc<KeyspaceInfo>, scopes: Vec<ScanScope>) -> Self {
        Self {
            client,
            info,
            scopes,
            prefix: Bytes::new(),
            cursor: None,
            reverse: false,
            limit: None,
            page_rows: PAGE_ROWS_DEFAULT,
            values: true,
            r: None,
            deadline: None,
        }
    }

    /// Only keys that begin with this.
    #[must_use]
    pub fn prefix(self, prefix: impl Into<Bytes>) -> Self {
        Self { prefix: prefix.into(), ..self }
    }

    /// From the last key to the first.
    #[must_use]
    pub fn reverse(self) -> Self {
        Self { reverse: true, ..self }
    }

    /// At most so many rows.
    #[must_use]
    pub fn limit(self, rows: u64) -> Self {
        Self { limit: Some(rows), ..self }
    }

    /// So many rows per request, 1..=10,000; 500 by default.
    #[must_use]
    pub fn page_rows(self, rows: u32) -> Self {
        Self { page_rows: rows.clamp(1, SCAN_LIMIT_MAX), ..self }
    }

    /// Goes on where another scan of the same kind has stopped.
    #[must_use]
    pub fn from_cursor(self, cursor: Cursor) -> Self {
        Self { cursor: Some(cursor), ..self }
    }

    /// Leaves the content out.
    #[must_use]
    pub fn keys_only(self) -> Self {
        Self { values: false, ..self }
    }

    /// Waits for `r` replies to each page.
    #[must_use]
    pub fn r(self, r: u8) -> Self {
        Self { r: Some(r), ..self }
    }

    /// Allows each page this much time.
    #[must_use]
    pub fn deadline(self, deadline: Duration) -> Self {
        Self { deadline: Some(deadline), ..self }
    }

    /// The next rows: at most one request's worth, perhaps none although the scan goes on. Continue with `from_cursor`.
    ///
    /// # Errors
    /// See docs/errors.md.
    pub async fn page(&self) -> Result<Page, Error> {
        let rows_max =
            self.limit.map_or(self.page_rows, |limit| u32::try_from(limit).unwrap_or(u32::MAX).min(self.page_rows));
        let start = self.cursor.clone().unwrap_or(Cursor { scope: 0, at: None });
        let Some(scope) = self.scopes.get(usize::from(start.scope)).filter(|_| rows_max > 0) else {
            return Ok(Page { rows: Vec::new(), cursor: None, complete: true });
        };
        let page = self.ask(scope.clone(), start.at, rows_max).await?;
        let mut rows = Vec::with_capacity(page.rows.len());
        for row in page.rows {
            rows.push(self.row(row)?);
        }
        let next_scope = start.scope + 1;
        let cursor = match page.cursor {
            Some(at) => Some(Cursor { scope: start.scope, at: Some(at) }),
            None if usize::from(next_scope) < self.scopes.len() => Some(Cursor { scope: next_scope, at: None }),
            None => None,
        };
        Ok(Page { rows, cursor, complete: page.complete })
    }

    /// Every row, page after page.
    #[must_use]
    pub fn rows(self) -> Rows {
        Rows { scan: self, asking: None, ready: VecDeque::new(), ended: false, complete: true }
    }

    /// How many rows there are.
    ///
    /// # Errors
    /// See docs/errors.md.
    pub async fn count(self) -> Result<Count, Error> {
        let mut scan = Self { values: false, page_rows: SCAN_LIMIT_MAX, ..self };
        let mut count = Count { rows: 0, complete: true };
        loop {
            let page = scan.page().await?;
            count.rows += page.rows.len() as u64;
            count.complete &= page.complete;
            if !scan.advance(&page) {
                return Ok(count);
            }
        }
    }

    /// Moves behind `page`; false at the end.
    fn advance(&mut self, page: &Page) -> bool {
        self.limit = self.limit.map(|limit| limit - page.rows.len() as u64);
        self.cursor = page.cursor.clone();
        self.cursor.is_some() && self.limit != Some(0)
    }

    async fn ask(&self, scope: ScanScope, cursor: Option<Bytes>, limit: u32) -> Result<client::Page, Error> {
        let engine = &self.client.engine;
        let class = self.info.spec.class;
        engine.refresh_routes(class);
        let partition = match &scope {
            ScanScope::Collection(collection) => {
                let place = shoal_protocol::address::Place {
                    keyspace: self.info.id,
                    collection: collection.clone(),
                    key: Bytes::new(),
                };
                place.partition(class)
            }
            ScanScope::Partition(index) => shoal_protocol::id::Partition { class, index: *index },
        };
        let request = ClientRequest::Scan(client::Scan {
            keyspace: self.info.id,
            scope,
            prefix: self.prefix.clone(),
            cursor,
            reverse: self.reverse,
            limit,
            values: self.values,
            r: self.r,
        });
        let deadline = engine.deadline(self.deadline);
        let session = engine.session(deadline).await?;
        let ask = Ask { request, repeat: Repeat::Reads, partition: Some(partition), deadline, again: false };
        let answer = engine.ask(session.grant(), ask).await;
        let answer = answer.map_err(|failure| engine.noticed(&self.info, &session, failure.into_error(None)))?;
        let ClientResponse::Page(page) = answer else { return Err(not_a("page")) };
        // The bound asked for is relied on: `limit - rows` would pass below zero.
        if page.rows.len() > limit as usize {
            return Err(Error::Protocol { reason: "a page with more rows than asked".into() });
        }
        Ok(page)
    }

    fn row(&self, row: client::Row) -> Result<Row, Error> {
        let view = if self.values {
            let wall = self.client.engine.clock.now().wall;
            Some(decode(&row.object)?.view(self.info.spec.conflict, wall))
        } else {
            None
        };
        Ok(Row { collection: row.collection, key: row.key, view, context: row.context })
    }
}

/// Rows one after the other; the next page is asked for when the last one is used up.
pub struct Rows {
    scan: Scan,
    asking: Option<Asking>,
    ready: VecDeque<Row>,
    ended: bool,
    complete: bool,
}

type Asking = Pin<Box<dyn Future<Output = Result<Page, Error>> + Send>>;

impl Rows {
    /// Whether every page so far was complete.
    #[must_use]
    pub const fn is_complete(&self) -> bool {
        self.complete
    }

    /// The cursor behind the pages received so far; rows already received but not yet taken are behind it too.
    #[must_use]
    pub const fn cursor(&self) -> Option<&Cursor> {
        self.scan.cursor.as_ref()
    }
}

impl fmt::Debug for Rows {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Rows").field("scan", &self.scan).field("complete", &self.complete).finish_non_exhaustive()
    }
}

impl Stream for Rows {
    type Item = Result<Row, Error>;

    fn poll_next(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Option<Self::Item>> {
        let this = self.get_mut();
        loop {
            if let Some(row) = this.ready.pop_front() {
                return Poll::Ready(Some(Ok(row)));
            }
            if this.ended {
                return Poll::Ready(None);
            }
            let asking = this.asking.get_or_insert_with(|| {
                let scan = this.scan.clone();
                Box::pin(async move { scan.page().await })
            });
            let page = ready!(asking.as_mut().poll(cx));
            this.asking = None;
            match page {
                Ok(page) => {
                    this.complete &= page.complete;
                    this.ended = !this.scan.advance(&page);
                    this.ready.extend(page.rows);
                }
                Err(error) => {
                    this.ended = true;
                    return Poll::Ready(Some(Err(error)));
                }
            }
        }
    }
}

impl fmt::Display for Cursor {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        codec::encode(self).iter().try_for_each(|byte| write!(f, "{byte:02x}"))
    }
}

impl FromStr for Cursor {
    type Err = Error;

    fn from_str(text: &str) -> Result<Self, Error> {
        let wrong = || Error::Config { reason: format!("`{text}` is no cursor") };
        if !text.len().is_multiple_of(2) || !text.bytes().all(|digit| digit.is_ascii_hexdigit()) {
            return Err(wrong());
        }
        let digits = (0..text.len()).step_by(2).map(|at| u8::from_str_radix(&text[at..at + 2], 16));
        let bytes = digits.collect::<Result<Vec<u8>, _>>().map_err(|_| wrong())?;
        codec::decode(&bytes).map_err(|_| wrong())
    }
}

/// Enough to hide the round trip, small enough to show the first rows at once.
const PAGE_ROWS_DEFAULT: u32 = 500;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_cursor_survives_as_text_and_anything_else_is_refused() {
        for at in [None, Some(Bytes::from_static(b"\x00\xff"))] {
            let cursor = Cursor { scope: 255, at };
            assert_eq!(cursor.to_string().parse::<Cursor>().unwrap(), cursor);
        }
        for bad in ["", "0", "zz", "+1", "é", "00"] {
            assert!(bad.parse::<Cursor>().is_err(), "{bad}");
        }
    }
}
