//! Names with `*` for any text and `?` for one character.
//!
//! No character class as glob(7) has it: the name of a backend by its IPv6 address begins with `[`.

/// Whether a pattern stands for a whole name. A pattern without `*` and `?` stands for itself.
/// Takes at most pattern length times name length steps.
#[must_use]
pub fn matches(pattern: &str, name: &str) -> bool {
    let (mut pattern, mut name) = (pattern.chars(), name.chars());
    // What is left of both behind the latest `*`, to go on from when that has to take one more.
    let mut retry = None;
    loop {
        let untaken = name.clone();
        match (pattern.next(), name.next()) {
            (None, None) => return true,
            (Some('*'), _) => {
                // It takes nothing for now.
                name = untaken;
                retry = Some((pattern.clone(), name.clone()));
            }
            (Some('?'), Some(_)) => {}
            (Some(wanted), Some(letter)) if wanted == letter => {}
            _ => {
                let Some((behind, mut taken)) = retry.take() else { return false };
                if taken.next().is_none() {
                    return false;
                }
                (pattern, name) = (behind.clone(), taken.clone());
                retry = Some((behind, taken));
            }
        }
    }
}

/// Whether a text can stand for other names than itself.
#[must_use]
pub fn is_pattern(text: &str) -> bool {
    text.contains(['*', '?'])
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    // If this fails, a verb reaches other backends than its operator named.
    #[test]
    fn patterns_stand_for_names() {
        for (pattern, name, is_match) in [
            ("web", "web", true),
            ("web", "webs", false),
            ("web*", "web", true),
            ("web*", "web12", true),
            ("*", "", true),
            ("?", "", false),
            ("w?b", "web", true),
            ("*1", "web11", true),
            ("*a*b", "xaxbxb", true),
            ("*a*b", "xaxbxc", false),
            ("[::1]:*", "[::1]:80", true),
            ("[::1]:80", "1", false),
        ] {
            assert_eq!(matches(pattern, name), is_match, "{pattern} {name}");
        }
    }

    /// The definition, without regard to time.
    fn defined(pattern: &[char], name: &[char]) -> bool {
        match (pattern, name) {
            ([], []) => true,
            (['*', rest @ ..], _) => {
                defined(rest, name) || !name.is_empty() && defined(pattern, &name[1..])
            }
            (['?', rest @ ..], [_, more @ ..]) => defined(rest, more),
            ([wanted, rest @ ..], [letter, more @ ..]) => wanted == letter && defined(rest, more),
            _ => false,
        }
    }

    proptest! {
        // If this fails, some pattern is read in another way than it is defined.
        #[test]
        fn matching_is_as_defined(pattern in "[ab*?]{0,8}", name in "[ab]{0,8}") {
            let letters = |text: &str| text.chars().collect::<Vec<_>>();
            let expected = defined(&letters(&pattern), &letters(&name));
            prop_assert_eq!(matches(&pattern, &name), expected);
        }
    }
}
