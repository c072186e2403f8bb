//! The layer in front of every service: role, rate limit, access table, message size, in this order.

use std::{
    collections::HashMap,
    net::IpAddr,
    sync::{Arc, Mutex, PoisonError, atomic::Ordering},
    task::{Context, Poll},
    time::{Duration, Instant},
};

use futures_util::future::{Either, Ready, ready};
use http::{HeaderMap, Request, Response, StatusCode, header};
use talka_core::{ids::PeerId, limits};
use tonic::{Code, Status, body::Body};
use tower::{Layer, Service};

use super::{AccessTable, Caller, Role, Roles, messages::BoundedMessages, stream::Connection};
use crate::{bucket::TokenBucket, connections::Network, text};

/// See the [module](self). Clones share the rate limit.
#[derive(Clone)]
pub(crate) struct Gate {
    table: Arc<AccessTable>,
    roles: Arc<dyn Roles>,
    rates: Arc<Mutex<Rates>>,
}

impl Gate {
    pub(crate) fn new(table: AccessTable, roles: Arc<dyn Roles>) -> Self {
        Self { table: Arc::new(table), roles, rates: Arc::default() }
    }

    /// Lets a request pass, with its caller and role attached, or says why not.
    fn check(&self, request: &mut Request<Body>) -> Result<(), Refusal> {
        let Some(connection) = request.extensions().get::<Connection>() else {
            return Err(Refusal::NoConnection);
        };
        let caller = connection.caller;
        connection.used.store(true, Ordering::Relaxed);
        let token = bearer_token(request.headers());
        let role = token.as_ref().map(|token| self.roles.role(&caller, token.as_deref()));
        if let Some(key) = RateKey::of(&caller) {
            let rate = Rate::of(role.as_ref().copied().unwrap_or(Role::Anyone));
            let mut rates = self.rates.lock().unwrap_or_else(PoisonError::into_inner);
            rates.take(key, rate, Instant::now()).map_err(|wait| Refusal::TooFast { rate, wait })?;
        }
        let path = request.uri().path();
        let access = self.table.access(path).ok_or_else(|| Refusal::NoRow { path: path.to_owned() })?;
        let (role, token) = (role.map_err(Clone::clone)?, token?);
        if role < access.least() {
            let path = path.to_owned();
            return Err(Refusal::Role { path, least: access.least(), role, has_token: token.is_some() });
        }
        let extensions = request.extensions_mut();
        extensions.insert(caller);
        extensions.insert(role);
        Ok(())
    }
}

/// Why a request does not reach a service. The texts go to whoever asked.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
enum Refusal {
    #[error("the caller of this request is unknown")]
    NoConnection,
    #[error("more than {} requests per second: wait {} ms", rate.per_second(), wait.as_millis() + 1)]
    TooFast { rate: Rate, wait: Duration },
    #[error("nobody may call {path}: it is unknown here, or no rule says who may")]
    NoRow { path: String },
    #[error("the authorization header is not `Bearer` and a token in base32")]
    Token,
    #[error("{path} is for {least} and above; this caller is {role}{}", if *.has_token { "" } else { " and sent no token" })]
    Role { path: String, least: Role, role: Role, has_token: bool },
}

impl Refusal {
    fn codes(&self) -> (Code, StatusCode) {
        match self {
            Self::NoConnection => (Code::Internal, StatusCode::INTERNAL_SERVER_ERROR),
            Self::TooFast { .. } => (Code::ResourceExhausted, StatusCode::TOO_MANY_REQUESTS),
            Self::NoRow { .. } => (Code::PermissionDenied, StatusCode::NOT_FOUND),
            Self::Token => (Code::Unauthenticated, StatusCode::UNAUTHORIZED),
            Self::Role { .. } => (Code::PermissionDenied, StatusCode::FORBIDDEN),
        }
    }

    fn into_response(self, is_grpc: bool) -> Response<Body> {
        let (code, status) = self.codes();
        let refusal = Status::new(code, self.to_string());
        if is_grpc {
            return refusal.into_http();
        }
        let mut response = Response::new(Body::new(format!("{}\n", refusal.message())));
        *response.status_mut() = status;
        response
    }
}

fn is_grpc(headers: &HeaderMap) -> bool {
    let kind = headers.get(header::CONTENT_TYPE);
    kind.is_some_and(|kind| kind.as_bytes().starts_with(b"application/grpc"))
}

/// The token of a request that the gate has let in.
pub(super) fn token(headers: &HeaderMap) -> Option<Vec<u8>> {
    bearer_token(headers).ok().flatten()
}

fn bearer_token(headers: &HeaderMap) -> Result<Option<Vec<u8>>, Refusal> {
    let Some(value) = headers.get(header::AUTHORIZATION) else { return Ok(None) };
    let token = value.as_bytes().strip_prefix(b"Bearer ").and_then(text::from_base32);
    token.filter(|token| !token.is_empty()).map(Some).ok_or(Refusal::Token)
}

