//! What restricts a key that acts restricts what it makes and changes: nobody passes on more than they have.
//!
//! Only what is set on the acting key itself counts; what its project sets holds for the project's other keys anyway.

use crate::base::clock::Timestamp;
use crate::gate::Settings;

use super::Key;

/// A restriction would be looser than that of the key that acts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Looser;

macro_rules! each_restriction {
    ($one:ident) => {
        $one!(ip_allow);
        $one!(schedule);
        $one!(method_allow);
        $one!(path_allow);
    };
}

/// Restricts a new key at least as much as the key that makes it: what wasn't said is taken over, anything else must be
/// the same.
///
/// # Errors
/// Another value was said.
pub fn settings(own: &Settings, new: &mut Settings) -> Result<(), Looser> {
    macro_rules! take_over {
        ($field:ident) => {
            match (&own.$field, &new.$field) {
                (None, _) => {}
                (Some(value), None) => new.$field = Some(value.clone()),
                (Some(value), Some(wanted)) if value == wanted => {}
                (Some(_), Some(_)) => return Err(Looser),
            }
        };
    }
    each_restriction!(take_over);
    Ok(())
}

/// When a new key ends that a key which ends at `own` makes. `said` is what its maker said, `otherwise` what it is where
/// nothing was.
///
/// # Errors
/// Its maker said a later end than its own.
pub fn end(
    own: Option<Timestamp>,
    said: Option<Timestamp>,
    otherwise: Option<Timestamp>,
) -> Result<Option<Timestamp>, Looser> {
    match (own, said) {
        (Some(own), Some(said)) if said > own => Err(Looser),
        (_, Some(said)) => Ok(Some(said)),
        (own, None) => Ok(own.into_iter().chain(otherwise).min()),
    }
}

/// Whether `own` may make `after` of `before`, which is another key: what restricts `own` itself may only become the same
/// there, an end also earlier; and new scopes go only to keys that are restricted as much.
///
/// # Errors
/// It may not.
pub fn change(own: &Key, before: &Key, after: &Key) -> Result<(), Looser> {
    macro_rules! same {
        ($field:ident) => {
            let (own, before, after) = (&own.settings.$field, &before.settings.$field, &after.settings.$field);
            if own.is_some() && after != before && after != own {
                return Err(Looser);
            }
        };
    }
    each_restriction!(same);
    if after.expires_at != before.expires_at && !ends_in_time(own.expires_at, after.expires_at) {
        return Err(Looser);
    }
    let gains = after.scopes.iter().any(|scope| !before.scopes.iter().any(|held| held == scope));
    if gains && !covers(own, after) { Err(Looser) } else { Ok(()) }
}

/// Whether `other` is restricted at least as much as `own`: who has `other` can do no more than who has `own`, as far as
/// restrictions go.
#[must_use]
pub fn covers(own: &Key, other: &Key) -> bool {
    macro_rules! same {
        ($field:ident) => {
            if own.settings.$field.is_some() && own.settings.$field != other.settings.$field {
                return false;
            }
        };
    }
    each_restriction!(same);
    ends_in_time(own.expires_at, other.expires_at)
}

