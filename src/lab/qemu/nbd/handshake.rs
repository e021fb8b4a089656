//! The handshake phase: "Fixed newstyle negotiation" and the haggling over options.

use std::io::{self, BufRead, Read, Write};

use super::export::Export;
use super::payload::{ContextRequest, InfoRequest, text_of};
use super::wire::{
    Broken, INIT_MAGIC, LONGEST, OPTION_MAGIC, OPTION_REPLY_MAGIC, PAGE, STRING_MAX, allocation,
    handshake as flag, info, length as length_of, option, option_reply as reply,
};

/// The longest option data that is read: room for every string the protocol permits to an option of
/// this server. Longer data are skipped.
const DATA_MAX: u32 = 64 << 10;

/// What client and server agreed on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Default)]
pub(super) struct Terms {
    /// `NBD_OPT_STRUCTURED_REPLY` was acknowledged.
    pub(super) structured: bool,
    /// The metadata context `base:allocation` is selected.
    pub(super) allocation: bool,
}

/// Where an option leads.
#[derive(Debug, PartialEq, Eq)]
enum Next {
    Option,
    Transmission,
    End,
}

/// Greets a client and haggles with it. `None` if it left in peace.
pub(super) fn negotiate(
    export: &Export,
    input: &mut impl BufRead,
    output: &mut impl Write,
) -> Result<Option<Terms>, Broken> {
    let offered = flag::FIXED_NEWSTYLE | flag::NO_ZEROES;
    output.write_all(&INIT_MAGIC.to_be_bytes())?;
    output.write_all(&OPTION_MAGIC.to_be_bytes())?;
    output.write_all(&offered.to_be_bytes())?;
    output.flush()?;
    let taken = u32::from_be_bytes(read(input)?);
    if taken & !u32::from(offered) != 0 {
        return Err(Broken::Flags(taken));
    }
    let mut haggle = Haggle {
        export,
        input,
        output,
        zeroes: taken & u32::from(flag::NO_ZEROES) == 0,
        terms: Terms::default(),
    };
    loop {
        let next = haggle.option()?;
        haggle.output.flush()?;
        match next {
            Next::Option => {}
            Next::Transmission => return Ok(Some(haggle.terms)),
            Next::End => return Ok(None),
        }
    }
}

/// Exactly so many bytes.
fn read<const N: usize>(input: &mut impl Read) -> io::Result<[u8; N]> {
    let mut bytes = [0; N];
    input.read_exact(&mut bytes)?;
    Ok(bytes)
}

struct Haggle<'a, R, W> {
    export: &'a Export,
    input: &'a mut R,
    output: &'a mut W,
    /// The client wants the 124 zeroes after `NBD_OPT_EXPORT_NAME`.
    zeroes: bool,
    terms: Terms,
}

