//! `ctl login` and `ctl logout`. The daemon asks the registry, docker's store keeps the answer.

use std::io::{self, BufRead, Read};
use std::time::Duration;

use bosun_image::Reference;
use bosun_proto::v1::{LoginRequest, RegistryAuth};
use tokio::sync::oneshot;

use crate::cli::login::{LoginArgs, LogoutArgs};
use crate::client::{self, Client, Deadline};
use crate::credentials::{Credentials, Kept, host_of};
use crate::error::Error;
use crate::flags::FlagError;
use crate::output;
use crate::signals::{Caught, Signals};
use crate::terminal::{self, Hidden};

/// A registry may be slow, and its token service as well.
const VERIFY: Deadline = Deadline::LongAfter(Duration::from_secs(60));

pub(super) async fn run(client: &Client, args: LoginArgs) -> Result<u8, Error> {
    let host = host(&args.host)?;
    let mut credentials = Credentials::open()?;
    if args.username.is_none()
        && args.password.is_none()
        && let Some(known) = credentials.find(&host).await?
    {
        output::complain_raw("Authenticating with existing credentials...\n");
        match verify(client, &known).await {
            Ok(_) => return succeeded(),
            Err(error) if error.reason() == Some("UNAUTHORIZED") => output::complain(&error),
            Err(error) => return Err(error),
        }
    }
    let username = match args.username {
        Some(username) => Asked::Said(username),
        None => ask("username", "--username", "Username: ", false).await?,
    };
    let Asked::Said(username) = username else { return Ok(username.exit_code()) };
    let password = match args.password {
        Some(password) => {
            output::warn("a password on the command line is seen by others: use --password-stdin");
            Asked::Said(password)
        }
        None if args.password_stdin => Asked::Said(read_password()?),
        None => ask("password", "--password-stdin", "Password: ", true).await?,
    };
    let Asked::Said(password) = password else { return Ok(password.exit_code()) };
    if password.is_empty() {
        return Err(FlagError::NoPassword.into());
    }
    let mut auth = RegistryAuth { host, username, password, ..RegistryAuth::default() };
    let token = verify(client, &auth).await?;
    if !token.is_empty() {
        auth.identity_token = token;
        auth.password.clear();
    }
    if let Kept::Unencrypted(path) = credentials.keep(&auth).await? {
        output::warn(&format!(
            "the credentials are stored unencrypted in {}: name a credential helper in it \
             (\"credsStore\") and log in again to change that",
            path.display()
        ));
    }
    succeeded()
}

pub(super) async fn logout(args: LogoutArgs) -> Result<u8, Error> {
    let host = host(&args.host)?;
    output::print(&format!("Removing login credentials for {host}\n"))?;
    Credentials::open()?.erase(&host).await?;
    Ok(0)
}

fn succeeded() -> Result<u8, Error> {
    output::print("Login Succeeded\n")?;
    Ok(0)
}

/// What to keep in place of the password, if anything.
async fn verify(client: &Client, auth: &RegistryAuth) -> Result<String, Error> {
    let request = LoginRequest { auth: Some(auth.clone()) };
    let answer = client.call(VERIFY, request, |channel, request| async move {
        client::images(channel).login(request).await
    });
    Ok(answer.await?.identity_token)
}

/// A host that an image's name can begin with.
fn host(text: &str) -> Result<String, FlagError> {
    let host = host_of(text);
    let named: Option<Reference> = format!("{host}/a/b").parse().ok();
    match named {
        Some(reference) if reference.domain() == host => Ok(host),
        Some(_) | None => Err(FlagError::Registry(text.to_owned())),
    }
}

fn read_password() -> Result<String, Error> {
    /// Tokens are long, and not that long.
    const LONGEST: u64 = 1 << 20;
    let mut password = String::new();
    io::stdin().lock().take(LONGEST).read_to_string(&mut password).map_err(Error::Input)?;
    let line = password.strip_suffix('\n').unwrap_or(&password);
    Ok(line.strip_suffix('\r').unwrap_or(line).to_owned())
}

/// What came of a question.
enum Asked {
    Said(String),
    /// This process was told to end.
    Ended(u8),
}

impl Asked {
    fn exit_code(&self) -> u8 {
        match self {
            Self::Said(_) => 0,
            Self::Ended(code) => *code,
        }
    }
}

/// Asks on the terminal; `secret` is not shown, and a signal leaves the terminal as it was.
async fn ask(
    what: &'static str,
    flag: &'static str,
    prompt: &str,
    secret: bool,
) -> Result<Asked, Error> {
    if !terminal::stdin_is_terminal() {
        return Err(Error::CannotAsk { what, flag });
    }
    let mut signals = Signals::catch(false)?;
    let hidden = if secret { Some(Hidden::enter()?) } else { None };
    output::complain_raw(prompt);
    let (sender, line) = oneshot::channel();
    // A thread of our own: one of the runtime's would keep the process from ending.
    std::thread::spawn(move || {
        let mut text = String::new();
        let read = io::stdin().lock().read_line(&mut text);
        // Nobody waits for it when a signal came first.
        let _ = sender.send(read.map(|_| text));
    });
    tokio::pin!(line);
    let said = loop {
        tokio::select! {
            line = &mut line => {
                let line = line.map_err(io::Error::other).and_then(|line| line);
                break Asked::Said(line.map_err(Error::Input)?.trim_end_matches(['\r', '\n']).to_owned());
            }
            caught = signals.next() => match caught {
                Caught::Signal(signal) => break Asked::Ended(signal.exit_code()),
                Caught::WindowChanged => {}
            },
        }
    };
    if hidden.is_some() {
        output::complain_raw("\n");
    }
    Ok(said)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_host_is_one_of_an_images_name() {
        for (text, want) in [
            ("registry.example:5000", Some("registry.example:5000")),
            ("https://registry.example/v1/", Some("registry.example")),
            ("https://index.docker.io/v1/", Some("docker.io")),
            ("localhost", Some("localhost")),
            ("127.0.0.1:5000", Some("127.0.0.1:5000")),
            ("a b", None),
            ("word", None),
            ("", None),
        ] {
            assert_eq!(host(text).ok().as_deref(), want, "{text}");
        }
    }
}
