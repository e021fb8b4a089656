//! The login shell of a simulated guest: runs a command line over the guest's own file tree. It
//! never reaches the host; a name that is neither built in nor a file of the guest is 127.

mod builtins;
pub(super) mod fs;
mod words;

use std::pin::Pin;
use std::sync::Arc;

use bytes::Bytes;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::machine::{Machine, home};
use super::probe;
use builtins::Ran;
use fs::{FsError, absolute};
use words::{Command, Join, Redirect};

/// The exit status of a command.
pub(in crate::lab::guest) type Status = u32;

type Running<'a> = Pin<Box<dyn Future<Output = Status> + Send + 'a>>;

/// Where standard output or error of a command goes.
pub(in crate::lab::guest) enum Out {
    /// To the SSH channel.
    Stream(Box<dyn AsyncWrite + Send + Unpin>),
    /// Gathered for a file, which is written when the command ends.
    Gathered(Vec<u8>),
}

impl Out {
    /// Writes all of `bytes`. A peer that no longer reads is like a closed pipe: the command goes on.
    pub(in crate::lab::guest) async fn put(&mut self, bytes: &[u8]) {
        match self {
            Self::Stream(stream) => {
                if stream.write_all(bytes).await.is_ok() && stream.flush().await.is_err() {
                    tracing::debug!("a guest's peer stopped reading");
                }
            }
            Self::Gathered(all) => all.extend_from_slice(bytes),
        }
    }
}

/// The standard streams of a command.
pub(in crate::lab::guest) struct Stdio {
    /// Standard input.
    pub(in crate::lab::guest) input: Box<dyn AsyncRead + Send + Unpin>,
    /// Standard output.
    pub(in crate::lab::guest) out: Out,
    /// Standard error.
    pub(in crate::lab::guest) err: Out,
}

/// Largest file that may be uploaded; more is "No space left on device".
const LARGEST_FILE: usize = 64 << 20;

/// One login of one user.
#[derive(Clone)]
pub(in crate::lab::guest) struct Shell {
    machine: Arc<Machine>,
    user: String,
}

impl Shell {
    /// A shell for `user`.
    pub(in crate::lab::guest) const fn new(machine: Arc<Machine>, user: String) -> Self {
        Self { machine, user }
    }

