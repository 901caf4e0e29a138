//! Colours of the terminal.

/// Whether colours are used.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum ColorMode {
    /// Colours.
    On,
    /// No colours.
    Off,
}

/// Applies colours with SGR codes (ECMA-48), or leaves text unchanged.
#[derive(Clone, Copy, Debug)]
pub struct Style {
    colors: ColorMode,
}

impl Style {
    /// Creates a style with or without colours.
    pub const fn new(colors: ColorMode) -> Self {
        Self { colors }
    }

    fn apply_sgr(self, code: &str, text: &str) -> String {
        match self.colors {
            ColorMode::On => format!("\x1b[{code}m{text}\x1b[0m"),
            ColorMode::Off => text.to_owned(),
        }
    }

    /// Marks important text.
    pub fn bold(self, text: &str) -> String {
        self.apply_sgr("1", text)
    }

    /// Marks secondary text.
    pub fn dim(self, text: &str) -> String {
        self.apply_sgr("2", text)
    }

    /// Marks a failure.
    pub fn red(self, text: &str) -> String {
        self.apply_sgr("31", text)
    }

    /// Marks a success.
    pub fn green(self, text: &str) -> String {
        self.apply_sgr("32", text)
    }

    /// Marks a possible problem.
    pub fn yellow(self, text: &str) -> String {
        self.apply_sgr("33", text)
    }

    /// Marks a name.
    pub fn cyan(self, text: &str) -> String {
        self.apply_sgr("36", text)
    }
}
