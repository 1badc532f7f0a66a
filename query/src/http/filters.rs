//! What a client asks for, checked against the view's schema: the words of the query language, and filters.

use tidelog_domain::{Version, ViewDefinition};
use tidelog_http::Problem;

use super::QuerySettings;
use super::cursor::{BadCursor, Order};
use super::operators::{Operator, Target, digits, filter, no_field, time};
use super::parameters::Parameter;
use super::scope::Scope;
use super::selection::Selection;
use crate::history::Then;
use crate::store::{Direction, Field, Filter, Query, Sort};

/// The words that are no fields. A field of such a name is reached by `name[eq]=`.
///
/// All words of the query language are kept free, so that a later one never changes what a URL means.
pub(super) const WORDS: [&str; 7] = [
    "match", "sort", "limit", "after", "fields", "count", "deleted",
];

/// The most filters of a request.
pub(super) const MAX_FILTERS: usize = 32;

/// The highest version that can be asked for: what every database takes as a number.
const MAX_VERSION: u64 = i64::MAX.unsigned_abs();

/// The most fields that can be sorted by.
pub(super) const MAX_SORTS: usize = 4;

/// What a client asks of a view.
#[derive(Clone, Debug, Default, PartialEq)]
pub(crate) struct Asked {
    /// Which documents.
    pub(crate) query: Query,
    /// What is shown of them; all, if nothing is said.
    pub(super) fields: Option<Selection>,
    /// Whether they are counted.
    pub(crate) count: bool,
}

/// The query for a page of `view`.
///
/// # Errors
///
/// A problem that names the parameter that does not fit.
pub(crate) fn page(
    view: &dyn ViewDefinition,
    parameters: &[Parameter],
    scope: &Scope,
    settings: &QuerySettings,
) -> Result<Asked, Problem> {
    let mut asked = Asked::default();
    asked.query.limit = settings.default_limit;
    let mut after = None;
    let mut filters = Filters::default();
    for parameter in parameters {
        match word(parameter) {
            Some("limit") => asked.query.limit = limit(parameter, settings.max_limit)?,
            Some("after") => after = Some(parameter),
            Some("count") => asked.count = flag(parameter, "exact")?,
            Some(word) => asked.set(view, word, parameter, &mut filters)?,
            None => filters.add(view, parameter)?,
        }
    }
    // What a cursor means depends on the order, which may be written behind it.
    if let Some(parameter) = after {
        let order = Order {
            view: view.name(),
            sort: &asked.query.sort,
        };
        let place = order.decode(&parameter.value).map_err(|bad| match bad {
            BadCursor::Malformed => {
                parameter.malformed("what an earlier page gave as `next`, unchanged")
            }
            BadCursor::OtherOrder => {
                parameter.malformed("of a page in the same order: with the same `sort` as this one")
            }
        })?;
        if !scope.has(&place.id) {
            return Err(parameter.malformed("what an earlier page gave you as `next`, unchanged"));
        }
        asked.query.after = Some(place);
    }
    asked.query.filter = filters.joined();
    scope.narrow(&mut asked.query)?;
    Ok(asked)
}

/// What a URL's query asks of a list.
#[cfg(any(test, feature = "conformance"))]
pub(crate) fn asked(
    view: &dyn ViewDefinition,
    query: &str,
    settings: &QuerySettings,
) -> Result<Asked, Problem> {
    let parameters = super::parameters::parse(Some(query))?;
    page(view, &parameters, &Scope::default(), settings)
}

/// The query for the first document of `view` that fits.
///
/// # Errors
///
/// A problem that names the parameter that does not fit.
pub(super) fn first(
    view: &dyn ViewDefinition,
    parameters: &[Parameter],
    scope: &Scope,
) -> Result<Asked, Problem> {
    let mut asked = Asked::default();
    asked.query.limit = 1;
    let mut filters = Filters::default();
    for parameter in parameters {
        match word(parameter) {
            Some("limit" | "after" | "count") => {
                let advice = format!("ask for /{} to get a list.", view.plural());
                return Err(parameter.unknown(&advice));
            }
            Some(word) => asked.set(view, word, parameter, &mut filters)?,
            None => filters.add(view, parameter)?,
        }
    }
    asked.query.filter = filters.joined();
    scope.narrow(&mut asked.query)?;
    Ok(asked)
}

