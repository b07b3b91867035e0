//! A real image for the rows about images: Debian with python, in six layers.
//!
//! debootstrap makes the tree once and it is kept in the build directory. Where no mirror can be
//! reached, a tree of text takes its place: of the same size, and compressed about as well.

use std::fs;
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use integration::image::{Compression, Image, Layer, Recipe, noise};
use integration::tar::{Entry, entries_of, tar};

/// Directories that are a layer each; the first layer is everything else.
const PARTS: [&[&str]; 5] =
    [&["usr/lib"], &["usr/share"], &["usr/bin", "usr/sbin"], &["var"], &["etc"]];

/// The image, and how to call it in a table.
pub(crate) fn image() -> (Image, String) {
    let (kind, layers) = match tree() {
        Some(tree) => ("Debian", layers_of(&tree)),
        None => ("text", text()),
    };
    let layers: Vec<Layer> = std::thread::scope(|scope| {
        let packing: Vec<_> = layers.into_iter().map(|bytes| scope.spawn(|| pack(bytes))).collect();
        packing.into_iter().map(|thread| thread.join().expect("a layer is packed")).collect()
    });
    let image = layers.into_iter().fold(Recipe::new(), Recipe::layer).image();
    let bytes: usize = image.layers().iter().map(|layer| layer.bytes.len()).sum();
    let name = format!("{} MB of {kind} in {} gzip layers", bytes / 1_000_000, PARTS.len() + 1);
    (image, name)
}

/// As tools compress: better than the harness does for its fixtures.
fn pack(bytes: Vec<u8>) -> Layer {
    use std::io::Write as _;
    let level = flate2::Compression::new(6);
    let mut encoder = flate2::write::GzEncoder::new(Vec::new(), level);
    encoder.write_all(&bytes).expect("a vector grows");
    Layer::packed(encoder.finish().expect("a vector grows"), Compression::Gzip, bytes)
}

fn layers_of(root: &Path) -> Vec<Vec<u8>> {
    let apart: Vec<&str> = PARTS.iter().flat_map(|part| part.iter().copied()).collect();
    let inside = ["dev", "proc", "sys"].map(|name| names(root, name));
    let without: Vec<&str> =
        apart.iter().copied().chain(inside.iter().flatten().map(String::as_str)).collect();
    let mut layers = vec![tar(&entries_of(root, &["."], &without))];
    layers.extend(PARTS.iter().map(|part| tar(&entries_of(root, part, &[]))));
    layers
}

/// What is in a directory: `NAME/ENTRY`.
fn names(root: &Path, name: &str) -> Vec<String> {
    let entries = fs::read_dir(root.join(name)).into_iter().flatten().flatten();
    entries.map(|entry| format!("{name}/{}", entry.file_name().to_string_lossy())).collect()
}

/// The tree that is kept, made if it isn't there; none when that fails.
fn tree() -> Option<PathBuf> {
    let directory = Path::new(env!("CARGO_MANIFEST_DIR")).with_file_name("target").join("bench");
    let tree = directory.join("debian");
    if tree.is_dir() {
        return Some(tree);
    }
    fs::create_dir_all(&directory).ok()?;
    let half = directory.join("debian.half");
    let _ = fs::remove_dir_all(&half);
    eprintln!("bench: debootstrap makes a tree in {} (once)", tree.display());
    let mut command = Command::new("debootstrap");
    command.args(["--variant=minbase", "--include=python3-minimal,python3,procps,iproute2"]);
    command.arg(release()).arg(&half).args(mirror());
    let log = fs::File::create(directory.join("debootstrap.log")).ok()?;
    command.stdin(Stdio::null()).stderr(log.try_clone().ok()?).stdout(log);
    if !command.status().is_ok_and(|status| status.success()) {
        eprintln!("bench: it can't (see debootstrap.log there): a tree of text takes its place");
        return None;
    }
    fs::rename(&half, &tree).ok()?;
    Some(tree)
}

/// Where this machine's own packages come from.
fn mirror() -> Option<String> {
    let sources = ["/etc/apt/sources.list.d/debian.sources", "/etc/apt/sources.list"];
    let text: String = sources.iter().filter_map(|file| fs::read_to_string(file).ok()).collect();
    let lines = text.lines().filter(|line| line.starts_with("URIs:") || line.starts_with("deb "));
    let mut words = lines.flat_map(str::split_whitespace);
    words.find(|word| word.starts_with("http")).map(str::to_owned)
}

/// This machine's own release.
fn release() -> String {
    let text = fs::read_to_string("/etc/os-release").unwrap_or_default();
    let name = text.lines().find_map(|line| line.strip_prefix("VERSION_CODENAME="));
    name.unwrap_or("stable").to_owned()
}

/// Six layers of words in lines, some noise between them.
fn text() -> Vec<Vec<u8>> {
    (0..6)
        .map(|layer| {
            let files = (0..1500).map(|number| {
                let seed = layer * 10_000 + number;
                let mut data = noise(seed, 9_000);
                for byte in noise(seed + 5_000_000, 24_000) {
                    data.extend_from_slice(
                        [" the", "file", "of a", "\nand"][usize::from(byte % 4)].as_bytes(),
                    );
                    data.truncate(32_000);
                }
                Entry::file(&format!("layer-{layer}/{}/file-{number}", number % 40), data)
            });
            tar(&files.collect::<Vec<_>>())
        })
        .collect()
}
