//! The whole table of keys, compared with the committed one: a change of any bound, default or trust rule is seen.

use crate::support::Place;
use expect_test::expect_file;
use forge_config::schema::KEYS;
use std::fmt::Write as _;

#[test]
fn the_table_of_keys_is_the_committed_one() {
    let mut table = String::new();
    for key in KEYS {
        let _ = writeln!(table, "{}: {:?}", key.path, key.kind);
        let _ = writeln!(table, "    default {:?}, untrusted {:?}", key.default, key.trust);
        for alias in key.aliases {
            let _ = writeln!(table, "    variable {} {:?}", alias.name, alias.reading);
        }
        for path in key.other_paths {
            let _ = writeln!(table, "    path {path}");
        }
        let _ = writeln!(table, "    {}", key.doc);
    }
    let settings = serde_json::to_string_pretty(&Place::new().load().settings).unwrap();
    let _ = writeln!(table, "\nSettings by default:\n{settings}");
    expect_file!["schema_table.txt"].assert_eq(&table);
}
