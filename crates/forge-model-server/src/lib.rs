//! Servers for tests: a scripted model server that speaks the wire formats of model APIs over HTTP, and a server for
//! logins.

pub mod auth_server;
pub mod model_server;
