//! The verbs on a container's files.

use std::path::PathBuf;

use clap::{ArgAction, Args};

/// Copy files between a container and here
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  \
        ctl cp web:/etc/hosts .\n  \
        ctl cp ./site/. web:/srv/www\n  \
        ctl cp web:/var/log - | tar -t\n\n\
        DIR/. is what is in the directory, DIR the directory itself. - is a tar on stdin or stdout.")]
pub(crate) struct CpArgs {
    /// Keep owners; to here, also devices, setuid bits and file capabilities
    #[arg(short, long)]
    pub(crate) archive: bool,
    /// Copy what SOURCE leads to when it is a link
    #[arg(short = 'L', long)]
    pub(crate) follow_link: bool,
    /// Say nothing
    #[arg(short, long)]
    pub(crate) quiet: bool,
    /// CONTAINER:PATH, a path here, or -
    #[arg(value_name = "SOURCE")]
    pub(crate) source: String,
    /// CONTAINER:PATH, a path here, or -
    #[arg(value_name = "DESTINATION")]
    pub(crate) destination: String,
}

/// Show what differs from the image: A added, C changed, D deleted
#[derive(Args, Debug)]
#[command(after_help = "Example:\n  ctl diff web")]
pub(crate) struct DiffArgs {
    /// An id, a unique beginning of one, or a name
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

/// Write a container's files to a tar
#[derive(Args, Debug)]
#[command(after_help = "Examples:\n  ctl export -o web.tar web\n  ctl export web | tar -t")]
pub(crate) struct ExportArgs {
    /// A file, which appears when it is whole [default: stdout]
    #[arg(short, long, value_name = "FILE")]
    pub(crate) output: Option<PathBuf>,
    /// An id, a unique beginning of one, or a name
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
}

/// Make an image of a container's files
#[derive(Args, Debug)]
#[command(
    after_help = "Examples:\n  ctl commit web web:patched\n  ctl commit -c 'CMD [\"sh\"]' -m 'with tools' web web:2"
)]
pub(crate) struct CommitArgs {
    /// Who made it
    #[arg(short, long, value_name = "NAME", default_value = "", hide_default_value = true)]
    pub(crate) author: String,
    /// A remark for its history
    #[arg(short, long, value_name = "TEXT", default_value = "", hide_default_value = true)]
    pub(crate) message: String,
    /// CMD, ENTRYPOINT, ENV, EXPOSE, LABEL, STOPSIGNAL, USER, VOLUME, WORKDIR
    #[arg(short, long, value_name = "INSTRUCTION")]
    pub(crate) change: Vec<String>,
    /// Freeze it meanwhile
    #[arg(
        short,
        long,
        value_name = "BOOL",
        num_args = 0..=1,
        require_equals = true,
        default_value_t = true,
        default_missing_value = "true",
        action = ArgAction::Set
    )]
    pub(crate) pause: bool,
    /// An id, a unique beginning of one, or a name
    #[arg(value_name = "CONTAINER")]
    pub(crate) container: String,
    /// Without one, it goes when nothing holds it
    #[arg(value_name = "IMAGE", default_value = "", hide_default_value = true)]
    pub(crate) image: String,
}
