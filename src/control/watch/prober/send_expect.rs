//! A probe that sends bytes and waits for others, for protocols other than HTTP.
//!
//! The expectation may stand anywhere in the answer, and arrive in any number of pieces. The caller
//! bounds the time, this file the memory.

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use crate::config::escaped;
use crate::control::watch::prober::failure::ProbeFailure;

/// An answer of this length without what is expected fails the probe.
const ANSWER_MAX_BYTES: usize = 64 * 1024;
/// The part of an answer that the words of a failure show.
const SHOWN_MAX_BYTES: usize = 32;

/// The bytes to send, the bytes expected, and the answer so far.
#[derive(Debug)]
pub(super) struct Exchange<'a> {
    send: &'a [u8],
    expect: &'a [u8],
    answer: Vec<u8>,
}

impl<'a> Exchange<'a> {
    /// Nothing is sent yet. `expect` is not empty.
    pub(super) fn new(send: &'a [u8], expect: &'a [u8]) -> Self {
        Self { send, expect, answer: Vec::new() }
    }

    /// Sends, and reads until the answer holds the expectation.
    ///
    /// # Errors
    /// When the answer ends, or is too long, without it; in words.
    pub(super) async fn run(
        &mut self,
        stream: &mut (impl AsyncRead + AsyncWrite + Unpin),
    ) -> Result<(), ProbeFailure> {
        // A server may have answered and closed already: the reads tell.
        let _gone = stream.write_all(self.send).await;
        let mut buffer = [0; 4096];
        loop {
            let ended = match stream.read(&mut buffer).await {
                Ok(0) => "closed",
                Ok(length) => {
                    let news = buffer.get(..length).unwrap_or_default();
                    if self.take(news) {
                        return Ok(());
                    }
                    if self.answer.len() < ANSWER_MAX_BYTES {
                        continue;
                    }
                    "given up"
                }
                Err(_) => "reset",
            };
            return Err(ProbeFailure::Backend(format!("{ended} {}", self.lacking("after"))));
        }
    }

    /// Why the time was not enough, in words.
    pub(super) fn late(&self, timeout: &str) -> ProbeFailure {
        if self.answer.is_empty() {
            return ProbeFailure::Backend(format!("no answer within {timeout}"));
        }
        ProbeFailure::Backend(format!("{} within {timeout}", self.lacking("only")))
    }

    /// Takes in a piece of the answer; whether the expectation is complete with it.
    fn take(&mut self, news: &[u8]) -> bool {
        let room = ANSWER_MAX_BYTES.saturating_sub(self.answer.len());
        // The expectation may have begun in an earlier piece.
        let from = self.answer.len().saturating_sub(self.expect.len().saturating_sub(1));
        self.answer.extend_from_slice(news.get(..room).unwrap_or(news));
        let unseen = self.answer.get(from..).unwrap_or_default();
        unseen.windows(self.expect.len().max(1)).any(|window| window == self.expect)
    }

    fn lacking(&self, before: &str) -> String {
        let expected = shown(self.expect);
        if self.answer.is_empty() {
            return format!("without an answer, expected {expected}");
        }
        format!("{before} {}, expected {expected}", shown(&self.answer))
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

    /// What a probe makes of an answer that comes in these pieces and then ends.
    fn judge(expect: &[u8], pieces: &[Vec<u8>]) -> Result<(), ProbeFailure> {
        let runtime = tokio::runtime::Builder::new_current_thread().build().unwrap();
        let (ours, mut theirs) = tokio::io::duplex(64);
        let mut exchange = Exchange::new(b"ask", expect);
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
            // What gives up hangs up.
            let ask = async {
                let mut ours = ours;
                exchange.run(&mut ours).await
            };
            tokio::join!(ask, serve).0
        })
    }

    // If this fails, the one line about an outage does not say what the server said.
    #[test]
    fn words_show_both_sides() {
        let failed = |words: &str| Err(ProbeFailure::Backend(words.into()));
        assert_eq!(judge(b"+PONG", &[b"+PONG\r\n".to_vec()]), Ok(()));
        assert_eq!(
            judge(b"+PONG", &[b"-LOADING\r\n".to_vec()]),
            failed("closed after '-LOADING\\r\\n', expected '+PONG'")
        );
        assert_eq!(judge(b"\xff", &[]), failed("closed without an answer, expected '\\xFF'"));
        let long = format!("closed after '{}'... (40 bytes), expected 'b'", "a".repeat(32));
        assert_eq!(judge(b"b", &[vec![b'a'; 40]]), failed(&long));
    }

    // If this fails, a server that never stops talking takes our memory.
    #[test]
    fn an_endless_answer_is_given_up() {
        let outcome = judge(b"b", &[vec![b'a'; 2 * ANSWER_MAX_BYTES]]);
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
            prop_assert_eq!(judge(&expect, &pieces).is_ok(), holds);
        }
    }
}
