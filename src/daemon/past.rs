//! What an operator asks about the past: from the history, and for what still waits from the queue.

use super::Shared;
use super::control::{ask, listed, unavailable};
use crate::admin::{self, Detail, Month, Range, Refusal, Report, ReportQuery, Target, Time, Trace, TraceQuery};
use crate::mail::DeliveryId;
use crate::store::Spool;
use crate::store::history::{Found, Story};

/// What became of messages.
pub(super) async fn trace<S: Spool>(shared: &Shared<S>, query: &TraceQuery) -> Result<Trace, Refusal> {
    kept(shared)?;
    let now = shared.clock.now();
    let Found { stories, next } = shared.history.find(query.search(now)?).await.map_err(|error| unavailable(shared, error))?;
    let mut entries = Vec::with_capacity(stories.len());
    for story in stories {
        entries.push(admin::story(now, &story, queued(shared, &story).await?));
    }
    Ok(Trace { now: Time(now), stories: entries, next: next.map(|id| id.to_string()) })
}

/// What of it is queued, and why.
async fn queued<S: Spool>(shared: &Shared<S>, story: &Story) -> Result<Vec<admin::DeliveryEntry>, Refusal> {
    let listed = listed(shared, Range::of(Target::Message(story.message.id))).await?;
    if listed.is_empty() {
        return Ok(Vec::new());
    }
    let ids: Vec<DeliveryId> = listed.iter().map(|listed| listed.delivery.id).collect();
    let waits = ask(shared, move |scheduler, now| ids.iter().map(|id| scheduler.why(now, *id)).collect::<Vec<_>>()).await?;
    let detail = admin::detail(shared.clock.now(), &listed.into_iter().zip(waits).collect::<Vec<_>>());
    Ok(detail.map(|Detail { deliveries, .. }| deliveries).unwrap_or_default())
}

/// A month, added up.
pub(super) async fn report<S: Spool>(shared: &Shared<S>, query: &ReportQuery) -> Result<Report, Refusal> {
    kept(shared)?;
    let now = shared.clock.now();
    let (group, month) = (admin::group(query.by.as_deref())?, Month::read(query.month.as_deref(), now)?);
    let lines = shared.history.report(group, month.from, month.until).await.map_err(|error| unavailable(shared, error))?;
    let price_per_million = shared.setup().price_per_million;
    let lines = lines.into_iter().map(|line| admin::report_line(line, price_per_million)).collect();
    Ok(Report { now: Time(now), month: month.name, by: group.as_str().to_owned(), price_per_million, lines })
}

fn kept<S: Spool>(shared: &Shared<S>) -> Result<(), Refusal> {
    let why = "no history is kept: history.keep in the configuration is \"none\", or the log says history-unavailable";
    if shared.history.is_kept() { Ok(()) } else { Err(Refusal::Conflict(why.to_owned())) }
}
