//! Moving tenants between isolations.

mod attack;
mod crash;
mod database;
mod derive;
mod fixtures;
mod keys;
mod kinds;
mod races;
mod refused;
mod there_and_back;
