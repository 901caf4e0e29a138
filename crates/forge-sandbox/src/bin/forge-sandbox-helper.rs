//! The init and the walker of boxes as a program of its own: for tests, whose runner cannot play them.

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    let code = forge_sandbox::helper_main(&arguments).unwrap_or(2);
    std::process::exit(code);
}
