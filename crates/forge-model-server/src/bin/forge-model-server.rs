//! The scripted model server as a program: `forge-model-server --script FILE [--port N] [--chunk N] [--key KEY]`.
//!
//! Prints its URL on the first line of standard output and serves until it is ended. The script is a JSON file
//! of the form `{"replies": [{"text": "…", "tool_calls": [{"name": "…", "arguments": {…}}], "repeat": 1}, …],
//! "select": "in_order" | "by_turn", "when_done": "fail" | "repeat_last" | "start_over"}`.

use std::io::Write;
use std::process::ExitCode;

use forge_model_server::model_server::{
    Chunker, ModelServer, ModelServerSettings, RecordMode, ReplyFraming, ReplyScript, RuleMode,
};

const USAGE: &str =
    "usage: forge-model-server --script FILE [--port N] [--chunk BYTES] [--key KEY] [--lenient]";

fn main() -> ExitCode {
    match start_server(std::env::args().skip(1)) {
        Ok(server) => {
            let mut out = std::io::stdout();
            // Whoever started us may have closed its end; the server is still of use then.
            let _ = writeln!(out, "{}", server.url()).and_then(|()| out.flush());
            server.serve_forever();
            ExitCode::SUCCESS
        }
        Err(message) => {
            let _ = writeln!(std::io::stderr(), "forge-model-server: {message}");
            ExitCode::from(2)
        }
    }
}

fn start_server(mut arguments: impl Iterator<Item = String>) -> Result<ModelServer, String> {
    let mut settings = ModelServerSettings { record: RecordMode::Count, ..ModelServerSettings::default() };
    let mut script = None;
    while let Some(flag) = arguments.next() {
        let mut value = || arguments.next().ok_or_else(|| format!("{flag} needs a value\n{USAGE}"));
        match flag.as_str() {
            "--script" => script = Some(value()?),
            "--port" => settings.port = parse_number(&flag, &value()?)?,
            "--chunk" => {
                settings.framing =
                    ReplyFraming::with_chunker(Chunker::Bytes(usize::from(parse_number(&flag, &value()?)?)));
            }
            "--key" => settings.key = Some(value()?),
            "--lenient" => settings.rules = RuleMode::Lenient,
            _ => return Err(format!("unknown argument {flag}\n{USAGE}")),
        }
    }
    let path = script.ok_or_else(|| format!("--script is missing\n{USAGE}"))?;
    let text = std::fs::read_to_string(&path).map_err(|error| format!("cannot read {path}: {error}"))?;
    let script = ReplyScript::from_json(&text).map_err(|error| format!("{path}: {error}"))?;
    ModelServer::start_with(script, settings).map_err(|error| format!("cannot listen: {error}"))
}

fn parse_number(flag: &str, text: &str) -> Result<u16, String> {
    text.parse().map_err(|_| format!("{flag} needs a number from 0 to 65535, found {text}"))
}