/// What is asked of one document of `view`: what is shown of it, whether it may be deleted, and when it was so.
///
/// # Errors
///
/// A problem that names the parameter that does not fit.
pub(super) fn one(
    view: &dyn ViewDefinition,
    parameters: &[Parameter],
) -> Result<(Asked, Option<Then>), Problem> {
    let (mut asked, mut then) = (Asked::default(), None);
    for parameter in parameters {
        let is_then = matches!(parameter.name.as_str(), "version" | "at");
        match word(parameter) {
            Some(word @ ("fields" | "deleted")) => {
                asked.set(view, word, parameter, &mut Filters::default())?;
            }
            _ if is_then && parameter.operator.is_none() => {
                if then.is_some() {
                    return Err(parameter.too_many("`version` and `at` say the same thing"));
                }
                then = Some(moment(view, parameter)?);
            }
            _ => return Err(parameter.unknown(&taken_by_one(view))),
        }
    }
    Ok((asked, then))
}

/// What one document of `view` takes, for people.
fn taken_by_one(view: &dyn ViewDefinition) -> String {
    match view.category() {
        Some(_) => "one document takes `fields`, `deleted`, `version` and `at`.".to_owned(),
        None => "one document takes `fields` and `deleted`.".to_owned(),
    }
}

/// When a document was as it is asked for.
fn moment(view: &dyn ViewDefinition, parameter: &Parameter) -> Result<Then, Problem> {
    if view.category().is_none() {
        let advice = format!(
            "a document of {} is made from several streams, which have no common past.",
            view.name()
        );
        return Err(parameter.unknown(&advice));
    }
    if parameter.name == "at" {
        return time(parameter, &parameter.value).map(Then::Time);
    }
    let version = digits(&parameter.value).filter(|version| (1..=MAX_VERSION).contains(version));
    let version = version.ok_or_else(|| parameter.malformed("a whole number from 1"))?;
    Ok(Then::Version(Version::new(version)))
}

/// What the history of a document is asked for: at most how many of its events, after which version.
///
/// # Errors
///
/// A problem that names the parameter that does not fit.
pub(super) fn history(
    parameters: &[Parameter],
    settings: &QuerySettings,
) -> Result<(Version, usize), Problem> {
    let (mut after, mut most) = (Version::NONE, settings.default_limit);
    for parameter in parameters {
        match word(parameter) {
            Some("limit") => most = limit(parameter, settings.max_limit)?,
            Some("after") => {
                let version = digits(&parameter.value).filter(|version| *version <= MAX_VERSION);
                let wanted = "what an earlier page gave as `next`, unchanged";
                after = Version::new(version.ok_or_else(|| parameter.malformed(wanted))?);
            }
            _ => return Err(parameter.unknown("a history takes `limit` and `after`.")),
        }
    }
    Ok((after, most))
}

impl Asked {
    /// Sets what a word says that means the same everywhere.
    fn set(
        &mut self,
        view: &dyn ViewDefinition,
        word: &str,
        parameter: &Parameter,
        filters: &mut Filters,
    ) -> Result<(), Problem> {
        match word {
            "match" => filters.any = match_any(parameter)?,
            "sort" => self.query.sort = sort(view, parameter)?,
            "fields" => self.fields = Some(Selection::of(view, parameter)?),
            "deleted" => self.query.deleted = flag(parameter, "include")?,
            _ => return Err(parameter.unknown("it is not a word of the query language here.")),
        }
        Ok(())
    }
}

/// The filters of a request, and how they are joined.
#[derive(Default)]
struct Filters {
    any: bool,
    found: Vec<(Field, Operator, Filter)>,
}

