//! The built program, driven from outside like a user does, against the scripted model server.

mod bad_input;
mod damage;
mod demo;
mod durable;
mod faults;
mod harness;
mod hostile;
mod jobs;
mod kills;
mod picture;
mod reports;
mod setup;
mod steps;
mod storage;
mod terminals;
mod usage;
mod views;
