//! What traffic has shown, until it is written.

/// Something shown that was no good, of which there is no key to count it under.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Wrong {
    /// A key that doesn't exist, or not for who asked.
    UnknownKey,
    /// A text that can't be a key.
    MalformedKey,
    /// Neither a key nor a token that is good, shown to Keyward itself.
    WrongCredentials,
    /// A name and a password that don't belong together.
    FailedLogin,
}

impl Wrong {
    /// All there are.
    pub const ALL: [Self; 4] = [Self::UnknownKey, Self::MalformedKey, Self::WrongCredentials, Self::FailedLogin];

    /// As stored.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::UnknownKey => "unknown_key",
            Self::MalformedKey => "malformed_key",
            Self::WrongCredentials => "wrong_credentials",
            Self::FailedLogin => "failed_login",
        }
    }
}
