//! The parts of the control plane that act together, and a reload of all of them.

use std::sync::Arc;

use crate::control::log::Logging;
use crate::control::log::sink::LogSink;
use crate::control::off_thread::{end_of, off_thread};
use crate::control::plane::state::{Plane, ProcessPhase};
use crate::control::reload::apply::{apply, record, told};
use crate::control::reload::outcome::{Candidate, RefusedReload, Reloaded};
use crate::control::reload::prepare::prepare;
use crate::control::reload::saved::save;
use crate::control::tell::notify;
use crate::control::watch::prober::roster::Prober;

/// What operators and signals act on.
#[derive(Debug, Clone)]
pub(crate) struct Services {
    pub(crate) plane: Arc<Plane>,
    pub(crate) prober: Arc<Prober>,
    pub(crate) logging: Arc<Logging>,
}

impl Services {
    /// Makes one change of what is in force, after those before it, and to its end even if its
    /// asker no longer waits.
    pub(crate) async fn change<T, F>(&self, change: impl FnOnce(Self) -> F) -> T
    where
        T: Send + 'static,
        F: Future<Output = T> + Send + 'static,
    {
        let (change, plane) = (change(self.clone()), Arc::clone(&self.plane));
        let alone = async move {
            let _alone = plane.changing.lock().await;
            change.await
        };
        end_of(tokio::spawn(alone)).await
    }

    /// Opens the file of the log again.
    pub(crate) fn reopen_log(&self) {
        let config = Arc::clone(&self.plane.current.lock().config);
        self.logging.reopen(&config.global.log);
    }

    /// Reads the file again and puts it in force; tells the prober, the log and systemd.
    ///
    /// # Errors
    /// With every problem; nothing has changed then.
    pub(crate) async fn reload(&self) -> Result<Reloaded, RefusedReload> {
        self.change(|services| async move { services.reload_alone().await }).await
    }

    async fn reload_alone(&self) -> Result<Reloaded, RefusedReload> {
        // Once another process has taken over, systemd hears only that one.
        let is_told = self.plane.phase() != ProcessPhase::Stopping;
        if is_told {
            notify::reloading();
        }
        let (outcome, sink) = match self.put_in_force().await {
            Ok((reloaded, sink)) => (Ok(reloaded), sink),
            Err(refused) => (Err(refused), None),
        };
        record(&self.plane, &outcome);
        if outcome.is_ok() {
            let config = Arc::clone(&self.plane.current.lock().config);
            self.logging.apply(&config.global.log, sink);
        }
        if is_told {
            notify::ready(&self.plane);
        }
        outcome
    }

    /// Also tells where lines are to go now, if that is another place.
    async fn put_in_force(&self) -> Result<(Reloaded, Option<Box<dyn LogSink>>), RefusedReload> {
        let Self { plane, prober, logging } = self.clone();
        let (mut prepared, probes) = off_thread(move || {
            let prepared = prepare(&plane, &logging, None)?;
            let probes =
                prober.changes(&prepared.config, &prepared.snapshot(&plane), &prepared.tls);
            Ok((prepared, probes))
        })
        .await?;
        let sink = prepared.log_sink.take();
        let reloaded = apply(&self.plane, prepared).await?;
        save(&self.plane).await;
        self.prober.take_up(probes).await;
        Ok((reloaded, sink))
    }

    /// Tells what a reload would do, of the file or of a candidate for it. New addresses are opened
    /// for a moment.
    ///
    /// # Errors
    /// With every problem.
    pub(crate) async fn preview(
        &self,
        candidate: Option<Candidate>,
    ) -> Result<Reloaded, RefusedReload> {
        self.change(|services| async move {
            let Self { plane, logging, .. } = services;
            off_thread(move || {
                let prepared = prepare(&plane, &logging, candidate.as_ref())?;
                // Dropping its plan closes what was opened for it.
                Ok(told(&plane, prepared).0)
            })
            .await
        })
        .await
    }
}
