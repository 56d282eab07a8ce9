//! Who is asking: users, their memberships and roles, invitations, API keys and signed tokens.
//!
//! - [`user`], [`member`], [`role`], [`invitation`]: people. [`actor`] says how far one's authority over others goes.
//! - [`api_key`] makes keys and [`verify`] recognises them; [`secret`] is their form, [`scope`] what they are limited to.
//! - [`jwt`]: signed tokens. [`credential`] is what they share with keys.
//! - [`settings`]: prefix, pepper, and how tokens are read.

mod actor;
mod api_key;
mod credential;
mod erase;
mod invitation;
mod invitation_trim;
mod jwt;
mod member;
mod role;
mod scope;
mod secret;
mod settings;
mod user;
mod verify;

pub use erase::erase;
pub use invitation_trim::TASKS;
pub use member::insert as insert_member;
pub use role::OWNER;

use crate::level::Level;
use pgrx::prelude::*;

pub const FUNCTIONS: &[(Level, &str)] = &[
    (Level::App, "create_user"),
    (Level::App, "find_user"),
    (Level::App, "update_user"),
    (Level::Operator, "delete_user"),
    (Level::App, "user_tenants"),
    (Level::App, "record_login"),
    (Level::App, "add_member"),
    (Level::App, "change_role"),
    (Level::App, "remove_member"),
    (Level::Admin, "add_role"),
    (Level::Admin, "remove_role"),
    (Level::Public, "current_member_role"),
    (Level::Client, "has_role"),
    (Level::Client, "require_role"),
    (Level::Client, "has_scope"),
    (Level::Client, "require_scope"),
    (Level::App, "create_invitation"),
    (Level::Client, "accept_invitation"),
    (Level::App, "revoke_invitation"),
    (Level::Admin, "trim_invitations"),
    (Level::App, "create_api_key"),
    (Level::App, "rotate_api_key"),
    (Level::App, "revoke_api_key"),
    (Level::Client, "verify_api_key"),
    (Level::Client, "authenticate_api_key"),
    (Level::Admin, "add_jwt_key"),
    (Level::Admin, "remove_jwt_key"),
    (Level::Client, "authenticate_jwt"),
    (Level::App, "issue_jwt"),
    (Level::App, "revoke_tokens"),
];
pub const RELATIONS: &[(Level, &str)] = &[
    (Level::Client, "tenancy.roles"),
    (Level::Monitor, "tenancy.roles"),
    (Level::Client, "tenancy.members"),
    (Level::Operator, "tenancy.members"),
    (Level::Client, "tenancy.invitations"),
    (Level::Operator, "tenancy.invitations"),
    (Level::Client, "tenancy.api_keys"),
    (Level::Operator, "tenancy.api_keys"),
    (Level::Operator, "tenancy.users"),
    (Level::Operator, "tenancy.memberships"),
    (Level::Admin, "tenancy.jwt_keys"),
];

/// Registers the settings.
pub fn init() {
    settings::init();
}

extension_sql_file!(
    "../../sql/access.sql",
    name = "access",
    requires = [
        "bootstrap",
        "context",
        "authority",
        create_user,
        find_user,
        update_user,
        delete_user,
        user_tenants,
        record_login,
        add_member,
        change_role,
        remove_member,
        add_role,
        remove_role,
        current_member_role,
        has_role,
        require_role,
        has_scope,
        require_scope,
        create_invitation,
        accept_invitation,
        revoke_invitation,
        trim_invitations,
        create_api_key,
        rotate_api_key,
        revoke_api_key,
        add_jwt_key,
        remove_jwt_key,
        issue_jwt,
        revoke_tokens
    ]
);
