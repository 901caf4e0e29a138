//! Colours, or none.

/// Whether there are colours.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum ColorMode {
    /// Yes.
    On,
    /// No.
    Off,
}

/// Paints texts, or leaves them as they are. SGR codes of ECMA-48.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Style {
    colors: ColorMode,
}

impl Style {
    /// A style with or without colours.
    pub(crate) const fn new(colors: ColorMode) -> Self {
        Self { colors }
    }

    fn apply_sgr(self, code: &str, text: &str) -> String {
        match self.colors {
            ColorMode::On => format!("\x1b[{code}m{text}\x1b[0m"),
            ColorMode::Off => text.to_owned(),
        }
    }

    /// For what is important.
    pub(crate) fn bold(self, text: &str) -> String {
        self.apply_sgr("1", text)
    }

    /// For what is beside the point.
    pub(crate) fn dim(self, text: &str) -> String {
        self.apply_sgr("2", text)
    }

    /// For what went wrong.
    pub(crate) fn red(self, text: &str) -> String {
        self.apply_sgr("31", text)
    }

    /// For what went well.
    pub(crate) fn green(self, text: &str) -> String {
        self.apply_sgr("32", text)
    }

    /// For what may be wrong.
    pub(crate) fn yellow(self, text: &str) -> String {
        self.apply_sgr("33", text)
    }

    /// For names.
    pub(crate) fn cyan(self, text: &str) -> String {
        self.apply_sgr("36", text)
    }
}
