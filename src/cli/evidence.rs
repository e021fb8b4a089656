//! `verify`, `sign` and `keygen`: the seal of a run directory.

use anyhow::{Context as _, bail};

use super::args::{Format, Keygen, Sign, Verify};
use super::exit::Exit;
use super::output::{line, note};
use crate::evidence::{self, Demand, PublicKey, SignKey, Signed, Verification, Weight};
use crate::report::view::word;

pub(super) fn verify(args: &Verify, format: Format) -> anyhow::Result<Exit> {
    let demand = Demand {
        key: args.key.as_deref().map(PublicKey::load).transpose()?,
        signature: args.require_signature,
    };
    let (_, verified) = looked_at(&args.dir, &demand)?;
    show(&verified, format)?;
    Ok(exit(&verified))
}

pub(super) fn sign(args: &Sign, format: Format) -> anyhow::Result<Exit> {
    let key = SignKey::load(&args.key)?;
    let (manifest, verified) = looked_at(&args.dir, &Demand::default())?;
    let manifest = manifest.filter(|_| verified.is_whole());
    let Some(manifest) = manifest else {
        show(&verified, format)?;
        note("not signed: it does not hold")?;
        return Ok(exit(&verified));
    };
    if let Some(signer) = &manifest.signer {
        bail!("{} is signed already, by {signer}", args.dir.display());
    }
    evidence::sign(&args.dir, &manifest, &key)?;
    line(format_args!("signed by {}", key.public().fingerprint()))?;
    Ok(Exit::Pass)
}

pub(super) fn keygen(args: &Keygen) -> anyhow::Result<Exit> {
    let (public, file) = SignKey::generate(&args.out)?;
    line(format_args!("{}", public.fingerprint()))?;
    note(format_args!(
        "wrote {}, which only you may read, and {}, for those who verify",
        args.out.display(),
        file.display()
    ))?;
    Ok(Exit::Pass)
}

fn looked_at(
    dir: &std::path::Path,
    demand: &Demand,
) -> anyhow::Result<(Option<evidence::Manifest>, Verification)> {
    evidence::verify(dir, demand).with_context(|| format!("cannot look at {}", dir.display()))
}

fn exit(verified: &Verification) -> Exit {
    match verified.worst() {
        Some(Weight::Broken) => Exit::Failed,
        Some(Weight::Doubt) => Exit::Inconclusive,
        Some(Weight::Note) | None => Exit::Pass,
    }
}

fn show(verified: &Verification, format: Format) -> anyhow::Result<()> {
    if format == Format::Json {
        return Ok(line(serde_json::to_string(verified)?)?);
    }
    for finding in &verified.findings {
        let word = match finding.weight {
            Weight::Note => "note",
            Weight::Doubt => "unclear",
            Weight::Broken => "broken",
        };
        line(format_args!("{word}  {finding}"))?;
    }
    let whole = match verified.worst() {
        Some(Weight::Broken) => "BROKEN",
        Some(Weight::Doubt) => "UNCLEAR",
        Some(Weight::Note) | None => "whole",
    };
    line(format_args!(
        "{whole}: {} files, {} bytes, run {}, verdict {}",
        verified.files,
        verified.bytes,
        verified.run.as_deref().unwrap_or("unknown"),
        word(verified.verdict),
    ))?;
    line(signature(&verified.signature))?;
    Ok(())
}

fn signature(signed: &Signed) -> String {
    match signed {
        Signed::Unsigned => {
            "unsigned: the seal shows what was changed by accident; anyone could have made it"
                .into()
        }
        Signed::Expected(key) => format!("signed by the expected key {key}"),
        Signed::Unnamed(key) => {
            format!(
                "signed by {key}; give the key that you trust with --key to hold it against that"
            )
        }
        Signed::Wrong => "the signature does not hold".into(),
    }
}
