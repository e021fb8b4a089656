use super::*;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, BufReader};

const GREETING: &str = r#"{"QMP": {"version": {"qemu": {"micro": 22, "minor": 2, "major": 7}, "package": "x"}, "capabilities": ["oob"]}}"#;

/// A QEMU played by the test: it has greeted and taken `qmp_capabilities`.
struct Fake {
    lines: tokio::io::Lines<BufReader<OwnedReadHalf>>,
    to: OwnedWriteHalf,
}

impl Fake {
    async fn say(&mut self, text: &str) {
        self.to.write_all(text.as_bytes()).await.unwrap();
        self.to.write_all(b"\r\n").await.unwrap();
    }

    async fn hear(&mut self) -> Value {
        serde_json::from_str(&self.lines.next_line().await.unwrap().unwrap()).unwrap()
    }

    async fn answer(&mut self, id: &Value, value: Value) {
        self.say(&json!({ "return": value, "id": id }).to_string())
            .await;
    }
}

async fn pair() -> (Qmp, Fake) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (read, to) = theirs.into_split();
    let lines = BufReader::new(read).lines();
    let mut fake = Fake { lines, to };
    fake.say(GREETING).await;
    let (qmp, fake) = tokio::join!(Qmp::connect(ours), async {
        let hello = fake.hear().await;
        assert_eq!(hello["execute"], "qmp_capabilities");
        assert_eq!(hello.get("arguments"), None);
        fake.answer(&hello["id"], json!({})).await;
        fake
    });
    (qmp.unwrap(), fake)
}

#[tokio::test]
async fn commands_overlap_and_answers_find_their_askers() {
    let (qmp, mut fake) = pair().await;
    assert_eq!(qmp.version().to_string(), "7.2.22");
    let one = qmp.execute("one", json!({"a": 1}));
    let two = qmp.execute("two", Value::Null);
    let server = async {
        let (first, second) = (fake.hear().await, fake.hear().await);
        assert_eq!(first["arguments"], json!({"a": 1}));
        fake.answer(&second["id"], json!("second")).await;
        fake.say(
            &json!({"event": "STOP", "timestamp": {"seconds": 1, "microseconds": 2}}).to_string(),
        )
        .await;
        let no = json!({"error": {"class": "GenericError", "desc": "no"}, "id": first["id"]});
        fake.say(&no.to_string()).await;
        fake
    };
    let (one, two, _fake) = tokio::join!(one, two, server);
    assert_eq!(two.unwrap(), "second");
    let one = one.unwrap_err();
    assert!(matches!(one, QmpError::Refused { .. }));
    assert_eq!(one.to_string(), "QEMU refused one: no (GenericError)");
}

#[tokio::test]
async fn an_asker_that_left_does_not_upset_the_connection() {
    let (qmp, mut fake) = pair().await;
    {
        let mut left = Box::pin(qmp.execute("left", Value::Null));
        assert!(futures::poll!(&mut left).is_pending());
    }
    let late = fake.hear().await;
    fake.answer(&late["id"], json!({})).await;
    let (stayed, ()) = tokio::join!(qmp.execute("stayed", Value::Null), async {
        let ask = fake.hear().await;
        fake.answer(&ask["id"], json!(5)).await;
    });
    assert_eq!(stayed.unwrap(), 5);
}

