//! Members of a tenant as a limited resource.

use super::fixtures::*;
use harness::*;

#[test]
fn members_are_limited_like_rows() {
    let database = Database::new("limit_members");
    let mut admin = database.connect("admin");
    assert!(one::<bool>(&mut admin, "SELECT limit_table('tenancy.memberships', 'members')", &[]));
    assert!(!one::<bool>(&mut admin, "SELECT limit_table('tenancy.memberships', 'members')", &[]));
    let shop = Shop { database };
    let mut operator = shop.connect("operator");
    let [few, other] = [tenant(&mut operator), tenant(&mut operator)];
    shop.set_limit(few, "members", Some(2));
    shop.set_limit(other, "members", None);
    let mut app = shop.connect("app");
    let mut user =
        |name: &str| -> Uuid { one(&mut shop.connect("app"), "SELECT create_user($1 || '@example.com')", &[&name]) };
    let users = ["a", "b", "c"].map(&mut user);
    let mut change = |tenant: Uuid, function: &str, user: Uuid| {
        let mut transaction = app.transaction().expect("begin");
        bind(&mut transaction, tenant);
        let done = transaction.query(&format!("SELECT {function}($1)"), &[&user]).map(drop);
        if done.is_ok() { transaction.commit() } else { transaction.rollback().and(done) }
    };
    for user in &users[..2] {
        change(few, "add_member", *user).expect("add");
    }
    let fault = fails(change(few, "add_member", users[2]), "54000");
    assert_eq!(fault.message(), "limit reached for members (2)");
    for user in &users {
        change(other, "add_member", *user).expect("add");
    }
    change(few, "remove_member", users[0]).expect("remove");
    change(few, "add_member", users[2]).expect("add");
    fails(change(few, "add_member", users[0]), "54000");
    // A user goes from every tenant at once.
    operator.execute("SELECT delete_user($1)", &[&users[2]]).expect("delete");
    change(few, "add_member", users[0]).expect("add");
    assert_eq!(count(&mut admin, "verify_limits()"), 0);
    assert!(one::<bool>(&mut admin, "SELECT unlimit_table('tenancy.memberships', 'members')", &[]));
    let fourth = user("d");
    change(few, "add_member", fourth).expect("add");
}
