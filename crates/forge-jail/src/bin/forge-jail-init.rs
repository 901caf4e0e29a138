//! The init of a box as a program of its own: for tests and measurements, where no larger binary is at hand.

fn main() {
    forge_jail::init_main();
}
