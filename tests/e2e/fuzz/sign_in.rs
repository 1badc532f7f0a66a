//! What those bring who sign in, the keys that verify it, and the rules of who may do what.

use std::sync::LazyLock;

use serde_json::json;
use tidelog_http::{Expected, KeySet, Operation, ROLES_CLAIM, Rules, Verifier};
use tidelog_test_support::{AUDIENCE, ISSUER, SigningKey};

use super::fuzz;
use super::inputs::Target;

/// A key, and a token of it that is right.
static SIGNED: LazyLock<(SigningKey, String)> = LazyLock::new(|| {
    let key = SigningKey::new("one");
    let token = key.token(&json!({"sub": "ann", "roles": ["teller"]}));
    (key, token)
});

fn verifier() -> Verifier {
    let set = json!({"keys": [SIGNED.0.jwk()]}).to_string();
    let expected = Expected {
        issuer: ISSUER.to_owned(),
        audience: AUDIENCE.to_owned(),
        roles_claim: ROLES_CLAIM.to_owned(),
        tenant_claim: None,
    };
    Verifier::new(KeySet::parse(set.as_bytes()).unwrap(), expected)
}

/// Changes of a token that is right: what to put where, as `place,text`. The place is a part of a thousand of it.
const TOKENS: Target = Target {
    name: "tokens",
    examples: &["none"],
    near: &[
        "0,eyJhbGciOiJub25lIn0.",
        "500,A",
        "999,=",
        "1000,.",
        "300,..",
    ],
    words: &[
        ",", "0", "1", "250", "500", "750", "1000", ".", "eyJ", "=", "-", "_", "none", "\u{0}",
    ],
};

#[test]
fn tokens() {
    let verifier = verifier();
    let right = SIGNED.1.as_str();
    fuzz(&TOKENS, move |bytes| {
        let text = String::from_utf8_lossy(bytes);
        if text == "none" {
            return verifier.verify(right).is_ok();
        }
        // Whatever it is by itself, nobody signed it.
        assert!(text == right || verifier.verify(&text).is_err(), "{text}");
        let (place, put) = text.split_once(',').unwrap_or(("0", &text));
        let place = place.parse::<usize>().unwrap_or(0).min(1_000);
        let at = right.len() * place / 1_000;
        let mut changed = format!("{}{put}{}", &right[..at], &right[at..]);
        for _ in 0..2 {
            // Put in between, and in the place of what was there.
            if changed != right {
                assert!(verifier.verify(&changed).is_err(), "{changed}");
            }
            let end = (at + put.len()).min(right.len());
            changed = format!("{}{put}{}", &right[..at], &right[end..]);
        }
        false
    });
}

const KEYS: Target = Target {
    name: "sets of keys",
    examples: &[
        r#"{"keys":[{"kty":"EC","crv":"P-256","kid":"a","x":"f83OJ3D2xF1Bg8vub9tLe1gHMzV76e8Tus9uPHvRVEU","y":"x_FEzRu9m36HLN_tue659LNpXW6pCyStikYjKIWI5a0"}]}"#,
        r#"{"keys":[{"kty":"OKP","crv":"Ed25519","kid":"b","use":"sig","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#,
    ],
    near: &[
        r#"{"keys":[]}"#,
        r#"{"keys":[{"kty":"oct","k":"AAAA"}]}"#,
        r#"{"keys":[{"kty":"RSA","n":"AQAB","e":"AQAB"}]}"#,
        r#"{"keys":{}}"#,
        "[]",
    ],
    words: &[
        "{",
        "}",
        "[",
        "]",
        ",",
        ":",
        "\"kty\"",
        "\"EC\"",
        "\"RSA\"",
        "\"oct\"",
        "\"alg\"",
        "\"HS256\"",
        "\"none\"",
        "\"use\":\"enc\"",
        "\"key_ops\":[]",
        "\"x\":\"\"",
        "null",
    ],
};

#[test]
fn keys() {
    fuzz(&KEYS, |bytes| KeySet::parse(bytes).is_ok());
}

const RULES: Target = Target {
    name: "rules",
    examples: &["feed=follower, admin/read=ops|lead", "admin/operate=*"],
    near: &[
        "feed",
        "feed=",
        "=ops",
        "feed=a|",
        "feed=a,feed=b",
        "post/create=a",
    ],
    words: &[
        "feed",
        "admin/read",
        "view/*",
        "=",
        "|",
        ",",
        " ",
        "*",
        "command:",
    ],
};

#[test]
fn rules() {
    fuzz(&RULES, |bytes| {
        let text = String::from_utf8_lossy(bytes);
        let none: [(Operation<'_>, Vec<&str>); 0] = [];
        Rules::declared(none).overridden_by(&text).is_ok()
    });
}
