//! Who may use the services, as the settings say.

use tidelog_http::{ROLES_CLAIM, Secret};

use super::sources::{InvalidSettings, Layers};
use super::values::parsed;

const FLAG: &str = "true or false";

/// Who may use the services, and for what. Nobody signs in unless `jwks` or `secret` says how.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthSettings {
    /// Where the keys are that tokens are signed with: an `https://` URL (`http://` on this machine), or a file.
    pub jwks: Option<String>,
    /// In its place, for development: the secret that tokens are signed with, of 32 bytes or more.
    pub secret: Option<Secret>,
    /// Who issues the tokens. Needed with either.
    pub issuer: Option<String>,
    /// For whom the tokens are. Needed with either.
    pub audience: Option<String>,
    /// The claim that has a caller's roles.
    pub roles_claim: String,
    /// The claim that says for which tenant a caller asks; `None` where there are no tenants.
    pub tenant_claim: Option<String>,
    /// Which roles may do what, as [`Rules::overridden_by`](tidelog_http::Rules::overridden_by) reads it.
    pub roles: Option<String>,
    /// Whether the services may listen beyond this machine though nobody signs in.
    pub insecure_no_auth: bool,
}

impl Default for AuthSettings {
    fn default() -> Self {
        Self {
            jwks: None,
            secret: None,
            issuer: None,
            audience: None,
            roles_claim: ROLES_CLAIM.to_owned(),
            tenant_claim: None,
            roles: None,
            insecure_no_auth: false,
        }
    }
}

impl AuthSettings {
    /// Reads the texts.
    pub(super) fn from_layers(layers: &Layers) -> Result<Self, InvalidSettings> {
        let text = |key| {
            let value = layers.get(key).map(|(value, _)| value.trim().to_owned());
            value.filter(|value| !value.is_empty())
        };
        Ok(Self {
            jwks: text("auth_jwks"),
            secret: layers
                .get("auth_secret")
                .map(|(secret, _)| Secret::new(secret)),
            issuer: text("auth_issuer"),
            audience: text("auth_audience"),
            roles_claim: text("auth_roles_claim").unwrap_or_else(|| ROLES_CLAIM.to_owned()),
            tenant_claim: text("auth_tenant_claim"),
            roles: text("roles"),
            insecure_no_auth: parsed(layers, "insecure_no_auth", FLAG, |text| text.parse().ok())?,
        })
    }
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeMap;

    use super::*;
    use crate::settings::Settings;

    fn auth(flags: &[(&'static str, &str)]) -> Result<AuthSettings, InvalidSettings> {
        let flags: BTreeMap<_, _> = flags
            .iter()
            .map(|(key, value)| (*key, (*value).to_owned()))
            .collect();
        let layers = Layers::gather(&flags, |_| None, None)?;
        Settings::from_layers(&layers).map(|settings| settings.auth)
    }

    #[test]
    fn nobody_signs_in_unless_said() {
        assert_eq!(auth(&[]).unwrap(), AuthSettings::default());
        assert!(
            auth(&[("insecure_no_auth", "true")])
                .unwrap()
                .insecure_no_auth
        );
        let wrong = auth(&[("insecure_no_auth", "yes")]).unwrap_err();
        assert!(wrong.to_string().contains("true or false"), "{wrong}");
    }

    #[test]
    fn the_secret_is_shown_nowhere() {
        let auth = auth(&[("auth_secret", "hunter2hunter2")]).unwrap();
        assert!(!format!("{auth:?}").contains("hunter2"));
    }
}
