//! The macro behind the table of keys in `config.rs`.

/// Makes of one table of keys:
///
/// - `Config`: what holds in the end;
/// - `Layer`: what one source says, the file or the command line, each key an `Option`;
/// - `KEYS`: name, explanation and [`Change`](super::Change) of each, in order.
///
/// One entry is the explanation (also shown by `--help` and in the shipped file), the option's
/// `#[arg]`, then `name: type = default, now` where a running guard can take a new value, or
/// `restart` where it cannot. A key that is no option has `#[arg(skip)]`.
macro_rules! keys {
    ($(
        $(#[doc = $doc:literal])+
        #[arg($($arg:tt)*)]
        $(#[serde($($serde:tt)*)])?
        $name:ident: $type:ty = $default:expr, $change:ident;
    )+) => {
        /// What the guard is told: the file, with what the command line says put over it.
        #[derive(Clone, Debug, PartialEq, Eq, Serialize)]
        pub struct Config {
            $($(#[doc = $doc])+ pub $name: $type,)+
        }

        /// What one source says. `None`: nothing about this key.
        #[derive(Args, Clone, Debug, Default, PartialEq, Eq, Deserialize)]
        #[serde(deny_unknown_fields, default)]
        pub struct Layer {
            $($(#[doc = $doc])+ #[arg($($arg)*)] $(#[serde($($serde)*)])?
            pub $name: Option<$type>,)+
        }

        /// Every key, in the order of the shipped file.
        pub const KEYS: &[Key] = &[
            $(Key {
                name: stringify!($name),
                explained: &[$($doc),+],
                change: keys!(@change $change),
            },)+
        ];

        impl Default for Config {
            fn default() -> Self {
                Self { $($name: $default,)+ }
            }
        }

        impl Layer {
            /// Puts what this source says over `config`.
            pub fn put_over(self, config: &mut Config) {
                $(if let Some(value) = self.$name {
                    config.$name = value;
                })+
            }
        }

        impl Config {
            /// The keys whose values differ.
            #[must_use]
            pub fn differences(&self, other: &Self) -> Vec<&'static Key> {
                let differs = [$(self.$name != other.$name),+];
                KEYS.iter()
                    .zip(differs)
                    .filter_map(|(key, differs)| differs.then_some(key))
                    .collect()
            }
        }
    };
    (@change now) => { Change::Now };
    (@change restart) => { Change::Restart };
}

pub(super) use keys;