impl Filters {
    fn add(&mut self, view: &dyn ViewDefinition, parameter: &Parameter) -> Result<(), Problem> {
        if self.found.len() == MAX_FILTERS {
            return Err(parameter.too_many(&format!("a request has at most {MAX_FILTERS} filters")));
        }
        let (field, operator, filter) = filter(view, parameter)?;
        let same = |(f, o, _): &&(Field, Operator, Filter)| *f == field && *o == operator;
        // `name=` and `name[eq]=` are one.
        if self.found.iter().any(|found| same(&found)) {
            return Err(parameter.repeated());
        }
        self.found.push((field, operator, filter));
        Ok(())
    }

    fn joined(self) -> Filter {
        let filters: Vec<_> = self
            .found
            .into_iter()
            .map(|(_, _, filter)| filter)
            .collect();
        // One of no filters would be met by nothing.
        if self.any && !filters.is_empty() {
            Filter::Any(filters)
        } else {
            Filter::All(filters)
        }
    }
}

/// The word of the query language that the parameter is, if it is no field.
fn word(parameter: &Parameter) -> Option<&str> {
    let name = parameter.name.as_str();
    (parameter.operator.is_none() && WORDS.contains(&name)).then_some(name)
}

fn limit(parameter: &Parameter, max: usize) -> Result<usize, Problem> {
    let limit = digits(&parameter.value).and_then(|limit| usize::try_from(limit).ok());
    let limit = limit.filter(|limit| (1..=max).contains(limit));
    limit.ok_or_else(|| parameter.malformed(&format!("a whole number from 1 to {max}")))
}

/// True, if the value is the only one that there is.
fn flag(parameter: &Parameter, only: &str) -> Result<bool, Problem> {
    if parameter.value == only {
        Ok(true)
    } else {
        Err(parameter.malformed(&format!("`{only}`")))
    }
}

fn match_any(parameter: &Parameter) -> Result<bool, Problem> {
    match parameter.value.as_str() {
        "any" => Ok(true),
        "all" => Ok(false),
        _ => Err(parameter.malformed("`any` or `all`")),
    }
}

/// The order that `parameter` asks for: names of fields, with `-` before one that descends.
fn sort(view: &dyn ViewDefinition, parameter: &Parameter) -> Result<Vec<Sort>, Problem> {
    order(view, &parameter.value).map_err(|why| match why {
        NoOrder::Malformed => parameter.malformed(&format!("{ORDER}, at most {MAX_SORTS}")),
        NoOrder::Field(name, why) => parameter.names_unknown(name, &why),
    })
}

/// The order that `text` asks for in the words of `sort`; why not, for who wrote the program.
///
/// # Errors
///
/// What is wrong with it.
pub(crate) fn sorted_by(view: &dyn ViewDefinition, text: &str) -> Result<Vec<Sort>, String> {
    order(view, text).map_err(|why| match why {
        NoOrder::Malformed => format!("it is not {ORDER}, at most {MAX_SORTS}"),
        NoOrder::Field(name, why) => format!("by {name:?} nothing can be sorted: {why}"),
    })
}

/// What an order looks like.
const ORDER: &str =
    "the names of different fields, with commas between them, and `-` before one that descends";

/// Why a text asks for no order.
enum NoOrder<'t> {
    /// It does not look like one.
    Malformed,
    /// A field of this name has none, because of this.
    Field(&'t str, String),
}

fn order<'t>(view: &dyn ViewDefinition, text: &'t str) -> Result<Vec<Sort>, NoOrder<'t>> {
    let mut sort: Vec<Sort> = Vec::new();
    for written in text.split(',') {
        let (name, direction) = match written.strip_prefix('-') {
            Some(name) => (name, Direction::Descending),
            None => (written, Direction::Ascending),
        };
        if name.is_empty() || sort.len() == MAX_SORTS {
            return Err(NoOrder::Malformed);
        }
        let target = Target::of(view, name);
        let target = target.map_err(|why| NoOrder::Field(name, no_field(view, why)))?;
        if !target.shape.has_order() {
            let advice = "the field may hold a list or an object, which have no order.";
            return Err(NoOrder::Field(name, advice.to_owned()));
        }
        let field = target.field;
        if sort.iter().any(|other| other.field == field) {
            return Err(NoOrder::Malformed);
        }
        sort.push(Sort { field, direction });
    }
    Ok(sort)
}

#[cfg(test)]
mod tests;
