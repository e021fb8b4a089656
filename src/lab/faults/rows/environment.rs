//! Faults of the API server and of the environment around the tool.

use super::{NODE_DOWN, RELOCATE};
use crate::lab::faults::{Fault, FaultSpec, Moment, Ordained, Param, Phase, Place};

const fn param(name: &'static str, default: i64, unit: &'static str) -> Param {
    Param {
        name,
        default,
        unit,
    }
}

/// A fault that a good client of the API server survives.
const fn survived(fault: Fault, name: &'static str, summary: &'static str) -> FaultSpec {
    FaultSpec::lab(fault, name, summary)
        .at(Place::ApiServer, Phase::Always)
        .seen_in(RELOCATE)
        .ordained(Ordained::Green)
}

/// The rows.
pub(super) const ROWS: &[FaultSpec] = &[
    FaultSpec::lab(
        Fault::AckStreamCut,
        "ack-stream-cut",
        "every stream to the guests breaks well before the site does",
    )
    .entries(&["45"])
    .at(Place::ApiServer, Phase::Load)
    .aimed(Moment::Load)
    .seen_in(NODE_DOWN)
    .ordained(Ordained::Inconclusive),
    survived(
        Fault::ApiLatency,
        "api-latency",
        "every answer and every watch event of the API servers comes late",
    )
    .params(&[
        param("ms", 120, "milliseconds"),
        param("jitter", 80, "milliseconds"),
    ])
    .sources(&["https://github.com/kubernetes/kubernetes/issues/65671"]),
    survived(
        Fault::ApiConflicts,
        "api-conflicts",
        "another writer is first on every second change of an object",
    )
    .params(&[param("every", 2, "changes")])
    .sources(&["recorded: 409 Conflict of a stale merge patch"]),
    survived(
        Fault::ApiThrottled,
        "api-throttled",
        "priority and fairness rejects a share of the requests with 429 for a while",
    )
    .params(&[
        param("share", 40, "per cent"),
        param("seconds", 8, "seconds"),
    ])
    .sources(&[
        "https://kubernetes.io/docs/concepts/cluster-administration/flow-control/",
    ]),
    FaultSpec::lab(
        Fault::ApiThrottledForever,
        "api-throttled-forever",
        "from the load on, priority and fairness rejects every write with 429",
    )
    .entries(&["44"])
    .at(Place::ApiServer, Phase::Load)
    .aimed(Moment::Load)
    .seen_in(RELOCATE)
    // It is told that the API does not serve by the end of these.
    .plan(&["deadlines.transition=10s", "deadlines.cleanup=10s"])
    .ordained(Ordained::Inconclusive)
    .sources(&[
        "https://kubernetes.io/docs/concepts/cluster-administration/flow-control/",
    ]),
    survived(
        Fault::ApiErrors,
        "api-errors",
        "a share of the requests fails with 500, 503 or 504; half of the failed writes took place",
    )
    .params(&[param("share", 15, "per cent")])
    .sources(&[
        "https://github.com/kubernetes/kubernetes/issues/57452",
        "https://github.com/banzaicloud/pipeline/issues/1611",
        "recorded: 500 and 503 with virt-api scaled to zero",
    ]),
    survived(
        Fault::ApiResets,
        "api-resets",
        "a share of the answers, watches among them, breaks off in the middle",
    )
    .params(&[param("share", 15, "per cent")])
    .sources(&["https://github.com/kubernetes/client-go/issues/374"]),
    survived(
        Fault::WatchGone,
        "watch-gone",
        "every watch soon ends because its resource version is too old, and the client must list again",
    )
    .params(&[
        param("ms", 1500, "milliseconds"),
        param("jitter", 1000, "milliseconds"),
    ])
    .sources(&["recorded: ERROR event 410 Expired of an old watch"]),
    survived(
        Fault::WatchStalled,
        "watch-stalled",
        "watches stay open and say nothing, neither events nor bookmarks nor their end",
    )
    .sources(&[
        "https://github.com/kubernetes/kubernetes/issues/118525",
        "https://github.com/fabric8io/kubernetes-client/issues/4781",
    ]),
    survived(
        Fault::StaleGeneration,
        "stale-generation",
        "after a change of its spec, a VolumeReplication shows the old status as if of the new generation, and watches lag",
    )
    .entries(&["F12"])
    .at(Place::Controller, Phase::Always)
    .params(&[
        param("lag", 1500, "milliseconds"),
        param("claim", 1, "1: the old status claims the new generation, 0: it tells its own"),
        param("watch", 300, "milliseconds"),
    ])
    .sources(&["vol-rep-op: VGR status generation"]),
    survived(
        Fault::PortForwardFlaps,
        "port-forward-flaps",
        "every port-forward breaks off some seconds after it began",
    )
    .params(&[param("ms", 4000, "milliseconds")])
    .sources(&["https://github.com/kubernetes/kubernetes/issues/74551"]),
];
