//! The built program, driven from outside like a user does, against the scripted model server.

mod bad_input;
mod containers;
mod damage;
mod demo;
mod dice;
mod durable;
mod faults;
mod harness;
mod hostile;
mod jobs;
mod kills;
mod leftovers;
mod login;
mod picture;
mod remains;
mod reports;
mod secrets;
mod setup;
mod steps;
mod storage;
mod terminals;
mod together;
mod usage;
mod views;
