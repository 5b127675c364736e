//! The steps of a probe that speaks, and where an expectation is met in what a server says.

/// One step of a probe that sends bytes and waits for others.
#[derive(Debug, Clone, PartialEq, Eq)]
pub enum ProbeStep {
    /// Sends these bytes. What has come before is answered by them and done with.
    Send(Vec<u8>),
    /// Waits for these bytes, at least one, at the start of what comes next or of a line in it: the
    /// rest of an earlier line may still be on its way.
    Expect(Vec<u8>),
    /// Waits for these bytes, at least one, anywhere in what comes next.
    Find(Vec<u8>),
}

impl ProbeStep {
    /// What is waited for; `None` for a step that sends.
    #[must_use]
    pub fn expected(&self) -> Option<&[u8]> {
        match self {
            Self::Send(_) => None,
            Self::Expect(bytes) | Self::Find(bytes) => Some(bytes),
        }
    }

    /// The end of the first place at or behind `from` where `heard` meets the expectation. The
    /// places before `from` have been searched; the caller resumes at [`Self::searched`].
    #[must_use]
    pub fn end_in(&self, heard: &[u8], from: usize) -> Option<usize> {
        let expected = self.expected()?;
        let is_place = |at: usize| match self {
            Self::Expect(_) => at == 0 || heard.get(at - 1) == Some(&b'\n'),
            _ => true,
        };
        let last = heard.len().checked_sub(expected.len())?;
        let mut places = (from..=last).filter(|at| is_place(*at));
        let at = places.find(|at| heard.get(*at..).is_some_and(|rest| rest.starts_with(expected)));
        at.map(|at| at + expected.len())
    }

    /// How many places of this many bytes have been searched without success.
    #[must_use]
    pub fn searched(&self, heard: usize) -> usize {
        let length = self.expected().map_or(0, <[u8]>::len);
        (heard + 1).saturating_sub(length)
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn end(step: &ProbeStep, heard: &[u8]) -> Option<usize> {
        step.end_in(heard, 0)
    }

    #[test]
    fn an_expectation_is_anchored_at_a_line() {
        // If this fails, "550 250 users" passes for "250", or a greeting in two packets fails.
        let expect = ProbeStep::Expect(b"250".to_vec());
        assert_eq!(end(&expect, b"250-mx\r\n250 OK\r\n"), Some(3));
        assert_eq!(end(&expect, b"550 250 users\r\n"), None);
        assert_eq!(end(&expect, b"mx ESMTP\r\n250-mx\r\n"), Some(13));
        assert_eq!(end(&expect, b"25"), None);
        let find = ProbeStep::Find(b"250".to_vec());
        assert_eq!(end(&find, b"550 250 users\r\n"), Some(7));
        assert_eq!(end(&ProbeStep::Send(b"250".to_vec()), b"250"), None);
    }

    proptest! {
        #[test]
        fn pieces_are_searched_as_the_whole_is(
            anchored: bool,
            expected in proptest::collection::vec(8_u8..12, 1..4),
            pieces in proptest::collection::vec(proptest::collection::vec(8_u8..12, 1..5), 0..8),
        ) {
            // If this fails, a good answer that arrives in pieces is not recognized, or a bad one
            // is.
            let step = match anchored {
                true => ProbeStep::Expect(expected),
                false => ProbeStep::Find(expected),
            };
            let whole = pieces.concat();
            let (mut heard, mut from, mut found) = (Vec::new(), 0, None);
            for piece in &pieces {
                heard.extend_from_slice(piece);
                found = found.or_else(|| step.end_in(&heard, from));
                from = step.searched(heard.len());
            }
            prop_assert_eq!(found, end(&step, &whole));
        }
    }
}
