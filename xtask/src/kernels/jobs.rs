//! Several pieces of work at once.

use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    thread,
};

/// Does `work` on each item, `jobs` items at a time. Results are in the order of the items.
pub(crate) fn side_by_side<T: Send, R: Send>(
    jobs: usize,
    items: Vec<T>,
    work: impl Fn(T) -> R + Sync,
) -> Vec<R> {
    let count = items.len();
    let queue: Mutex<VecDeque<_>> = Mutex::new(items.into_iter().enumerate().collect());
    let results = Mutex::new(Vec::with_capacity(count));
    thread::scope(|scope| {
        for _ in 0..jobs.clamp(1, count.max(1)) {
            scope.spawn(|| {
                while let Some((place, item)) = next(&queue) {
                    let result = work(item);
                    let mut results = results.lock().unwrap_or_else(PoisonError::into_inner);
                    results.push((place, result));
                }
            });
        }
    });
    let mut results = results.into_inner().unwrap_or_else(PoisonError::into_inner);
    results.sort_by_key(|(place, _)| *place);
    results.into_iter().map(|(_, result)| result).collect()
}

/// In a function of its own: in the head of a `while let`, the lock would be held for its body.
fn next<T>(queue: &Mutex<VecDeque<T>>) -> Option<T> {
    let mut queue = queue.lock().unwrap_or_else(PoisonError::into_inner);
    queue.pop_front()
}

#[cfg(test)]
mod tests {
    use std::{
        sync::mpsc::{Receiver, Sender, channel},
        time::Duration,
    };

    use super::*;

    #[test]
    fn two_jobs_run_at_the_same_time() {
        type Ends = (Sender<()>, Mutex<Receiver<()>>);
        let (to_second, from_first) = channel();
        let (to_first, from_second) = channel();
        let items: Vec<Ends> = vec![
            (to_second, Mutex::new(from_second)),
            (to_first, Mutex::new(from_first)),
        ];
        let met = side_by_side(2, items, |(sender, receiver)| {
            let _ = sender.send(());
            let receiver = receiver.lock().unwrap_or_else(PoisonError::into_inner);
            receiver.recv_timeout(Duration::from_secs(5)).is_ok()
        });
        assert_eq!(met, [true, true]);
    }

    #[test]
    fn results_are_in_the_order_of_the_items() {
        let slow_first = |millis: u64| {
            thread::sleep(Duration::from_millis(millis));
            millis
        };
        assert_eq!(side_by_side(3, vec![30, 20, 0], slow_first), [30, 20, 0]);
        assert!(side_by_side(0, Vec::<u64>::new(), slow_first).is_empty());
    }
}
