//! `login` and `logout`.

use clap::Args;

/// Keep the credentials of a registry, when it takes them
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl login registry.example:5000\n  \
        ctl login -u me --password-stdin registry.example < password\n\n\
        They are kept where docker keeps them: in a credential helper when \
        ~/.docker/config.json names one, else in that file.")]
pub(crate) struct LoginArgs {
    /// Asked for when left out
    #[arg(short, long, value_name = "NAME")]
    pub(crate) username: Option<String>,
    /// Seen by everybody who can list processes: --password-stdin is not
    #[arg(short, long, value_name = "PASSWORD", conflicts_with = "password_stdin")]
    pub(crate) password: Option<String>,
    /// Read the password, or a token, from stdin
    #[arg(long, requires = "username")]
    pub(crate) password_stdin: bool,
    /// The registry, as an image's name has it [default: docker.io]
    #[arg(value_name = "HOST", default_value = "docker.io", hide_default_value = true)]
    pub(crate) host: String,
}

/// Forget the credentials of a registry
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl logout registry.example:5000")]
pub(crate) struct LogoutArgs {
    /// The registry, as an image's name has it [default: docker.io]
    #[arg(value_name = "HOST", default_value = "docker.io", hide_default_value = true)]
    pub(crate) host: String,
}
