//! Both ends of the socket, with a worker behind it that only says what it was asked.

use std::{
    os::unix::fs::PermissionsExt as _,
    path::{Path, PathBuf},
};

use talka_core::{duty::CpuPercent, limits};
use tempfile::TempDir;
use tokio::{
    io::{AsyncBufReadExt as _, AsyncWriteExt as _, BufReader},
    sync::mpsc,
    task::JoinHandle,
};

use super::{
    Answer, AskError, Asked, Connection, ControlError, DiskUsage, Pause, Refused, Request, Socket, State,
    Status, Traffic, ask, serve, socket,
};

/// A moment that is not now.
const NOW: u64 = 1_800_000_000_000;

fn status(pause: Option<Pause>) -> Status {
    Status {
        peer: "peer".into(),
        agent: "talka/test".into(),
        pid: 7,
        started_millis: NOW,
        state: State::Idle,
        pause,
        finishing: false,
        cpu_percent: CpuPercent::ALL,
        connection: Connection { coordinator: "other".into(), connected: true, since_millis: NOW },
        slots: vec![],
        queued: 0,
        fetching: 0,
        unsettled: 0,
        attempts_done: 0,
        no_results: 0,
        fuel_done: 0,
        fetched: Traffic { from_coordinator: 0, from_peers: 0 },
        disk: DiskUsage { used: 0, quota: 1 },
    }
}

/// A data directory with a server in it.
struct Rig {
    _root: TempDir,
    dir: PathBuf,
    server: JoinHandle<()>,
    asked: mpsc::Receiver<Asked>,
}

impl Rig {
    /// In a directory of that name below a temporary one.
    async fn start(name: &str) -> Self {
        let root = tempfile::tempdir().expect("a directory");
        let dir = root.path().join(name);
        let socket = Socket::bind(&dir).await.expect("bound");
        let (sender, asked) = mpsc::channel(1);
        let server = tokio::spawn(serve(socket, dir.clone(), sender));
        Self { _root: root, dir, server, asked }
    }

    /// Obeys one request.
    async fn obey(&mut self, answer: Result<Status, Refused>) -> Request {
        let Asked { request, reply } = self.asked.recv().await.expect("a request");
        reply.send(answer).expect("somebody waits for it");
        request
    }

    /// Writes a line and reads the answer.
    async fn say(&self, line: &[u8]) -> Answer {
        let mut stream = socket::connect(&self.dir).await.expect("connected");
        // If it is too long, nobody reads all of it.
        let _ = stream.write_all(line).await;
        let mut answer = String::new();
        BufReader::new(stream).read_line(&mut answer).await.expect("an answer");
        serde_json::from_str(&answer).unwrap_or_else(|error| panic!("{error}: {answer}"))
    }
}

fn mode(path: &Path) -> u32 {
    path.metadata().expect("there").permissions().mode() & 0o777
}

#[tokio::test]
async fn each_request_reaches_the_worker_and_its_answer_the_owner() {
    let mut rig = Rig::start("worker").await;
    assert_eq!(mode(&rig.dir.join("control.sock")), 0o600);
    let dir = rig.dir.clone();
    let requests = [
        Request::Status {},
        Request::Pause { for_secs: None },
        Request::Pause { for_secs: Some(7200) },
        Request::Resume {},
        Request::Finish {},
        Request::Set { cpu_percent: CpuPercent::new(25).expect("valid") },
    ];
    for request in requests {
        let (answer, asked) = tokio::join!(ask(&dir, request), rig.obey(Ok(status(None))));
        assert_eq!(asked, request);
        assert_eq!(answer.expect("obeyed"), status(None));
    }
    let no = Refused::new("denied", "not today");
    let (answer, _) = tokio::join!(ask(&dir, Request::Finish {}), rig.obey(Err(no.clone())));
    assert!(matches!(answer, Err(AskError::Refused(refused)) if refused == no));
}

#[tokio::test]
async fn a_pause_is_on_disk_when_it_is_acknowledged_and_gone_when_its_end_is() {
    let mut rig = Rig::start("worker").await;
    let dir = rig.dir.clone();
    let pause = Pause { since_millis: NOW, until_millis: None };
    let change = |request, pause| (request, status(pause));
    let steps = [
        change(Request::Pause { for_secs: None }, Some(pause)),
        // Says nothing about the pause, whatever the status.
        change(Request::Status {}, None),
    ];
    for (request, status) in steps {
        let (answer, _) = tokio::join!(ask(&dir, request), rig.obey(Ok(status)));
        answer.expect("obeyed");
        assert_eq!(Pause::load(&dir, NOW), Some(pause), "{request:?}");
    }
    let (answer, _) = tokio::join!(ask(&dir, Request::Resume {}), rig.obey(Ok(status(None))));
    answer.expect("obeyed");
    assert_eq!(Pause::load(&dir, NOW), None);
}