/// Who shares a rate: a key, or a network of the tools without one. Tools on this machine have no limit.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum RateKey {
    Peer(PeerId),
    Network(Network),
    Address(IpAddr),
}

impl RateKey {
    fn of(caller: &Caller) -> Option<Self> {
        match caller {
            Caller::Peer(peer) => Some(Self::Peer(*peer)),
            Caller::Tcp { .. } if caller.is_local() => None,
            Caller::Tcp { addr, .. } => {
                Some(Network::of(addr.ip()).map_or(Self::Address(addr.ip()), Self::Network))
            }
        }
    }
}

/// How fast a caller may be. Who may submit has shown the token, so a flood of theirs is no stranger's.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
enum Rate {
    Stranger,
    Submitter,
}

impl Rate {
    fn of(role: Role) -> Self {
        if role >= Role::Submitter { Self::Submitter } else { Self::Stranger }
    }

    fn per_second(self) -> u32 {
        match self {
            Self::Stranger => limits::REQUESTS_PER_SECOND,
            Self::Submitter => limits::SUBMITTER_REQUESTS_PER_SECOND,
        }
    }

    fn burst(self) -> u32 {
        match self {
            Self::Stranger => limits::REQUESTS_BURST,
            Self::Submitter => limits::SUBMITTER_REQUESTS_BURST,
        }
    }
}

/// What each may still do now, separately with and without the token.
#[derive(Debug, Default)]
struct Rates(HashMap<(RateKey, Rate), TokenBucket>);

impl Rates {
    /// Twice the connections: keys that were active in the last seconds, of which each has or had one.
    const MAX: usize = limits::CONNECTIONS_MAX * 2;

    fn take(&mut self, key: RateKey, rate: Rate, now: Instant) -> Result<(), Duration> {
        let key = (key, rate);
        if self.0.len() >= Self::MAX && !self.0.contains_key(&key) {
            self.0.retain(|_, bucket| !bucket.is_full(now));
            if self.0.len() >= Self::MAX {
                return Err(Duration::from_secs(1));
            }
        }
        let new = || TokenBucket::new(rate.per_second().into(), rate.burst().into());
        self.0.entry(key).or_insert_with(new).take(now, 1)
    }
}

impl<S> Layer<S> for Gate {
    type Service = Gated<S>;

    fn layer(&self, services: S) -> Gated<S> {
        Gated { gate: self.clone(), services }
    }
}

/// The services behind a [`Gate`].
#[derive(Clone)]
pub(crate) struct Gated<S> {
    gate: Gate,
    services: S,
}

