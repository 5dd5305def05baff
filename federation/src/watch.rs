//! A value whose changes are waited for.
//!
//! As tokio's `watch`, but those who wait are woken in the order in which they came. tokio draws that order, and then a
//! simulation does not repeat itself.

use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use tokio::sync::Notify;

/// Changes the value. When it is dropped, nobody waits any longer.
#[derive(Debug)]
pub(crate) struct Sender<T>(Arc<Watched<T>>);

/// Waits for changes.
#[derive(Debug, Clone)]
pub(crate) struct Receiver<T>(Arc<Watched<T>>);

/// The sender was dropped.
#[derive(Debug)]
pub(crate) struct Gone;

#[derive(Debug)]
struct Watched<T> {
    value: RwLock<T>,
    changed: Notify,
    gone: AtomicBool,
}

impl<T> Watched<T> {
    fn value(&self) -> RwLockReadGuard<'_, T> {
        self.value.read().unwrap_or_else(PoisonError::into_inner)
    }
}

impl<T> Sender<T> {
    /// Begins with `value`.
    pub(crate) fn new(value: T) -> Self {
        Sender(Arc::new(Watched { value: RwLock::new(value), changed: Notify::new(), gone: AtomicBool::new(false) }))
    }

    /// The value as it is, which does not change while it is held.
    pub(crate) fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.value()
    }

    /// Changes the value, and wakes those who wait.
    pub(crate) fn send_modify(&self, change: impl FnOnce(&mut T)) {
        self.modify_quietly(change);
        self.0.changed.notify_waiters();
    }

    /// Changes the value where nobody waits for that.
    pub(crate) fn modify_quietly(&self, change: impl FnOnce(&mut T)) {
        change(&mut self.0.value.write().unwrap_or_else(PoisonError::into_inner));
    }

    /// Somebody who waits.
    pub(crate) fn subscribe(&self) -> Receiver<T> {
        Receiver(Arc::clone(&self.0))
    }
}

impl<T> Drop for Sender<T> {
    fn drop(&mut self) {
        self.0.gone.store(true, Ordering::SeqCst);
        self.0.changed.notify_waiters();
    }
}

impl<T> Receiver<T> {
    /// The value as it is, which does not change while it is held.
    pub(crate) fn borrow(&self) -> RwLockReadGuard<'_, T> {
        self.0.value()
    }

    /// Waits until the value is as wanted, and holds it so.
    pub(crate) async fn wait_for(&self, is_so: impl Fn(&T) -> bool) -> Result<RwLockReadGuard<'_, T>, Gone> {
        loop {
            // Made before the look: it hears of every change since.
            let changed = self.0.changed.notified();
            let gone = self.0.gone.load(Ordering::SeqCst);
            {
                let value = self.0.value();
                if is_so(&value) {
                    return Ok(value);
                }
            }
            if gone {
                return Err(Gone);
            }
            changed.await;
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Mutex;

    use super::*;

    #[tokio::test]
    async fn those_who_wait_are_woken_in_the_order_in_which_they_came() {
        let (sender, woken) = (Sender::new(0), Arc::new(Mutex::new(Vec::new())));
        let waiters: Vec<_> = (0..40)
            .map(|number| {
                let (receiver, woken) = (sender.subscribe(), Arc::clone(&woken));
                tokio::spawn(async move {
                    let seen = receiver.wait_for(|value| *value == 2).await.map(|value| *value);
                    woken.lock().expect("nobody panics with it").push(number);
                    seen
                })
            })
            .collect();
        for _ in 0..2 {
            tokio::task::yield_now().await;
            sender.send_modify(|value| *value += 1);
        }
        for waiter in waiters {
            assert!(matches!(waiter.await.expect("it ends"), Ok(2)));
        }
        assert_eq!(*woken.lock().expect("nobody panics with it"), (0..40).collect::<Vec<_>>());
    }

    #[tokio::test]
    async fn what_will_never_be_is_not_waited_for() {
        let sender = Sender::new(1);
        let receiver = sender.subscribe();
        let waiting = tokio::spawn({
            let receiver = receiver.clone();
            async move { receiver.wait_for(|value| *value == 2).await.map(|value| *value).is_err() }
        });
        tokio::task::yield_now().await;
        drop(sender);
        assert!(waiting.await.expect("it ends"));
        assert!(receiver.wait_for(|value| *value == 1).await.is_ok(), "what is so still is");
    }
}
