//! An issuer of tokens, as far as a test needs one.

use std::net::SocketAddr;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{SystemTime, UNIX_EPOCH};

use axum::Router;
use axum::extract::State;
use axum::http::StatusCode;
use base64::Engine;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use ring::rand::SystemRandom;
use ring::signature::{ECDSA_P256_SHA256_FIXED_SIGNING, EcdsaKeyPair, KeyPair};
use serde_json::{Map, Value, json};
use tokio::net::TcpListener;
use tokio::task::JoinHandle;

/// Who it says it is.
pub const ISSUER: &str = "https://issuer.example";

/// For whom its tokens are, unless a test says otherwise.
pub const AUDIENCE: &str = "tidelog";

/// A key that signs tokens: ES256.
#[derive(Debug)]
pub struct SigningKey {
    id: String,
    pair: EcdsaKeyPair,
}

impl SigningKey {
    /// A new key called `id`.
    #[must_use]
    pub fn new(id: &str) -> Self {
        let (random, how) = (SystemRandom::new(), &ECDSA_P256_SHA256_FIXED_SIGNING);
        let made = EcdsaKeyPair::generate_pkcs8(how, &random)
            .map_err(|_| "ring makes no key")
            .and_then(|key| {
                EcdsaKeyPair::from_pkcs8(how, key.as_ref(), &random)
                    .map_err(|_| "ring reads no key")
            });
        match made {
            Ok(pair) => Self {
                id: id.to_owned(),
                pair,
            },
            Err(error) => panic!("{error}"),
        }
    }

    /// The public half, as a JSON Web Key.
    #[must_use]
    pub fn jwk(&self) -> Value {
        let point = self.pair.public_key().as_ref();
        let coordinate = |from: usize| point.get(from..from + 32).map(encoded);
        json!({
            "kty": "EC", "crv": "P-256", "use": "sig", "alg": "ES256", "kid": self.id,
            "x": coordinate(1), "y": coordinate(33),
        })
    }

    /// A token with the usual claims and these: `null` takes one away.
    #[must_use]
    pub fn token(&self, claims: &Value) -> String {
        self.token_with(&json!({}), claims)
    }

    /// The same with these in the header.
    #[must_use]
    pub fn token_with(&self, header: &Value, claims: &Value) -> String {
        let usual = json!({"alg": "ES256", "typ": "JWT", "kid": self.id});
        let header = changed(usual, header);
        self.sign(&header.to_string(), &claims_with(claims).to_string())
    }

    /// Signs these texts, whatever they are.
    #[must_use]
    pub fn sign(&self, header: &str, claims: &str) -> String {
        let message = format!(
            "{}.{}",
            encoded(header.as_bytes()),
            encoded(claims.as_bytes())
        );
        match self.pair.sign(&SystemRandom::new(), message.as_bytes()) {
            Ok(signature) => format!("{message}.{}", encoded(signature.as_ref())),
            Err(_) => panic!("ring signs nothing"),
        }
    }
}

/// The claims of a token that counts for ten minutes, with these changes.
fn claims_with(changes: &Value) -> Value {
    let now = SystemTime::now().duration_since(UNIX_EPOCH);
    let now = now.unwrap_or_default().as_secs();
    let usual = json!({"iss": ISSUER, "aud": AUDIENCE, "sub": "ann", "iat": now, "exp": now + 600});
    changed(usual, changes)
}

/// `object` with these members; `null` takes one away.
fn changed(object: Value, changes: &Value) -> Value {
    let mut members = match object {
        Value::Object(members) => members,
        _ => Map::new(),
    };
    for (name, value) in changes.as_object().into_iter().flatten() {
        if value.is_null() {
            members.shift_remove(name);
        } else {
            members.insert(name.clone(), value.clone());
        }
    }
    Value::Object(members)
}

fn encoded(bytes: &[u8]) -> String {
    URL_SAFE_NO_PAD.encode(bytes)
}

/// An issuer that publishes its keys over HTTP until it is stopped or dropped.
#[derive(Debug)]
pub struct Issuer {
    address: SocketAddr,
    published: Arc<Mutex<Published>>,
    server: JoinHandle<()>,
}

#[derive(Debug, Default)]
struct Published {
    status: u16,
    body: String,
    /// How often somebody asked, for whatever.
    requests: usize,
}

impl Issuer {
    /// Starts one on a port of its own, which publishes these keys.
    pub async fn start(keys: &[&SigningKey]) -> Self {
        let published = Arc::new(Mutex::new(Published::default()));
        let (address, server) = serve("127.0.0.1:0", Arc::clone(&published)).await;
        let issuer = Self {
            address,
            published,
            server,
        };
        issuer.publish(keys);
        issuer
    }

    /// Where its keys are.
    #[must_use]
    pub fn jwks_url(&self) -> String {
        format!("http://{}/jwks.json", self.address)
    }

    /// From now on these are its keys.
    pub fn publish(&self, keys: &[&SigningKey]) {
        let keys: Vec<Value> = keys.iter().map(|key| key.jwk()).collect();
        self.answer(200, &json!({ "keys": keys }).to_string());
    }

    /// From now on it answers so.
    pub fn answer(&self, status: u16, body: &str) {
        let mut published = locked(&self.published);
        published.status = status;
        body.clone_into(&mut published.body);
    }

    /// How often somebody asked it.
    #[must_use]
    pub fn requests(&self) -> usize {
        locked(&self.published).requests
    }

    /// Nothing listens there any more, until it is started again.
    pub async fn stop(&mut self) {
        self.server.abort();
        let _ = (&mut self.server).await;
    }

    /// It listens where it did.
    pub async fn start_again(&mut self) {
        let address = self.address.to_string();
        let (_, server) = serve(&address, Arc::clone(&self.published)).await;
        self.server = server;
    }
}

impl Drop for Issuer {
    fn drop(&mut self) {
        self.server.abort();
    }
}

async fn serve(address: &str, published: Arc<Mutex<Published>>) -> (SocketAddr, JoinHandle<()>) {
    let listener = TcpListener::bind(address).await;
    let bound = listener.and_then(|listener| Ok((listener.local_addr()?, listener)));
    let (address, listener) = match bound {
        Ok(bound) => bound,
        Err(error) => panic!("no port for the issuer: {error}"),
    };
    let router = Router::new().fallback(answer).with_state(published);
    let server = tokio::spawn(async move {
        if let Err(error) = axum::serve(listener, router).await {
            panic!("the issuer: {error}");
        }
    });
    (address, server)
}

async fn answer(State(published): State<Arc<Mutex<Published>>>) -> (StatusCode, String) {
    let mut published = locked(&published);
    published.requests += 1;
    let status = StatusCode::from_u16(published.status).unwrap_or(StatusCode::NOT_FOUND);
    (status, published.body.clone())
}

fn locked(published: &Mutex<Published>) -> MutexGuard<'_, Published> {
    published.lock().unwrap_or_else(PoisonError::into_inner)
}
