//! Live frames: partial text and command output. Never journalled, lossy, without a `seq`.

use super::WireKind;
use serde::ser::{Serialize, SerializeStruct, Serializer};
use serde::{Deserialize, Serialize as SerializeDerive};

/// The output stream of a command.
#[derive(Clone, Copy, Debug, PartialEq, Eq, SerializeDerive, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum OutputStream {
    /// Standard output.
    Stdout,
    /// Standard error.
    Stderr,
}

/// A partial result. The event that completes it holds the whole.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum LiveFrame {
    /// More text of a model's reply.
    ModelDelta {
        /// The text.
        text: String,
    },
    /// More text of a model's reasoning, if the provider exposes it.
    Reasoning {
        /// The text.
        text: String,
    },
    /// A line of a command's output, without its line ending.
    ExecOutput {
        /// The stream.
        stream: OutputStream,
        /// The line.
        line: String,
    },
    /// A debugging step (`router.debug`); not part of the public vocabulary.
    Debug {
        /// The step's name.
        name: String,
        /// The step's data.
        data: serde_json::Value,
    },
}

impl LiveFrame {
    /// Returns the name of the frame's kind.
    pub fn kind(&self) -> &str {
        match self {
            Self::ModelDelta { .. } | Self::Reasoning { .. } => WireKind::ModelDelta.name(),
            Self::ExecOutput { .. } => WireKind::ExecOutput.name(),
            Self::Debug { name, .. } => name,
        }
    }
}

#[derive(SerializeDerive)]
#[serde(untagged)]
enum FrameData<'a> {
    Text { text: &'a str },
    Reasoning { text: &'a str, reasoning: bool },
    Output { stream: OutputStream, line: &'a str },
    Debug(&'a serde_json::Value),
}

/// Serializes as `{kind, data}` like an event; reasoning is a `model.delta` with `reasoning: true`.
impl Serialize for LiveFrame {
    fn serialize<S: Serializer>(&self, serializer: S) -> Result<S::Ok, S::Error> {
        let data = match self {
            Self::ModelDelta { text } => FrameData::Text { text },
            Self::Reasoning { text } => FrameData::Reasoning { text, reasoning: true },
            Self::ExecOutput { stream, line } => FrameData::Output { stream: *stream, line },
            Self::Debug { data, .. } => FrameData::Debug(data),
        };
        let mut frame = serializer.serialize_struct("LiveFrame", 2)?;
        frame.serialize_field("kind", self.kind())?;
        frame.serialize_field("data", &data)?;
        frame.end()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn frames_look_like_events_without_a_position() {
        let json = |frame: LiveFrame| serde_json::to_string(&frame).unwrap();
        assert_eq!(
            json(LiveFrame::ModelDelta { text: "hi".into() }),
            r#"{"kind":"model.delta","data":{"text":"hi"}}"#
        );
        assert_eq!(
            json(LiveFrame::Reasoning { text: "hm".into() }),
            r#"{"kind":"model.delta","data":{"text":"hm","reasoning":true}}"#
        );
        assert_eq!(
            json(LiveFrame::ExecOutput { stream: OutputStream::Stderr, line: "oh".into() }),
            r#"{"kind":"exec.output","data":{"stream":"stderr","line":"oh"}}"#
        );
    }
}
