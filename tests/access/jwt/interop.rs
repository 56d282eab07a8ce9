//! Tokens of other implementations: theirs are verified here, ours there. See tests/interop/README.md.

use super::signer::{ALGORITHMS, SigningKey};
use super::specimens::{Specimen, TENANT, USER, committed};
use super::{Desk, Principal, new_kid};
use crate::access::fixtures::email;
use harness::*;
use serde_json::{Value, json};
use std::io::Write;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

const SOURCES: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/interop");

#[test]
fn tokens_of_pyjwt_and_jose_are_verified() {
    let mut desk = Desk::new("jwt_interop");
    let scopes = Some(vec!["files:read".to_owned(), "users:*".to_owned()]);
    let expected = Principal { scopes, ..Principal::of(TENANT, USER, "viewer") };
    one::<Uuid>(&mut desk.operator, "SELECT create_tenant('Interop', id => $1)", &[&TENANT]);
    as_tenant(&mut desk.app, TENANT, |tx| {
        one::<Uuid>(tx, "SELECT create_user($1, id => $2)", &[&email(), &USER]);
        one::<Uuid>(tx, "SELECT add_member($1, 'viewer')", &[&USER]);
    });
    let specimens = committed();
    assert_eq!(specimens.len(), 2 * ALGORITHMS.len());
    for library in ["PyJWT", "jose"] {
        let of_library = specimens.iter().filter(|specimen| specimen.library.starts_with(library));
        assert_eq!(of_library.map(|specimen| specimen.algorithm.as_str()).collect::<Vec<_>>(), ALGORITHMS);
    }
    for specimen in &specimens {
        assert_eq!(admitted_by_both_forms(&mut desk, specimen), expected, "{}", specimen.library);
    }
}

/// Who a specimen is by its key, and by the same key as a JWK; nobody without one, or with another.
#[track_caller]
fn admitted_by_both_forms(desk: &mut Desk, specimen: &Specimen) -> Principal {
    let Specimen { algorithm, kid, key, jwk, token, .. } = specimen;
    desk.refuses(token, None, "kid");
    let stranger =
        ALGORITHMS.into_iter().find(|known| known == algorithm).map(SigningKey::generate).expect("an algorithm");
    let principals = [stranger.verifying_key(), key.clone(), jwk.clone()].map(|verifying| {
        desk.add_key(kid, algorithm, &verifying);
        let principal = super::authenticate(&mut desk.client, token);
        one::<bool>(&mut desk.admin, "SELECT remove_jwt_key($1)", &[kid]);
        principal
    });
    let [by_stranger, by_key, by_jwk] = principals;
    fails(by_stranger, "28000");
    let (by_key, by_jwk) = (by_key.expect("verified by the key"), by_jwk.expect("verified by the JWK"));
    assert_eq!(by_key, by_jwk);
    by_key
}

/// A library of another language, with the program of tests/interop that uses it.
struct Library {
    name: &'static str,
    program: [&'static str; 2],
}

impl Library {
    fn directory(&self) -> PathBuf {
        Path::new(env!("CARGO_TARGET_TMPDIR")).join("interop").join(self.name)
    }

    fn install(&self) -> Result<(), String> {
        let mut install = Command::new(format!("{SOURCES}/install.sh"));
        let output = install.arg(self.name).arg(self.directory()).output().map_err(|error| error.to_string())?;
        if output.status.success() { Ok(()) } else { Err(String::from_utf8_lossy(&output.stderr).into_owned()) }
    }

    /// What the program prints, or what it complains of.
    fn call(&self, task: &str, input: &Value) -> Result<String, String> {
        let mut command = Command::new(self.program[0]);
        command.args([self.program[1], task]).current_dir(self.directory()).env("PYTHONPATH", "packages");
        command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut running = command.spawn().map_err(|error| error.to_string())?;
        let mut stdin = running.stdin.take().expect("the program's input is a pipe");
        // It may have ended already: then its complaint tells why.
        stdin.write_all(input.to_string().as_bytes()).ok();
        drop(stdin);
        let output = running.wait_with_output().map_err(|error| error.to_string())?;
        let read = |bytes: &[u8]| String::from_utf8_lossy(bytes).into_owned();
        if output.status.success() { Ok(read(&output.stdout)) } else { Err(read(&output.stderr)) }
    }

    fn skip(&self, complaint: &str) {
        let short: String = complaint.split_whitespace().collect::<Vec<_>>().join(" ").chars().take(300).collect();
        // Not by a macro: what a test prints by one is shown only when it fails.
        writeln!(std::io::stderr(), "skipped: {} cannot be used here, so it exchanges no tokens: {short}", self.name)
            .expect("say so");
    }
}

/// Both ways, with fresh keys and tokens; skipped where the library cannot be used.
fn exchange(library: &Library) {
    let mut desk = Desk::new("jwt_exchange");
    let (tenant, ada) = (desk.tenant, desk.ada);
    let signed = library.install().and_then(|()| library.call("sign", &json!({ "claims": desk.claims() })));
    let theirs = match signed {
        Ok(printed) => Specimen::list(&printed),
        Err(complaint) => return library.skip(&complaint),
    };
    assert_eq!(theirs.len(), ALGORITHMS.len());
    for specimen in &theirs {
        assert_eq!(admitted_by_both_forms(&mut desk, specimen), desk.ada());
    }
    let mut orders = Vec::new();
    for key in ALGORITHMS.map(SigningKey::generate) {
        let (kid, private) = (new_kid(), key.private_key());
        let secret = private.is_none().then(|| key.verifying_key());
        let add = "SELECT add_jwt_key($1, $2, $3, private_key => $4, issuer => 'pg_tenancy', audience => 'interop')";
        one::<String>(&mut desk.admin, add, &[&kid, &key.algorithm(), &secret, &private]);
        let token = as_tenant(&mut desk.app, tenant, |tx| {
            one::<String>(tx, "SELECT issue_jwt($1, scopes => '{files:read,users:*}', kid => $2)", &[&ada, &kid])
        });
        orders.push(json!({ "algorithm": key.algorithm(), "jwk": key.jwk(), "token": token, "issuer": "pg_tenancy", "audience": "interop" }));
    }
    let verified = library.call("verify", &json!(orders)).expect("verified by the library");
    let claims: Vec<Value> = serde_json::from_str(&verified).expect("claims");
    assert_eq!(claims.len(), ALGORITHMS.len());
    for claims in &claims {
        assert_eq!(claims["sub"], json!(ada.to_string()));
        assert_eq!(claims["tenant_id"], json!(tenant.to_string()));
        assert_eq!(claims["role"], json!("member"));
        assert_eq!(claims["scope"], json!("files:read users:*"));
    }
    // The library does verify: with another key it takes none.
    orders[0]["jwk"] = SigningKey::generate("HS256").jwk();
    let complaint = library.call("verify", &json!(orders)).expect_err("a token of another key");
    assert!(complaint.to_lowercase().contains("signature"), "{complaint}");
}

#[test]
fn pyjwt_and_pg_tenancy_verify_each_others_tokens() {
    exchange(&Library { name: "pyjwt", program: ["python3", "pyjwt.py"] });
}

#[test]
fn jose_and_pg_tenancy_verify_each_others_tokens() {
    exchange(&Library { name: "jose", program: ["node", "jose.mjs"] });
}
