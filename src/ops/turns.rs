//! Work over objects of many namespaces, in which none of them keeps the others waiting.

use std::collections::{BTreeMap, VecDeque};

use futures::StreamExt;
use futures::stream::FuturesUnordered;

use crate::names::ObjectRef;

/// Does `work` for each of `all`: for one of a namespace after the other, and for at most `at_once`
/// namespaces at a time. Where there are more, they take turns.
pub(super) async fn in_turns<F>(
    all: impl IntoIterator<Item = ObjectRef>,
    at_once: usize,
    work: impl Fn(ObjectRef) -> F,
) where
    F: Future<Output = ()>,
{
    let mut queues: BTreeMap<String, VecDeque<ObjectRef>> = BTreeMap::new();
    for at in all {
        let queue = queues.entry(at.namespace.clone()).or_default();
        queue.push_back(at);
    }
    let mut turns: VecDeque<_> = queues.into_values().collect();
    let mut running = FuturesUnordered::new();
    loop {
        while running.len() < at_once.max(1)
            && let Some(mut queue) = turns.pop_front()
        {
            let Some(at) = queue.pop_front() else {
                continue;
            };
            let done = work(at);
            running.push(async move {
                done.await;
                queue
            });
        }
        let Some(queue) = running.next().await else {
            return;
        };
        turns.push_back(queue);
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use futures::FutureExt as _;

    use super::*;

    #[test]
    fn one_namespace_that_hangs_delays_no_other() {
        let all = ["a", "a", "b", "b", "b", "c"].into_iter().enumerate();
        let all = all.map(|(n, namespace)| ObjectRef::new(namespace, n.to_string()));
        let done = Mutex::new(Vec::new());
        let pass = in_turns(all, 2, |at| {
            let done = &done;
            async move {
                if at.namespace == "a" {
                    futures::future::pending::<()>().await;
                }
                done.lock().unwrap().push(at.name);
            }
        });
        // It never ends, and all others are done.
        assert!(pass.now_or_never().is_none());
        assert_eq!(*done.lock().unwrap(), ["2", "5", "3", "4"]);
    }

    #[tokio::test]
    async fn no_more_than_so_many_run_at_a_time_and_one_of_a_namespace() {
        let all = (0..60).map(|n| ObjectRef::new(format!("team-{}", n % 9), n.to_string()));
        let running = Mutex::new(Vec::<String>::new());
        let count = Mutex::new(0);
        in_turns(all, 4, |at| {
            let (running, count) = (&running, &count);
            async move {
                let now = {
                    let mut running = running.lock().unwrap();
                    assert!(!running.contains(&at.namespace));
                    running.push(at.namespace.clone());
                    running.len()
                };
                assert!(now <= 4);
                tokio::task::yield_now().await;
                running.lock().unwrap().retain(|name| *name != at.namespace);
                *count.lock().unwrap() += 1;
            }
        })
        .await;
        assert_eq!(*count.lock().unwrap(), 60);
    }
}
