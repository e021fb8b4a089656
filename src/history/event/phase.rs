//! Which facts the run waits for.

use super::Fact;

impl Fact {
    /// Whether the run acts on this fact, so that it must be on the disk before the run goes on:
    /// what began, ended, was decided, or was broken. Observations are made durable in groups.
    pub const fn is_phase(&self) -> bool {
        matches!(
            self,
            Self::RunStarted { .. }
                | Self::TrialStarted { .. }
                | Self::TrialEnded { .. }
                | Self::StepStarted { .. }
                | Self::StepEnded { .. }
                | Self::SubjectCreated { .. }
                | Self::IncarnationStarted { .. }
                | Self::Filled { .. }
                | Self::LoadStarted { .. }
                | Self::LoadEnded { .. }
                | Self::SegmentClosed { .. }
                | Self::Fault { .. }
                | Self::Fencing { .. }
                | Self::Gate { .. }
                | Self::Scanned { .. }
                | Self::Reprotection { .. }
                | Self::Migration { .. }
                | Self::Eviction { .. }
                | Self::Freeze { .. }
                | Self::Recipe { .. }
                | Self::Capture { .. }
                | Self::Cut { .. }
                | Self::Restore { .. }
                | Self::Lifecycle { .. }
                | Self::Hotplug { .. }
                | Self::Resize { .. }
                | Self::Swept { .. }
                | Self::RunEnded { .. }
        )
    }
}
