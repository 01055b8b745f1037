//! The way to each project.

use super::{Probe, now};
use crate::checks::doctor::finding::{Finding, Status};
use crate::checks::doctor::judge::reach;
use crate::checks::http::{As, Ask};
use crate::side::{Pair, Side};

/// The lines about both, and which of them answer.
pub(super) async fn both(probe: &Probe<'_>) -> (Vec<Finding>, Pair<bool>) {
    let (old, new) = futures_util::join!(one(probe, Side::Old), one(probe, Side::New));
    let is_up = |lines: &[Finding]| {
        lines.iter().all(|it| it.status != Status::Fail || it.id != "reach.url")
    };
    let up = Pair { old: is_up(&old), new: is_up(&new) };
    (old.into_iter().chain(new).collect(), up)
}

async fn one(probe: &Probe<'_>, side: Side) -> Vec<Finding> {
    let before = now().cast_signed();
    // Open to everybody on every Supabase, and cheap; whatever it answers, something answers.
    let answer = probe.ask(side, As::Nobody, Ask::get("/auth/v1/health")).await;
    let after = now().cast_signed();
    let mut findings = vec![reach::url(side, &probe.url(side), &answer)];
    if let Ok(answer) = &answer {
        findings.push(reach::clock(side, &answer.headers, before, after));
    }
    if let (Ok(_), Ok(Some(shown))) = (&answer, probe.http.certificate(side).await) {
        let host = probe.snapshot.forward.projects[side].authority.host();
        findings.push(reach::certificate(side, host, reach::not_after(&shown), after));
    }
    findings
}
