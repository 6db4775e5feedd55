//! Between the link and the rest: what was heard goes to who does it, what became of it
//! goes to who says it. Decides nothing but one thing: a refused order is answered only if
//! nothing is known of its invocation, since what an invocation did is the truth.

use std::sync::atomic::Ordering;

use tokio::sync::mpsc;

use crate::executor::{Event, Executor};
use crate::journal::Journal;
use crate::link::{Delivery, Incoming, Outgoing};

/// Hand on what the link hears, until it is gone.
pub async fn incoming(
    mut heard: mpsc::Receiver<Incoming>,
    executor: Executor,
    journal: Journal,
    outgoing: Outgoing,
    supply: mpsc::Sender<Delivery>,
) {
    while let Some(incoming) = heard.recv().await {
        let delivery = match incoming {
            Incoming::Run(warrant, trace) => {
                let invocation = warrant.invocation().clone();
                if let Err(error) = executor.submit_traced(*warrant, trace) {
                    tracing::warn!(target: "audit", decision = "refused", %invocation, rule = "executor", %error, "order");
                }
                continue;
            }
            Incoming::Refused { invocation, report } => {
                // A journal that can't be asked may know it: then silence is the safe answer.
                let known = executor.knows(&invocation) || journal.knows(&invocation).await.unwrap_or(true);
                if !known {
                    outgoing.report(invocation, report.into());
                }
                continue;
            }
            Incoming::Cancel(invocation) => {
                let found = executor.cancel(&invocation);
                tracing::info!(target: "audit", %invocation, found, "cancel");
                continue;
            }
            Incoming::Acknowledged(invocation) => {
                if !executor.acknowledge(&invocation)
                    && let Err(error) = journal.acknowledge(&invocation).await
                {
                    tracing::warn!(%invocation, %error, "an acknowledgement was not journaled");
                }
                continue;
            }
            Incoming::Offers(offers) => Delivery::Offers(offers),
            Incoming::Chunk(chunk) => Delivery::Chunk(chunk),
            Incoming::Repository(timestamp) => Delivery::Repository(timestamp),
            Incoming::Metadata { name, text } => Delivery::Metadata { name, text },
            Incoming::Disconnected => Delivery::Disconnected,
        };
        if supply.send(delivery).await.is_err() {
            return;
        }
    }
}

/// Hand on what the executor tells, with a session or without, until it is gone.
pub async fn events(mut told: mpsc::Receiver<Event>, outgoing: Outgoing) {
    while let Some(event) = told.recv().await {
        match event {
            Event::Accepted { invocation } => outgoing.accepted(invocation),
            Event::Progress { invocation, done, total, message } => outgoing.progress(invocation, done, total, message),
            Event::Report { invocation, report } => outgoing.report(invocation, report),
        }
    }
}

/// How many invocations ended, however.
#[must_use]
pub fn ended(executor: &Executor) -> u64 {
    executor.metrics().outcomes.iter().map(|outcome| outcome.load(Ordering::Relaxed)).sum()
}
