//! The store on SQLite: the contract, several processes, and what goes wrong.

mod contract;
