//! An API server that misbehaves, by a seeded schedule: for tests and for `bouncert chaos`.
//!
//! The layer stands in front of everything else, as a proxy or a load balancer would. It is in
//! place only where [`Faults`] are handed in, and strikes only between [`Faults::strike`] and
//! [`Faults::calm`].

use std::collections::BTreeMap;
use std::convert::Infallible;
use std::io;
use std::pin::Pin;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::task::{Context, Poll};
use std::time::Duration;

use axum::body::Body;
use axum::response::{IntoResponse, Response};
use axum::{BoxError, Json};
use futures::StreamExt;
use http::{HeaderValue, Method, Request, StatusCode, header};
use serde_json::json;
use tower::{Layer, Service};

/// What a struck call meets.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Fault {
    /// 409: somebody else wrote in between. Writes only.
    Conflict,
    /// 410: what a watch or a list goes on from is forgotten. Watches and lists only.
    Gone,
    /// 429, with a second to wait.
    TooManyRequests,
    /// 500.
    Internal,
    /// 503, without a word on when to come back.
    Unavailable,
    /// The connection ends without an answer, and nothing was done.
    Reset,
    /// A watch ends after a moment.
    CloseWatch,
    /// The answer takes a while.
    Slow,
    /// What was asked for is done, and the answer never arrives.
    LoseAnswer,
}

impl Fault {
    /// All of them.
    pub const ALL: [Self; 9] = [
        Self::Conflict,
        Self::Gone,
        Self::TooManyRequests,
        Self::Internal,
        Self::Unavailable,
        Self::Reset,
        Self::CloseWatch,
        Self::Slow,
        Self::LoseAnswer,
    ];

    /// One word for reports.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Conflict => "409",
            Self::Gone => "410",
            Self::TooManyRequests => "429",
            Self::Internal => "500",
            Self::Unavailable => "503",
            Self::Reset => "reset",
            Self::CloseWatch => "watch closed",
            Self::Slow => "slow",
            Self::LoseAnswer => "answer lost",
        }
    }

    /// Whether it has a meaning for the call.
    fn fits(self, method: &Method, query: &str) -> bool {
        let read = *method == Method::GET;
        let watch = read && query.contains("watch=");
        match self {
            Self::Conflict => *method == Method::PUT || *method == Method::PATCH,
            Self::Gone => watch || (read && query.contains("limit=")),
            Self::CloseWatch => watch,
            Self::LoseAnswer => !read,
            Self::TooManyRequests
            | Self::Internal
            | Self::Unavailable
            | Self::Reset
            | Self::Slow => true,
        }
    }
}

/// How long a slow answer takes, and a watch that is closed lasts.
const SLOW: Duration = Duration::from_secs(3);
const WATCH: Duration = Duration::from_millis(300);
/// Seconds that 429 asks for.
const RETRY_AFTER_S: u32 = 1;

/// The schedule; all clones are one.
#[derive(Clone, Debug)]
pub struct Faults {
    state: Arc<Mutex<State>>,
}

#[derive(Debug)]
struct State {
    rng: fastrand::Rng,
    /// One call in so many is struck; 0 is none.
    one_in: u32,
    kinds: Vec<Fault>,
    struck: BTreeMap<&'static str, u64>,
}

impl Faults {
    /// A schedule that follows from `seed` and the order of calls. Calm at first.
    pub fn new(seed: u64) -> Self {
        let state = State {
            rng: fastrand::Rng::with_seed(seed),
            one_in: 0,
            kinds: Vec::new(),
            struck: BTreeMap::new(),
        };
        Self {
            state: Arc::new(Mutex::new(state)),
        }
    }

    /// What never strikes.
    pub fn none() -> Self {
        Self::new(0)
    }

    /// From now on one call in `one_in` meets one of `kinds`.
    pub fn strike(&self, one_in: u32, kinds: &[Fault]) {
        let mut state = self.lock();
        state.one_in = one_in;
        kinds.clone_into(&mut state.kinds);
    }

    /// From now on no call is struck.
    pub fn calm(&self) {
        self.lock().one_in = 0;
    }

