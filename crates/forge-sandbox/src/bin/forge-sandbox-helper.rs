//! The init, the walker and the prober of boxes as a program of its own: for tests, whose runner cannot play them. As
//! the init it obeys weaknesses that are asked for, so that tests can show that probes notice them; Forge never does.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if arguments.first().is_some_and(|name| name == forge_jail::INIT_ARGV0) {
        forge_jail::init_main_weakened();
    }
    let code = forge_sandbox::helper_main(&arguments).unwrap_or(2);
    std::process::exit(code);
}