impl<S> Service<Request<Body>> for Gated<S>
where
    S: Service<Request<Body>, Response = Response<Body>>,
{
    type Response = Response<Body>;
    type Error = S::Error;
    type Future = Either<S::Future, Ready<Result<Response<Body>, S::Error>>>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), S::Error>> {
        self.services.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request<Body>) -> Self::Future {
        let is_grpc = is_grpc(request.headers());
        if let Err(refusal) = self.gate.check(&mut request) {
            tracing::debug!(%refusal, "refused a request");
            return Either::Right(ready(Ok(refusal.into_response(is_grpc))));
        }
        let request = if is_grpc { request.map(BoundedMessages::wrap) } else { request };
        Either::Left(self.services.call(request))
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use super::*;
    use crate::rpc::Access;

    const PEER: Caller = Caller::Peer(PeerId::new([1; 32]));

    struct ByToken;

    impl Roles for ByToken {
        fn role(&self, caller: &Caller, token: Option<&[u8]>) -> Role {
            match (caller, token) {
                (_, Some(b"operator token")) => Role::Operator,
                (Caller::Peer(_), _) => Role::Peer,
                _ => Role::Anyone,
            }
        }
    }

    fn tool(addr: &str) -> Caller {
        Caller::Tcp { addr: addr.parse::<SocketAddr>().expect("an address"), tls: false }
    }

    fn gate() -> Gate {
        let rows =
            [("/t.T/Open", Access::Anyone), ("/t.T/Peers", Access::Peer), ("/t.T/Own", Access::Operator)];
        Gate::new(AccessTable::new(&rows), Arc::new(ByToken))
    }

    fn request(caller: Caller, path: &str, authorization: Option<&str>) -> Request<Body> {
        let mut request = Request::new(Body::empty());
        *request.uri_mut() = path.parse().expect("a path");
        let remote = super::super::stream::Remote::new(|| None);
        request.extensions_mut().insert(Connection { caller, remote, used: Arc::default() });
        if let Some(value) = authorization {
            request.headers_mut().insert(header::AUTHORIZATION, value.parse().expect("a header"));
        }
        request
    }

    #[test]
    fn role_and_table_decide() {
        let operator = format!("Bearer {}", text::base32(b"operator token"));
        let check = |caller, path: &str, authorization: Option<&str>, expected: Result<Role, Code>| {
            let mut request = request(caller, path, authorization);
            let found = gate().check(&mut request).map_err(|refusal| refusal.codes().0);
            let found = found.map(|()| *request.extensions().get::<Role>().expect("attached"));
            assert_eq!(found, expected, "{caller} {path} {authorization:?}");
            assert_eq!(request.extensions().get::<Caller>().is_some(), expected.is_ok());
        };
        let local = tool("127.0.0.1:9");
        check(PEER, "/t.T/Open", None, Ok(Role::Peer));
        check(PEER, "/t.T/Peers", None, Ok(Role::Peer));
        check(PEER, "/t.T/Own", None, Err(Code::PermissionDenied));
        check(PEER, "/t.T/Own", Some(&operator), Ok(Role::Operator));
        check(local, "/t.T/Open", None, Ok(Role::Anyone));
        check(local, "/t.T/Peers", None, Err(Code::PermissionDenied));
        check(local, "/t.T/Peers", Some(&operator), Ok(Role::Operator));
        check(local, "/t.T/New", Some(&operator), Err(Code::PermissionDenied));
        check(local, "/t.T/Open", Some("Basic abc"), Err(Code::Unauthenticated));
        check(local, "/t.T/Open", Some("Bearer "), Err(Code::Unauthenticated));
        check(local, "/t.T/Open", Some("Bearer !!"), Err(Code::Unauthenticated));
    }

    #[test]
    fn a_request_that_came_past_the_server_is_refused() {
        let refusal = gate().check(&mut Request::new(Body::empty())).expect_err("no connection");
        assert_eq!(refusal, Refusal::NoConnection);
    }

    #[test]
    fn a_fast_caller_waits_and_others_do_not() {
        let gate = gate();
        let ask = |caller| gate.check(&mut request(caller, "/t.T/Open", None));
        let refused = (0..=limits::REQUESTS_BURST * 2).find_map(|_| ask(PEER).err());
        assert!(matches!(refused, Some(Refusal::TooFast { .. })), "{refused:?}");
        assert_eq!(ask(Caller::Peer(PeerId::new([2; 32]))), Ok(()));
        let network = (0..=limits::REQUESTS_BURST * 2).find_map(|_| ask(tool("198.51.100.1:1")).err());
        assert!(matches!(network, Some(Refusal::TooFast { .. })), "{network:?}");
        assert!(
            matches!(ask(tool("198.51.100.2:1")), Err(Refusal::TooFast { .. })),
            "a neighbour shares the rate"
        );
        assert!((0..=limits::REQUESTS_BURST * 2).all(|_| ask(tool("127.0.0.1:1")).is_ok()));
    }

    #[test]
    fn the_token_makes_a_caller_faster_but_not_endlessly_so() {
        let gate = gate();
        let operator = format!("Bearer {}", text::base32(b"operator token"));
        let ask = |token| gate.check(&mut request(PEER, "/t.T/Open", token));
        assert!((0..limits::REQUESTS_BURST * 2).all(|_| ask(Some(&operator)).is_ok()));
        let refused = (0..limits::SUBMITTER_REQUESTS_BURST * 2).find_map(|_| ask(Some(&operator)).err());
        assert!(matches!(refused, Some(Refusal::TooFast { rate: Rate::Submitter, .. })), "{refused:?}");
        assert_eq!(ask(None), Ok(()), "without it the key has a rate of its own");
        let guesses = (0..=limits::REQUESTS_BURST * 2).find_map(|_| match ask(Some("Bearer !!")) {
            Err(Refusal::Token) => None,
            other => Some(other),
        });
        assert!(matches!(guesses, Some(Err(Refusal::TooFast { rate: Rate::Stranger, .. }))), "{guesses:?}");
    }

    #[test]
    fn the_table_of_rates_is_bounded_and_forgets_the_idle() {
        let mut rates = Rates::default();
        let now = Instant::now();
        let key = |n: usize| {
            let mut bytes = [0; 32];
            bytes[..8].copy_from_slice(&n.to_le_bytes());
            RateKey::Peer(PeerId::new(bytes))
        };
        let mut take = |n, now| rates.take(key(n), Rate::Stranger, now);
        assert!((0..Rates::MAX).all(|n| take(n, now).is_ok()));
        assert!(take(Rates::MAX, now).is_err(), "all are active");
        assert_eq!(take(0, now), Ok(()), "who is known goes on");
        let later = now + Duration::from_secs(1);
        assert_eq!(take(Rates::MAX, later), Ok(()));
        assert_eq!(rates.0.len(), 1);
    }

    #[tokio::test]
    async fn a_browser_gets_words_and_a_client_of_grpc_a_status() {
        let refusal = || Refusal::NoRow { path: "/nothing".into() };
        let page = refusal().into_response(false);
        assert_eq!(page.status(), StatusCode::NOT_FOUND);
        let status = Status::from_header_map(refusal().into_response(true).headers()).expect("a status");
        assert_eq!(status.code(), Code::PermissionDenied);
        assert!(status.message().contains("/nothing"));
    }
}
