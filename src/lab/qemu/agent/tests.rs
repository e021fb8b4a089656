use super::*;
use proptest::prelude::*;
use tokio::io::{AsyncBufReadExt, AsyncWriteExt, BufReader};
use tokio::net::unix::{OwnedReadHalf, OwnedWriteHalf};

/// An agent played by the test.
struct Fake {
    from: BufReader<OwnedReadHalf>,
    to: OwnedWriteHalf,
}

impl Fake {
    /// The next command, and whether the byte 0xFF came before it.
    async fn hear(&mut self) -> (Value, bool) {
        let mut line = Vec::new();
        self.from.read_until(b'\n', &mut line).await.unwrap();
        let delimited = line.first() == Some(&0xff);
        let text = if delimited { &line[1..] } else { &line[..] };
        (serde_json::from_slice(text).unwrap(), delimited)
    }

    async fn say(&mut self, bytes: &[u8]) {
        self.to.write_all(bytes).await.unwrap();
    }

    async fn answer(&mut self, value: Value) {
        self.say(format!("{}\n", json!({ "return": value })).as_bytes())
            .await;
    }

    /// Takes a resynchronisation, without answering.
    async fn hear_sync(&mut self) -> Value {
        let (sync, delimited) = self.hear().await;
        assert!(delimited);
        assert_eq!(sync["execute"], "guest-sync-delimited");
        sync["arguments"]["id"].clone()
    }

    async fn sync(&mut self) {
        let id = self.hear_sync().await;
        self.say(&[0xff]).await;
        self.answer(id).await;
    }

    async fn hear_command(&mut self, command: &str) -> Value {
        let (heard, delimited) = self.hear().await;
        assert!(!delimited);
        assert_eq!(heard["execute"], command);
        heard["arguments"].clone()
    }
}

fn pair(port: Port) -> (Agent, Fake, watch::Sender<Port>) {
    let (ours, theirs) = UnixStream::pair().unwrap();
    let (from, to) = theirs.into_split();
    let (sender, receiver) = watch::channel(port);
    let fake = Fake {
        from: BufReader::new(from),
        to,
    };
    (Agent::new(ours, receiver), fake, sender)
}

#[tokio::test]
async fn commands_are_answered_after_one_resynchronisation() {
    let (agent, mut fake, _port) = pair(Port::Open);
    let info = agent.info(QUICK);
    let name = agent.host_name(QUICK);
    fake.sync().await;
    assert_eq!(fake.hear_command("guest-info").await, Value::Null);
    fake.answer(json!({"version": "7.2.0", "supported_commands": [
        {"name": "guest-ping", "enabled": true, "success-response": true},
        {"name": "guest-exec", "enabled": false, "success-response": true}]}))
        .await;
    fake.hear_command("guest-get-host-name").await;
    fake.answer(json!({"host-name": "vm-1"})).await;
    let info = info.await.unwrap();
    assert!(info.offers("guest-ping") && !info.offers("guest-exec") && !info.offers("x"));
    assert_eq!(name.await.unwrap().host_name, "vm-1");
}

#[tokio::test(start_paused = true)]
async fn a_stale_answer_is_never_the_next_one() {
    let (agent, mut fake, _port) = pair(Port::Open);
    let limit = Duration::from_secs(5);
    let slow = agent.freeze_status(limit);
    fake.sync().await;
    fake.hear_command("guest-fsfreeze-status").await;
    let late = slow.await.unwrap_err();
    assert_eq!(
        late.to_string(),
        "the guest agent did not answer guest-fsfreeze-status within 5 s: it was in step before"
    );
    // Still stuck: not even the resynchronisation is answered.
    let ping = agent.ping(limit);
    let first = fake.hear_sync().await;
    let stuck = ping.await.unwrap_err();
    assert!(matches!(
        stuck,
        AgentError::NoAnswer {
            awaited: Awaited::Sync,
            ..
        }
    ));
    // It wakes up and answers all that it was asked, in order.
    let thaw = agent.thaw(limit);
    let second = fake.hear_sync().await;
    fake.answer(json!("frozen")).await;
    fake.say(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"JSON parse error\"}}\n")
        .await;
    fake.say(&[0xff]).await;
    fake.answer(first).await;
    fake.say(b"no JSON at all\xff").await;
    fake.answer(second).await;
    fake.hear_command("guest-fsfreeze-thaw").await;
    fake.answer(json!(3)).await;
    assert_eq!(thaw.await.unwrap(), 3);
}

