//! Events of tracing on their way to the log.
//!
//! An event is taken apart where it happens and formatted where it is written. Libraries are heard
//! only when they warn: what they tell of their insides is nothing an operator asked for.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;
use std::time::SystemTime;

use crossbeam::channel::Sender;
use tracing::field::{Field, Visit};
use tracing::level_filters::LevelFilter;
use tracing::subscriber::Interest;
use tracing::{Metadata, Subscriber};
use tracing_subscriber::layer::{Context, Layer};

use crate::control::log::level::Level;
use crate::control::log::settings::Settings;

/// Events of this crate have a target that begins so.
const OWN_TARGET: &str = "evenkeel";

/// One event, not yet formatted.
#[derive(Debug)]
pub(crate) struct Event {
    pub(crate) time: SystemTime,
    pub(crate) level: Level,
    pub(crate) message: String,
    pub(crate) fields: Vec<(&'static str, String)>,
}

impl Visit for Event {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // Writing to a `String` cannot fail; a value whose `Debug` does has no text.
            let _ = write!(self.message, "{value:?}");
        } else {
            self.fields.push((field.name(), format!("{value:?}")));
        }
    }

    fn record_str(&mut self, field: &Field, value: &str) {
        self.record_debug(field, &format_args!("{value}"));
    }

    fn record_error(&mut self, field: &Field, value: &(dyn std::error::Error + 'static)) {
        self.record_debug(field, &format_args!("{value}"));
    }
}

/// Sends the events that are wanted to the log's thread.
pub(crate) struct EventLayer {
    settings: Arc<Settings>,
    queue: Sender<Event>,
}

impl EventLayer {
    /// Sends to `queue` what `settings` want.
    pub(crate) fn new(settings: Arc<Settings>, queue: Sender<Event>) -> Self {
        Self { settings, queue }
    }

    fn wants(&self, metadata: &Metadata<'_>) -> bool {
        let level = Level::from(*metadata.level());
        let heard = metadata.target().starts_with(OWN_TARGET) || level <= Level::Warn;
        metadata.is_event() && heard && level <= self.settings.level()
    }
}

impl Debug for EventLayer {
    fn fmt(&self, formatter: &mut fmt::Formatter<'_>) -> fmt::Result {
        formatter.debug_struct("EventLayer").finish_non_exhaustive()
    }
}

impl<S: Subscriber> Layer<S> for EventLayer {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        // Not "never": the level may change later.
        if metadata.is_event() { Interest::sometimes() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>, _: Context<'_, S>) -> bool {
        self.wants(metadata)
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(self.settings.level().filter())
    }

    fn on_event(&self, event: &tracing::Event<'_>, _: Context<'_, S>) {
        let mut taken = Event {
            time: SystemTime::now(),
            level: Level::from(*event.metadata().level()),
            message: String::new(),
            fields: Vec::new(),
        };
        event.record(&mut taken);
        if self.queue.try_send(taken).is_err() {
            self.settings.count_dropped(1);
        }
    }
}