impl<R: Read, W: Write> Haggle<'_, R, W> {
    /// Takes and answers one option.
    fn option(&mut self) -> Result<Next, Broken> {
        let found = u64::from_be_bytes(read(self.input)?);
        if found != OPTION_MAGIC {
            let wanted = OPTION_MAGIC;
            return Err(Broken::Magic { wanted, found });
        }
        let option = u32::from_be_bytes(read(self.input)?);
        let length = u32::from_be_bytes(read(self.input)?);
        if length > DATA_MAX {
            return self.skip(option, length);
        }
        let mut data = vec![0; length as usize];
        self.input.read_exact(&mut data)?;
        match option {
            option::EXPORT_NAME => return self.export_name(&data),
            option::ABORT => {
                // The client may be gone already, which is as well.
                self.acknowledge(option).ok();
                return Ok(Next::End);
            }
            option::INFO | option::GO => {
                let granted = self.info(option, &data)?;
                if granted && option == option::GO {
                    return Ok(Next::Transmission);
                }
            }
            option::LIST => self.list(&data)?,
            option::STRUCTURED_REPLY if data.is_empty() => {
                self.terms.structured = true;
                self.acknowledge(option)?;
            }
            option::STRUCTURED_REPLY => {
                self.refuse(option, reply::ERR_INVALID, "this option has no data")?;
            }
            option::LIST_META_CONTEXT | option::SET_META_CONTEXT => self.contexts(option, &data)?,
            _ => self.refuse(option, reply::ERR_UNSUP, "this server has no such option")?,
        }
        Ok(Next::Option)
    }

    /// Data too long to be anything this server knows.
    fn skip(&mut self, option: u32, length: u32) -> Result<Next, Broken> {
        if option == option::EXPORT_NAME {
            return Err(Broken::Export(format!("a name of {length} bytes")));
        }
        let mut data = self.input.take(length.into());
        let skipped = io::copy(&mut data, &mut io::sink())?;
        if skipped < length.into() {
            return Err(Broken::Stream(io::ErrorKind::UnexpectedEof.into()));
        }
        if option == option::SET_META_CONTEXT {
            self.terms.allocation = false;
        }
        let why = format!("option data of more than {DATA_MAX} bytes are not read");
        self.refuse(option, reply::ERR_TOO_BIG, &why)?;
        Ok(Next::Option)
    }

    /// `NBD_OPT_EXPORT_NAME`: into transmission, or a hard disconnect.
    fn export_name(&mut self, data: &[u8]) -> Result<Next, Broken> {
        if !text_of(data).is_some_and(|name| self.export.answers_to(name)) {
            return Err(Broken::Export(String::from_utf8_lossy(data).into_owned()));
        }
        self.output.write_all(&self.size_and_flags())?;
        if self.zeroes {
            self.output.write_all(&[0; 124])?;
        }
        Ok(Next::Transmission)
    }

    fn size_and_flags(&self) -> [u8; 10] {
        let mut bytes = [0; 10];
        let flags = self.export.transmission_flags(self.terms.structured);
        bytes[..8].copy_from_slice(&self.export.disk.size().to_be_bytes());
        bytes[8..].copy_from_slice(&flags.to_be_bytes());
        bytes
    }

    /// `NBD_OPT_INFO` and `NBD_OPT_GO`: whether the client got what it asked for. The block sizes
    /// are told to all, as they are not the protocol's defaults; a client that did not ask for them
    /// is let in nevertheless ("Maximum interoperability") and its odd requests fail cleanly.
    fn info(&mut self, option: u32, data: &[u8]) -> Result<bool, Broken> {
        let Some(request) = InfoRequest::parse(data) else {
            self.refuse(option, reply::ERR_INVALID, "the lengths do not add up")?;
            return Ok(false);
        };
        if !self.export.answers_to(request.name) {
            self.unknown(option, request.name)?;
            return Ok(false);
        }
        let page = length_of(PAGE);
        let sizes = [page, page, LONGEST].map(u32::to_be_bytes).concat();
        self.inform(option, info::EXPORT, &self.size_and_flags())?;
        self.inform(option, info::BLOCK_SIZE, &sizes)?;
        if request.wanted.contains(&info::NAME) {
            self.inform(option, info::NAME, self.export.name.as_bytes())?;
        }
        if request.wanted.contains(&info::DESCRIPTION) {
            self.inform(
                option,
                info::DESCRIPTION,
                self.export.description.as_bytes(),
            )?;
        }
        self.acknowledge(option)?;
        Ok(true)
    }

    fn inform(&mut self, option: u32, kind: u16, payload: &[u8]) -> io::Result<()> {
        self.reply(option, reply::INFO, &[&kind.to_be_bytes(), payload])
    }

    /// `NBD_OPT_LIST`: the one export.
    fn list(&mut self, data: &[u8]) -> io::Result<()> {
        if !data.is_empty() {
            return self.refuse(option::LIST, reply::ERR_INVALID, "this option has no data");
        }
        let (name, description) = (&self.export.name, &self.export.description);
        let parts = [
            &length_of(name.len()).to_be_bytes(),
            name.as_bytes(),
            description.as_bytes(),
        ];
        self.reply(option::LIST, reply::SERVER, &parts)?;
        self.acknowledge(option::LIST)
    }

    /// `NBD_OPT_LIST_META_CONTEXT` and `NBD_OPT_SET_META_CONTEXT`. The wildcard `base:` and the
    /// absence of queries list the context but do not select it.
    fn contexts(&mut self, option: u32, data: &[u8]) -> io::Result<()> {
        let set = option == option::SET_META_CONTEXT;
        if set {
            // Whatever was selected before is not any more, even if this fails.
            self.terms.allocation = false;
        }
        if !self.terms.structured {
            let why = "metadata contexts need structured replies: ask for them first";
            return self.refuse(option, reply::ERR_INVALID, why);
        }
        let Some(request) = ContextRequest::parse(data) else {
            return self.refuse(option, reply::ERR_INVALID, "the lengths do not add up");
        };
        if !self.export.answers_to(request.name) {
            return self.unknown(option, request.name);
        }
        let wildcard = !set
            && (request.queries.is_empty() || request.queries.contains(&allocation::NAMESPACE));
        if wildcard || request.queries.contains(&allocation::NAME) {
            let id = if set { allocation::ID } else { 0 };
            let parts = [&id.to_be_bytes(), allocation::NAME.as_bytes()];
            self.reply(option, reply::META_CONTEXT, &parts)?;
            self.terms.allocation |= set;
        }
        self.acknowledge(option)
    }

    fn unknown(&mut self, option: u32, name: &str) -> io::Result<()> {
        let short: String = name.chars().take(STRING_MAX / 16).collect();
        let why = format!("this socket serves `{}`, not `{short}`", self.export.name);
        self.refuse(option, reply::ERR_UNKNOWN, &why)
    }

    fn acknowledge(&mut self, option: u32) -> io::Result<()> {
        self.reply(option, reply::ACK, &[])
    }

    /// An error reply; its data are a sentence for the user.
    fn refuse(&mut self, option: u32, error: u32, why: &str) -> io::Result<()> {
        tracing::debug!(option, why, "an option of an NBD client was refused");
        self.reply(option, error, &[why.as_bytes()])
    }

    fn reply(&mut self, option: u32, kind: u32, parts: &[&[u8]]) -> io::Result<()> {
        let length: usize = parts.iter().map(|part| part.len()).sum();
        self.output.write_all(&OPTION_REPLY_MAGIC.to_be_bytes())?;
        self.output.write_all(&option.to_be_bytes())?;
        self.output.write_all(&kind.to_be_bytes())?;
        self.output.write_all(&length_of(length).to_be_bytes())?;
        parts
            .iter()
            .try_for_each(|part| self.output.write_all(part))
    }
}
