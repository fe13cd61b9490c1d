//! The level of log lines, changeable while a process runs: `SIGUSR1` shows one step more, `SIGUSR2` one step less.
//!
//! A signal reaches every role alike, workers included, and needs neither a port nor a working coordinator. Where the
//! steps add up to none, the filter of the start is in force again.

use std::sync::OnceLock;

use tokio::signal::unix::{SignalKind, signal};
use tracing::Subscriber;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::filter::Targets;
use tracing_subscriber::reload;

use super::logging::shifted;

/// Puts a filter in force.
type Apply = Box<dyn Fn(Targets) + Send + Sync>;

static CONTROL: OnceLock<Control> = OnceLock::new();

struct Control {
    start: Targets,
    level: LevelFilter,
    apply: Apply,
}

/// A layer whose filter signals change. `level` is where steps are counted from.
pub(super) fn layer<S: Subscriber>(
    start: Targets,
    level: LevelFilter,
) -> reload::Layer<Targets, S> {
    let (layer, handle) = reload::Layer::new(start.clone());
    let apply: Apply = Box::new(move |filter| {
        // It fails when the subscriber is gone, and then nobody logs.
        let _ = handle.reload(filter);
    });
    // A second call belongs to a subscriber that will not be installed.
    let _ = CONTROL.set(Control {
        start,
        level,
        apply,
    });
    layer
}

/// Heeds the signals until it is dropped. Spawned once by each long-lived role.
pub async fn follow_signals() {
    let (Ok(mut more), Ok(mut less), Some(control)) = (
        signal(SignalKind::user_defined1()),
        signal(SignalKind::user_defined2()),
        CONTROL.get(),
    ) else {
        return;
    };
    let mut steps: i8 = 0;
    loop {
        let step = tokio::select! {
            Some(()) = more.recv() => 1,
            Some(()) = less.recv() => -1,
            else => return,
        };
        steps = bounded(control.level, steps.saturating_add(step));
        (control.apply)(filter(control, steps));
        // Told at the level of a warning, so that it is seen at most levels.
        tracing::warn!(level = %shifted(control.level, steps), "log level changed");
    }
}

/// No further than the ends of the scale, so that each signal has an effect on the way back.
fn bounded(level: LevelFilter, steps: i8) -> i8 {
    let most = (0..6)
        .find(|n| shifted(level, *n) == LevelFilter::TRACE)
        .unwrap_or(0);
    let least = (0..6)
        .find(|n| shifted(level, -*n) == LevelFilter::ERROR)
        .unwrap_or(0);
    steps.clamp(-least, most)
}

fn filter(control: &Control, steps: i8) -> Targets {
    if steps == 0 {
        return control.start.clone();
    }
    Targets::new().with_default(shifted(control.level, steps))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn steps_end_where_the_scale_ends() {
        assert_eq!(bounded(LevelFilter::INFO, 9), 2);
        assert_eq!(bounded(LevelFilter::INFO, -9), -2);
        assert_eq!(bounded(LevelFilter::WARN, 1), 1);
    }

    #[test]
    fn without_steps_the_first_filter_is_in_force() {
        let start: Targets = "warn,mitosis::manager=debug".parse().unwrap();
        let control = Control {
            start: start.clone(),
            level: LevelFilter::WARN,
            apply: Box::new(drop),
        };
        assert_eq!(filter(&control, 0), start);
        let one_more = Targets::new().with_default(LevelFilter::INFO);
        assert_eq!(filter(&control, 1), one_more);
    }
}
