//! The handlers: which view, which documents, and how fresh they have to be.

use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use axum::extract::rejection::PathRejection;
use axum::extract::{Path, RawQuery, State};
use axum::http::{HeaderMap, HeaderName, HeaderValue, StatusCode, header};
use axum::response::{IntoResponse, Response};
use serde::Deserialize;
use serde_json::{Value, json};
use tidelog_domain::{ConsistencyToken, Folding, InvalidToken, StreamId, Tenant, ViewDefinition};
use tidelog_http::{Caller, Operation, Problem, ProblemKind, Share, Shares, require_json_answer};
use tokio::sync::Semaphore;
use tokio::time::{Instant, timeout};

use super::cursor::Order;
use super::filters::Asked;
use super::parameters::{self, Parameter};
pub(super) use super::problems::{RETRY_AFTER, bad_path, no_view};
use super::problems::{not_built, share_taken, store_problem, too_slow, unsettled};
use super::representation::{entity_tag, header_value, is_known, shown};
use super::scope::Scope;
use super::{QueryService, QuerySettings, filters, history, live, prefer};
use crate::catalog::Named;
use crate::consistency::{ReadOf, Seen};
use crate::projector::MAX_KEY_BYTES;
use crate::store::{Document, Query, ReadError, place_of};
use crate::versions::Current;

/// What a write answered, and a read must see.
/// A page ends with the document by which it comes to more than so many bytes: 4 MiB.
const MAX_PAGE_BYTES: usize = 4 * 1024 * 1024;

const CONSISTENCY_TOKEN: HeaderName = HeaderName::from_static("consistency-token");

/// How the preferences of a request were met.
pub(super) const PREFERENCE_APPLIED: HeaderName = HeaderName::from_static("preference-applied");

/// How many events the view is behind the log.
const PROJECTION_LAG: HeaderName = HeaderName::from_static("projection-lag");

/// What the handlers work with.
#[derive(Clone)]
pub(super) struct Reads {
    pub(super) service: QueryService,
    pub(super) settings: Arc<QuerySettings>,
    /// One for each live connection that there may be.
    pub(super) places: Arc<Semaphore>,
    /// Each tenant's share of them: a quarter.
    pub(super) live_shares: Shares<Tenant>,
    /// How many of a tenant's reads may wait for writes: as many.
    waits: Shares<Tenant>,
}

