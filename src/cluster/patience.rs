//! Waiting when the API server asks for it.
//!
//! A server under load answers 429 or 503 and says after how many seconds to come back. Whoever
//! comes back earlier makes it worse, and whoever takes it for a failure spends one of the few
//! retries of a step. An eviction is the exception: there, 429 is the answer (a disruption budget
//! does not allow it), and the pod that waits for it is drained and has to be let go at once.

use std::time::Duration;

use http::header::RETRY_AFTER;
use http::{Request, Response, StatusCode};
use kube::Client;
use kube::client::Body;
use tokio::time::{Sleep, sleep};
use tower::retry::{Policy, RetryLayer};
use tower::{ServiceBuilder, service_fn};

/// Longest wait that is sat out within a call; half of its bound. A longer one is the caller's.
const WAIT_MAX: Duration = Duration::from_secs(10);
const _: () = assert!(WAIT_MAX.as_secs() * 2 <= super::CALL_TIMEOUT.as_secs());
/// How often in a call.
const WAITS_MAX: u32 = 4;

/// A client that waits when it is told to. It replaces kube's own way of waiting, which knows no
/// exception: switch that off (`Config::default_retry`).
pub fn patient(client: Client) -> Client {
    let namespace = client.default_namespace().to_owned();
    let plain = service_fn(move |request: Request<Body>| {
        let client = client.clone();
        async move { client.send(request).await }
    });
    let service = ServiceBuilder::new()
        .layer(RetryLayer::new(Patience::default()))
        .service(plain);
    Client::new(service, namespace)
}

/// The patience left in one call.
#[derive(Clone, Copy, Debug, Default)]
struct Patience {
    waits: u32,
}

impl<E> Policy<Request<Body>, Response<Body>, E> for Patience {
    type Future = Sleep;

    fn retry(
        &mut self,
        request: &mut Request<Body>,
        answer: &mut Result<Response<Body>, E>,
    ) -> Option<Sleep> {
        let answer = answer.as_ref().ok()?;
        let wait = asked_to_wait(request.uri().path(), answer)?;
        if self.waits >= WAITS_MAX || wait > WAIT_MAX {
            return None;
        }
        self.waits += 1;
        tracing::debug!(
            path = request.uri().path(),
            code = answer.status().as_u16(),
            wait_s = wait.as_secs(),
            "asked to come back later"
        );
        Some(sleep(wait))
    }

    fn clone_request(&mut self, request: &Request<Body>) -> Option<Request<Body>> {
        let mut copy = Request::new(request.body().try_clone()?);
        request.method().clone_into(copy.method_mut());
        request.uri().clone_into(copy.uri_mut());
        request.headers().clone_into(copy.headers_mut());
        request.extensions().clone_into(copy.extensions_mut());
        Some(copy)
    }
}

/// For how long the answer asks us to stay away.
fn asked_to_wait(path: &str, answer: &Response<Body>) -> Option<Duration> {
    let is_asked = matches!(
        answer.status(),
        StatusCode::TOO_MANY_REQUESTS | StatusCode::SERVICE_UNAVAILABLE
    );
    if !is_asked || path.ends_with("/eviction") {
        return None;
    }
    let seconds = answer.headers().get(RETRY_AFTER)?.to_str().ok()?;
    seconds.parse().ok().map(Duration::from_secs)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn wait(path: &str, code: u16, after: Option<&str>) -> Option<Duration> {
        let mut answer = Response::builder().status(code);
        if let Some(after) = after {
            answer = answer.header(RETRY_AFTER, after);
        }
        asked_to_wait(path, &answer.body(Body::empty()).unwrap())
    }

    #[test]
    fn only_who_is_asked_to_wait_waits_and_an_eviction_never() {
        let pods = "/api/v1/namespaces/harbour/pods/crane-0";
        assert_eq!(wait(pods, 429, Some("3")), Some(Duration::from_secs(3)));
        assert_eq!(wait(pods, 503, Some("1")), Some(Duration::from_secs(1)));
        assert_eq!(wait(pods, 503, None), None);
        assert_eq!(wait(pods, 500, Some("3")), None);
        assert_eq!(wait(&format!("{pods}/eviction"), 429, Some("3")), None);
    }
}
