//! `GET /events`: what the console draws, once a second, as server-sent events.
//!
//! One sampler reads the counters for all viewers, always, so that a page opens with the last five minutes. A viewer
//! that reads too slowly misses frames; nobody waits for it.

use std::collections::VecDeque;
use std::convert::Infallible;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant, SystemTime, UNIX_EPOCH};

use axum::extract::{Extension, State as Extract};
use axum::response::sse::{Event, Sse};
use axum::response::{IntoResponse, Response};
use futures_util::stream::{self, Stream};
use http::{HeaderName, HeaderValue, header};
use serde_json::json;
use tokio::sync::broadcast::error::RecvError;
use tokio::sync::{OwnedSemaphorePermit, Semaphore, broadcast, watch};
use tokio::time::MissedTickBehavior;

use super::frame::{self, Frame, Open, Point, Span};
use super::session::Key;
use crate::admin::guard::Caller;
use crate::admin::{AdminError, State, ask, status};
use crate::config::live::{Control, ReloadState, RolloutState};
use crate::observe::Reading;

const EVERY: Duration = Duration::from_secs(1);
/// Seconds that shares and quantiles are taken over.
const WINDOW: usize = 5;
/// Points that a page opens with: five minutes.
const HISTORY: usize = 300;
/// Pages that watch at the same time.
pub(in crate::admin) const VIEWERS: usize = 32;
/// Messages that a viewer may be behind before it misses some.
const BEHIND: usize = 8;

/// An event's name, and its data as JSON without line breaks.
type Message = (&'static str, Arc<str>);

/// The sampler's memory, and its viewers.
#[derive(Debug)]
pub(in crate::admin) struct Events {
    past: Mutex<Past>,
    messages: broadcast::Sender<Message>,
    seats: Arc<Semaphore>,
    /// Set when the listener stops: a stream has no end of its own.
    closed: watch::Sender<bool>,
}

#[derive(Debug, Default)]
struct Past {
    /// The last readings, oldest first: one more than [`WINDOW`].
    readings: VecDeque<(Instant, Reading)>,
    points: VecDeque<Point>,
    /// The last frame, for those who open the page between two.
    frame: Option<Arc<str>>,
    facts: Option<(RolloutState, ReloadState)>,
}

impl Default for Events {
    fn default() -> Self {
        Self {
            past: Mutex::default(),
            messages: broadcast::Sender::new(BEHIND),
            seats: Arc::new(Semaphore::new(VIEWERS)),
            closed: watch::Sender::new(false),
        }
    }
}

impl Events {
    /// Ends every stream.
    pub(in crate::admin) fn close(&self) {
        self.closed.send_replace(true);
    }

    fn past(&self) -> MutexGuard<'_, Past> {
        self.past.lock().unwrap_or_else(PoisonError::into_inner)
    }

    fn send(&self, event: &'static str, data: Arc<str>) {
        // An error says that nobody listens.
        self.messages.send((event, data)).ok();
    }

    /// Everything that a page needs to begin: the points so far and the last frame.
    pub(in crate::admin) fn opening(&self) -> Message {
        let past = self.past();
        let points = serde_json::to_string(&past.points).unwrap_or_else(|_| "[]".to_owned());
        let frame = past.frame.as_deref().unwrap_or("null");
        ("opening", format!("{{\"points\":{points},\"frame\":{frame}}}").into())
    }
}

/// Samples once a second, and tells of each change of the number at once. It ends only with its task.
pub(in crate::admin) async fn sample(state: State) {
    let telling = refresh(state.clone());
    let frames = async {
        let mut ticks = tokio::time::interval(EVERY);
        ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
        loop {
            ticks.tick().await;
            tick(&state, Instant::now());
        }
    };
    tokio::join!(telling, frames);
}

/// Keeps what the writer says. Apart from the frames, because the writer may be waiting for a disk.
async fn refresh(state: State) {
    let mut epochs = state.control.subscribe();
    loop {
        if let Ok((rollout, reloads)) = ask(&state, facts).await {
            tell(&state, rollout, reloads);
        }
        let is_over = tokio::select! {
            changed = epochs.changed() => changed.is_err(),
            () = tokio::time::sleep(EVERY) => false,
        };
        if is_over {
            return;
        }
    }
}

fn facts(control: &Control) -> (RolloutState, ReloadState) {
    (control.rollout(), control.reloads())
}

