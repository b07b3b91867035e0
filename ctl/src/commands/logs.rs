//! `ctl logs`. Following goes on where it was when the daemon restarts.

use std::io::{self, Write};
use std::time::Instant;

use bosun_proto::v1::{LogRecord, LogsRequest, log_record};
use futures::StreamExt;
use tonic::Status;

use crate::cli::container::LogsArgs;
use crate::client::{self, Client};
use crate::error::Error;
use crate::flags::FlagError;
use crate::view::utc_fixed;

/// How many records are written before what is buffered is flushed.
const RECORDS_AT_ONCE: usize = 256;

pub(super) async fn run(client: &Client, args: LogsArgs) -> Result<u8, Error> {
    let mut request = LogsRequest {
        container: args.container,
        follow: args.follow,
        tail: tail(&args.tail)?,
        since: args.since.map(Into::into),
        until: args.until.map(Into::into),
    };
    let mut printer = Printer { timestamps: args.timestamps, in_line: [false, false] };
    loop {
        let Some(status) = print(client, &mut request, &mut printer).await? else { return Ok(0) };
        let status = client.stream_broke(status)?;
        if !args.follow {
            let what = format!("the logs of {}", request.container);
            return Err(Error::StreamLost { what, status: Box::new(status) });
        }
        client.reconnect(Instant::now(), status).await?;
    }
}

/// Prints until the end, or until the stream breaks; the request then asks for what is missing.
async fn print(
    client: &Client,
    request: &mut LogsRequest,
    printer: &mut Printer,
) -> Result<Option<Status>, Error> {
    let records = client.stream(request.clone(), |channel, request| async move {
        client::io(channel).logs(request).await
    });
    let mut records = records.await?.ready_chunks(RECORDS_AT_ONCE);
    while let Some(some) = records.next().await {
        let mut stdout = io::BufWriter::new(io::stdout().lock());
        for record in some {
            let record = match record {
                Ok(record) => record,
                Err(status) => return Ok(Some(status)),
            };
            request.tail = None;
            request.since = record.time.map(next_nanosecond).or(request.since);
            match record.stream() {
                log_record::Stream::Stdout => printer.write(&record, &mut stdout),
                log_record::Stream::Stderr => {
                    stdout.flush().and_then(|()| printer.write(&record, &mut io::stderr().lock()))
                }
            }
            .map_err(Error::Output)?;
        }
        stdout.flush().map_err(Error::Output)?;
    }
    Ok(None)
}

fn tail(text: &str) -> Result<Option<u64>, FlagError> {
    match text.parse::<i64>() {
        // docker's -1 is all of them as well.
        Ok(lines) => Ok(u64::try_from(lines).ok()),
        Err(_) if text == "all" => Ok(None),
        Err(_) => Err(FlagError::Tail(text.to_owned())),
    }
}

fn next_nanosecond(at: prost_types::Timestamp) -> prost_types::Timestamp {
    match at.nanos {
        999_999_999 => prost_types::Timestamp { seconds: at.seconds + 1, nanos: 0 },
        nanos => prost_types::Timestamp { seconds: at.seconds, nanos: nanos + 1 },
    }
}

/// Writes records; a time stands at the start of a line, not of each of its pieces.
#[derive(Debug)]
struct Printer {
    timestamps: bool,
    /// Whether stdout, stderr are within a line.
    in_line: [bool; 2],
}

impl Printer {
    fn write(&mut self, record: &LogRecord, to: &mut impl Write) -> io::Result<()> {
        let in_line = match record.stream() {
            log_record::Stream::Stdout => &mut self.in_line[0],
            log_record::Stream::Stderr => &mut self.in_line[1],
        };
        if self.timestamps && !*in_line {
            write!(to, "{} ", utc_fixed(record.time.as_ref()))?;
        }
        *in_line = !record.log.ends_with(b"\n");
        to.write_all(&record.log)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_line_in_pieces_has_one_time() {
        let mut printer = Printer { timestamps: true, in_line: [false, false] };
        let mut out = Vec::new();
        for (nanos, log) in [(1, "one\n"), (2, "tw"), (3, "o\n"), (4, "three")] {
            let time = Some(prost_types::Timestamp { seconds: 0, nanos });
            let record = LogRecord { time, stream: 0, log: log.into() };
            printer.write(&record, &mut out).unwrap();
        }
        assert_eq!(
            String::from_utf8(out).unwrap(),
            "1970-01-01T00:00:00.000000001Z one\n1970-01-01T00:00:00.000000002Z two\n\
             1970-01-01T00:00:00.000000004Z three"
        );
    }

    #[test]
    fn tails_are_counted_or_all() {
        assert_eq!(tail("all"), Ok(None));
        assert_eq!(tail("-1"), Ok(None));
        assert_eq!(tail("0"), Ok(Some(0)));
        assert_eq!(tail("20"), Ok(Some(20)));
        assert!(tail("some").is_err());
    }

    #[test]
    fn following_resumes_after_the_last_record() {
        let at = |seconds, nanos| prost_types::Timestamp { seconds, nanos };
        assert_eq!(next_nanosecond(at(1, 5)), at(1, 6));
        assert_eq!(next_nanosecond(at(1, 999_999_999)), at(2, 0));
    }
}
