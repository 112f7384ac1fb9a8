//! Mail in doubt: the upstream server may have it although it did not say so.
//!
//! The store knows of an attempt before it begins, and of its doubt before anything is sent again. What follows is the operator's choice: by
//! default it is sent again, so that something may come twice and nothing is lost; else it is held until somebody has found out.

use crate::clock::Timestamp;
use crate::mail::{DeliveryId, InDoubt, Queued};
use crate::schedule::{OnDoubt, Settings};
use crate::store::{Settlement, Spool, StoreError, Telling};
use crate::telemetry;

/// Tells the log of a delivery in doubt. Returns why it is to be held, if it is.
pub(super) fn meet(policy: OnDoubt, delivery: DeliveryId, attempt: &InDoubt) -> Option<String> {
    match policy {
        OnDoubt::Resend => {
            telemetry::in_doubt(delivery, attempt);
            None
        }
        OnDoubt::Hold => {
            telemetry::held_in_doubt(delivery, attempt);
            Some(format!("in doubt: the {attempt} may have delivered it; the message trace of that account tells"))
        }
    }
}

/// Records of deliveries whose attempts a crash has cut off that they are in doubt; returns them as they are to be queued.
///
/// # Errors
/// If the store has failed for good. What it cannot record now, it finds again at the next start.
pub(super) async fn found<S: Spool>(
    store: &S,
    settings: &Settings,
    now: Timestamp,
    mut doubtful: Vec<Queued>,
) -> Result<Vec<Queued>, StoreError> {
    for queued in &mut doubtful {
        let Some(attempt) = queued.in_doubt.take() else { continue };
        let hold = meet(settings.in_doubt(&queued.client), queued.id, &attempt);
        queued.held |= hold.is_some();
        let settlement = Settlement {
            delivery: queued.id,
            settled: Vec::new(),
            parted: Vec::new(),
            due: queued.due,
            last_reply: format!("in doubt: the {attempt} was cut off"),
            attempts: queued.attempts,
            telling: Telling::default(),
            hold,
            in_doubt: true,
        };
        match store.settle(settlement).await {
            Ok(_) => {}
            Err(fatal @ StoreError::Fatal(_)) => return Err(fatal),
            Err(error) => telemetry::store_busy("recording what is in doubt", &error.to_string()),
        }
    }
    // They were due when their attempts began.
    doubtful.iter_mut().for_each(|queued| queued.due = queued.due.min(now));
    Ok(doubtful)
}
