//! One verb per file. A verb returns the exit code of `ctl`.

mod archive;
mod attach;
mod checkpoint;
mod commit;
mod completion;
mod content;
mod cp;
mod create;
mod diff;
mod events;
mod exec;
mod export;
pub(crate) mod image;
mod info;
mod inspect;
mod kill;
mod lease;
mod login;
mod logs;
mod pause;
mod pod;
pub(crate) mod ps;
mod restart;
mod restore;
mod rm;
mod run;
mod snapshot;
mod start;
pub(crate) mod stats;
mod stop;
pub(crate) mod system;
mod top;
mod unpause;
mod update;
mod version;
mod wait;

use std::collections::HashMap;
use std::future::Future;
use std::sync::Arc;
use std::time::Duration;

use futures::StreamExt;
use jiff::Timestamp;

use crate::cli::container::ContainerVerb;
use crate::cli::{Cli, Verb};
use crate::client::{Client, Deadline};
use crate::error::{Error, ExitCodes};
use crate::output;

/// How many containers a verb works on at once.
const AT_ONCE: usize = 16;

/// What docker waits for when nobody says anything else.
const STOP_TIMEOUT: Duration = Duration::from_secs(10);

/// containerd's label of what is never collected; its value is the moment it was set.
const GC_ROOT: &str = "containerd.io/gc.root";

pub(crate) async fn run(cli: Cli) -> Result<u8, Error> {
    let client = Arc::new(Client::new(cli.address, cli.namespace, cli.lease));
    match cli.verb {
        Verb::OnContainers(verb) => container(&client, verb).await,
        Verb::OnImages(verb) => image::run(&client, verb).await,
        Verb::Login(args) => login::run(&client, args).await,
        Verb::Logout(args) => login::logout(args).await,
        Verb::System(verb) => system::run(&client, verb).await,
        Verb::Snapshot(verb) => snapshot::run(&client, verb).await,
        Verb::Content(verb) => content::run(&client, verb).await,
        Verb::Lease(verb) => lease::run(&client, verb).await,
        Verb::Pod(verb) => pod::run(&client, verb).await,
        Verb::Events(args) => events::run(&client, args).await,
        Verb::Version(args) => version::run(&client, args).await,
        Verb::Info(args) => info::run(&client, args).await,
        Verb::Completion(args) => completion::run(&args),
    }
}

async fn container(client: &Arc<Client>, verb: ContainerVerb) -> Result<u8, Error> {
    match verb {
        ContainerVerb::Run(args) => run::run(client, *args).await,
        ContainerVerb::Create(args) => create::run(client, *args).await,
        ContainerVerb::Start(args) => start::run(client, args).await,
        ContainerVerb::Stop(args) => stop::run(client, args).await,
        ContainerVerb::Restart(args) => restart::run(client, args).await,
        ContainerVerb::Kill(args) => kill::run(client, args).await,
        ContainerVerb::Pause(args) => pause::run(client, args).await,
        ContainerVerb::Unpause(args) => unpause::run(client, args).await,
        ContainerVerb::Checkpoint(args) => checkpoint::run(client, args).await,
        ContainerVerb::Restore(args) => restore::run(client, args).await,
        ContainerVerb::Update(args) => update::run(client, *args).await,
        ContainerVerb::Stats(args) => stats::run(client, args).await,
        ContainerVerb::Top(args) => top::run(client, args).await,
        ContainerVerb::Rm(args) => rm::run(client, args).await,
        ContainerVerb::Wait(args) => wait::run(client, args).await,
        ContainerVerb::Ps(args) => ps::run(client, args).await,
        ContainerVerb::Inspect(args) => inspect::run(client, args).await,
        ContainerVerb::Logs(args) => logs::run(client, args).await,
        ContainerVerb::Attach(args) => attach::run(client, args).await,
        ContainerVerb::Exec(args) => exec::run(client, args).await,
        ContainerVerb::Cp(args) => cp::run(client, args).await,
        ContainerVerb::Diff(args) => diff::run(client, args).await,
        ContainerVerb::Export(args) => export::run(client, args).await,
        ContainerVerb::Commit(args) => commit::run(client, args).await,
    }
}

/// How a verb's failures are told from the exit code of what it runs.
pub(crate) fn exit_codes(verb: &Verb) -> ExitCodes {
    match verb {
        Verb::OnContainers(verb) => match verb {
            ContainerVerb::Run(_) | ContainerVerb::Create(_) => ExitCodes::OfRun,
            ContainerVerb::Exec(_) => ExitCodes::OfExec,
            ContainerVerb::Start(_)
            | ContainerVerb::Stop(_)
            | ContainerVerb::Restart(_)
            | ContainerVerb::Kill(_)
            | ContainerVerb::Pause(_)
            | ContainerVerb::Unpause(_)
            | ContainerVerb::Checkpoint(_)
            | ContainerVerb::Restore(_)
            | ContainerVerb::Update(_)
            | ContainerVerb::Stats(_)
            | ContainerVerb::Top(_)
            | ContainerVerb::Rm(_)
            | ContainerVerb::Wait(_)
            | ContainerVerb::Ps(_)
            | ContainerVerb::Inspect(_)
            | ContainerVerb::Logs(_)
            | ContainerVerb::Attach(_)
            | ContainerVerb::Cp(_)
            | ContainerVerb::Diff(_)
            | ContainerVerb::Export(_)
            | ContainerVerb::Commit(_) => ExitCodes::Plain,
        },
        Verb::OnImages(_)
        | Verb::Login(_)
        | Verb::Logout(_)
        | Verb::System(_)
        | Verb::Snapshot(_)
        | Verb::Content(_)
        | Verb::Lease(_)
        | Verb::Pod(_)
        | Verb::Events(_)
        | Verb::Version(_)
        | Verb::Info(_)
        | Verb::Completion(_) => ExitCodes::Plain,
    }
}

/// Works on each of `names`, several at once, and prints what came of them in their order. One that
/// fails does not keep the others from being done; the exit code is 1 then.
async fn each<'a, F, Fut>(names: &'a [String], work: F) -> Result<u8, Error>
where
    F: Fn(&'a str) -> Fut,
    Fut: Future<Output = Result<String, Error>>,
{
    let works = names.iter().map(|name| work(name));
    let mut results = futures::stream::iter(works).buffered(AT_ONCE);
    let mut code = 0;
    while let Some(result) = results.next().await {
        match result {
            Ok(line) => output::print(&(line + "\n"))?,
            Err(error) => {
                output::complain(&error);
                code = error.exit_code(ExitCodes::Plain);
            }
        }
    }
    Ok(code)
}

/// The labels of what nothing else reaches: it is to stay until it is removed by hand. A lease that
/// holds it says how long by itself.
fn rooted(client: &Client, labels: Vec<(String, String)>) -> HashMap<String, String> {
    let mut labels: HashMap<_, _> = labels.into_iter().collect();
    if !client.has_lease() {
        let now = || format!("{:.0}", Timestamp::now());
        labels.entry(GC_ROOT.to_owned()).or_insert_with(now);
    }
    labels
}

/// How long a stop may take: what its caller says, else what the container was made with.
async fn stop_deadline(
    client: &Client,
    container: &str,
    asked: Option<u32>,
) -> Result<Deadline, Error> {
    let wait = match asked {
        Some(seconds) => Duration::from_secs(seconds.into()),
        None => {
            let options = client.get(container).await?.options.unwrap_or_default();
            options
                .stop_timeout_seconds
                .map_or(STOP_TIMEOUT, |seconds| Duration::from_secs(seconds.into()))
        }
    };
    Ok(Deadline::LongAfter(wait))
}
