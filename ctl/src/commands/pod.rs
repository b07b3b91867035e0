//! `ctl pod`: containers that share namespaces.

use std::time::Duration;

use bosun_proto::v1::{
    CreateSandboxRequest, GetSandboxRequest, ListSandboxesRequest, RemoveSandboxRequest,
    SandboxOptions, SandboxRequest, StopSandboxRequest,
};

use super::inspect::Shape;
use crate::cli::pod::{CreateArgs, InspectArgs, LsArgs, NamesArgs, PodVerb, RmArgs, StopArgs};
use crate::client::{self, Client, Deadline};
use crate::error::Error;
use crate::flags::publish;
use crate::output;
use crate::view::Listing;
use crate::view::pod::{COLUMNS, value};

const TABLE: &str =
    "table {{.ShortID}}\t{{.Name}}\t{{.State}}\t{{.Created}}\t{{.Count}}\t{{.Ports}}";

pub(super) async fn run(client: &Client, verb: PodVerb) -> Result<u8, Error> {
    match verb {
        PodVerb::Create(args) => create(client, args).await,
        PodVerb::Start(args) => start(client, args).await,
        PodVerb::Stop(args) => stop(client, args).await,
        PodVerb::Rm(args) => rm(client, args).await,
        PodVerb::Ls(args) => ls(client, args).await,
        PodVerb::Inspect(args) => inspect(client, args).await,
    }
}

async fn create(client: &Client, args: CreateArgs) -> Result<u8, Error> {
    let options = SandboxOptions {
        name: args.name,
        hostname: args.hostname.unwrap_or_default(),
        ports: publish(&args.publish)?,
        network: args.network,
        share_pid: args.share_pid,
        sysctls: args.sysctl.into_iter().collect(),
        labels: args.label.into_iter().collect(),
        uid_mappings: args.uidmap,
        gid_mappings: args.gidmap,
    };
    let request =
        CreateSandboxRequest { request_id: client::request_id()?, options: Some(options) };
    let answer = client.call(Deadline::Long, request, |channel, request| async move {
        client::sandboxes(channel).create(request).await
    });
    let created = answer.await?;
    for warning in &created.warnings {
        output::warn(warning);
    }
    output::print(&(created.id + "\n"))?;
    Ok(0)
}

async fn start(client: &Client, args: NamesArgs) -> Result<u8, Error> {
    super::each(&args.pods, |name| async move {
        let request =
            SandboxRequest { request_id: client::request_id()?, sandbox: name.to_owned() };
        let started = client.call(Deadline::Long, request, |channel, request| async move {
            client::sandboxes(channel).start(request).await
        });
        started.await.map(|_| name.to_owned())
    })
    .await
}

async fn stop(client: &Client, args: StopArgs) -> Result<u8, Error> {
    // Its containers are stopped side by side, and what each of them says is the daemon's to know.
    let wait = args.time.map_or(STOP, |seconds| Duration::from_secs(seconds.into()));
    super::each(&args.pods, |name| async move {
        let request = StopSandboxRequest {
            request_id: client::request_id()?,
            sandbox: name.to_owned(),
            timeout_seconds: args.time,
        };
        let stopped =
            client.call(Deadline::LongAfter(wait), request, |channel, request| async move {
                client::sandboxes(channel).stop(request).await
            });
        stopped.await.map(|_| name.to_owned())
    })
    .await
}

/// How long the containers of a pod may want to take.
const STOP: Duration = Duration::from_secs(300);

async fn rm(client: &Client, args: RmArgs) -> Result<u8, Error> {
    super::each(&args.pods, |name| async move {
        let request = RemoveSandboxRequest {
            request_id: client::request_id()?,
            sandbox: name.to_owned(),
            force: args.force,
        };
        let removed = client.call(Deadline::Long, request, |channel, request| async move {
            client::sandboxes(channel).remove(request).await
        });
        removed.await.map(|_| name.to_owned())
    })
    .await
}

async fn ls(client: &Client, args: LsArgs) -> Result<u8, Error> {
    let format = if args.quiet { Some("{{.ShortID}}") } else { args.format.as_deref() };
    let listing = Listing::new(format, TABLE, &COLUMNS)?;
    let request = ListSandboxesRequest {};
    let answer = client.call(Deadline::Short, request, |channel, request| async move {
        client::sandboxes(channel).list(request).await
    });
    let rows: Vec<_> = answer.await?.sandboxes.iter().map(value).collect();
    output::print(&listing.render(&rows)?)?;
    Ok(0)
}

async fn inspect(client: &Client, args: InspectArgs) -> Result<u8, Error> {
    let shape = Shape::new(args.format.as_deref())?;
    let mut found = Vec::new();
    let mut missing = Vec::new();
    for sandbox in args.pods {
        let request = GetSandboxRequest { sandbox };
        let answer = client.call(Deadline::Short, request, |channel, request| async move {
            client::sandboxes(channel).get(request).await
        });
        match answer.await {
            Ok(sandbox) => found.push(value(&sandbox)),
            Err(error @ Error::Refused(_)) => missing.push(error),
            Err(error) => return Err(error),
        }
    }
    output::print(&shape.render(found)?)?;
    missing.iter().for_each(|error| output::complain(error));
    Ok(u8::from(!missing.is_empty()))
}
