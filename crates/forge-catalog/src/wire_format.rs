//! The wire formats of model APIs.

/// A wire format.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum WireFormat {
    /// The format of OpenAI chat completions.
    OpenAi,
    /// The format of OpenAI responses.
    Responses,
    /// The format of Anthropic messages.
    Anthropic,
    /// The format of Gemini `streamGenerateContent`.
    Gemini,
    /// The format of Ollama `/api/chat`.
    Ollama,
    /// The format of Ollama `/api/generate`.
    Generate,
    /// The format of llama.cpp `/completion`.
    Completion,
    /// No wire format: replies from a file.
    Scripted,
}

impl WireFormat {
    /// Returns the path below the API version; empty if it is not constant.
    pub const fn path(self) -> &'static str {
        match self {
            Self::OpenAi => "/chat/completions",
            Self::Responses => "/responses",
            Self::Anthropic => "/messages",
            Self::Ollama => "/chat",
            Self::Generate => "/generate",
            Self::Completion => "/completion",
            Self::Gemini | Self::Scripted => "",
        }
    }
}
