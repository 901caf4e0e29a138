//! Project of the demo, embedded in the program so that no download is needed.

use std::path::Path;

macro_rules! embedded {
    ($($name:literal),* $(,)?) => {
        /// All files: path and content.
        pub(super) const FILES: &[(&str, &str)] = &[
            $(($name, include_str!(concat!("../../../../../tests/fixtures/demo/", $name)))),*
        ];
    };
}

embedded! {
    "README.md",
    "example.csv",
    "invoice/__init__.py",
    "invoice/__main__.py",
    "invoice/lines.py",
    "invoice/money.py",
    "tests/__init__.py",
    "tests/test_invoice.py",
}

/// Replies of the scripted model.
pub(super) const MODEL_SCRIPT: &str = include_str!("../../../../../tests/fixtures/demo/script.json");

/// Content of `.gitignore`: caches of Python are not changes of the project.
const GITIGNORE_TEXT: &str = "__pycache__/\n";

/// Writes the project into a new directory.
pub(super) fn unpack_project(folder: &Path) -> std::io::Result<()> {
    std::fs::create_dir_all(folder)?;
    std::fs::write(folder.join(".gitignore"), GITIGNORE_TEXT)?;
    for (name, content) in FILES {
        let path = folder.join(name);
        std::fs::create_dir_all(path.parent().unwrap_or(folder))?;
        std::fs::write(path, content)?;
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_file_of_the_project_is_embedded() {
        let root = Path::new(env!("CARGO_MANIFEST_DIR")).join("../../tests/fixtures/demo");
        let mut found = Vec::new();
        let mut folders = vec![root.clone()];
        while let Some(folder) = folders.pop() {
            for entry in std::fs::read_dir(folder).unwrap() {
                let path = entry.unwrap().path();
                let name = path.strip_prefix(&root).unwrap().display().to_string();
                if path.is_dir() && !name.ends_with("__pycache__") {
                    folders.push(path);
                } else if path.is_file() && !["script.json", ".gitignore"].contains(&name.as_str()) {
                    found.push(name);
                }
            }
        }
        found.sort();
        let mut embedded: Vec<_> = FILES.iter().map(|(name, _)| (*name).to_owned()).collect();
        embedded.sort();
        assert_eq!(embedded, found);
    }
}
