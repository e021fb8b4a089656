//! Conditions, typed and tri-state, and believed only for the generation that is asked about.

use serde::Deserialize;

use crate::history::event::ConditionFact;

/// `status` of a condition.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default, Deserialize)]
pub enum Truth {
    /// It holds.
    True,
    /// It does not hold.
    False,
    /// Nobody knows; also for texts that are none of the three.
    #[default]
    #[serde(other)]
    Unknown,
}

impl Truth {
    /// As Kubernetes writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::True => "True",
            Self::False => "False",
            Self::Unknown => "Unknown",
        }
    }
}

/// A status condition.
#[derive(Debug, Clone, PartialEq, Eq, Default, Deserialize)]
#[serde(rename_all = "camelCase")]
pub struct Condition {
    /// Its type.
    #[serde(rename = "type")]
    pub type_: String,
    /// Whether it holds.
    #[serde(default)]
    pub status: Truth,
    /// One CamelCase word.
    #[serde(default)]
    pub reason: String,
    /// In words.
    #[serde(default)]
    pub message: String,
    /// The generation that it speaks of; kinds without it leave it out.
    #[serde(default)]
    pub observed_generation: Option<i64>,
}

impl Condition {
    /// As recorded in the history.
    pub fn fact(&self) -> ConditionFact {
        ConditionFact {
            status: self.status.as_str().into(),
            reason: self.reason.clone(),
            message: self.message.clone(),
        }
    }
}

/// Finds conditions by type.
pub trait Conditions {
    /// The condition, whatever generation it speaks of.
    fn condition(&self, type_: &str) -> Option<&Condition>;

    /// Whether it holds; absent is unknown.
    fn truth(&self, type_: &str) -> Truth {
        self.condition(type_).map_or(Truth::Unknown, |c| c.status)
    }

    /// The condition, if it speaks of this generation or of none in particular.
    fn at(&self, generation: i64, type_: &str) -> Option<&Condition> {
        self.condition(type_).filter(|c| {
            c.observed_generation
                .is_none_or(|observed| observed == generation)
        })
    }
}

impl Conditions for [Condition] {
    fn condition(&self, type_: &str) -> Option<&Condition> {
        self.iter().find(|c| c.type_ == type_)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_condition_of_another_generation_is_not_believed() {
        let conditions: Vec<Condition> = serde_json::from_value(serde_json::json!([
            {"type": "Completed", "status": "True", "reason": "Promoted", "observedGeneration": 1},
            {"type": "Ready", "status": "False"},
            {"type": "Odd", "status": "Perhaps"},
        ]))
        .expect("conditions");
        assert!(conditions.at(1, "Completed").is_some());
        assert!(conditions.at(2, "Completed").is_none());
        assert_eq!(
            conditions.at(2, "Ready").map(|c| c.status),
            Some(Truth::False)
        );
        assert_eq!(conditions.truth("Odd"), Truth::Unknown);
        assert_eq!(conditions.truth("Absent"), Truth::Unknown);
    }
}
