//! An init that leaves out protections on request, for tests that show that escape attempts are detected.

fn main() {
    forge_jail::init_main_weakened();
}