#[tokio::test(start_paused = true)]
async fn a_freeze_goes_on_when_its_caller_stops_waiting() {
    let (agent, mut fake, _port) = pair(Port::Open);
    let mut freeze = agent.freeze_list(&["/data"], Duration::from_secs(60));
    fake.sync().await;
    let arguments = fake.hear_command("guest-fsfreeze-freeze-list").await;
    assert_eq!(arguments, json!({"mountpoints": ["/data"]}));
    let patience = Duration::from_secs(1);
    assert!(tokio::time::timeout(patience, &mut freeze).await.is_err());
    // Nothing overtakes it.
    let behind = agent.ping(patience).await.unwrap_err();
    assert!(
        matches!(
            behind,
            AgentError::NoAnswer {
                awaited: Awaited::Turn,
                ..
            }
        ),
        "{behind}"
    );
    fake.answer(json!(1)).await;
    assert_eq!(freeze.await.unwrap(), 1);
    // Dropping the answer does not drop the command.
    drop(agent.thaw(patience));
    fake.hear_command("guest-fsfreeze-thaw").await;
}

#[tokio::test]
async fn a_refusal_keeps_the_channel_in_step() {
    let (agent, mut fake, _port) = pair(Port::Open);
    let os = agent.os_info(QUICK);
    let ping = agent.ping(QUICK);
    fake.sync().await;
    fake.hear_command("guest-get-osinfo").await;
    fake.say(b"{\"error\": {\"class\": \"CommandNotFound\", \"desc\": \"disabled\"}}\n")
        .await;
    fake.hear_command("guest-ping").await;
    fake.answer(json!({})).await;
    let refused = os.await.unwrap_err();
    assert_eq!(
        refused.to_string(),
        "the guest agent refused guest-get-osinfo: disabled (CommandNotFound)"
    );
    assert_eq!(ping.await.unwrap(), Done {});
}

#[tokio::test]
async fn an_agent_that_dies_and_returns_is_resynchronised() {
    let (agent, mut fake, port) = pair(Port::Closed);
    let absent = agent.ping(QUICK).await.unwrap_err();
    assert!(matches!(absent, AgentError::NotConnected { .. }));
    port.send_replace(Port::Open);
    let ping = agent.ping(QUICK);
    fake.sync().await;
    fake.hear_command("guest-ping").await;
    port.send_replace(Port::Closed);
    let died = ping.await.unwrap_err();
    assert_eq!(
        died.to_string(),
        "the guest agent went away during guest-ping"
    );
    port.send_replace(Port::Open);
    let ping = agent.ping(QUICK);
    fake.sync().await;
    fake.hear_command("guest-ping").await;
    fake.answer(json!({})).await;
    ping.await.unwrap();
    // Away and back between two commands.
    port.send_replace(Port::Closed);
    port.send_replace(Port::Open);
    let ping = agent.ping(QUICK);
    fake.sync().await;
    fake.hear_command("guest-ping").await;
    fake.answer(json!({})).await;
    ping.await.unwrap();
}

#[tokio::test]
async fn the_end_of_the_machine_ends_every_command() {
    let (agent, mut fake, _port) = pair(Port::Open);
    let (one, two) = (agent.ping(QUICK), agent.thaw(QUICK));
    fake.sync().await;
    fake.hear_command("guest-ping").await;
    drop(fake);
    assert!(matches!(
        one.await,
        Err(AgentError::Gone {
            command: "guest-ping"
        })
    ));
    assert!(matches!(
        two.await,
        Err(AgentError::Gone { .. } | AgentError::Io { .. })
    ));
    let answer = agent.ping(QUICK);
    drop(agent);
    assert!(matches!(
        answer.await,
        Err(AgentError::Gone { .. } | AgentError::Io { .. })
    ));
}

