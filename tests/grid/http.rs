//! The TCP side of a coordinator: for tools that are not peers.

use futures_util::stream;
use talka_proto::wire::{self, grid_client::GridClient, jobs_client::JobsClient};
use tonic::{Code, transport::Endpoint};
use tonic_health::pb::{
    HealthCheckRequest, health_check_response::ServingStatus, health_client::HealthClient,
};
use tonic_reflection::pb::v1::{
    ServerReflectionRequest, server_reflection_client::ServerReflectionClient,
    server_reflection_request::MessageRequest, server_reflection_response::MessageResponse,
};

use crate::harness::{Grid, text};

#[tokio::test]
async fn tools_see_health_and_reflection_but_workers_must_be_peers() {
    let grid = Grid::start_with(&["--http", "127.0.0.1:0"]);
    let address = format!("http://{}", text(grid.ready(), "http"));
    let channel = Endpoint::from_shared(address).expect("an address").connect().await.expect("a connection");

    let health =
        HealthClient::new(channel.clone()).check(HealthCheckRequest::default()).await.expect("health");
    assert_eq!(health.into_inner().status(), ServingStatus::Serving);

    let request = ServerReflectionRequest {
        message_request: Some(MessageRequest::ListServices(String::new())),
        ..Default::default()
    };
    let mut reflection = ServerReflectionClient::new(channel.clone());
    let answers = reflection.server_reflection_info(stream::iter([request])).await.expect("reflection");
    let answer = answers.into_inner().message().await.expect("an answer").expect("one answer");
    let Some(MessageResponse::ListServicesResponse(services)) = answer.message_response else {
        panic!("services: {answer:?}")
    };
    let names: Vec<String> = services.service.into_iter().map(|service| service.name).collect();
    for name in ["talka.v1.Grid", "talka.v1.Jobs", "talka.v1.Ledger", "talka.v1.Peers"] {
        assert!(names.iter().any(|listed| listed == name), "{name} is not in {names:?}");
    }

    let mut jobs = JobsClient::new(channel.clone());
    let listed = jobs.list(wire::ListJobsRequest::default()).await.expect("reading is open on loopback");
    assert_eq!(listed.into_inner().jobs, []);

    // A session belongs to a key, and TCP has none.
    let refused = GridClient::new(channel).session(stream::pending()).await.expect_err("refused");
    assert!(matches!(refused.code(), Code::PermissionDenied | Code::Unauthenticated), "{refused:?}");
}
