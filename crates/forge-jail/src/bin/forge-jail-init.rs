//! The init of a sandbox as a separate program: for tests and measurements, where no larger binary is available.

fn main() {
    forge_jail::init_main();
}
