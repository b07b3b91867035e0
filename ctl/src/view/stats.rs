//! What a container uses, as a row of `ctl stats`: docker's fields, docker's units.

use bosun_proto::v1::{Container, StatsResponse};

use super::listing::Column;
use super::size::{decimal_size, human_size};
use crate::template::{Value, record};

/// The headings of docker's fields.
pub(crate) const COLUMNS: [Column; 9] = [
    Column { field: "BlockIO", heading: "BLOCK I/O" },
    Column { field: "CPUPerc", heading: "CPU %" },
    Column { field: "Container", heading: "CONTAINER" },
    Column { field: "ID", heading: "CONTAINER ID" },
    Column { field: "MemPerc", heading: "MEM %" },
    Column { field: "MemUsage", heading: "MEM USAGE / LIMIT" },
    Column { field: "Name", heading: "NAME" },
    Column { field: "NetIO", heading: "NET I/O" },
    Column { field: "PIDs", heading: "PIDS" },
];

const ID_LEN: usize = 12;
/// Of sizes that count by 1000.
const DIGITS: u32 = 3;

/// One row, of two samples. Of a container that does not run there is nothing to say; of one that
/// has just begun, no percentage.
pub(crate) fn row(
    container: &Container,
    before: Option<&StatsResponse>,
    now: Option<&StatsResponse>,
    whole: bool,
) -> Value {
    const NOTHING: &str = "--";
    let id_len = if whole { usize::MAX } else { ID_LEN };
    let id: String = container.id.chars().take(id_len).collect();
    let said = |text: &dyn Fn(&StatsResponse) -> String| -> Value {
        now.map_or_else(|| NOTHING.to_owned(), text).into()
    };
    let pair = |one: String, other: String| format!("{one} / {other}");
    let bytes = |count: u64| decimal_size(count, DIGITS);
    record([
        ("BlockIO", said(&|s| pair(bytes(s.block_read), bytes(s.block_written)))),
        ("CPUPerc", said(&|s| before.map_or_else(|| NOTHING.to_owned(), |b| cpu_percent(b, s)))),
        ("Container", container.name.as_str().into()),
        ("ID", id.into()),
        ("MemPerc", said(&|s| percent(s.memory_used as f64, s.memory_limit as f64))),
        ("MemUsage", said(&|s| pair(human_size(s.memory_used), human_size(s.memory_limit)))),
        ("Name", container.name.as_str().into()),
        ("NetIO", said(&|s| pair(bytes(s.network_received), bytes(s.network_sent)))),
        ("PIDs", said(&|s| s.pids.to_string())),
    ])
}

/// Of one CPU: 200 % are two of them.
fn cpu_percent(before: &StatsResponse, now: &StatsResponse) -> String {
    let moment = |sample: &StatsResponse| {
        let at = sample.read_at.unwrap_or_default();
        at.seconds as f64 * 1e9 + f64::from(at.nanos)
    };
    let used = now.cpu_total.saturating_sub(before.cpu_total) as f64;
    percent(used, moment(now) - moment(before))
}

fn percent(part: f64, whole: f64) -> String {
    let percent = if whole > 0.0 { part / whole * 100.0 } else { 0.0 };
    format!("{percent:.2}%")
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::template::Template;

    #[test]
    fn two_samples_are_a_row_in_docker_s_units() {
        let at = |seconds, nanos| Some(prost_types::Timestamp { seconds, nanos });
        let before = StatsResponse {
            read_at: at(10, 900_000_000),
            cpu_total: 5_000_000_000,
            ..StatsResponse::default()
        };
        let now = StatsResponse {
            read_at: at(11, 900_000_000),
            cpu_total: 6_250_000_000,
            memory_used: 3 << 19,
            memory_limit: 64 << 20,
            pids: 3,
            block_read: 4_096,
            block_written: 0,
            network_received: 1_240,
            network_sent: 656,
            ..StatsResponse::default()
        };
        let container = Container {
            id: "0123456789abcdef".to_owned(),
            name: "web".to_owned(),
            ..Container::default()
        };
        let text = "{{.ID}} {{.Name}} {{.CPUPerc}} {{.MemUsage}} {{.MemPerc}} {{.NetIO}} {{.BlockIO}} {{.PIDs}}";
        let template = Template::parse(text).unwrap();
        let shown = |before, now| template.render(&row(&container, before, now, false)).unwrap();
        assert_eq!(
            shown(Some(&before), Some(&now)),
            "0123456789ab web 125.00% 1.5MiB / 64MiB 2.34% 1.24kB / 656B 4.1kB / 0B 3"
        );
        assert_eq!(shown(Some(&before), None), "0123456789ab web -- -- -- -- -- --");
        assert!(shown(None, Some(&now)).starts_with("0123456789ab web -- 1.5MiB"));
    }
}
