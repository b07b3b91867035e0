//! Containers: what was asked for is noted, what is asked about is looked up.

use bosun_proto::v1::containers_server::Containers;
use bosun_proto::v1::*;
use tonic::{Request, Response, Status};

use super::{Fake, ID, Process, exit, refusal, running};

#[tonic::async_trait]
impl Containers for Fake {
    async fn create(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let request = request.into_inner();
        let options = request.options.unwrap();
        self.note(format!("create {}", options.name), &request.request_id);
        if let Some(container_options::Base::Image(image)) = &options.base {
            self.find_image(image)?;
        }
        let mut container = running(&options.name);
        container.options = Some(options.clone());
        let mut book = self.book();
        if matches!(book.process, Some(Process::Refuses(..))) {
            let state = container.state.get_or_insert_default();
            state.set_status(state::Status::Created);
        }
        book.created = Some(options);
        book.containers.push(container);
        Ok(Response::new(CreateResponse {
            id: ID.to_owned(),
            warnings: vec!["mind the gap".into()],
        }))
    }

    async fn run(
        &self,
        request: Request<CreateRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let process = self.book().process.clone();
        if let Some(Process::Refuses(code, reason, message)) = process {
            return Err(refusal(code, reason, message));
        }
        self.create(request).await
    }

    async fn start(
        &self,
        request: Request<StartRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        self.note(format!("start {}", request.container), &request.request_id);
        let failure = self.book().start_failures.pop_front();
        failure.map_or(Ok(Response::new(StartResponse { pid: 1 })), Err)
    }

    async fn stop(&self, request: Request<StopRequest>) -> Result<Response<StopResponse>, Status> {
        let request = request.into_inner();
        let seconds = request.timeout_seconds;
        self.note(format!("stop {} {seconds:?}", request.container), &request.request_id);
        let failure = self.book().stop_failures.pop_front();
        failure.map_or(Ok(Response::new(StopResponse {})), Err)
    }

    async fn restart(
        &self,
        request: Request<StopRequest>,
    ) -> Result<Response<StartResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("restart {}", request.container), &request.request_id);
        Ok(Response::new(StartResponse { pid: 1 }))
    }

    async fn kill(&self, request: Request<KillRequest>) -> Result<Response<KillResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("kill {} {}", request.container, request.signal), &request.request_id);
        self.book().signals.push_back(request.signal);
        self.signalled.notify_one();
        Ok(Response::new(KillResponse {}))
    }

    async fn pause(
        &self,
        request: Request<PauseRequest>,
    ) -> Result<Response<PauseResponse>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        self.note(format!("pause {}", request.container), &request.request_id);
        Ok(Response::new(PauseResponse {}))
    }

    async fn checkpoint(
        &self,
        request: Request<CheckpointRequest>,
    ) -> Result<Response<CheckpointResponse>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        let what = format!("checkpoint {} {}", request.container, request.location);
        self.note(what, &request.request_id);
        Ok(Response::new(CheckpointResponse {}))
    }

    async fn restore(
        &self,
        request: Request<RestoreRequest>,
    ) -> Result<Response<CreateResponse>, Status> {
        let request = request.into_inner();
        let what = format!("restore {} {:?}", request.location, request.name);
        self.note(what, &request.request_id);
        Ok(Response::new(CreateResponse { id: ID.to_owned(), warnings: Vec::new() }))
    }

    async fn unpause(
        &self,
        request: Request<UnpauseRequest>,
    ) -> Result<Response<UnpauseResponse>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        self.note(format!("unpause {}", request.container), &request.request_id);
        Ok(Response::new(UnpauseResponse {}))
    }

    async fn update(
        &self,
        request: Request<UpdateRequest>,
    ) -> Result<Response<UpdateResponse>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        let limits = request.limits.unwrap_or_default();
        let (memory, pids) = (limits.memory, limits.pids);
        self.note(format!("update {} {memory:?} {pids:?}", request.container), &request.request_id);
        Ok(Response::new(UpdateResponse {}))
    }

    async fn stats(
        &self,
        request: Request<StatsRequest>,
    ) -> Result<Response<StatsResponse>, Status> {
        self.find(&request.into_inner().container)?;
        let now = std::time::SystemTime::now().into();
        let pids = 3;
        Ok(Response::new(StatsResponse { read_at: Some(now), pids, ..Default::default() }))
    }

    async fn top(&self, request: Request<TopRequest>) -> Result<Response<TopResponse>, Status> {
        let request = request.into_inner();
        self.find(&request.container)?;
        self.note(format!("top {:?}", request.ps_options), "");
        let values = |words: [&str; 2]| words.map(str::to_owned).to_vec();
        let processes = vec![TopProcess { values: values(["42", "sh -c a\u{1b}[2Jb"]) }];
        Ok(Response::new(TopResponse { titles: values(["PID", "CMD"]), processes }))
    }

    async fn remove(
        &self,
        request: Request<RemoveRequest>,
    ) -> Result<Response<RemoveResponse>, Status> {
        let request = request.into_inner();
        let container = self.find(&request.container)?;
        self.note(format!("remove {} {}", request.container, request.force), &request.request_id);
        self.book().containers.retain(|one| one.id != container.id);
        Ok(Response::new(RemoveResponse { id: container.id }))
    }

    async fn wait(&self, request: Request<WaitRequest>) -> Result<Response<WaitResponse>, Status> {
        self.find(&request.into_inner().container)?;
        let exit = match self.book().process {
            Some(Process::Ended(status)) => exit(status),
            _ => Exit { status: 255, unknown: true, reason: "ShimLost".into(), ..Exit::default() },
        };
        Ok(Response::new(WaitResponse { exit: Some(exit) }))
    }

    async fn get(&self, request: Request<GetRequest>) -> Result<Response<Container>, Status> {
        self.find(&request.into_inner().container).map(Response::new)
    }

    async fn list(&self, request: Request<ListRequest>) -> Result<Response<ListResponse>, Status> {
        let request = request.into_inner();
        self.note(format!("list {} {:?}", request.all, request.filters), "");
        let containers = self.book().containers.clone();
        Ok(Response::new(ListResponse { containers }))
    }
}
