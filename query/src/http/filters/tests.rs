//! What each parameter becomes, and what is refused.

use serde_json::Value;
use serde_json::{Map, json};
use tidelog_domain::{DecodeError, EventFilter, Folding, Keys, RecordedEvent};
use tidelog_http::ProblemKind;

use super::*;
use crate::http::parameters::parse;
use crate::store::{Place, Test};

struct Posts(Value, EventFilter);

impl ViewDefinition for Posts {
    fn name(&self) -> &str {
        "post"
    }
    fn plural(&self) -> &str {
        "posts"
    }
    fn schema(&self) -> &Value {
        &self.0
    }
    fn fingerprint(&self) -> String {
        String::new()
    }
    fn filter(&self) -> &EventFilter {
        &self.1
    }
    fn folding(&self) -> Folding {
        Folding::FullState
    }
    fn keys(&self, _: &RecordedEvent) -> Result<Keys, DecodeError> {
        Ok(Keys::new())
    }
    fn project(
        &self,
        _: Option<Map<String, Value>>,
        _: &str,
        _: &RecordedEvent,
    ) -> Result<Option<Map<String, Value>>, DecodeError> {
        Ok(None)
    }
}

fn posts() -> Posts {
    let schema = json!({"properties": {
        "title": {"type": "string"},
        "limit": {"type": "integer"},
        "stars": {"type": ["integer", "null"]},
        "public": {"type": "boolean"},
        "tags": {"type": "array", "items": {"type": "string"}},
        "either": {"type": ["string", "array"], "items": {"type": "string"}},
        "code": {"type": ["string", "integer"]},
        "free": {},
        "author": {"type": "object", "properties": {"name": {"type": "string"}}},
    }});
    Posts(schema, EventFilter::Category("post".into()))
}

fn asked(query: &str) -> Result<Asked, Problem> {
    super::asked(&posts(), query, &QuerySettings::default())
}

fn query(text: &str) -> Query {
    asked(text).unwrap().query
}

fn data(path: &[&str]) -> Field {
    Field::Data(path.iter().map(|name| (*name).to_owned()).collect())
}

#[test]
fn parameters_become_typed_filters() {
    let title = || data(&["title"]);
    let stars = || data(&["stars"]);
    for (text, field, test) in [
        ("title=a", title(), Test::Is(json!("a"))),
        (
            "author.name[eq]=ann",
            data(&["author", "name"]),
            Test::Is(json!("ann")),
        ),
        ("limit[eq]=3", data(&["limit"]), Test::Is(json!(3))),
        ("title[ne]=5", title(), Test::Not(json!("5"))),
        ("stars[ne]=null", stars(), Test::Not(Value::Null)),
        (
            "title[in]=a,%22b,c%22",
            title(),
            Test::OneOf(vec![json!("a"), json!("b,c")]),
        ),
        (
            "stars[in]=1,null",
            stars(),
            Test::OneOf(vec![json!(1), Value::Null]),
        ),
        ("stars[gt]=1", stars(), Test::Above(json!(1))),
        ("stars[gte]=-1", stars(), Test::AtLeast(json!(-1))),
        ("title[lt]=m", title(), Test::Below(json!("m"))),
        ("title[lte]=", title(), Test::AtMost(json!(""))),
        ("title[prefix]=.*", title(), Test::Prefix(".*".to_owned())),
        (
            "title[contains]=$",
            title(),
            Test::ContainsText("$".to_owned()),
        ),
        (
            "tags[contains]=a",
            data(&["tags"]),
            Test::HasItem(json!("a")),
        ),
        ("author[exists]=true", data(&["author"]), Test::Exists(true)),
        ("code[exists]=false", data(&["code"]), Test::Exists(false)),
        (
            "public[in]=true",
            data(&["public"]),
            Test::OneOf(vec![json!(true)]),
        ),
        ("id[prefix]=p", Field::Id, Test::Prefix("p".to_owned())),
        ("version[gte]=2", Field::Version, Test::AtLeast(json!(2))),
        (
            "created_at[lt]=2026-01-31T13:00:00%2B01:00",
            Field::CreatedAt,
            Test::Below(json!("2026-01-31T12:00:00Z")),
        ),
    ] {
        let filter = Filter::All(vec![Filter::Field(field, test)]);
        assert_eq!(query(text).filter, filter, "{text}");
    }
    let either = |test| Filter::Field(data(&["either"]), test);
    let both = [
        Test::ContainsText("a".to_owned()),
        Test::HasItem(json!("a")),
    ];
    assert_eq!(
        query("either[contains]=a").filter,
        Filter::All(vec![Filter::Any(both.map(either).into())])
    );
}

#[test]
fn the_words_of_the_language_say_how_much_of_what_in_which_order() {
    assert_eq!(query("").limit, 20);
    assert_eq!(query("limit=200").limit, 200);
    assert_eq!(query("match=any").filter, Filter::All(vec![]));
    assert!(
        matches!(query("match=any&title=a&stars[gt]=1").filter, Filter::Any(two) if two.len() == 2)
    );
    assert!(matches!(query("match=all&title=a").filter, Filter::All(_)));
    assert!(query("deleted=include").deleted && !query("").deleted);
    assert!(asked("count=exact").unwrap().count && !asked("").unwrap().count);
    let sort = |field, direction| Sort { field, direction };
    assert_eq!(
        query("sort=-created_at,title").sort,
        [
            sort(Field::CreatedAt, Direction::Descending),
            sort(data(&["title"]), Direction::Ascending)
        ]
    );
}