#[tokio::test]
async fn the_end_of_the_connection_ends_every_waiter_and_subscription() {
    let (qmp, mut fake) = pair().await;
    let mut events = qmp.events();
    let one = qmp.execute("one", Value::Null);
    let two = qmp.execute("two", Value::Null);
    let (one, two, ()) = tokio::join!(one, two, async {
        fake.hear().await;
        fake.hear().await;
        fake.say(r#"{"event": "RESUME", "timestamp": {"seconds": 7, "microseconds": 5}}"#)
            .await;
        drop(fake);
    });
    for answer in [one, two] {
        assert!(matches!(
            answer,
            Err(QmpError::Lost {
                why: LinkError::Closed,
                ..
            })
        ));
    }
    let last = events.next().await.unwrap();
    assert_eq!(last.kind, EventKind::Resume);
    assert_eq!(last.sent_at, Duration::new(7, 5000));
    assert!(matches!(
        events.next().await,
        Err(EventsError::Lost(LinkError::Closed))
    ));
    assert!(matches!(
        qmp.events().next().await,
        Err(EventsError::Lost(LinkError::Closed))
    ));
    let after = qmp.execute("three", Value::Null).await.unwrap_err();
    assert_eq!(
        after.to_string(),
        "three got no answer: QEMU closed its control socket"
    );
}

#[tokio::test]
async fn an_answer_that_nobody_asked_for_ends_the_connection() {
    for line in [
        r#"{"return": {}, "id": 99}"#,
        r#"{"error": {"class": "GenericError", "desc": "JSON parse error"}}"#,
        "{}",
        GREETING,
        "\u{fffd}",
    ] {
        let (qmp, mut fake) = pair().await;
        fake.say(line).await;
        let lost = qmp.events().next().await.unwrap_err();
        assert!(
            matches!(lost, EventsError::Lost(LinkError::Garbage(_))),
            "{lost}"
        );
    }
}

#[tokio::test]
async fn a_line_without_end_is_cut_off() {
    let (qmp, mut fake) = pair().await;
    let flood = tokio::spawn(async move {
        let chunk = vec![b' '; 1 << 20];
        while fake.to.write_all(&chunk).await.is_ok() {}
    });
    let lost = qmp.events().next().await.unwrap_err();
    assert!(matches!(lost, EventsError::Lost(LinkError::TooLong)));
    drop(qmp);
    flood.await.unwrap();
}

#[tokio::test]
async fn a_slow_subscriber_learns_how_much_it_missed() {
    let (qmp, mut fake) = pair().await;
    let mut slow = qmp.events();
    let stop = r#"{"event": "STOP", "timestamp": {"seconds": -1, "microseconds": -1}}"#;
    for _ in 0..BACKLOG + 3 {
        fake.say(stop).await;
    }
    drop(fake);
    while !matches!(qmp.events().next().await, Err(EventsError::Lost(_))) {}
    assert!(matches!(slow.next().await, Err(EventsError::Missed(3))));
    assert_eq!(slow.next().await.unwrap().sent_at, Duration::ZERO);
}

#[tokio::test(start_paused = true)]
async fn silence_has_a_limit() {
    let (qmp, _fake) = pair().await;
    let silent = qmp.execute("query-status", Value::Null).await.unwrap_err();
    assert_eq!(
        silent.to_string(),
        "query-status got no answer from QEMU within 60 s"
    );
    let (ours, _theirs) = UnixStream::pair().unwrap();
    assert!(matches!(
        Qmp::connect(ours).await,
        Err(QmpError::Silent { .. })
    ));
}

fn event(name: &str, data: &Value) -> EventKind {
    let line = json!({"event": name, "data": data, "timestamp": {"seconds": 0, "microseconds": 0}});
    match wire::parse(&line.to_string()).unwrap() {
        Message::Event(event) => event.kind,
        other => panic!("{other:?}"),
    }
}

#[test]
fn events_are_typed_where_the_driver_acts_on_them() {
    let shutdown = event(
        "SHUTDOWN",
        &json!({"guest": true, "reason": "guest-shutdown"}),
    );
    assert!(matches!(shutdown, EventKind::Shutdown { guest: true, .. }));
    let failed = event(
        "BLOCK_IO_ERROR",
        &json!({"device": "", "node-name": "d0", "operation": "write", "action": "stop", "nospace": false, "reason": "x"}),
    );
    assert!(matches!(failed, EventKind::BlockIoError(e) if e.action == "stop"));
    for (text, status) in [
        ("active", MigrationStatus::Active),
        (
            "postcopy-active",
            MigrationStatus::Other("postcopy-active".into()),
        ),
    ] {
        assert_eq!(
            event("MIGRATION", &json!({ "status": text })),
            EventKind::Migration(status)
        );
    }
    let raw = event("NIC_RX_FILTER_CHANGED", &json!({"name": "n"}));
    assert!(matches!(raw, EventKind::Other { name, .. } if name == "NIC_RX_FILTER_CHANGED"));
}

proptest! {
    #[test]
    fn no_line_upsets_the_parser(line in ".{0,200}") {
        wire::parse(&line).ok();
    }

    #[test]
    fn no_object_upsets_the_parser(
        key in "QMP|event|return|error|data",
        other in "id|data|timestamp|class|desc",
        name in "SHUTDOWN|MIGRATION|BLOCK_IO_ERROR|DEVICE_DELETED|x",
        number in any::<i64>(),
    ) {
        for value in [json!(name), json!(number), json!({ &other: number }), json!([])] {
            wire::parse(&json!({ &key: value, &other: number }).to_string()).ok();
        }
    }
}
