//! Counting what is asked of the API server: every request, watches included.

use http::Request;
use kube::Client;
use kube::client::Body;
use prometheus_client::encoding::EncodeLabelSet;
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::registry::Registry;
use tower::service_fn;

/// Counters of requests. A clone counts the same.
#[derive(Clone, Debug, Default)]
pub struct ApiMetrics {
    requests: Family<Answered, Counter>,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct Answered {
    method: String,
    code: String,
}

impl ApiMetrics {
    /// Registers the metrics.
    pub fn register(&self, registry: &mut Registry) {
        registry.register(
            "bouncert_api_requests",
            "Requests to the API server, by method and by the status code of the answer, or error",
            self.requests.clone(),
        );
    }

    pub(crate) fn count(&self, method: String, code: String) {
        self.requests
            .get_or_create(&Answered { method, code })
            .inc();
    }
}

/// The same client, counted.
pub fn counted(client: Client, metrics: ApiMetrics) -> Client {
    let namespace = client.default_namespace().to_owned();
    let service = service_fn(move |request: Request<Body>| {
        let (client, metrics) = (client.clone(), metrics.clone());
        async move {
            let method = request.method().to_string();
            let answer = client.send(request).await;
            let code = match &answer {
                Ok(answer) => answer.status().as_str().to_owned(),
                Err(_) => "error".to_owned(),
            };
            metrics.count(method, code);
            answer
        }
    });
    Client::new(service, namespace)
}