    /// Runs a command line and returns the status of the last command that ran.
    pub(in crate::lab::guest) fn run<'a>(
        &'a self,
        line: &'a str,
        stdio: &'a mut Stdio,
    ) -> Running<'a> {
        Box::pin(async move {
            let commands = match words::parse(line) {
                Ok(commands) => commands,
                Err(what) => {
                    let text = format!("sh: syntax error {what}\n");
                    stdio.err.put(text.as_bytes()).await;
                    return 2;
                }
            };
            let mut status = 0;
            for command in commands {
                let runs = match command.join {
                    Join::Always => true,
                    Join::IfOk => status == 0,
                    Join::IfFailed => status != 0,
                };
                if runs {
                    status = self.redirected(&command, stdio).await;
                }
            }
            status
        })
    }

    async fn redirected(&self, command: &Command, stdio: &mut Stdio) -> Status {
        let cwd = home(&self.user);
        let mut files: Vec<(u8, String, bool)> = Vec::new();
        let mut merged = false;
        for redirect in &command.redirects {
            match redirect {
                Redirect::In(path) => {
                    match self.machine.tree.read(&self.user, &absolute(&cwd, path)) {
                        Ok(content) => stdio.input = Box::new(std::io::Cursor::new(content)),
                        Err(error) => return self.refuse("sh", path, error, stdio).await,
                    }
                }
                Redirect::Out { fd, path, append } => {
                    let path = absolute(&cwd, path);
                    let opened = self
                        .machine
                        .tree
                        .write(&self.user, &path, Bytes::new(), *append);
                    if let Err(error) = opened {
                        return self.refuse("sh", &path, error, stdio).await;
                    }
                    files.push((*fd, path, *append));
                }
                Redirect::ErrToOut => merged = true,
            }
        }
        let to_file = |fd: u8| files.iter().any(|(of, ..)| *of == fd);
        let out = to_file(1).then(|| std::mem::replace(&mut stdio.out, Out::Gathered(Vec::new())));
        let err = (merged || to_file(2))
            .then(|| std::mem::replace(&mut stdio.err, Out::Gathered(Vec::new())));
        let mut status = self.words(&command.words, stdio).await;
        let gathered_out = out.map(|before| std::mem::replace(&mut stdio.out, before));
        let gathered_err = err.map(|before| std::mem::replace(&mut stdio.err, before));
        if merged && let Some(Out::Gathered(bytes)) = &gathered_err {
            stdio.out.put(bytes).await;
        }
        for (fd, path, _) in files {
            let gathered = if fd == 1 {
                &gathered_out
            } else {
                &gathered_err
            };
            let Some(Out::Gathered(bytes)) = gathered else {
                continue;
            };
            let content = probe::shared(bytes);
            if let Err(error) = self.machine.tree.write(&self.user, &path, content, true) {
                let name = command.words.first().map_or("sh", String::as_str);
                status = self.refuse(name, "write error", error, stdio).await;
            }
        }
        status
    }

    async fn refuse(&self, name: &str, what: &str, error: FsError, stdio: &mut Stdio) -> Status {
        stdio
            .err
            .put(format!("{name}: {what}: {error}\n").as_bytes())
            .await;
        1
    }

    fn words<'a>(&'a self, words: &'a [String], stdio: &'a mut Stdio) -> Running<'a> {
        Box::pin(async move {
            let Some((name, arguments)) = words.split_first() else {
                return 0;
            };
            match name.as_str() {
                "cat" => self.cat(arguments, stdio).await,
                "sudo" => self.sudo(arguments, stdio).await,
                "sh" | "/bin/sh" => match arguments {
                    [flag, script, ..] if flag == "-c" => self.run(script, stdio).await,
                    _ => 0,
                },
                path if path.contains('/') => self.execute(path, arguments, stdio).await,
                name => {
                    let Ran { out, err, status } =
                        builtins::run(&self.machine, &self.user, name, arguments);
                    stdio.out.put(out.as_bytes()).await;
                    stdio.err.put(err.as_bytes()).await;
                    status
                }
            }
        })
    }

    async fn cat(&self, files: &[String], stdio: &mut Stdio) -> Status {
        let mut status = 0;
        for file in files.iter().filter(|file| *file != "-") {
            let path = absolute(&home(&self.user), file);
            match self.machine.tree.read(&self.user, &path) {
                Ok(content) => stdio.out.put(&content).await,
                Err(error) => status = self.refuse("cat", file, error, stdio).await,
            }
        }
        if files.is_empty() || files.iter().any(|file| file == "-") {
            let mut buffer = vec![0; 32 * 1024];
            let mut total = 0;
            loop {
                match stdio.input.read(&mut buffer).await {
                    Ok(0) => break,
                    Ok(read) => {
                        total += read;
                        stdio.out.put(&buffer[..read]).await;
                    }
                    Err(_) => return 1,
                }
                if total > LARGEST_FILE {
                    return self
                        .refuse("cat", "write error", FsError::NoSpace, stdio)
                        .await;
                }
            }
        }
        status
    }

    async fn sudo(&self, words: &[String], stdio: &mut Stdio) -> Status {
        let rest: &[String] = match words {
            [flag, rest @ ..] if flag == "-n" => rest,
            rest => rest,
        };
        let may =
            self.user == "root" || self.machine.user(&self.user).is_some_and(|user| user.sudo);
        if !may {
            stdio.err.put(b"sudo: a password is required\n").await;
            return 1;
        }
        let root = Self::new(Arc::clone(&self.machine), "root".to_owned());
        root.words(rest, stdio).await
    }

    async fn execute(&self, name: &str, arguments: &[String], stdio: &mut Stdio) -> Status {
        let path = absolute(&home(&self.user), name);
        let (status, why) = match self.machine.tree.stat(&path) {
            None => (127, "No such file or directory"),
            Some(node) => match node.content {
                None => (126, "Is a directory"),
                Some(_) if node.mode & 0o111 == 0 => (126, "Permission denied"),
                Some(content) if probe::is_ours(&content, &self.machine.os.arch) => {
                    return probe::run(&self.machine, &self.user, arguments, stdio).await;
                }
                Some(_) => (126, "Exec format error"),
            },
        };
        stdio
            .err
            .put(format!("sh: {name}: {why}\n").as_bytes())
            .await;
        status
    }
}

#[cfg(test)]
mod tests;
