//! Who is asking: users, members, roles, invitations, API keys and signed tokens.

mod api_keys;
mod crash;
pub mod fixtures;
mod invitations;
mod jwt;
mod key_fuzz;
mod members;
mod roles;
mod storm;
mod users;
