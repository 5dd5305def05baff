//! One question for all who wait for the same answer.
//!
//! Whoever asks must hear what was true after they asked. So nobody joins a question that is on its way; all who come
//! meanwhile share the next one.

use std::collections::HashMap;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Mutex, PoisonError};

use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};

use crate::master::{Looked, Which};
use crate::peer::WireError;
use crate::types::{BucketId, Number, ObjectPath};

/// What is asked.
pub(super) type Subject = (BucketId, ObjectPath, Which, Option<Number>);
/// What everybody who asked hears.
pub(super) type Heard = Result<Arc<Looked>, WireError>;

#[derive(Clone)]
struct Asking {
    /// Set when the question is on its way.
    sent: Arc<AtomicBool>,
    heard: Shared<BoxFuture<'static, Heard>>,
}

/// The questions that are on their way or about to be.
#[derive(Clone, Default)]
pub(super) struct Questions(Arc<Mutex<HashMap<Subject, Asking>>>);

impl std::fmt::Debug for Questions {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Questions")
    }
}

impl Questions {
    /// Asks with others who ask the same.
    pub(super) async fn ask(&self, subject: Subject, question: impl Future<Output = Heard> + Send + 'static) -> Heard {
        let heard = self.join(subject, question).heard;
        heard.await
    }

    fn join(&self, subject: Subject, question: impl Future<Output = Heard> + Send + 'static) -> Asking {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let last = open.get(&subject).cloned();
        if let Some(last) = &last
            && !last.sent.load(Ordering::SeqCst)
        {
            return last.clone();
        }
        let sent = Arc::new(AtomicBool::new(false));
        let (questions, sending, asked) = (self.clone(), Arc::clone(&sent), subject.clone());
        // A task of its own: a question whose askers have all gone away comes to its end, too. Else it would hold its
        // place among the calls to the home for ever.
        let task = tokio::spawn(async move {
            if let Some(last) = last {
                // Whatever it heard was true too early for us.
                drop(last.heard.await);
            }
            sending.store(true, Ordering::SeqCst);
            let heard = question.await;
            questions.forget(&asked, &sending);
            heard
        });
        let ending = |_| Err(WireError::Unknown { why: "this process is ending".to_owned() });
        let heard = task.map(move |heard| heard.unwrap_or_else(ending)).boxed().shared();
        let asking = Asking { sent, heard };
        open.insert(subject, asking.clone());
        asking
    }

    /// Forgets a question that was answered, unless another one has taken its place.
    fn forget(&self, subject: &Subject, sent: &Arc<AtomicBool>) {
        let mut open = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if open.get(subject).is_some_and(|last| Arc::ptr_eq(&last.sent, sent)) {
            open.remove(subject);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use super::*;
    use crate::master::Found;

    fn looked(at: u64) -> Heard {
        Ok(Arc::new(Looked { at: Number(at), newest: Number(at), versioned: false, found: Found::Absent }))
    }

    #[tokio::test]
    async fn nobody_hears_what_was_asked_before_they_came() {
        let questions = Arc::new(Questions::default());
        let count = Arc::new(AtomicUsize::new(0));
        let subject = || (BucketId([1; 16]), ObjectPath::try_from("k").expect("a path"), Which::Newest, None);
        let (go, wait) = tokio::sync::watch::channel(false);
        let ask = || {
            let (questions, count, mut wait) = (Arc::clone(&questions), Arc::clone(&count), wait.clone());
            tokio::spawn(async move {
                let question = async move {
                    let number = count.fetch_add(1, Ordering::SeqCst) as u64 + 1;
                    wait.wait_for(|go| *go).await.expect("the test holds the sender");
                    looked(number)
                };
                questions.ask(subject(), question).await.expect("an answer").at
            })
        };
        let first = ask();
        tokio::task::yield_now().await;
        let late: Vec<_> = (0..10).map(|_| ask()).collect();
        tokio::task::yield_now().await;
        assert_eq!(count.load(Ordering::SeqCst), 1, "the second question waits for the first");
        go.send(true).expect("they wait");
        assert_eq!(first.await.expect("asked"), Number(1));
        for asked in late {
            assert_eq!(asked.await.expect("asked"), Number(2), "all who came late share one question");
        }
        assert!(questions.0.lock().expect("not poisoned").is_empty());
    }

    #[tokio::test]
    async fn a_question_comes_to_its_end_when_its_askers_have_gone() {
        let questions = Questions::default();
        let subject = (BucketId([1; 16]), ObjectPath::try_from("k").expect("a path"), Which::Newest, None);
        let (go, wait) = tokio::sync::oneshot::channel::<()>();
        let (ended, end) = tokio::sync::oneshot::channel();
        let question = async move {
            wait.await.expect("the test holds the sender");
            ended.send(()).expect("the test waits");
            looked(1)
        };
        let (asker, subject) = (questions.clone(), subject);
        let asker = tokio::spawn(async move { asker.ask(subject, question).await });
        tokio::task::yield_now().await;
        asker.abort();
        assert!(asker.await.expect_err("aborted").is_cancelled());
        go.send(()).expect("it waits");
        end.await.expect("the question ended although nobody waits for it");
        tokio::task::yield_now().await;
        assert!(questions.0.lock().expect("not poisoned").is_empty());
    }
}
