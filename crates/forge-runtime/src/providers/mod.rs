//! A project's providers: models and prices, keys and logins, and the choice of a route.

pub(crate) mod classify;
pub(crate) mod logins;
pub(crate) mod overview;
pub(crate) mod prices;
pub(crate) mod routing;
pub(crate) mod weights;
