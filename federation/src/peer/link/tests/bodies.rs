//! Bodies that are long, slow, or stand still.

use std::convert::Infallible;
use std::pin::Pin;
use std::task::{Context as Poller, Poll};

use http_body::Frame;
use http_body_util::StreamBody;

use super::*;

const MIB: usize = 1024 * 1024;

/// What a large object is.
pub(super) const LONG: usize = 96 * MIB;

/// What a question and its answer may have under way before the answer's reader begins: their windows, and what lies in
/// buffers on the way.
const UNDER_WAY: usize = 16 * MIB + 32 * MIB + 8 * MIB;

static CHUNK: [u8; MIB] = [7; MIB];

/// A body that counts what is taken of it.
struct Long {
    left: usize,
    taken: Arc<AtomicUsize>,
}

impl http_body::Body for Long {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, _: &mut Poller<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        if self.left == 0 {
            return Poll::Ready(None);
        }
        self.left -= MIB;
        self.taken.fetch_add(MIB, Ordering::SeqCst);
        Poll::Ready(Some(Ok(Frame::data(Bytes::from_static(&CHUNK)))))
    }
}

pub(super) fn long() -> (Body, Arc<AtomicUsize>) {
    let taken = Arc::new(AtomicUsize::new(0));
    (Long { left: LONG, taken: taken.clone() }.boxed_unsync(), taken)
}

/// A body of `count` pieces of `size` bytes, one each `pause`; stands still at its end instead of ending if it is `unending`.
fn slow(count: usize, size: usize, pause: Duration, unending: bool) -> Body {
    let bytes = futures_util::stream::unfold(0, move |at| async move {
        sleep(pause).await;
        if at == count && unending {
            std::future::pending::<()>().await;
        }
        (at < count).then(|| (Ok::<_, Infallible>(Frame::data(Bytes::from(vec![b'x'; size]))), at + 1))
    });
    StreamBody::new(bytes).map_err(|never| match never {}).boxed_unsync()
}

/// The answers to what is asked about bodies.
pub(super) async fn serve(request: Request) -> Response {
    match request.uri().path() {
        "/long" => Response::new(long().0),
        "/held" => held(),
        // A little over 1 KiB/s, with long pauses.
        "/slow" => Response::new(slow(10, 32 * 1024, Duration::from_secs(20), false)),
        "/dribble" => Response::new(slow(1000, 1, Duration::from_secs(1), false)),
        "/stuck" => Response::new(slow(3, 32 * 1024, Duration::from_secs(1), true)),
        // Takes a body slowly, and says how long it was.
        "/sip" => {
            let (mut body, mut length) = (request.into_body(), 0);
            while let Some(frame) = body.frame().await {
                match frame {
                    Ok(frame) => length += frame.data_ref().map_or(0, Bytes::len),
                    Err(error) => return Response::new(full_body(error.to_string())),
                }
                if length % (4 * MIB) == 0 {
                    sleep(Duration::from_secs(5)).await;
                }
            }
            Response::new(full_body(length.to_string()))
        }
        // Keeps a body and takes nothing of it.
        "/keep" => {
            let _kept = request.into_body();
            std::future::pending().await
        }
        path => panic!("nobody answers {path}"),
    }
}

#[tokio::test(start_paused = true)]
async fn a_long_answer_streams_in_bounded_memory() {
    let (_network, one, other) = two();
    let (body, taken) = long();
    // Echoed: so both ways are tried, each with a window.
    let answer = one.links.call(other.id, request("/echo", body)).await.expect("asked");
    sleep(Duration::from_secs(10)).await;
    let ahead = taken.load(Ordering::SeqCst);
    assert!(ahead <= UNDER_WAY, "{ahead} bytes are under way and nobody reads");
    let mut body = answer.into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        let data = frame.expect("it goes on").into_data().expect("data");
        assert!(data.iter().all(|&byte| byte == 7));
        read += data.len();
        let ahead = taken.load(Ordering::SeqCst) - read;
        assert!(ahead <= UNDER_WAY, "{ahead} bytes are under way after {read}");
    }
    assert_eq!(read, LONG);
}

