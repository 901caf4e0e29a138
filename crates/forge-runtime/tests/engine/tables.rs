//! Two crates that may not see each other name the same providers: they must say the same.

use forge_catalog::vendors::VENDORS;
use forge_config::ForgeSettings;

#[test]
fn the_schema_and_the_vendors_agree() {
    let home = tempfile::tempdir().expect("a folder");
    let env = [("HOME".to_owned(), home.path().display().to_string())].into_iter().collect();
    let sources = forge_config::ConfigSources { env, ..forge_config::ConfigSources::default() };
    let settings: ForgeSettings = forge_config::load(&sources).expect("defaults").settings;
    for vendor in VENDORS {
        let own =
            settings.providers.get(vendor.name).unwrap_or_else(|| panic!("{} has no section", vendor.name));
        if let Some(model) = &own.default_model {
            assert_eq!(Some(model.as_str()), vendor.default_model, "{}", vendor.name);
        }
        if let Some(variable) = &own.api_key_env {
            assert_eq!(Some(variable.as_str()), vendor.key_env.first().copied(), "{}", vendor.name);
        }
    }
    assert_eq!(settings.providers.len(), VENDORS.len());
}