fn ends_in_time(own: Option<Timestamp>, other: Option<Timestamp>) -> bool {
    own.is_none_or(|own| other.is_some_and(|other| other <= own))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::features::keys::Scopes;

    fn key() -> Key {
        Key::example()
    }

    fn at(seconds: i64) -> Option<Timestamp> {
        Timestamp::from_micros(seconds * 1_000_000)
    }

    /// Every restriction but the end, each in two values.
    fn each() -> Vec<(&'static str, Settings, Settings)> {
        let set = |text: String| serde_json::from_str::<Settings>(&text).unwrap();
        let opening = |day: &str| format!(r#"[{{"days":["{day}"],"from":"08:00","to":"18:00","timezone":"UTC"}}]"#);
        [
            ("ip_allow", r#"["10.0.0.0/8"]"#.to_owned(), r#"["10.1.0.0/16"]"#.to_owned()),
            ("schedule", opening("mon"), opening("tue")),
            ("method_allow", r#"["GET"]"#.to_owned(), "[]".to_owned()),
            ("path_allow", r#"["/a"]"#.to_owned(), r#"["/b"]"#.to_owned()),
        ]
        .map(|(name, one, two)| (name, set(format!(r#"{{"{name}":{one}}}"#)), set(format!(r#"{{"{name}":{two}}}"#))))
        .into()
    }

    #[test]
    fn a_new_key_takes_over_what_restricts_its_maker() {
        for (name, own, other) in each() {
            let made = |mut new: Settings| settings(&own, &mut new).map(|()| new);
            assert_eq!(made(Settings::default()), Ok(own.clone()), "{name}: nothing said");
            assert_eq!(made(own.clone()), Ok(own.clone()), "{name}: the same");
            assert_eq!(made(other.clone()), Err(Looser), "{name}: another value, even a narrower one");
            let mut free = other.clone();
            assert_eq!(settings(&Settings::default(), &mut free), Ok(()), "{name}: an unrestricted maker");
            assert_eq!(free, other);
        }
    }

    #[test]
    fn a_new_key_ends_no_later_than_its_maker() {
        for (own, said, otherwise, expected) in [
            (None, None, None, Ok(None)),
            (None, None, at(9), Ok(at(9))),
            (None, at(5), at(9), Ok(at(5))),
            (at(7), None, None, Ok(at(7))),
            (at(7), None, at(9), Ok(at(7))),
            (at(7), None, at(5), Ok(at(5))),
            (at(7), at(7), None, Ok(at(7))),
            (at(7), at(6), at(9), Ok(at(6))),
            (at(7), at(8), None, Err(Looser)),
        ] {
            assert_eq!(end(own, said, otherwise), expected, "{own:?} {said:?} {otherwise:?}");
        }
    }

    #[test]
    fn a_restricted_key_loosens_nothing_of_others() {
        for (name, restriction, other) in each() {
            let own = Key { settings: restriction.clone(), ..key() };
            let with = |settings: &Settings| Key { settings: settings.clone(), ..key() };
            let (none, same, another) = (key(), with(&restriction), with(&other));
            assert_eq!(change(&own, &none, &same), Ok(()), "{name}");
            assert_eq!(change(&own, &another, &same), Ok(()), "{name}");
            assert_eq!(change(&own, &another, &another), Ok(()), "{name}: nothing of it changes");
            assert_eq!(change(&own, &same, &none), Err(Looser), "{name}");
            assert_eq!(change(&own, &same, &another), Err(Looser), "{name}");
            assert_eq!(change(&key(), &same, &none), Ok(()), "{name}: an unrestricted key may");
            assert!(covers(&own, &same) && !covers(&own, &none) && !covers(&own, &another) && covers(&none, &another));
        }
    }

    #[test]
    fn ends_and_scopes_go_with_the_key_that_acts() {
        let ending = |expires_at| Key { expires_at, ..key() };
        let own = ending(at(7));
        for (before, after, expected) in [
            (None, None, Ok(())),
            (None, at(7), Ok(())),
            (None, at(8), Err(Looser)),
            (at(5), None, Err(Looser)),
            (at(5), at(6), Ok(())),
            (at(9), at(9), Ok(())),
        ] {
            assert_eq!(change(&own, &ending(before), &ending(after)), expected, "{before:?} {after:?}");
        }
        let scopes = |text: &str| Scopes::new([text.parse().unwrap()]);
        let more = |expires_at| Key { scopes: scopes("a:b"), ..ending(expires_at) };
        assert_eq!(change(&own, &ending(None), &more(None)), Err(Looser), "a scope for a key that lasts longer");
        assert_eq!(change(&own, &ending(at(7)), &more(at(7))), Ok(()));
        assert_eq!(change(&own, &more(None), &ending(None)), Ok(()), "fewer scopes");
    }
}
