//! A database in the guest: commits to it beside the ledger's load, and a look at what came back.
//!
//! The commits' own word is what is owed: a number is said when the database has said that the
//! transaction is durable, and counts once the host has it on record.

use anyhow::{Context as _, bail};

use super::probe;
use crate::guest::{Exit, Job, Shell};
use crate::history::event::{DatabaseFact, Fact, Left, RowsFact};
use crate::plan::model::{Database, Engine};
use crate::scenario::commits::{Commits, Told};
use crate::scenario::member::Member;
use crate::scenario::world::World;
use crate::workload::Root;
use crate::workload::database::{Looked, Verb, command, put, script, version};

/// Makes a database in the guest and starts to commit to it; that goes on beside what comes next.
pub(super) async fn commit(world: &World, member: &mut Member) -> anyhow::Result<()> {
    if member.subject.root == Root::Ephemeral {
        bail!("the VM's root disk is not kept, and with it no database would be");
    }
    let database = member.workload.database.clone().unwrap_or_default();
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let shell = log_in(world, member, &database).await?;
    let said = ask(world, &shell, &database, Verb::Make)
        .await
        .context("making the database")?;
    let version = version(&said).context("the guest did not say what its database is")?;
    if database.freeze_hook {
        ask(world, &shell, &database, Verb::Hook)
            .await
            .context("putting the hook for the agent's freeze in place")?;
    }
    let made = DatabaseFact::Made {
        version: version.to_owned(),
        directory: database.directory.clone(),
        hook: database.freeze_hook,
        leaves: leaves(database.engine),
    };
    tell(world, member, made).await?;
    let line = command(&database, Verb::Commit, shell.user() == "root");
    let told = Told {
        recorder: world.recorder.clone(),
        scope: member.scope.clone(),
        site: member.site,
    };
    let mut commits = Commits::start(shell, &line, told, &deadline)
        .await
        .context("starting to commit")?;
    let began = commits.began(&deadline).await;
    member.commits = Some(commits);
    began.context("waiting for the first transaction")
}

/// What the hook of an engine leaves behind.
const fn leaves(engine: Engine) -> Left {
    match engine {
        Engine::Sqlite => Left::EmptyLog,
        Engine::Postgresql => Left::Checkpoint,
        Engine::Mysql => Left::ClosedTables,
    }
}

/// Hears no more of commits and reads what is there where the member is now.
pub(super) async fn read(world: &World, member: &mut Member) -> anyhow::Result<()> {
    end(member).await?;
    let database = member.workload.database.clone().unwrap_or_default();
    let shell = log_in(world, member, &database).await?;
    let said = ask(world, &shell, &database, Verb::Look)
        .await
        .context("reading the database")?;
    shell.close().await;
    let Looked {
        log,
        redo,
        open,
        check,
        rows,
        unread,
    } = Looked::parse(&said);
    if rows.is_none() && unread.is_empty() {
        bail!("the guest did not say what is in the database, but {said:?}");
    }
    let rows = rows.map(|rows| RowsFact {
        count: rows.count,
        first: rows.first,
        last: rows.last,
        strange: rows.strange,
        second: rows.second,
        upto: rows.upto,
    });
    let read = DatabaseFact::Read {
        log,
        redo,
        open,
        check,
        rows,
        unread,
    };
    tell(world, member, read).await
}

/// Hears no more of the member's commits.
pub(in crate::scenario) async fn end(member: &mut Member) -> anyhow::Result<()> {
    match member.commits.take() {
        Some(commits) => commits.end().await,
        None => Ok(()),
    }
}

/// A shell in the guest, with the script in its place there.
async fn log_in(world: &World, member: &Member, database: &Database) -> anyhow::Result<Shell> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let shell = probe::shell(world, member, &deadline).await?;
    let (line, script) = (put(shell.user() == "root"), script(database.engine));
    let job = Job::new(&line).stdin(script.as_bytes());
    shell.run(&job, &deadline).await?.check()?;
    Ok(shell)
}

/// Has the guest do something with the database to its end; what it said.
async fn ask(
    world: &World,
    shell: &Shell,
    database: &Database,
    verb: Verb,
) -> anyhow::Result<String> {
    let deadline = world.deadline(world.plan.deadlines().ssh);
    let line = command(database, verb, shell.user() == "root");
    let output = shell.run(&Job::new(&line), &deadline).await?;
    if output.exit == Exit::Status(127) {
        let name = database.engine.name();
        bail!("the guest lacks the programs of {name}; install them in the VM's image");
    }
    Ok(output.check()?.text())
}

async fn tell(world: &World, member: &Member, database: DatabaseFact) -> anyhow::Result<()> {
    let site = member.site;
    member.tell(world, Fact::Database { site, database }).await
}
