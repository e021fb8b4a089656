//! Continue tokens: base64url JSON with the version of the first page and where the next begins.

use base64::Engine as _;
use base64::engine::general_purpose::URL_SAFE_NO_PAD;
use serde_json::{Value, json};

use crate::lab::api::errors::ApiError;

/// Where a list goes on.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(super) struct Token {
    /// The version of the first page; `None` goes on at the latest, inconsistently.
    pub(super) version: Option<u64>,
    /// The place after the last object shown: `/NAME` or `/NAMESPACE/NAME`.
    pub(super) after: String,
}

impl Token {
    /// Reads a token.
    ///
    /// # Errors
    /// 400 when it is none.
    pub(super) fn parse(text: &str) -> Result<Self, ApiError> {
        let bad = |why: &str| {
            ApiError::bad_request(format!(
                "invalid continue token: continue key is not valid: {why}"
            ))
        };
        let bytes = URL_SAFE_NO_PAD
            .decode(text.trim_end_matches('='))
            .map_err(|error| bad(&error.to_string()))?;
        let token: Value =
            serde_json::from_slice(&bytes).map_err(|error| bad(&error.to_string()))?;
        let start = token["start"].as_str().unwrap_or("");
        let after = start.strip_suffix('\0').unwrap_or(start);
        let version = token["rv"].as_i64().ok_or_else(|| bad("no version"))?;
        Ok(Self {
            version: u64::try_from(version).ok(),
            after: format!("/{}", after.trim_start_matches('/')),
        })
    }

    /// Writes the token.
    pub(super) fn encode(&self) -> String {
        let version = self
            .version
            .map_or_else(|| json!(-1), |version| json!(version));
        // A token to go on inconsistently leaves the slash out.
        let after = match self.version {
            Some(_) => self.after.as_str(),
            None => self.after.trim_start_matches('/'),
        };
        let start = format!("{after}\u{0}");
        let token = json!({"v": "meta.k8s.io/v1", "rv": version, "start": start});
        URL_SAFE_NO_PAD.encode(token.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn tokens_are_those_of_the_real_server() {
        let token = Token {
            version: Some(327),
            after: "/page1".to_owned(),
        };
        let text = "eyJ2IjoibWV0YS5rOHMuaW8vdjEiLCJydiI6MzI3LCJzdGFydCI6Ii9wYWdlMVx1MDAwMCJ9";
        assert_eq!(token.encode(), text);
        assert_eq!(Token::parse(text).unwrap(), token);
        assert!(Token::parse("zzz").is_err());
    }
}
