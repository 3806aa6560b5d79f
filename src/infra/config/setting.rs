//! What is known of a setting.

/// One setting: its names in each place, its default, and what it means.
#[derive(Clone, Copy, Debug)]
pub struct Setting {
    /// Its name in the file and in the output of `keyward config`.
    pub key: &'static str,
    /// Its environment variable.
    pub env: &'static str,
    /// Its flags, without dashes; the first is the one that help shows.
    pub flags: &'static [&'static str],
    /// What holds where nobody says otherwise; empty for "not set".
    pub default: &'static str,
    /// Never printed.
    pub secret: bool,
    /// Accepted, but without effect in this version: whoever sets it is told so.
    pub later: bool,
    /// One line for people.
    pub help: &'static str,
}

pub(super) const fn setting(
    key: &'static str,
    env: &'static str,
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, env, flags: &[], default, secret: false, later: false, help }
}

pub(super) const fn flagged(
    key: &'static str,
    env: &'static str,
    flags: &'static [&'static str],
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting { key, env, flags, default, secret: false, later: false, help }
}

pub(super) const fn secret(setting: Setting) -> Setting {
    Setting { secret: true, ..setting }
}

pub(super) const fn later(setting: Setting) -> Setting {
    Setting { later: true, ..setting }
}
