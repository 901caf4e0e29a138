//! An init that leaves out protections when it is told to, for tests that show that escape attempts are noticed.

fn main() {
    forge_jail::init_main_weakened();
}