#[tokio::test(start_paused = true)]
async fn slow_readers_leave_room_for_others() {
    let (_network, one, other) = two();
    let unread = [(); 3].map(|()| one.ask(&other, "/long"));
    let unread = futures_util::future::try_join_all(unread).await.expect("asked");
    sleep(Duration::from_secs(10)).await;
    let whole = one.ask(&other, "/long").await.expect("asked").into_body().collect().await.expect("whole");
    assert_eq!(whole.to_bytes().len(), LONG);
    for late in unread {
        let late = late.into_body().collect().await.expect("whole, late as it is");
        assert_eq!(late.to_bytes().len(), LONG);
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_may_take_long_but_not_stand_still() {
    let (_network, one, other) = two();
    assert_eq!(one.ask_text(&other, "/slow").await.expect("asked"), "x".repeat(10 * 32 * 1024));
    let stuck = one.ask(&other, "/stuck").await.expect("asked");
    let began = Instant::now();
    let error = stuck.into_body().collect().await.expect_err("it stands still");
    assert!(error.to_string().contains("30 s"), "{error}");
    assert_eq!(began.elapsed().as_secs(), 33);
    one.ask(&other, "/who").await.expect("the connection is as good as before");
    assert_eq!(one.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_request_body_may_take_long_but_not_stand_still() {
    let (_network, one, other) = two();
    let began = Instant::now();
    let slow_body = slow(10, 32 * 1024, Duration::from_secs(20), false);
    let sipped = one.links.call(other.id, request("/sip", slow_body)).await.expect("a slow source is no error");
    assert_eq!(text(sipped).await, (10 * 32 * 1024).to_string());
    assert!(began.elapsed() > Duration::from_secs(180));
    let sipped = one.links.call(other.id, request("/sip", long().0)).await.expect("a slow taker is none, either");
    assert_eq!(text(sipped).await, LONG.to_string());
    let began = Instant::now();
    let kept = one.links.call(other.id, request("/keep", long().0)).await;
    assert!(matches!(kept, Err(LinkError::TimedOut(_))), "{kept:?}");
    assert_eq!(began.elapsed().as_secs(), 30);
    // A source that stands still is an error to whoever reads it, and is said to be.
    let stuck = one.links.call(other.id, request("/sip", slow(3, 32 * 1024, Duration::from_secs(1), true))).await;
    assert!(text(stuck.expect("answered")).await.contains("no byte of the body"));
}

#[tokio::test(start_paused = true)]
async fn a_body_that_dribbles_is_given_up() {
    let (_network, one, other) = two();
    let began = Instant::now();
    let dribble = one.ask(&other, "/dribble").await.expect("asked");
    let error = dribble.into_body().collect().await.expect_err("next to nothing comes");
    assert!(error.to_string().contains("less than 30720 bytes of the body arrived in 30 s"), "{error}");
    assert!(began.elapsed() <= Duration::from_secs(32), "{:?}", began.elapsed());
    // The same of a question.
    let asked = one.links.call(other.id, request("/sip", slow(1000, 1, Duration::from_secs(1), false))).await;
    assert!(text(asked.expect("answered")).await.contains("less than 30720 bytes"));
    one.ask(&other, "/who").await.expect("the connection is as good as before");
    assert_eq!(one.dials(), 1);
}

#[tokio::test(start_paused = true)]
async fn a_reader_that_is_busy_is_no_dribble() {
    let (_network, one, other) = two();
    let mut body = one.ask(&other, "/slow").await.expect("asked").into_body();
    let mut read = 0;
    while let Some(frame) = body.frame().await {
        read += frame.expect("it goes on").into_data().expect("data").len();
        sleep(Duration::from_secs(40)).await;
    }
    assert_eq!(read, 10 * 32 * 1024);
}

/// A body that says when nobody has it any more.
struct Held(Body, Arc<AtomicUsize>);

impl Drop for Held {
    fn drop(&mut self) {
        self.1.fetch_add(1, Ordering::SeqCst);
    }
}

impl http_body::Body for Held {
    type Data = Bytes;
    type Error = BoxError;

    fn poll_frame(mut self: Pin<&mut Self>, cx: &mut Poller<'_>) -> Poll<Option<Result<Frame<Bytes>, BoxError>>> {
        Pin::new(&mut self.0).poll_frame(cx)
    }
}

static GIVEN_UP: std::sync::LazyLock<Arc<AtomicUsize>> = std::sync::LazyLock::new(Arc::default);

pub(super) fn held() -> Response {
    Response::new(Held(long().0, GIVEN_UP.clone()).boxed_unsync())
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_takes_is_given_up() {
    let (_network, one, other) = two();
    // Nothing is read of one, a piece every 100 s of the other: both hold a stream, a task and a body at the other side.
    let unread = one.ask(&other, "/held").await.expect("asked");
    let mut sipped = one.ask(&other, "/held").await.expect("asked").into_body();
    let began = Instant::now();
    while GIVEN_UP.load(Ordering::SeqCst) < 2 {
        assert!(began.elapsed() < Duration::from_secs(1200), "{} of 2 were given up", GIVEN_UP.load(Ordering::SeqCst));
        if let Some(Ok(_)) = sipped.frame().await {
            sleep(Duration::from_secs(100)).await;
        } else {
            sleep(Duration::from_secs(1)).await;
        }
    }
    let mut unread = unread.into_body();
    let end = loop {
        match unread.frame().await {
            Some(Ok(_)) => {}
            end => break end,
        }
    };
    assert!(matches!(end, Some(Err(_))), "a body that was given up has no lawful end");
    one.ask(&other, "/who").await.expect("the connection is as good as before");
    assert_eq!(one.dials(), 1);
}
