//! The `Status` on channel 3: how a command ended.

use serde_json::Value;

/// How a command ended.
#[derive(Debug, PartialEq, Eq)]
pub(super) enum Ended {
    /// By itself, with this code.
    Code(i32),
    /// It was not started.
    NotRun(String),
    /// The text is no `Status` that says so.
    Unknown(String),
}

/// Reads a `Status`. An exit code stands among its causes, as text.
pub(super) fn read(bytes: &[u8]) -> Ended {
    let Ok(status) = serde_json::from_slice::<Value>(bytes) else {
        return Ended::Unknown("how the command ended is not told as a Status".into());
    };
    let message = status["message"].as_str().unwrap_or_default().to_owned();
    match status["status"].as_str() {
        Some("Success") => return Ended::Code(0),
        Some("Failure") => {}
        other => return Ended::Unknown(format!("a Status that says {other:?}: {message}")),
    }
    if status["reason"] != "NonZeroExitCode" {
        return Ended::NotRun(message);
    }
    let causes = status.pointer("/details/causes").and_then(Value::as_array);
    let code = causes
        .into_iter()
        .flatten()
        .find(|cause| cause["reason"] == "ExitCode")
        .and_then(|cause| cause["message"].as_str()?.parse().ok());
    match code {
        Some(code) => Ended::Code(code),
        None => Ended::Unknown(format!("a Status without an exit code: {message}")),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use serde_json::json;

    use super::*;

    fn said(status: &Value) -> Ended {
        read(status.to_string().as_bytes())
    }

    #[test]
    fn an_exit_code_is_one_of_the_causes() {
        assert_eq!(
            said(&json!({"metadata": {}, "status": "Success"})),
            Ended::Code(0)
        );
        let causes = json!({"causes": [{"reason": "Other", "message": "1"}, {"reason": "ExitCode", "message": "126"}]});
        let failed = json!({"status": "Failure", "reason": "NonZeroExitCode", "details": causes});
        assert_eq!(said(&failed), Ended::Code(126));
        let nameless = json!({"status": "Failure", "reason": "NonZeroExitCode", "message": "m", "details": {}});
        assert!(matches!(said(&nameless), Ended::Unknown(why) if why.contains('m')));
    }

    #[test]
    fn what_was_not_started_is_told_apart() {
        let internal = json!({"status": "Failure", "reason": "InternalError", "code": 500,
            "message": "Internal error occurred: unable to upgrade connection: container not found (\"compute\")"});
        assert!(
            matches!(said(&internal), Ended::NotRun(why) if why.contains("container not found"))
        );
        assert!(matches!(read(b"Success"), Ended::Unknown(_)));
        assert!(matches!(said(&json!({})), Ended::Unknown(_)));
    }

    proptest! {
        #[test]
        fn no_text_is_taken_for_an_end_without_saying_so(bytes in proptest::collection::vec(any::<u8>(), 0..200)) {
            prop_assert!(matches!(read(&bytes), Ended::Unknown(_)));
        }
    }
}
