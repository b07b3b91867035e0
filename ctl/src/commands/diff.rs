//! `ctl diff`.

use bosun_proto::v1::DiffRequest;
use bosun_proto::v1::change::Kind;

use crate::cli::files::DiffArgs;
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::output::{self, escaped};

pub(super) async fn run(client: &Client, args: DiffArgs) -> Result<u8, Error> {
    let request = DiffRequest { container: args.container };
    let answer = client.call(Deadline::Long, request, |channel, request| async move {
        client::files(channel).diff(request).await
    });
    let mut lines = String::new();
    for change in answer.await?.changes {
        let letter = match change.kind() {
            Kind::Unspecified => '?',
            Kind::Modified => 'C',
            Kind::Added => 'A',
            Kind::Deleted => 'D',
        };
        lines += &format!("{letter} {}\n", escaped(&change.path));
    }
    output::print(&lines)?;
    Ok(0)
}
