//! "Did you mean": the known word closest to what was written.
//!
//! Distance is Damerau-Levenshtein (optimal string alignment): insert, remove, replace or swap two
//! neighbours. A word that shares too little with what was written is not proposed.

/// Longest text that is compared; what is longer is no slip of the fingers.
const LENGTH_MAX: usize = 64;

/// The closest of `known` to `written`, if it is close enough to be what was meant.
pub(super) fn nearest<'k>(written: &str, known: impl Iterator<Item = &'k str>) -> Option<&'k str> {
    let written = written.to_lowercase();
    if written.is_empty() || written.chars().count() > LENGTH_MAX {
        return None;
    }
    let slack = (written.chars().count() / 3).clamp(1, 4);
    known
        .map(|word| (distance(&written, &word.to_lowercase()), word))
        .filter(|(steps, word)| *steps <= slack && *steps < word.chars().count())
        .min_by_key(|(steps, _)| *steps)
        .map(|(_, word)| word)
}

/// Number of single-letter edits between two words.
fn distance(left: &str, right: &str) -> usize {
    let left: Vec<char> = left.chars().collect();
    let right: Vec<char> = right.chars().collect();
    let mut before: Vec<usize> = Vec::new();
    let mut last: Vec<usize> = (0..=right.len()).collect();
    for (row, letter) in left.iter().enumerate() {
        let mut next = vec![row + 1];
        for (column, other) in right.iter().enumerate() {
            let replace = last[column] + usize::from(letter != other);
            let mut steps = replace.min(last[column + 1] + 1).min(next[column] + 1);
            let swapped =
                row > 0 && column > 0 && *letter == right[column - 1] && left[row - 1] == *other;
            if swapped {
                steps = steps.min(before[column - 1] + 1);
            }
            next.push(steps);
        }
        before = std::mem::replace(&mut last, next);
    }
    last.last().copied().unwrap_or(0)
}

#[cfg(test)]
mod tests {
    use super::*;

    /// Without it a slip of the fingers gets no proposal.
    #[test]
    fn slips_find_their_word() {
        let known = ["idle_timeout", "bind", "pool", "keepalive"];
        let find = |written| nearest(written, known.iter().copied());
        assert_eq!(find("idle_timout"), Some("idle_timeout"));
        assert_eq!(find("idle-timeout"), Some("idle_timeout"));
        assert_eq!(find("bnid"), Some("bind"));
        assert_eq!(find("POOL"), Some("pool"));
        assert_eq!(find("pools"), Some("pool"));
    }

    /// Without it any word gets a proposal, however absurd.
    #[test]
    fn strangers_find_nothing() {
        let known = ["idle_timeout", "bind", "pool"];
        assert_eq!(nearest("certificate", known.iter().copied()), None);
        assert_eq!(nearest("", known.iter().copied()), None);
        assert_eq!(nearest(&"x".repeat(1000), known.iter().copied()), None);
    }
}
