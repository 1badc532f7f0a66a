use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Instant;

use axum::body::Body;
use axum::http::header::{AUTHORIZATION, WWW_AUTHENTICATE};
use axum::routing::get;
use proptest::prelude::*;
use serde_json::{Value, json};
use tidelog_test_support::{AUDIENCE, ISSUER, Issuer, SigningKey};
use tower::ServiceExt;

use super::*;
use crate::body::tests::problem;
use crate::roles::Operation;

/// The public half of an RSA key whose private half is gone, and two tokens that it signed, for some centuries.
const RSA: &str = include_str!("rsa.json");

fn expected() -> Expected {
    Expected {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        roles_claim: ROLES_CLAIM.to_owned(),
        tenant_claim: None,
    }
}

fn verifier(keys: &[Value]) -> Verifier {
    let set = json!({ "keys": keys }).to_string();
    Verifier::new(KeySet::parse(set.as_bytes()).unwrap(), expected())
}

fn sign_in(from: &KeysFrom) -> SignIn {
    // What fetches keys has TLS, also where it is not used.
    let _ = rustls::crypto::ring::default_provider().install_default();
    SignIn::new(from, expected(), Rules::default()).unwrap()
}

fn url_of(issuer: &Issuer) -> KeysFrom {
    KeysFrom::Url {
        url: issuer.jwks_url().parse().unwrap(),
        ca: None,
    }
}

/// Headers with these values of `Authorization`.
fn headers(values: &[&str]) -> HeaderMap {
    let mut headers = HeaderMap::new();
    for value in values {
        headers.append(AUTHORIZATION, value.parse().unwrap());
    }
    headers
}

async fn refused(sign_in: &SignIn, token: &str) -> Option<Refused> {
    let headers = headers(&[&format!("Bearer {token}")]);
    sign_in.caller(&headers).await.err()
}

#[test]
fn a_token_of_each_kind_of_key_is_accepted() {
    let rsa: Value = serde_json::from_str(RSA).unwrap();
    let accepts = verifier(std::slice::from_ref(&rsa["jwk"]));
    let who = accepts.verify(rsa["RS256"].as_str().unwrap()).unwrap();
    assert_eq!(
        (&*who.principal, who.roles.join(" ")),
        ("ann", "teller".to_owned())
    );
    let mut pss = rsa["jwk"].clone();
    pss["alg"] = json!("PS256");
    assert!(
        verifier(&[pss])
            .verify(rsa["PS256"].as_str().unwrap())
            .is_ok()
    );
    let curve = SigningKey::new("c");
    assert!(
        verifier(&[curve.jwk()])
            .verify(&curve.token(&json!({})))
            .is_ok()
    );
    let secret = Verifier::new(KeySet::of_secret(&[7; 32]).unwrap(), expected());
    let token = by_secret(&[7; 32], &json!({"alg": "HS256"}), &claims());
    assert!(secret.verify(&token).is_ok());
}

#[test]
fn a_key_verifies_by_its_own_algorithm_alone() {
    let rsa: Value = serde_json::from_str(RSA).unwrap();
    let accepts = verifier(std::slice::from_ref(&rsa["jwk"]));
    let pss = accepts.verify(rsa["PS256"].as_str().unwrap());
    assert_eq!(pss.err(), Some(Refused::Algorithm));
    // What everybody knows is no secret: not the key as it is published, nor its number.
    let number = base64_decoded(rsa["jwk"]["n"].as_str().unwrap());
    for secret in [rsa["jwk"].to_string().into_bytes(), number] {
        let header = json!({"alg": "HS256", "kid": "r"});
        let forged = accepts.verify(&by_secret(&secret, &header, &claims()));
        assert_eq!(forged.err(), Some(Refused::Algorithm));
    }
    for alg in ["none", "None", "HS256", "RS256"] {
        let key = SigningKey::new("c");
        let token = key.token_with(&json!({"alg": alg}), &json!({}));
        let (unsigned, _) = token.rsplit_once('.').unwrap();
        for token in [&token, &format!("{unsigned}.")] {
            let verified = verifier(&[key.jwk()]).verify(token);
            assert_eq!(verified.err(), Some(Refused::Algorithm), "{alg}");
        }
    }
}

