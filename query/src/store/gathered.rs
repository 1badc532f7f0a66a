//! What a database finds for a query, gathered to a page: the part of the work that is the same for each of them.

use super::filter::{matches, page};
use super::{Document, Query};

/// The documents that were found so far.
pub(super) struct Gathered<'q> {
    query: &'q Query,
    /// The database finds more than what fits.
    is_wider: bool,
    /// It finds them in the order of the query.
    is_sorted: bool,
    found: Vec<Document>,
    bytes: usize,
}

impl<'q> Gathered<'q> {
    pub(super) const fn new(query: &'q Query, is_wider: bool, is_sorted: bool) -> Self {
        Self {
            query,
            is_wider,
            is_sorted,
            found: Vec::new(),
            bytes: 0,
        }
    }

    /// Whether another document may belong to the page.
    pub(super) fn has_room(&self) -> bool {
        !self.is_sorted || (self.found.len() < self.query.limit && self.query.has_room(self.bytes))
    }

    /// Adds a document, if it fits. Of those without an order about twice as many are held as a page has.
    pub(super) fn add(&mut self, document: Document) {
        if self.is_wider && !matches(&document, &self.query.filter) {
            return;
        }
        self.bytes += self.query.weight(&document);
        self.found.push(document);
        let is_over =
            self.found.len() / 2 > self.query.limit || !self.query.has_room(self.bytes / 2);
        if !self.is_sorted && is_over {
            self.found = page(std::mem::take(&mut self.found), self.query);
            let weights = self
                .found
                .iter()
                .map(|document| self.query.weight(document));
            self.bytes = weights.sum();
        }
    }

    pub(super) fn into_page(self) -> Vec<Document> {
        match self.is_sorted {
            true => self.found,
            false => page(self.found, self.query),
        }
    }
}
