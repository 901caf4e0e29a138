//! The definition of settings: one entry per key produces the field of a struct, with its documentation, and the row of
//! the schema.

/// Defines the settings of one section: a struct with a field per key, and the keys as rows of the schema.
///
/// An entry is a doc comment, which is also the description of the key, and
/// `name: type = default, kind, changes that an untrusted repository may make`. Environment variables, alternative
/// paths and flags of the command line may follow (`with_env`, `with_paths`, `with_flags`). The functions and constants
/// of [`crate::schema::rows`] are in scope. `keys NAME:` begins a group of rows, which becomes a constant.
macro_rules! settings {
    (
        $(#[$attribute:meta])*
        pub struct $name:ident in $section:literal {
            $(
                keys $group:ident:
                $(
                    $(#[doc = $doc:literal])+
                    $field:ident: $type:ty = $default:expr, $kind:expr, $trust:expr
                        $(, $option:ident($($argument:expr),+))*;
                )+
            )+
            $(
                sections:
                $(
                    $(#[$inner_attribute:meta])*
                    $inner:ident: $inner_type:ty;
                )+
            )?
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Debug, PartialEq, serde::Serialize, serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        pub struct $name {
            $($(
                $(#[doc = $doc])+
                #[doc = concat!("\n\nKey `", $section, stringify!($field), "`: `", stringify!($kind), "`.")]
                pub $field: $type,
            )+)+
            $($(
                #[doc = concat!("Section `[", $section, stringify!($inner), "]`.")]
                $(#[$inner_attribute])*
                pub $inner: $inner_type,
            )+)?
        }

        $(
            pub(crate) const $group: &[$crate::schema::key::SchemaKey] = {
                use $crate::schema::rows::*;
                &[$(
                    SchemaKey::new(
                        concat!($section, stringify!($field)),
                        $kind,
                        $default,
                        $trust,
                        concat!($($doc),+),
                    )
                    $(.$option(&[$($argument),+]))*
                ),+]
            };
        )+
    };
}

/// Defines an enumeration of the values of a key by their names in the configuration, each with its alternative
/// spellings.
macro_rules! choices {
    (
        $(#[$attribute:meta])*
        pub enum $name:ident {
            $(
                $(#[$variant_attribute:meta])*
                $variant:ident = $text:literal $(| $spelling:literal)*,
            )+
        }
    ) => {
        $(#[$attribute])*
        #[derive(Clone, Copy, Debug, PartialEq, Eq, serde::Serialize, serde::Deserialize)]
        pub enum $name {
            $(
                $(#[$variant_attribute])*
                #[serde(rename = $text)]
                $variant,
            )+
        }

        impl $name {
            pub(crate) const KIND: $crate::schema::kind::KeyKind =
                $crate::schema::kind::KeyKind::Choice(&[$(($text, &[$($spelling),*])),+]);

            /// Returns the name used in configuration.
            pub const fn name(self) -> &'static str {
                match self {
                    $(Self::$variant => $text,)+
                }
            }

            /// Returns the choice with this name or spelling.
            pub fn from_name(name: &str) -> Option<Self> {
                match name {
                    $($text $(| $spelling)* => Some(Self::$variant),)+
                    _ => None,
                }
            }
        }
    };
}

pub(super) use {choices, settings};
