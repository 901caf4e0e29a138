//! The init, search helper and prober of sandboxes as a separate program, for tests: their runner cannot act as these.
//! As the init it obeys requests to omit protections, so that tests can show that probes notice; Forge never does.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.first().is_some_and(|name| name == forge_jail::INIT_ARGV0) {
        forge_jail::init_main_weakened();
    }
    let code = forge_sandbox::helper_main(&arguments).unwrap_or(2);
    std::process::exit(code);
}