#[test]
fn a_cursor_belongs_to_the_order_it_was_made_in_wherever_it_stands() {
    let by_title = query("sort=title").sort;
    let place = Place {
        keys: vec![json!("a")],
        id: "x".to_owned(),
    };
    let order = |sort| Order { view: "post", sort };
    let cursor = order(&by_title).encode(&place).unwrap();
    for text in [
        format!("after={cursor}&sort=title"),
        format!("sort=title&after={cursor}"),
    ] {
        assert_eq!(query(&text).after.as_ref(), Some(&place));
    }
    let by_id = order(&[]).encode(&Place::behind("x")).unwrap();
    assert_eq!(
        query(&format!("after={by_id}")).after,
        Some(Place::behind("x"))
    );
    for text in [
        format!("after={cursor}"),
        format!("after={cursor}&sort=-title"),
        format!("after={by_id}&sort=title"),
    ] {
        let problem = asked(&text).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::MalformedRequest, "{text}");
    }
}

#[test]
fn what_is_not_known_is_named_and_refused() {
    for text in [
        "title[$ne]=x",
        "title[NE]=x",
        "title[like]=x",
        "title[]=x",
        "$where=1",
        "title.$ne=x",
        "data.title=x",
        "author=ann",
        "author[prefix]=a",
        "tags=a",
        "tags[gt]=a",
        "stars[prefix]=1",
        "stars[contains]=1",
        "public[gt]=true",
        "code=1",
        "free=1",
        "free[exists]=true",
        "created_at[prefix]=2026",
        "version[contains]=1",
        "nothing=1",
        "limit[where]=1",
        "sort=nothing",
        "sort=title,$where",
        "sort=tags",
        "sort=author",
        "fields=title,nothing",
        "=x",
    ] {
        let problem = asked(text).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::UnknownParameter, "{text}");
    }
    let deep = vec!["author"; 17].join(".");
    assert!(asked(&format!("{deep}=1")).is_err());
    // A known operator where the name is a field's and a word's.
    assert!(asked("limit[gt]=1").is_ok());
}

#[test]
fn a_value_that_does_not_fit_is_malformed() {
    let values = |n: usize| vec!["a"; n].join(",");
    for text in [
        "title=a&title[eq]=a",
        "limit=0",
        "limit=201",
        "limit=x",
        "limit=-1",
        "limit=%2B1",
        "limit=99999999999999999999",
        "limit=",
        "limit[eq]=x",
        "stars[gt]=null",
        "stars[gt]=a",
        "stars[in]=",
        "stars[in]=1,,2",
        "title[in]=%22a",
        &format!("title[in]={}", values(101)),
        "title[exists]=yes",
        "title[exists]=",
        "version=%2B1",
        "version=x",
        "version=1.5",
        "after=x",
        "created_at=yesterday",
        "created_at[gt]=2026-01-31",
        "match=none",
        "count=yes",
        "deleted=true",
        "sort=",
        "sort=title,",
        "sort=-",
        "sort=title,-title",
        "sort=id,version,title,stars,public",
        "fields=",
        "fields=title,",
        &format!("fields={}", values(65)),
    ] {
        let problem = asked(text).unwrap_err();
        assert_eq!(problem.kind(), ProblemKind::MalformedRequest, "{text}");
    }
    assert!(asked(&format!("title[in]={}", values(100))).is_ok());
}

#[test]
fn a_request_has_no_more_filters_than_there_may_be() {
    let operators = ["eq", "ne", "gt", "gte", "lt", "lte", "prefix", "contains"];
    let fields = ["title", "author.name", "id", "stars", "limit"];
    let all = fields.iter().flat_map(|field| {
        let known = operators
            .iter()
            .filter(move |op| asked(&format!("{field}[{op}]=1")).is_ok());
        known.map(move |op| format!("{field}[{op}]=1"))
    });
    let all: Vec<_> = all.collect();
    assert!(asked(&all[..MAX_FILTERS].join("&")).is_ok());
    let problem = asked(&all[..=MAX_FILTERS].join("&")).unwrap_err();
    assert_eq!(problem.kind(), ProblemKind::MalformedRequest);
}

#[test]
fn the_first_match_and_one_document_take_what_makes_sense_there() {
    let first = |text| first(&posts(), &parse(Some(text)).unwrap(), &Scope::default());
    let found = first("title[gt]=a&sort=-title&match=any&fields=title&deleted=include");
    assert_eq!(found.unwrap().query.limit, 1);
    let one = |text| one(&posts(), &parse(Some(text)).unwrap());
    assert!(one("fields=title&deleted=include").unwrap().0.query.deleted);
    for word in ["limit=2", "after=x", "count=exact"] {
        assert!(first(word).is_err() && one(word).is_err(), "{word}");
    }
    for word in ["title=a", "sort=title", "match=any", "version=1"] {
        assert!(one(word).is_err(), "{word}");
    }
}
