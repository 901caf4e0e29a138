//! Egress: the only way out of a box that may reach named hosts, a proxy behind a socket.