/// Which documents are wanted.
#[derive(Clone, Copy)]
enum Wanted<'a> {
    /// This one.
    Id(&'a str),
    /// Those that fit.
    Query(&'a Query),
    /// Those that fit, and how many there are on all pages.
    Counted(&'a Query),
}

/// What was read.
struct Found {
    documents: Vec<Document>,
    count: Option<u64>,
}

/// What is known about how a read was answered, for its headers.
#[derive(Default)]
pub(super) struct Answered {
    /// The version of the view that was read; none, where the log was.
    current: Option<Current>,
    preference: Option<HeaderValue>,
}

/// The path of one document. Where the router is mounted may have parameters of its own.
#[derive(Deserialize)]
pub(super) struct OfDocument {
    pub(super) name: String,
    pub(super) id: String,
}

/// The path of a view.
#[derive(Deserialize)]
pub(super) struct OfView {
    name: String,
}

/// `GET /{view}/{id}`: one document.
pub(super) async fn document(
    State(reads): State<Reads>,
    caller: Caller,
    path: Result<Path<OfDocument>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(OfDocument { name, id }) = path.map_err(bad_path)?;
    let view = reads.one_of(&name)?;
    caller.may(&Operation::View(view.name()))?;
    let is_live = live::is_asked(&headers);
    if !is_live {
        require_json_answer(&headers)?;
    }
    check_id(&**view, &id)?;
    let (asked, then) = filters::one(&**view, &parameters::parse(query.as_deref())?)?;
    let scope = Scope::of(&caller);
    let stored = scope.document(&id);
    if is_live {
        let read_of = ReadOf::Document(&stored);
        reads.settle(view.name(), read_of, &scope, &headers).await?;
        let asking = (&caller, &headers);
        return live::document(&reads, view, &stored, (asked, then), asking).await;
    }
    if let Some(then) = then {
        let found = history::document(&reads, &**view, (&id, &scope), then).await?;
        let missing = "was no such document then";
        return reads.shown_one(&Answered::default(), &asked, found, missing, &headers);
    }
    let wait = reads.wait(&scope, &headers)?;
    let (current, found) = reads.settled_one(&**view, &stored, &wait).await?;
    let answered = Answered {
        current: Some(current),
        preference: wait.said,
    };
    let missing = format!("is no {name} with this id");
    reads.shown_one(&answered, &asked, found, &missing, &headers)
}

/// `GET /{views}?…` and `GET /{view}?…`: a page of documents, or the first that fits.
pub(super) async fn documents(
    State(reads): State<Reads>,
    caller: Caller,
    path: Result<Path<OfView>, PathRejection>,
    RawQuery(query): RawQuery,
    headers: HeaderMap,
) -> Result<Response, Problem> {
    let Path(OfView { name }) = path.map_err(bad_path)?;
    let named = reads.service.catalog.named(&name);
    let named = named.ok_or_else(|| no_view(&name))?;
    let (Named::One(view) | Named::Many(view)) = named;
    caller.may(&Operation::View(view.name()))?;
    let scope = Scope::of(&caller);
    if let (Named::Many(view), true) = (named, live::is_asked(&headers)) {
        let parameters = parameters::parse(query.as_deref())?;
        reads
            .settle(view.name(), ReadOf::Any, &scope, &headers)
            .await?;
        let asking = (&caller, &headers);
        return live::list(&reads, view, &parameters, asking).await;
    }
    require_json_answer(&headers)?;
    let parameters = parameters::parse(query.as_deref())?;
    match named {
        Named::One(view) => reads.first(&**view, &parameters, &scope, &headers).await,
        Named::Many(view) => reads.page(&**view, &parameters, &scope, &headers).await,
    }
}

impl Reads {
    pub(super) fn new(service: QueryService, settings: QuerySettings) -> Self {
        Self {
            service,
            places: Arc::new(Semaphore::new(settings.max_live)),
            live_shares: Shares::new(settings.max_live.div_ceil(4)),
            waits: Shares::new(settings.max_live.div_ceil(4)),
            settings: Arc::new(settings),
        }
    }

    /// The view whose documents are at `/{name}/{id}`.
    pub(super) fn one_of(&self, name: &str) -> Result<&Arc<dyn ViewDefinition>, Problem> {
        match self.service.catalog.named(name) {
            Some(Named::One(view)) => Ok(view),
            Some(Named::Many(view)) => {
                let advice = format!("One document is at /{}/{{id}}.", view.name());
                Err(Problem::new(ProblemKind::NotFound, advice))
            }
            None => Err(no_view(name)),
        }
    }

    /// The answer with the document that was `found`, if there is one and it may be shown.
    fn shown_one(
        &self,
        answered: &Answered,
        asked: &Asked,
        found: Option<Document>,
        missing: &str,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        match found.filter(|document| asked.query.deleted || !document.deleted) {
            Some(document) => Ok(self.one(answered, asked, document, headers)),
            None => Err(Problem::new(
                ProblemKind::NotFound,
                format!("There {missing}."),
            )),
        }
    }

    async fn first(
        &self,
        view: &dyn ViewDefinition,
        parameters: &[Parameter],
        scope: &Scope,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let asked = filters::first(view, parameters, scope)?;
        let settled = self.settle(view.name(), ReadOf::Any, scope, headers);
        let preference = settled.await?;
        let (current, found) = self.read(view, Wanted::Query(&asked.query)).await?;
        let answered = Answered {
            current: Some(current),
            preference,
        };
        match found.documents.into_iter().next() {
            Some(document) => Ok(self.one(&answered, &asked, document, headers)),
            None => Err(Problem::new(
                ProblemKind::NotFound,
                format!("No {} fits the filters.", view.name()),
            )),
        }
    }

    async fn page(
        &self,
        view: &dyn ViewDefinition,
        parameters: &[Parameter],
        scope: &Scope,
        headers: &HeaderMap,
    ) -> Result<Response, Problem> {
        let mut asked = filters::page(view, parameters, scope, &self.settings)?;
        let settled = self.settle(view.name(), ReadOf::Any, scope, headers);
        let preference = settled.await?;
        // One more than is shown tells whether there is a next page.
        let limit = asked.query.limit;
        asked.query.limit = limit.saturating_add(1);
        asked.query.max_bytes = Some(MAX_PAGE_BYTES);
        let wanted = if asked.count {
            Wanted::Counted(&asked.query)
        } else {
            Wanted::Query(&asked.query)
        };
        let (current, found) = self.read(view, wanted).await?;
        let Found {
            mut documents,
            count,
        } = found;
        let more = documents.len() > limit || asked.query.is_filled(&documents);
        documents.truncate(limit);
        let last = documents.last().filter(|_| more);
        let next = last
            .map(|last| next(view, &asked.query, last))
            .transpose()?;
        let data = documents
            .into_iter()
            .map(|document| shown_as(&asked, document));
        let data: Vec<Value> = data.collect();
        let mut body = json!({"data": data, "next": next});
        if let (Some(count), Value::Object(body)) = (count, &mut body) {
            body.insert("count".to_owned(), json!(count));
        }
        let body = body.to_string();
        let answered = Answered {
            current: Some(current),
            preference,
        };
        Ok(self.answer(&answered, StatusCode::OK, body))
    }

    /// The answer with one document; 304 when the client has it.
    fn one(
        &self,
        answered: &Answered,
        asked: &Asked,
        document: Document,
        headers: &HeaderMap,
    ) -> Response {
        let version = document.version;
        let body = json!({"data": shown_as(asked, document)}).to_string();
        let tag = entity_tag(version, &body);
        let mut response = if is_known(headers, &tag) {
            let mut response = self.answer(answered, StatusCode::NOT_MODIFIED, String::new());
            response.headers_mut().remove(header::CONTENT_TYPE);
            response
        } else {
            self.answer(answered, StatusCode::OK, body)
        };
        response
            .headers_mut()
            .insert(header::ETAG, header_value(&tag));
        response
    }

    pub(super) fn answer(&self, answered: &Answered, status: StatusCode, body: String) -> Response {
        let mut response = (status, body).into_response();
        let headers = response.headers_mut();
        let json = HeaderValue::from_static("application/json");
        headers.insert(header::CONTENT_TYPE, json);
        // A cache may keep it, and has to ask each time whether it still holds.
        let ask = HeaderValue::from_static("no-cache");
        headers.insert(header::CACHE_CONTROL, ask);
        let lag = answered.current.as_ref();
        let lag = lag.and_then(|current| self.service.live.lag(&current.alias.collection));
        if let Some(lag) = lag {
            headers.insert(PROJECTION_LAG, HeaderValue::from(lag));
        }
        if let Some(preference) = &answered.preference {
            headers.insert(PREFERENCE_APPLIED, preference.clone());
        }
        response
    }

    /// Reads from the version of `view` that is read now, within the time that the store has.
    async fn read(
        &self,
        view: &dyn ViewDefinition,
        wanted: Wanted<'_>,
    ) -> Result<(Current, Found), Problem> {
        let versions = &self.service.versions;
        let reading = async {
            let Some(mut current) = versions.current(view.name()).await? else {
                return Ok(None);
            };
            loop {
                let collection = &current.alias.collection;
                let store = &self.service.store;
                let count = match wanted {
                    Wanted::Counted(query) => Some(store.count(collection, query).await?),
                    Wanted::Id(_) | Wanted::Query(_) => None,
                };
                let documents = match wanted {
                    Wanted::Id(id) => store.get(collection, &[id]).await?,
                    Wanted::Query(query) | Wanted::Counted(query) => {
                        store.find(collection, query).await?
                    }
                };
                let is_empty = documents.is_empty();
                let found = Found { documents, count };
                if !is_empty {
                    return Ok(Some((current, found)));
                }
                // Nothing was found: make sure that it was not in a version that has been dropped meanwhile.
                match versions.moved_on(view.name(), &current).await? {
                    Some(moved) => current = moved,
                    None => return Ok(Some((current, found))),
                }
            }
        };
        let read = within(self.settings.read_timeout, reading).await?;
        read.ok_or_else(|| not_built(view.name()))
    }

    /// Waits until `view` has seen the writes whose tokens the request brings. Gives what to say of its preference.
    async fn settle(
        &self,
        view: &str,
        read_of: ReadOf<'_>,
        scope: &Scope,
        headers: &HeaderMap,
    ) -> Result<Option<HeaderValue>, Problem> {
        let wait = self.wait(scope, headers)?;
        self.wait_for_view(view, read_of, &wait).await?;
        Ok(wait.said)
    }

    /// Waits until `view` has seen the writes.
    async fn wait_for_view(
        &self,
        view: &str,
        read_of: ReadOf<'_>,
        wait: &Wait,
    ) -> Result<(), Problem> {
        let consistency = &self.service.consistency;
        for token in &wait.tokens {
            let waited = consistency.wait_for(view, read_of, token, wait.deadline);
            let unsettled = |error| unsettled(view, error, wait.said.as_ref());
            waited.await.map_err(unsettled)?;
        }
        Ok(())
    }

    /// The document of this id, in which the writes are to be seen.
    async fn settled_one(
        &self,
        view: &dyn ViewDefinition,
        id: &str,
        wait: &Wait,
    ) -> Result<(Current, Option<Document>), Problem> {
        let unsettled = |error| unsettled(view.name(), error, wait.said.as_ref());
        let consistency = &self.service.consistency;
        let mut seen = Vec::new();
        for token in &wait.tokens {
            let waited = consistency.wait_for_document(view.name(), id, token, wait.deadline);
            seen.push((waited.await.map_err(unsettled)?, token));
        }
        let (current, found) = self.read_one(view, id).await?;
        let holds = |(seen, token): &(Seen, &ConsistencyToken)| {
            seen.holds(&current.alias.collection, found.as_ref(), token)
        };
        if seen.iter().all(holds) {
            return Ok((current, found));
        }
        // Another version of the view has taken over in between, or the store lost the write and gets it again.
        self.wait_for_view(view.name(), ReadOf::Document(id), wait)
            .await?;
        self.read_one(view, id).await
    }

    async fn read_one(
        &self,
        view: &dyn ViewDefinition,
        id: &str,
    ) -> Result<(Current, Option<Document>), Problem> {
        let (current, found) = self.read(view, Wanted::Id(id)).await?;
        Ok((current, found.documents.into_iter().next()))
    }

    /// What a request says of what it must see.
    fn wait(&self, scope: &Scope, headers: &HeaderMap) -> Result<Wait, Problem> {
        let tokens = tokens(headers).and_then(|tokens| {
            let own = tokens.iter().all(|token| scope.has_written(token));
            own.then_some(tokens).ok_or(InvalidToken)
        });
        let tokens = tokens.map_err(|error| {
            let detail = format!("The header Consistency-Token is not valid: {error}.");
            Problem::new(ProblemKind::MalformedRequest, detail)
        })?;
        let none = Wait {
            tokens: Vec::new(),
            deadline: Instant::now(),
            said: None,
            _share: None,
        };
        if tokens.is_empty() {
            return Ok(none);
        }
        let preferred = prefer::wait(headers).map(|wait| wait.min(self.settings.max_wait));
        let wait = preferred.unwrap_or(self.settings.default_wait);
        let said = preferred.map(|wait| header_value(&format!("wait={}", wait.as_secs())));
        if wait.is_zero() {
            return Ok(Wait { said, ..none });
        }
        Ok(Wait {
            tokens,
            deadline: Instant::now() + wait,
            said,
            _share: Some(self.waits.take(scope.tenant()).ok_or_else(share_taken)?),
        })
    }
}

/// What a read must see.
struct Wait {
    /// Of these writes; none, where it is not to wait.
    tokens: Vec<ConsistencyToken>,
    /// At most until then.
    deadline: Instant,
    /// What to say of its preference.
    said: Option<HeaderValue>,
    /// Its place among those that wait.
    _share: Option<Share<Tenant>>,
}

/// What a client sees of a document.
pub(super) fn shown_as(asked: &Asked, document: Document) -> Value {
    let shown = shown(document, asked.query.deleted);
    match &asked.fields {
        Some(fields) => fields.apply(shown),
        None => shown,
    }
}

/// The cursor of the next page, behind `last`.
pub(crate) fn next(
    view: &dyn ViewDefinition,
    query: &Query,
    last: &Document,
) -> Result<String, Problem> {
    let order = Order {
        view: view.name(),
        sort: &query.sort,
    };
    let cursor = order.encode(&place_of(last, &query.sort));
    cursor.ok_or_else(|| {
        let detail = "A text by which `sort` sorts is too long for a cursor, so that this page could not be continued.";
        Problem::new(ProblemKind::MalformedRequest, detail).with("parameter", json!("sort"))
    })
}

/// The tokens of all writes that the read must see: in several headers or in one, where a proxy may have joined them.
fn tokens(headers: &HeaderMap) -> Result<Vec<ConsistencyToken>, InvalidToken> {
    let mut tokens = Vec::new();
    for header in headers.get_all(CONSISTENCY_TOKEN) {
        for token in header.to_str().map_err(|_| InvalidToken)?.split(',') {
            tokens.push(token.trim().parse()?);
        }
    }
    Ok(tokens)
}

/// Gives the store its time, and no more.
async fn within<T>(
    time: Duration,
    reading: impl Future<Output = Result<T, ReadError>>,
) -> Result<T, Problem> {
    match timeout(time, reading).await {
        Ok(Ok(read)) => Ok(read),
        Ok(Err(error)) => Err(store_problem(&error)),
        Err(_) => {
            tracing::warn!(?time, "the read store did not answer in time");
            Err(too_slow())
        }
    }
}

/// Turns down what can be no document's id.
pub(super) fn check_id(view: &dyn ViewDefinition, id: &str) -> Result<(), Problem> {
    let reason = match view.folding() {
        // One document a stream: its id is the stream's.
        Folding::FullState => StreamId::new("x", id).err().map(|error| error.to_string()),
        Folding::ReadAndFold if (1..=MAX_KEY_BYTES).contains(&id.len()) => None,
        Folding::ReadAndFold => Some(format!("an id here has 1 to {MAX_KEY_BYTES} bytes")),
    };
    match reason {
        None => Ok(()),
        Some(reason) => Err(Problem::new(
            ProblemKind::MalformedRequest,
            format!("The id is not valid: {reason}."),
        )),
    }
}