/// Remembers what the writer said, and says it on if the number is another.
pub(in crate::admin) fn tell(state: &State, rollout: RolloutState, reloads: ReloadState) {
    let events = &state.console.events;
    let said = json!(rollout);
    let before = events.past().facts.replace((rollout, reloads));
    if before.is_none_or(|(before, _)| json!(before) != said) {
        events.send("rollout", said.to_string().into());
    }
}

/// One sample: reads, remembers, sends. With sixteen workers below a hundredth of one core, in a build without optimisation.
#[expect(clippy::disallowed_methods, reason = "shell: a point of a chart needs the time of day")]
pub(in crate::admin) fn tick(state: &State, now: Instant) {
    let events = &state.console.events;
    let reading = state.metrics.reading();
    let mut past = events.past();
    let past = &mut *past;
    let Some((rollout, reloads)) = &past.facts else { return };
    let second = span(past.readings.back(), &reading, now);
    let window = span(past.readings.front(), &reading, now);
    let at = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default().as_millis();
    let point = Point::new(u64::try_from(at).unwrap_or_default(), &reading, second, window);
    let frame = Frame {
        point: &point,
        rollout,
        phase: status::name(state.lifecycle.phase()),
        uptime_seconds: state.since.elapsed().as_secs(),
        faults: reloads.faults.len(),
        reload_failures: reloads.failed,
        open: Open::of(&state.metrics),
        own_per_second: frame::rate(reading.since(second.before).own, second.elapsed),
        decisions: frame::decisions(&reading, window),
        tables: frame::tables(&reading, window),
    };
    let Ok(text) = serde_json::to_string(&frame) else { return };
    let text: Arc<str> = text.into();
    past.frame = Some(Arc::clone(&text));
    past.points.push_back(point);
    past.points.drain(..past.points.len().saturating_sub(HISTORY));
    past.readings.push_back((now, reading));
    past.readings.drain(..past.readings.len().saturating_sub(WINDOW));
    events.send("frame", text);
}

/// From an earlier reading to now; from now to now when there is none.
fn span<'a>(
    earlier: Option<&'a (Instant, Reading)>,
    reading: &'a Reading,
    now: Instant,
) -> Span<'a> {
    let (at, before) = earlier.map_or((now, reading), |(at, before)| (*at, before));
    Span { before, elapsed: now.saturating_duration_since(at) }
}

/// One page that watches.
struct Viewer {
    state: State,
    session: Option<Key>,
    messages: broadcast::Receiver<Message>,
    closed: watch::Receiver<bool>,
    opening: Option<Message>,
    _seat: OwnedSemaphorePermit,
}

pub(in crate::admin) async fn events(
    Extract(state): Extract<State>,
    Extension(caller): Extension<Caller>,
) -> Result<Response, AdminError> {
    let events = &state.console.events;
    let seat = Arc::clone(&events.seats)
        .try_acquire_owned()
        .map_err(|_| AdminError::too_many_viewers(VIEWERS))?;
    // The stream begins before the past is read: a point may come twice, but none is lost.
    let messages = events.messages.subscribe();
    let viewer = Viewer {
        closed: events.closed.subscribe(),
        opening: Some(events.opening()),
        session: caller.session,
        messages,
        state: state.clone(),
        _seat: seat,
    };
    let mut response = Sse::new(stream(viewer)).into_response();
    let headers = response.headers_mut();
    headers.insert(header::CACHE_CONTROL, HeaderValue::from_static("no-store"));
    // nginx holds answers back otherwise.
    let name = HeaderName::from_static("x-accel-buffering");
    headers.insert(name, HeaderValue::from_static("no"));
    Ok(response)
}

fn stream(viewer: Viewer) -> impl Stream<Item = Result<Event, Infallible>> {
    stream::unfold(viewer, async |mut viewer| {
        let (event, data) = viewer.next().await?;
        Some((Ok(Event::default().event(event).data(data)), viewer))
    })
}

impl Viewer {
    /// The next message; `None` when the session is over or the listener stops.
    async fn next(&mut self) -> Option<Message> {
        if let Some(opening) = self.opening.take() {
            return Some(opening);
        }
        loop {
            let message = tokio::select! {
                message = self.messages.recv() => message,
                _ = self.closed.wait_for(|closed| *closed) => return None,
            };
            let sessions = &self.state.console.sessions;
            if self.session.is_some_and(|key| !sessions.is_live(key, Instant::now())) {
                return None;
            }
            match message {
                Ok(message) => return Some(message),
                Err(RecvError::Lagged(_)) => {}
                Err(RecvError::Closed) => return None,
            }
        }
    }
}