    /// How many calls were struck, by kind.
    pub fn struck(&self) -> BTreeMap<&'static str, u64> {
        self.lock().struck.clone()
    }

    fn draw(&self, method: &Method, query: &str) -> Option<Fault> {
        let mut state = self.lock();
        if state.one_in == 0 {
            return None;
        }
        let one_in = state.one_in;
        if state.rng.u32(..one_in) != 0 {
            return None;
        }
        let fitting: Vec<Fault> = state
            .kinds
            .iter()
            .copied()
            .filter(|fault| fault.fits(method, query))
            .collect();
        if fitting.is_empty() {
            return None;
        }
        let fault = fitting[state.rng.usize(..fitting.len())];
        *state.struck.entry(fault.name()).or_default() += 1;
        Some(fault)
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<S> Layer<S> for Faults {
    type Service = Faulty<S>;

    fn layer(&self, inner: S) -> Faulty<S> {
        Faulty {
            inner,
            faults: self.clone(),
        }
    }
}

/// A service behind [`Faults`].
#[derive(Clone, Debug)]
pub struct Faulty<S> {
    inner: S,
    faults: Faults,
}

impl<S, B> Service<Request<B>> for Faulty<S>
where
    S: Service<Request<B>, Response = Response, Error = Infallible>,
    S::Future: Send + 'static,
{
    type Response = Response;
    type Error = BoxError;
    type Future = Pin<Box<dyn Future<Output = Result<Response, BoxError>> + Send>>;

    fn poll_ready(&mut self, context: &mut Context<'_>) -> Poll<Result<(), BoxError>> {
        self.inner
            .poll_ready(context)
            .map_err(|never| match never {})
    }

    fn call(&mut self, request: Request<B>) -> Self::Future {
        let query = request.uri().query().unwrap_or_default();
        let Some(fault) = self.faults.draw(request.method(), query) else {
            let answer = self.inner.call(request);
            return Box::pin(async move { answer.await.map_err(|never| match never {}) });
        };
        tracing::debug!(
            fault = fault.name(), method = %request.method(), path = request.uri().path(), "struck"
        );
        // A future that is not polled has done nothing.
        let answer = self.inner.call(request);
        Box::pin(strike(fault, answer))
    }
}

async fn strike(
    fault: Fault,
    answer: impl Future<Output = Result<Response, Infallible>> + Send,
) -> Result<Response, BoxError> {
    let answer = async { answer.await.unwrap_or_else(|never| match never {}) };
    Ok(match fault {
        Fault::Conflict => refusal(StatusCode::CONFLICT, "Conflict"),
        Fault::Gone => refusal(StatusCode::GONE, "Expired"),
        Fault::TooManyRequests => {
            let mut refusal = refusal(StatusCode::TOO_MANY_REQUESTS, "TooManyRequests");
            let seconds = HeaderValue::from(RETRY_AFTER_S);
            refusal.headers_mut().insert(header::RETRY_AFTER, seconds);
            refusal
        }
        Fault::Internal => refusal(StatusCode::INTERNAL_SERVER_ERROR, "InternalError"),
        Fault::Unavailable => refusal(StatusCode::SERVICE_UNAVAILABLE, "ServiceUnavailable"),
        Fault::Reset => return Err(io::Error::from(io::ErrorKind::ConnectionReset).into()),
        Fault::LoseAnswer => {
            drop(answer.await);
            return Err(io::Error::from(io::ErrorKind::ConnectionReset).into());
        }
        Fault::Slow => {
            tokio::time::sleep(SLOW).await;
            answer.await
        }
        Fault::CloseWatch => {
            let (parts, body) = answer.await.into_parts();
            let body = body
                .into_data_stream()
                .take_until(tokio::time::sleep(WATCH));
            Response::from_parts(parts, Body::from_stream(body))
        }
    })
}

fn refusal(code: StatusCode, reason: &str) -> Response {
    let status = json!({
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure",
        "message": "struck by a planted fault", "reason": reason, "code": code.as_u16(),
    });
    (code, Json(status)).into_response()
}
