//! A probe that sends bytes and waits for others, for protocols other than HTTP.
//!
//! What is expected may arrive in any number of pieces. The caller bounds the time, this file the
//! memory.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::escaped;
use crate::control::watch::prober::failure::ProbeFailure;
use crate::policy::health::probe_step::ProbeStep;

/// A server that says more than this in one probe fails it.
const HEARD_MAX_BYTES: usize = 64 * 1024;
/// The part of an answer that the words of a failure show.
const SHOWN_MAX_BYTES: usize = 32;

/// The steps of a probe, and what has come for the present one.
#[derive(Debug)]
pub(super) struct Conversation<'a> {
    steps: &'a [ProbeStep],
    /// The number of steps that are done.
    done: usize,
    answer: Vec<u8>,
    /// Bytes heard in all steps.
    heard: usize,
}

impl<'a> Conversation<'a> {
    /// No step is done yet.
    pub(super) fn new(steps: &'a [ProbeStep]) -> Self {
        Self { steps, done: 0, answer: Vec::new(), heard: 0 }
    }

    /// Does the steps, one after the other.
    ///
    /// # Errors
    /// When the server ends, or says too much, before an expectation is met; in words.
    pub(super) async fn run(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), ProbeFailure> {
        while let Some(step) = self.steps.get(self.done) {
            if let ProbeStep::Send(bytes) = step {
                self.answer.clear();
                // A server may have answered and closed already: the reads tell.
                if stream.write_all(bytes).await.is_ok() {
                    let _gone = stream.flush().await;
                }
            } else if let Err(end) = self.hear(step, stream).await {
                return Err(ProbeFailure::Backend(format!("{end} {}", self.lacking("after"))));
            }
            self.done += 1;
        }
        Ok(())
    }

    /// Why the time was not enough, in words.
    pub(super) fn late(&self, timeout: &str) -> ProbeFailure {
        if self.heard == 0 {
            return ProbeFailure::Backend(format!("no answer within {timeout}"));
        }
        ProbeFailure::Backend(format!("{} within {timeout}", self.lacking("only")))
    }

    /// Reads until the expectation is met; the error is how the conversation ended instead.
    async fn hear(
        &mut self,
        step: &ProbeStep,
        stream: &mut (impl AsyncRead + Unpin),
    ) -> Result<(), &'static str> {
        let (mut buffer, mut searched) = ([0; 4096], 0);
        loop {
            if let Some(end) = step.end_in(&self.answer, searched) {
                self.answer.drain(..end);
                return Ok(());
            }
            searched = step.searched(self.answer.len());
            if self.heard >= HEARD_MAX_BYTES {
                return Err("given up");
            }
            let room = HEARD_MAX_BYTES.saturating_sub(self.heard).min(buffer.len());
            let length = match stream.read(buffer.get_mut(..room).unwrap_or_default()).await {
                Ok(0) => return Err("closed"),
                Ok(length) => length,
                Err(_) => return Err("reset"),
            };
            self.answer.extend_from_slice(buffer.get(..length).unwrap_or_default());
            self.heard += length;
        }
    }

    fn lacking(&self, before: &str) -> String {
        let step = self.steps.get(self.done);
        let expected = shown(step.and_then(ProbeStep::expected).unwrap_or_default());
        let place = match step {
            Some(ProbeStep::Expect(_)) => {
                format!(" at the start of a line (step {} of {})", self.done + 1, self.steps.len())
            }
            _ => String::new(),
        };
        if self.answer.is_empty() {
            return format!("without an answer, expected {expected}{place}");
        }
        format!("{before} {}, expected {expected}{place}", shown(&self.answer))
    }
}

