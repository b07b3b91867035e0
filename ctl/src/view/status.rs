//! The state of a container in docker's words.

use bosun_proto::v1::state::Status;
use bosun_proto::v1::{Container, Exit, State};
use jiff::Timestamp;

use super::duration::human_duration;
use super::moment::seconds_since;

/// One word: `.State` of a list, `.State.Status` of an inspection.
pub(super) fn word(status: Status) -> &'static str {
    match status {
        Status::Unspecified => "unknown",
        Status::Created | Status::Starting => "created",
        Status::Running => "running",
        Status::Paused => "paused",
        Status::Exited => "exited",
        Status::Removing => "removing",
        Status::Quarantined => "dead",
    }
}

/// The STATUS column: `Up 3 seconds`, `Exited (42) 5 seconds ago`.
pub(super) fn sentence(container: &Container, now: Timestamp) -> String {
    let Some(state) = &container.state else { return "Unknown".to_owned() };
    match state.status() {
        Status::Unspecified => "Unknown".to_owned(),
        Status::Created => "Created".to_owned(),
        Status::Starting => "Starting".to_owned(),
        Status::Running => up(state, now),
        Status::Paused => format!("{} (Paused)", up(state, now)),
        Status::Exited => exited(state, now),
        Status::Removing => "Removal In Progress".to_owned(),
        Status::Quarantined => "Dead".to_owned(),
    }
}

fn up(state: &State, now: Timestamp) -> String {
    let seconds = match &state.running_for {
        Some(known) => known.seconds.max(0),
        // An older daemon: it is right as long as nobody sets the clock.
        None => seconds_since(state.started_at.as_ref(), now),
    };
    format!("Up {}", human_duration(seconds))
}

fn exited(state: &State, now: Timestamp) -> String {
    let Some(exit) = &state.exit else { return "Exited (unknown)".to_owned() };
    let code = code(exit);
    match &exit.exited_at {
        Some(at) => {
            format!("Exited ({code}) {} ago", human_duration(seconds_since(Some(at), now)))
        }
        None => format!("Exited ({code})"),
    }
}

/// The exit code, or `unknown` with the reason: never an invented number.
fn code(exit: &Exit) -> String {
    match (exit.unknown, exit.reason.as_str()) {
        (false, _) => exit.status.to_string(),
        (true, "") => "unknown".to_owned(),
        (true, reason) => format!("unknown: {reason}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn states_are_said_as_docker_says_them() {
        let now: Timestamp = "2026-01-02T15:04:05Z".parse().unwrap();
        let ago =
            |seconds| Some(prost_types::Timestamp { seconds: now.as_second() - seconds, nanos: 0 });
        let exit = |status, unknown, reason: &str, exited_at| {
            Some(Exit { status, unknown, reason: reason.to_owned(), exited_at, ..Exit::default() })
        };
        for (status, started_at, exit, want) in [
            (Status::Created, None, None, "Created"),
            (Status::Starting, None, None, "Starting"),
            (Status::Running, ago(3), None, "Up 3 seconds"),
            (Status::Running, None, None, "Up Less than a second"),
            (Status::Paused, ago(3), None, "Up 3 seconds (Paused)"),
            (Status::Exited, ago(9), exit(42, false, "", ago(5)), "Exited (42) 5 seconds ago"),
            (Status::Exited, None, exit(0, false, "", ago(60)), "Exited (0) About a minute ago"),
            (
                Status::Exited,
                None,
                exit(255, true, "ShimLost", ago(120)),
                "Exited (unknown: ShimLost) 2 minutes ago",
            ),
            (
                Status::Exited,
                None,
                exit(137, false, "ShimLost", ago(1)),
                "Exited (137) 1 second ago",
            ),
            (Status::Exited, None, exit(255, true, "HostLost", None), "Exited (unknown: HostLost)"),
            (Status::Removing, None, None, "Removal In Progress"),
            (Status::Quarantined, None, None, "Dead"),
        ] {
            let state = State { status: status.into(), started_at, exit, ..State::default() };
            let container = Container { state: Some(state), ..Container::default() };
            assert_eq!(sentence(&container, now), want);
        }
    }
    #[test]
    fn a_clock_that_was_set_makes_nothing_older() {
        let now: Timestamp = "2036-01-02T15:04:05Z".parse().unwrap();
        let started_at = Some(prost_types::Timestamp { seconds: now.as_second() - 999, nanos: 0 });
        let running_for = Some(prost_types::Duration { seconds: 3, nanos: 0 });
        let state =
            State { status: Status::Running.into(), started_at, running_for, ..State::default() };
        let container = Container { state: Some(state), ..Container::default() };
        assert_eq!(sentence(&container, now), "Up 3 seconds");
    }
}
