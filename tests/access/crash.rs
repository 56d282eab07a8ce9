//! `kill -9` of the server, and what people were told of credentials before it.

use super::fixtures;
use crate::crash::durable;
use harness::{Uuid, as_tenant, bind, fails, one, optional, rows, tenant};

/// Whoever was told that a credential was made or ended can rely on it, and what was not committed is not there.
#[test]
fn what_was_told_of_credentials_before_a_crash_holds_after_it() {
    let (mut cluster, database) = durable("credentials");
    let id = tenant(&mut database.connect("operator"));
    let mut app = database.connect("app");
    let mut client = database.connect("client");
    fixtures::signing_key(&mut database.connect("admin"), "k1");
    let owner = fixtures::member(&mut app, id, "owner");
    let removed = fixtures::member(&mut app, id, "member");
    let made = fixtures::api_key(&mut app, id, Some(owner), &["*"]);
    let ended = [None, Some(removed), None].map(|user| fixtures::api_key(&mut app, id, user, &[]));
    let token = fixtures::token(&mut app, id, owner);
    let old_token = fixtures::token(&mut app, id, removed);
    let [used, open] = [(); 2].map(|()| fixtures::invitation(&mut app, id, &fixtures::email(), "viewer").token);
    let guest = fixtures::user(&mut app);
    let accept = "SELECT accept_invitation($1, $2)";
    one::<Uuid>(&mut client, accept, &[&used, &guest]);
    as_tenant(&mut app, id, |tx| {
        assert!(one::<bool>(tx, "SELECT revoke_api_key($1)", &[&ended[0].id]));
        assert!(one::<bool>(tx, "SELECT remove_member($1)", &[&removed]));
        assert_eq!(rows(tx, "SELECT * FROM rotate_api_key($1)", &[&ended[2].id]).len(), 1);
    });
    // Under way: another revocation and another key, not committed.
    let mut under_way = app.transaction().expect("begin");
    bind(&mut under_way, id);
    assert!(one::<bool>(&mut under_way, "SELECT revoke_api_key($1)", &[&made.id]));
    let lost: String = one(&mut under_way, "SELECT api_key FROM create_api_key('lost')", &[]);
    cluster.kill9();
    drop(under_way);
    cluster.start_again();
    let mut client = database.connect("client");
    let verify = "SELECT key_id FROM verify_api_key($1)";
    assert_eq!(optional::<Uuid>(&mut client, verify, &[&made.text]), Some(made.id));
    for key in ended.iter().map(|key| &key.text).chain([&lost]) {
        assert_eq!(optional::<Uuid>(&mut client, verify, &[key]), None);
    }
    assert_eq!(one::<Uuid>(&mut client, "SELECT user_id FROM authenticate_jwt($1)", &[&token]), owner);
    fails(client.query("SELECT authenticate_jwt($1)", &[&old_token]), "28000");
    let mut app = database.connect("app");
    let late = fixtures::user(&mut app);
    fails(client.query(accept, &[&used, &late]), "28000");
    assert_eq!(one::<Uuid>(&mut client, accept, &[&open, &late]), id);
    assert_eq!(fixtures::role_of(&mut database.connect("operator"), id, guest).as_deref(), Some("viewer"));
}