#[tokio::test]
async fn what_is_not_understood_is_refused_and_disturbs_nobody() {
    let mut rig = Rig::start("worker").await;
    let long = vec![b' '; 2 * limits::CONTROL_REQUEST_BYTES_MAX];
    let lines: [(&[u8], &str); 10] = [
        (b"\n", "unknown-request"),
        (b"{\n", "unknown-request"),
        (b"\xff\xfe\n", "unknown-request"),
        (b"{\"request\":\"fly\"}\n", "unknown-request"),
        (b"{\"request\":\"resume\",\"force\":true}\n", "unknown-request"),
        (b"{\"request\":\"pause\",\"for_secs\":-1}\n", "unknown-request"),
        (b"{\"request\":\"set\"}\n", "unknown-request"),
        (b"{\"request\":\"set\",\"cpu_percent\":0}\n", "unknown-request"),
        (b"{\"request\":\"set\",\"cpu_percent\":101}\n", "unknown-request"),
        (&long, "limit"),
    ];
    for (line, code) in lines {
        let answer = rig.say(line).await;
        let shown = String::from_utf8_lossy(line);
        assert!(matches!(&answer, Answer::Error(refused) if refused.code == code), "{shown:?}: {answer:?}");
    }
    assert!(rig.asked.is_empty(), "the worker was not bothered");
    let dir = rig.dir.clone();
    let (answer, _) = tokio::join!(ask(&dir, Request::Status {}), rig.obey(Ok(status(None))));
    answer.expect("obeyed");
}

#[tokio::test]
async fn connections_that_say_nothing_do_not_keep_a_request_from_being_answered() {
    let mut rig = Rig::start("worker").await;
    let dir = rig.dir.clone();
    let mut silent = Vec::new();
    for _ in 1..limits::CONTROL_CONNECTIONS_MAX {
        silent.push(socket::connect(&dir).await.expect("connected"));
    }
    let (answer, _) = tokio::join!(ask(&dir, Request::Status {}), rig.obey(Ok(status(None))));
    answer.expect("obeyed");
    // With one more, all places are taken, until somebody goes.
    silent.push(socket::connect(&dir).await.expect("connected"));
    let goes = async { drop(silent) };
    let (answer, _, ()) = tokio::join!(ask(&dir, Request::Status {}), rig.obey(Ok(status(None))), goes);
    answer.expect("obeyed");
}

#[tokio::test]
async fn one_worker_at_a_time_has_a_directory() {
    let rig = Rig::start("worker").await;
    let second = Socket::bind(&rig.dir).await.expect_err("taken");
    assert!(matches!(second, ControlError::AlreadyRuns(_)), "{second:?}");
    assert!(second.to_string().contains("--data-dir"), "{second}");
    assert!(rig.dir.join("control.sock").exists(), "and it is left alone");

    rig.server.abort();
    assert!(rig.server.await.is_err_and(|error| error.is_cancelled()));
    assert!(!rig.dir.join("control.sock").exists(), "it goes with its worker");
    Socket::bind(&rig.dir).await.expect("free again");
}

#[tokio::test]
async fn the_socket_of_a_process_that_died_is_replaced_and_a_live_one_is_not() {
    let dir = tempfile::tempdir().expect("a directory");
    let path = dir.path().join("control.sock");
    // Whoever holds it holds no lock, as on a file system that has none.
    let alive = std::os::unix::net::UnixListener::bind(&path).expect("bound");
    let refused = Socket::bind(dir.path()).await.expect_err("somebody listens");
    assert!(matches!(refused, ControlError::AlreadyRuns(_)), "{refused:?}");
    drop(alive);
    assert!(path.exists(), "nobody tidies up after a process that died");
    Socket::bind(dir.path()).await.expect("bound");
}

#[tokio::test]
async fn a_path_that_is_too_long_for_a_socket_will_do() {
    let mut rig = Rig::start(&format!("{}/{}", "long".repeat(50), "longer".repeat(40))).await;
    let dir = rig.dir.clone();
    assert!(dir.as_os_str().len() > 400);
    let (answer, _) = tokio::join!(ask(&dir, Request::Status {}), rig.obey(Ok(status(None))));
    answer.expect("obeyed");
}

#[tokio::test]
async fn whoever_is_not_there_is_said_to_be_not_there() {
    let root = tempfile::tempdir().expect("a directory");
    let missing = root.path().join("nothing");
    for dir in [root.path(), &missing] {
        let error = ask(dir, Request::Status {}).await.expect_err("nobody");
        assert!(matches!(error, AskError::NotRunning(_)), "{error:?}");
        assert!(error.to_string().contains(&*dir.to_string_lossy()), "{error}");
    }
    drop(std::os::unix::net::UnixListener::bind(root.path().join("control.sock")).expect("bound"));
    let error = ask(root.path(), Request::Status {}).await.expect_err("nobody any more");
    assert!(matches!(error, AskError::NotRunning(_)), "{error:?}");
}

#[tokio::test]
async fn an_answer_that_makes_no_sense_is_an_error() {
    for says in [&b""[..], b"{}\n", b"{\"status\":{}}\n", b"\0\0\0"] {
        let dir = tempfile::tempdir().expect("a directory");
        let listener = tokio::net::UnixListener::bind(dir.path().join("control.sock")).expect("bound");
        let server = async {
            let (mut stream, _) = listener.accept().await.expect("a connection");
            let mut request = String::new();
            let (reading, mut writing) = stream.split();
            BufReader::new(reading).read_line(&mut request).await.expect("a request");
            writing.write_all(says).await.expect("said");
        };
        let (answer, ()) = tokio::join!(ask(dir.path(), Request::Status {}), server);
        assert!(matches!(answer, Err(AskError::Silent | AskError::Answer(_))), "{says:?}: {answer:?}");
    }
}
