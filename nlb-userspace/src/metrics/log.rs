//! Counting what is logged: a daemon's faults are its warnings and errors, wherever they come from.

use std::sync::atomic::{AtomicU64, Ordering};

use tracing::{Event, Level, Subscriber};
use tracing_subscriber::{Layer, layer::Context};

static WARNINGS: AtomicU64 = AtomicU64::new(0);
static ERRORS: AtomicU64 = AtomicU64::new(0);

/// How many messages were logged since the process started.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Counts {
    /// Of level `warn`.
    pub warnings: u64,
    /// Of level `error`.
    pub errors: u64,
    /// Of any level, that nobody took.
    pub lost: u64,
}

/// What was counted so far.
pub fn counts() -> Counts {
    Counts {
        warnings: WARNINGS.load(Ordering::Relaxed),
        errors: ERRORS.load(Ordering::Relaxed),
        lost: crate::log::lost(),
    }
}

/// Counts what passes by. It logs nothing.
#[derive(Debug, Clone, Copy, Default)]
pub struct Counting;

impl<S: Subscriber> Layer<S> for Counting {
    fn on_event(&self, event: &Event<'_>, _: Context<'_, S>) {
        let counter = match *event.metadata().level() {
            Level::WARN => &WARNINGS,
            Level::ERROR => &ERRORS,
            _ => return,
        };
        counter.fetch_add(1, Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use tracing_subscriber::layer::SubscriberExt as _;

    use super::*;

    #[test]
    fn warnings_and_errors_are_counted_and_nothing_else() {
        let before = counts();
        tracing::subscriber::with_default(tracing_subscriber::registry().with(Counting), || {
            tracing::info!("all is well");
            tracing::warn!("not so well");
            tracing::error!("not well");
            tracing::error!("not well at all");
        });
        let after = counts();
        assert_eq!(after.warnings - before.warnings, 1);
        assert_eq!(after.errors - before.errors, 2);
    }
}