/// The beginning of some bytes, for the log.
fn shown(bytes: &[u8]) -> String {
    match bytes.get(..SHOWN_MAX_BYTES) {
        Some(beginning) if bytes.len() > SHOWN_MAX_BYTES => {
            format!("'{}'... ({} bytes)", escaped(beginning), bytes.len())
        }
        _ => format!("'{}'", escaped(bytes)),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    /// What a probe makes of a server that is sent `ask`, answers in these pieces, and ends.
    fn judge(steps: &[ProbeStep], pieces: &[Vec<u8>]) -> Result<(), ProbeFailure> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (mut ours, mut theirs) = tokio::io::duplex(64);
        let mut conversation = Conversation::new(steps);
        runtime.block_on(async {
            let serve = async {
                let mut asked = [0; 3];
                theirs.read_exact(&mut asked).await.unwrap();
                assert_eq!(&asked, b"ask");
                for piece in pieces {
                    // The probe may have heard enough.
                    let _early = theirs.write_all(piece).await;
                    tokio::task::yield_now().await;
                }
                drop(theirs);
            };
            let ask = async {
                let outcome = conversation.run(&mut ours).await;
                drop(ours);
                outcome
            };
            tokio::join!(ask, serve).0
        })
    }

    fn found(expected: &[u8], pieces: &[Vec<u8>]) -> Result<(), ProbeFailure> {
        judge(&[ProbeStep::Send(b"ask".to_vec()), ProbeStep::Find(expected.to_vec())], pieces)
    }

    fn failed(words: &str) -> Result<(), ProbeFailure> {
        Err(ProbeFailure::Backend(words.into()))
    }

    // If this fails, the one line about an outage does not say what the server said.
    #[test]
    fn words_show_both_sides() {
        assert_eq!(found(b"+PONG", &[b"+PONG\r\n".to_vec()]), Ok(()));
        assert_eq!(
            found(b"+PONG", &[b"-LOADING\r\n".to_vec()]),
            failed("closed after '-LOADING\\r\\n', expected '+PONG'")
        );
        assert_eq!(found(b"\xff", &[]), failed("closed without an answer, expected '\\xFF'"));
        let long = format!("closed after '{}'... (40 bytes), expected 'b'", "a".repeat(32));
        assert_eq!(found(b"b", &[vec![b'a'; 40]]), failed(&long));
    }

    // If this fails, a step is skipped, met by what came before it, or named wrong in the log.
    #[test]
    fn steps_are_done_in_their_order() {
        let step = |text: &str| match text.split_at(1) {
            (">", bytes) => ProbeStep::Send(bytes.into()),
            (_, bytes) => ProbeStep::Expect(bytes.into()),
        };
        let steps = [">ask", "<220 ", "<250", ">bye"].map(step);
        let said = |text: &str| vec![text.as_bytes().to_vec()];
        assert_eq!(judge(&steps, &said("220 mx\r\n250 OK\r\n")), Ok(()));
        assert_eq!(
            judge(&steps, &said("250 OK\r\n220 mx\r\n")),
            failed("closed after 'mx\\r\\n', expected '250' at the start of a line (step 3 of 4)")
        );
        assert_eq!(
            judge(&steps, &said("554 no\r\n")),
            failed(
                "closed after '554 no\\r\\n', expected '220 ' at the start of a line (step 2 of 4)"
            )
        );
    }

    // If this fails, a server that never stops talking takes our memory.
    #[test]
    fn an_endless_answer_is_given_up() {
        let outcome = found(b"b", &[vec![b'a'; 2 * HEARD_MAX_BYTES]]);
        let Err(ProbeFailure::Backend(words)) = outcome else { panic!("{outcome:?}") };
        assert!(words.starts_with("given up after 'aaa") && words.contains("(65536 bytes)"));
    }

    proptest! {
        // If this fails, a good answer that arrives in pieces is not recognized, or a bad one is.
        #[test]
        fn it_passes_just_when_the_answer_holds_the_expectation(
            expect in proptest::collection::vec(0_u8..3, 1..5),
            pieces in proptest::collection::vec(proptest::collection::vec(0_u8..3, 1..6), 0..8),
        ) {
            let whole = pieces.concat();
            let holds = whole.windows(expect.len()).any(|window| window == expect);
            prop_assert_eq!(found(&expect, &pieces).is_ok(), holds);
        }
    }
}