/// Claims that are fine, as text.
fn claims() -> Value {
    json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "exp": 9_000_000_000_u64})
}

fn base64_decoded(text: &str) -> Vec<u8> {
    use base64::Engine;
    base64::engine::general_purpose::URL_SAFE_NO_PAD
        .decode(text)
        .unwrap()
}

/// A token that is signed with a shared secret.
fn by_secret(secret: &[u8], header: &Value, claims: &Value) -> String {
    use base64::Engine;
    let encoded = |bytes: &[u8]| base64::engine::general_purpose::URL_SAFE_NO_PAD.encode(bytes);
    let message = format!(
        "{}.{}",
        encoded(header.to_string().as_bytes()),
        encoded(claims.to_string().as_bytes())
    );
    let key = ring::hmac::Key::new(ring::hmac::HMAC_SHA256, secret);
    let tag = ring::hmac::sign(&key, message.as_bytes());
    format!("{message}.{}", encoded(tag.as_ref()))
}

#[test]
fn a_claim_that_is_there_twice_is_refused_though_it_is_signed() {
    let key = SigningKey::new("c");
    let header = r#"{"alg":"ES256","kid":"c"}"#;
    let twice = claims()
        .to_string()
        .replace(r#""sub":"ann""#, r#""sub":"ann","sub":"bob""#);
    let verified = verifier(&[key.jwk()]).verify(&key.sign(header, &twice));
    assert_eq!(verified.err(), Some(Refused::Malformed));
    let verified = verifier(&[key.jwk()]).verify(&key.sign(header, &claims().to_string()));
    assert!(verified.is_ok());
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

    #[test]
    fn a_token_that_was_changed_is_not_accepted(
        kind in 0..5_u8, at in any::<prop::sample::Index>(), bit in 0..7_u8, text in ".{0,40}",
    ) {
        let key = SigningKey::new("c");
        let accepts = verifier(&[key.jwk()]);
        let (token, other) = (key.token(&json!({})), key.token(&json!({"sub": "bob"})));
        let mut bytes = token.clone().into_bytes();
        let place = at.index(bytes.len());
        let changed = match kind {
            0 => {
                bytes[place] ^= 1 << bit;
                String::from_utf8_lossy(&bytes).into_owned()
            }
            1 => token[..place].to_owned(),
            2 => format!("{}{text}{}", &token[..place], &token[place..]),
            3 => {
                // The signature of another token of the same key.
                let (message, _) = token.rsplit_once('.').unwrap();
                let (_, signature) = other.rsplit_once('.').unwrap();
                format!("{message}.{signature}")
            }
            _ => text,
        };
        prop_assume!(changed != token);
        prop_assert!(accepts.verify(&changed).is_err(), "{changed}");
        prop_assert!(accepts.verify(&token).is_ok());
    }
}

#[tokio::test]
async fn a_token_comes_in_one_header_and_nowhere_else() {
    let key = SigningKey::new("c");
    let issuer = Issuer::start(&[&key]).await;
    let sign_in = sign_in(&url_of(&issuer));
    let token = key.token(&json!({}));
    let bearer = format!("Bearer {token}");
    for (values, outcome) in [
        (vec![bearer.clone()], None),
        (vec![format!("bEARER {token}")], None),
        (vec![], Some(Refused::Missing)),
        (vec![token.clone()], Some(Refused::Missing)),
        (vec![format!("Basic {token}")], Some(Refused::Missing)),
        (vec!["Bearer".to_owned()], Some(Refused::Malformed)),
        (
            vec![format!("Bearer {token}, {bearer}")],
            Some(Refused::Malformed),
        ),
        (
            vec![bearer.clone(), bearer.clone()],
            Some(Refused::Malformed),
        ),
        (
            vec![format!("Bearer {}", "a".repeat(MAX_TOKEN_BYTES + 1))],
            Some(Refused::Malformed),
        ),
    ] {
        let values: Vec<&str> = values.iter().map(String::as_str).collect();
        let found = sign_in.caller(&headers(&values)).await;
        assert_eq!(found.err(), outcome, "{values:?}");
    }
}

#[tokio::test]
async fn a_new_key_is_fetched_when_a_token_names_it_and_not_for_each_that_names_nothing() {
    let (old, new, never) = (
        SigningKey::new("old"),
        SigningKey::new("new"),
        SigningKey::new("x"),
    );
    let issuer = Issuer::start(&[&old]).await;
    let sign_in = sign_in(&url_of(&issuer));
    let (by_old, by_new) = (old.token(&json!({})), new.token(&json!({})));
    // All at once: one asks for the keys, the others wait for what it hears.
    let tokens = (0..20).map(|_| refused(&sign_in, &by_old));
    let refusals = futures_util::future::join_all(tokens).await;
    assert_eq!(refusals, [None; 20]);
    assert_eq!(issuer.requests(), 1);
    issuer.publish(&[&new]);
    for _ in 0..20 {
        assert_eq!(
            refused(&sign_in, &never.token(&json!({}))).await,
            Some(Refused::Key)
        );
        assert_eq!(refused(&sign_in, &by_new).await, Some(Refused::Key));
    }
    assert_eq!(issuer.requests(), 1, "asked again within half a minute");
    // Half a minute later.
    let earlier = Instant::now().checked_sub(Duration::from_secs(31));
    *sign_in.0.keys.asked.lock().await = earlier;
    assert_eq!(refused(&sign_in, &by_new).await, None);
    assert_eq!(issuer.requests(), 2);
    // What was remembered was verified with keys that are gone.
    assert_eq!(refused(&sign_in, &by_old).await, Some(Refused::Key));
}

/// An issuer that answers once it is told to, as often as it is asked: how often that was, where it is, and what tells it.
async fn slow_issuer(keys: Value) -> (Arc<AtomicUsize>, KeysFrom, CancellationToken) {
    let listener = tokio::net::TcpListener::bind("127.0.0.1:0").await.unwrap();
    let url = format!("http://{}/jwks", listener.local_addr().unwrap());
    let (asked, go_on) = (Arc::new(AtomicUsize::new(0)), CancellationToken::new());
    let (count, wait) = (Arc::clone(&asked), go_on.clone());
    let answer = get(async move || {
        count.fetch_add(1, Ordering::SeqCst);
        wait.cancelled().await;
        axum::Json(keys)
    });
    let router = Router::new().route("/jwks", answer);
    tokio::spawn(async move { axum::serve(listener, router).await });
    let url = url.parse().unwrap();
    (asked, KeysFrom::Url { url, ca: None }, go_on)
}

#[tokio::test]
async fn who_hangs_up_has_the_keys_asked_for_once_all_the_same() {
    let key = SigningKey::new("c");
    let (asked, from, go_on) = slow_issuer(json!({"keys": [key.jwk()]})).await;
    let sign_in = sign_in(&from);
    let token = key.token(&json!({}));
    for _ in 0..5 {
        let patience = Duration::from_millis(50);
        let heard = tokio::time::timeout(patience, refused(&sign_in, &token));
        assert!(heard.await.is_err(), "there are no keys yet");
    }
    while asked.load(Ordering::SeqCst) == 0 {
        tokio::task::yield_now().await;
    }
    go_on.cancel();
    assert_eq!(refused(&sign_in, &token).await, None);
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn while_the_issuer_hangs_a_few_wait_for_it_and_the_others_do_not() {
    let key = SigningKey::new("c");
    let (asked, from, go_on) = slow_issuer(json!({"keys": [key.jwk()]})).await;
    let sign_in = sign_in(&from);
    let token = key.token(&json!({}));
    let all = (0..source::MAX_WAITING + 10).map(|_| refused(&sign_in, &token));
    let told = async {
        while asked.load(Ordering::SeqCst) == 0 {
            tokio::task::yield_now().await;
        }
        go_on.cancel();
    };
    let (refusals, ()) = tokio::join!(futures_util::future::join_all(all), told);
    let (waited, others) = refusals.split_at(source::MAX_WAITING);
    assert!(waited.iter().all(Option::is_none), "{waited:?}");
    assert!(
        others.iter().all(|one| *one == Some(Refused::Unavailable)),
        "{others:?}"
    );
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn keys_count_for_a_day_after_they_were_read_last() {
    let key = SigningKey::new("c");
    let mut issuer = Issuer::start(&[&key]).await;
    let sign_in = sign_in(&url_of(&issuer));
    let token = key.token(&json!({}));
    assert_eq!(refused(&sign_in, &token).await, None);
    issuer.stop().await;
    assert!(!sign_in.0.keys.ask().await);
    assert_eq!(refused(&sign_in, &key.token(&json!({}))).await, None);
    let yesterday = Instant::now().checked_sub(Duration::from_hours(24));
    let yesterday = yesterday.unwrap();
    sign_in.0.keys.read_at(yesterday);
    // Also what was verified is not: it may be that its key was taken back.
    assert_eq!(refused(&sign_in, &token).await, Some(Refused::Unavailable));
    issuer.start_again().await;
    assert!(sign_in.0.keys.ask().await);
    assert_eq!(refused(&sign_in, &token).await, None);
}

#[tokio::test]
async fn what_is_no_set_of_keys_leaves_those_that_there_are() {
    let key = SigningKey::new("c");
    let issuer = Issuer::start(&[&key]).await;
    let sign_in = sign_in(&url_of(&issuer));
    assert_eq!(refused(&sign_in, &key.token(&json!({}))).await, None);
    let huge = format!(r#"{{"keys": [], "more": "{}"}}"#, "x".repeat(256 * 1024));
    for (status, body) in [
        (200, "<html>"),
        (200, r#"{"keys": []}"#),
        (200, &huge),
        (500, r#"{"keys": []}"#),
        (302, ""),
        (404, ""),
    ] {
        issuer.answer(status, body);
        assert!(!sign_in.0.keys.ask().await, "{status}");
        assert_eq!(refused(&sign_in, &key.token(&json!({}))).await, None);
    }
}

#[tokio::test]
async fn a_file_is_read_again_when_it_changes() {
    let (old, new) = (SigningKey::new("old"), SigningKey::new("new"));
    let file = tempfile::NamedTempFile::new().unwrap();
    let write = |keys: Value| std::fs::write(file.path(), json!({"keys": keys}).to_string());
    let from = KeysFrom::File(file.path().to_owned());
    let empty = SignIn::new(&from, expected(), Rules::default());
    assert!(matches!(empty.err(), Some(InvalidSource::File { .. })));
    write(json!([old.jwk()])).unwrap();
    let sign_in = sign_in(&from);
    assert_eq!(refused(&sign_in, &old.token(&json!({}))).await, None);
    write(json!([new.jwk()])).unwrap();
    assert_eq!(refused(&sign_in, &new.token(&json!({}))).await, None);
    assert_eq!(
        refused(&sign_in, &old.token(&json!({}))).await,
        Some(Refused::Key)
    );
}

#[tokio::test]
async fn who_is_not_signed_in_hears_how_and_nothing_of_the_token() {
    let key = SigningKey::new("c");
    let issuer = Issuer::start(&[&key]).await;
    let sign_in = sign_in(&url_of(&issuer));
    let whoami = async |caller: Caller| caller.principal().unwrap_or("nobody").to_owned();
    let router = Router::new().route("/me", get(whoami));
    let router = signed_in(router, &sign_in, "query");
    let send = async |value: Option<String>, inside: bool| {
        let mut request = axum::extract::Request::get("/me");
        if let Some(value) = value {
            request = request.header(AUTHORIZATION, value);
        }
        let mut request = request.body(Body::empty()).unwrap();
        if inside {
            let caller = Caller::in_process(None, Some("cron"));
            request.extensions_mut().insert(caller);
        }
        router.clone().oneshot(request).await.unwrap()
    };
    let wrong = SigningKey::new("c").token(&json!({}));
    let expired = key.token(&json!({"exp": 1}));
    for (token, challenge) in [
        (None, "Bearer"),
        (Some(&wrong), "The token is not accepted"),
        (Some(&expired), "The token is expired"),
    ] {
        let response = send(token.map(|token| format!("Bearer {token}")), false).await;
        let told = response.headers()[WWW_AUTHENTICATE]
            .to_str()
            .unwrap()
            .to_owned();
        assert!(
            told.starts_with("Bearer") && told.contains(challenge),
            "{told}"
        );
        let (status, body) = problem(response).await;
        assert_eq!((status, body["status"].as_u64()), (401, Some(401)));
        let whole = format!("{told}{body}");
        for part in token.iter().flat_map(|token| token.split('.')) {
            assert!(!whole.contains(part), "{whole}");
        }
    }
    let token = key.token(&json!({}));
    assert_eq!(
        send(Some(format!("Bearer {token}")), false).await.status(),
        200
    );
    // A caller in the process needs no token.
    assert_eq!(send(None, true).await.status(), 200);
}

#[tokio::test]
async fn a_token_that_was_verified_is_remembered_and_what_it_may_do() {
    let key = SigningKey::new("c");
    let file = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(file.path(), json!({"keys": [key.jwk()]}).to_string()).unwrap();
    let rules = Rules::declared([(Operation::View("post"), vec!["reader"])]);
    let from = KeysFrom::File(file.path().to_owned());
    let sign_in = SignIn::new(&from, expected(), rules).unwrap();
    let token = format!("Bearer {}", key.token(&json!({"roles": ["reader"]})));
    for _ in 0..3 {
        let caller = sign_in.caller(&headers(&[&token])).await.unwrap();
        assert!(caller.may(&Operation::View("post")).is_ok());
        assert!(caller.may(&Operation::Feed).is_err());
        assert_eq!(caller.roles().collect::<Vec<_>>(), ["reader"]);
    }
    sign_in.0.remembered.run_pending_tasks();
    assert_eq!(sign_in.0.remembered.entry_count(), 1);
}

/// How long it takes to find out who asks. Not a check: `cargo test -p tidelog-http --release -- --ignored --nocapture cost`.
#[tokio::test]
#[ignore = "it measures, and checks nothing"]
#[allow(clippy::print_stdout, reason = "it is there to be read")]
async fn the_cost_of_a_sign_in() {
    let key = SigningKey::new("c");
    let issuer = Issuer::start(&[&key]).await;
    let sign_in = sign_in(&url_of(&issuer));
    let token = key.token(&json!({"roles": ["reader"]}));
    let (rounds, headers) = (2_000, headers(&[&format!("Bearer {token}")]));
    sign_in.caller(&headers).await.unwrap();
    let verifier = verifier(&[key.jwk()]);
    let begun = Instant::now();
    for _ in 0..rounds {
        assert!(verifier.verify(&token).is_ok());
    }
    let verified = begun.elapsed() / rounds;
    let begun = Instant::now();
    for _ in 0..rounds {
        assert!(sign_in.caller(&headers).await.is_ok());
    }
    let remembered = begun.elapsed() / rounds;
    println!("verified: {verified:?}, remembered: {remembered:?}");
}