#[tokio::test(start_paused = true)]
async fn a_shutdown_is_answered_only_to_refuse() {
    let limit = Duration::from_secs(3);
    let (agent, mut fake, port) = pair(Port::Open);
    let silent = agent.shutdown(Mode::PowerDown, limit);
    fake.sync().await;
    assert_eq!(
        fake.hear_command("guest-shutdown").await,
        json!({"mode": "powerdown"})
    );
    assert_eq!(silent.await.unwrap(), Done {});
    let refused = agent.shutdown(Mode::Reboot, limit);
    fake.sync().await;
    fake.hear_command("guest-shutdown").await;
    fake.say(b"{\"error\": {\"class\": \"GenericError\", \"desc\": \"no\"}}\n")
        .await;
    assert!(matches!(refused.await, Err(AgentError::Refused { .. })));
    let gone = agent.shutdown(Mode::Halt, limit);
    fake.sync().await;
    fake.hear_command("guest-shutdown").await;
    port.send_replace(Port::Closed);
    gone.await.unwrap();
}

#[tokio::test]
async fn an_answer_without_end_is_given_up_and_passed_over() {
    let (agent, mut fake, _port) = pair(Port::Open);
    let users = agent.users(QUICK);
    fake.sync().await;
    fake.hear_command("guest-get-users").await;
    let flood = tokio::spawn(async move {
        fake.say(&vec![b' '; MAX_LINE + 2]).await;
        fake
    });
    let too_long = users.await.unwrap_err();
    assert!(
        too_long.to_string().contains("a line of more than"),
        "{too_long}"
    );
    let mut fake = flood.await.unwrap();
    let zone = agent.time_zone(QUICK);
    let id = fake.hear_sync().await;
    fake.say(b"\n\xff").await;
    fake.answer(id).await;
    fake.hear_command("guest-get-timezone").await;
    fake.answer(json!({"zone": "UTC", "offset": 0})).await;
    assert_eq!(zone.await.unwrap().offset, 0);
}

#[test]
fn answers_of_agents_are_read() {
    let fs: FileSystem = serde_json::from_value(json!({
        "name": "vda", "mountpoint": "/data", "type": "ext4", "used-bytes": 5, "total-bytes": 9,
        "disk": [{"serial": "s", "bus-type": "virtio", "bus": 0, "unit": 0, "target": 0,
            "pci-controller": {"bus": 1, "slot": 0, "domain": 0, "function": 0}, "dev": "/dev/vda"}],
    }))
    .unwrap();
    assert_eq!(
        (fs.kind.as_str(), fs.used_bytes, fs.disk.len()),
        ("ext4", Some(5), 1)
    );
    assert_eq!(fs.disk[0].serial.as_deref(), Some("s"));
    let interface: Interface = serde_json::from_value(json!({
        "name": "eth0", "hardware-address": "52:54:00:00:00:01", "statistics": {"rx-bytes": 1},
        "ip-addresses": [{"ip-address": "fe80::1", "ip-address-type": "ipv6", "prefix": 64}],
    }))
    .unwrap();
    assert!(interface.ip_addresses[0].ip_address.is_ipv6());
    let bare: Interface = serde_json::from_value(json!({"name": "sit0"})).unwrap();
    assert!(bare.ip_addresses.is_empty());
    let os: OsInfo =
        serde_json::from_value(json!({"pretty-name": "Debian", "variant": "x"})).unwrap();
    assert_eq!(os.pretty_name.as_deref(), Some("Debian"));
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever stands in the channel before the answer to the resynchronisation is passed over.
    #[test]
    fn garbage_before_the_resynchronisation_is_passed_over(
        garbage in proptest::collection::vec(any::<u8>(), 0..200),
    ) {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        runtime.block_on(async {
            let (agent, mut fake, _port) = pair(Port::Open);
            let ping = agent.ping(QUICK);
            let id = fake.hear_sync().await;
            fake.say(&garbage).await;
            fake.say(b"\n\xff").await;
            fake.answer(id).await;
            fake.hear_command("guest-ping").await;
            fake.answer(json!({})).await;
            ping.await.unwrap();
        });
    }
}
