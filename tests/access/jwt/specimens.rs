//! Tokens that other implementations made: tests/interop/tokens.json.

use harness::Uuid;
use serde_json::Value;

const TOKENS: &str = include_str!("../../interop/tokens.json");

/// A token, with what made it and what verifies it.
pub struct Specimen {
    /// What made it: name and version.
    pub library: String,
    pub algorithm: String,
    pub kid: String,
    /// The secret, or the public key in PEM.
    pub key: String,
    pub jwk: String,
    pub token: String,
}

impl Specimen {
    fn from(value: &Value) -> Specimen {
        let text = |name: &str| value[name].as_str().unwrap_or_else(|| panic!("no {name} in {value}")).to_owned();
        Specimen {
            library: text("library"),
            algorithm: text("algorithm"),
            kid: text("kid"),
            key: text("key"),
            jwk: value["jwk"].to_string(),
            token: text("token"),
        }
    }

    /// From the JSON list that the programs of tests/interop print.
    pub fn list(json: &str) -> Vec<Specimen> {
        let value: Value = serde_json::from_str(json).unwrap_or_else(|error| panic!("{error}: {json}"));
        value.as_array().expect("a list of tokens").iter().map(Specimen::from).collect()
    }
}

/// The tenant and the user that the committed tokens name.
pub const TENANT: Uuid = Uuid::from_u128(0x5eed_0000_0000_4000_8000_0000_0000_0001);
pub const USER: Uuid = Uuid::from_u128(0x5eed_0000_0000_4000_8000_0000_0000_0002);

/// The committed tokens.
pub fn committed() -> Vec<Specimen> {
    Specimen::list(TOKENS)
}
