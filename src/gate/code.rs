//! What a verification says.

use serde::Serialize;

/// In the order in which it is decided.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, utoipa::ToSchema)]
#[serde(rename_all = "SCREAMING_SNAKE_CASE")]
#[schema(as = VerifyCode)]
pub enum Code {
    /// Not a key at all.
    Malformed,
    /// No such key, or none of a project that the caller may ask about.
    NotFound,
    /// Taken back for good.
    Revoked,
    /// Switched off.
    Disabled,
    /// Its time is over.
    Expired,
    /// Shown from an address that isn't on its list.
    IpNotAllowed,
    /// Shown at a time that isn't in its schedule.
    OutsideSchedule,
    /// It doesn't hold what was asked for: a scope, a method or a path.
    InsufficientScope,
    /// As many operations as allowed are under way.
    ConcurrencyLimited,
    /// A window shorter than a day is used up.
    RateLimited,
    /// A window of a day or longer is used up.
    QuotaExceeded,
    /// Go on.
    Valid,
}

/// How many codes there are for a key that exists.
pub const OUTCOMES: usize = 10;

/// Every code, in order.
pub const CODES: [Code; OUTCOMES + 2] = [
    Code::Malformed,
    Code::NotFound,
    Code::Revoked,
    Code::Disabled,
    Code::Expired,
    Code::IpNotAllowed,
    Code::OutsideSchedule,
    Code::InsufficientScope,
    Code::ConcurrencyLimited,
    Code::RateLimited,
    Code::QuotaExceeded,
    Code::Valid,
];

impl Code {
    /// As on the wire.
    #[must_use]
    pub fn word(self) -> &'static str {
        match self {
            Self::Malformed => "MALFORMED",
            Self::NotFound => "NOT_FOUND",
            Self::Revoked => "REVOKED",
            Self::Disabled => "DISABLED",
            Self::Expired => "EXPIRED",
            Self::IpNotAllowed => "IP_NOT_ALLOWED",
            Self::OutsideSchedule => "OUTSIDE_SCHEDULE",
            Self::InsufficientScope => "INSUFFICIENT_SCOPE",
            Self::ConcurrencyLimited => "CONCURRENCY_LIMITED",
            Self::RateLimited => "RATE_LIMITED",
            Self::QuotaExceeded => "QUOTA_EXCEEDED",
            Self::Valid => "VALID",
        }
    }

    /// Its place among [`CODES`].
    #[must_use]
    pub fn index(self) -> usize {
        self as usize
    }

    /// Its place among the codes for a key that exists; `None` where there is no key to count it for.
    #[must_use]
    pub fn outcome(self) -> Option<usize> {
        self.index().checked_sub(2)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn codes_stand_at_their_places() {
        for (i, code) in CODES.into_iter().enumerate() {
            assert_eq!(code.index(), i);
            assert_eq!(serde_json::to_value(code).unwrap(), code.word());
        }
        assert_eq!(
            (Code::NotFound.outcome(), Code::Revoked.outcome(), Code::Valid.outcome()),
            (None, Some(0), Some(OUTCOMES - 1))
        );
    }
}
