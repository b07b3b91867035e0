//! Archives: whole files or none, directories on the way, refusals in time.

use std::fs;
use std::process::Stdio;

use crate::ctl::{command, fed, ran};
use crate::daemon::images::{digest, image};
use crate::daemon::{Fake, running, start};

fn with_archive() -> Fake {
    let fake = Fake::default();
    let mut book = fake.book();
    book.images.push(image("docker.io/library/web:latest"));
    book.containers.push(running("web"));
    book.exported = vec![b"first ".to_vec(), b"second".to_vec()];
    drop(book);
    fake
}

#[test]
fn a_saved_file_is_whole_or_not_there() {
    let fake = with_archive();
    let (daemon, dir) = start(&fake);
    let file = dir.path().join("out.tar");
    for verb in ["save", "export"] {
        fake.book().export_breaks = true;
        fs::write(&file, "before").unwrap();
        let torn = ran(command(&daemon.socket, &format!("{verb} -o {} web", file.display())));
        assert_eq!(torn.code, 1);
        assert!(torn.err.contains("bosund is stopping"), "{}", torn.err);
        assert_eq!(fs::read_to_string(&file).unwrap(), "before");
        fake.book().export_breaks = false;
        let saved = ran(command(&daemon.socket, &format!("{verb} -o {} web", file.display())));
        assert_eq!((saved.code, saved.out.as_str()), (0, ""), "{}", saved.err);
        assert_eq!(fs::read_to_string(&file).unwrap(), "first second");
        let piped = ran(command(&daemon.socket, &format!("{verb} web")));
        assert_eq!((piped.code, piped.out.as_str()), (0, "first second"));
    }
    let names: Vec<_> =
        fs::read_dir(dir.path()).unwrap().map(|one| one.unwrap().file_name()).collect();
    assert_eq!(names.len(), 2, "the socket and the archive: {names:?}");
    let absent = ran(command(&daemon.socket, &format!("save -o {} none", file.display())));
    assert_eq!((absent.code, absent.err.as_str()), (1, "ctl: no such image: none\n"));
    assert_eq!(fs::read_to_string(&file).unwrap(), "first second");
    let nowhere = ran(command(&daemon.socket, "save -o /nonexistent/a.tar web"));
    assert!(nowhere.err.starts_with("ctl: cannot write /nonexistent/a.tar: "), "{}", nowhere.err);
}

#[test]
fn a_loaded_archive_arrives_byte_by_byte() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    let archive: Vec<u8> = (0..3_000_000_u32).map(|number| (number % 251) as u8).collect();
    let file = dir.path().join("in.tar");
    fs::write(&file, &archive).unwrap();
    let loaded = ran(command(&daemon.socket, &format!("load -i {}", file.display())));
    assert_eq!((loaded.code, loaded.out.as_str()), (0, "Loaded image: loaded:1\n"));
    assert_eq!(loaded.err, "ctl: warning: an unknown file was passed over\n");
    let piped = fed(command(&daemon.socket, "load -q"), &archive);
    assert_eq!(piped.out, "loaded:1\n", "{}", piped.err);
    let imported = fed(command(&daemon.socket, "import - mine:1"), &archive);
    assert_eq!(imported.out, format!("{}\n", digest("c")), "{}", imported.err);
    let mut book = fake.book();
    assert!(book.archives.drain(..).all(|arrived| arrived == archive));
    assert_eq!(book.calls, ["import Images \"\"", "import Images \"\"", "import Auto \"mine:1\""]);
}

#[test]
fn a_directory_is_packed_on_the_way() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    let layout = dir.path().join("layout");
    fs::create_dir_all(layout.join("blobs/sha256")).unwrap();
    fs::write(layout.join("oci-layout"), "{}").unwrap();
    fs::write(layout.join("blobs/sha256/ab"), "blob").unwrap();
    let loaded = ran(command(&daemon.socket, &format!("load -i {}", layout.display())));
    assert_eq!(
        (loaded.code, loaded.out.as_str()),
        (0, "Loaded image: loaded:1\n"),
        "{}",
        loaded.err
    );
    let archive = fake.book().archives.pop().unwrap();
    let mut tar = std::process::Command::new("tar");
    tar.arg("-t").stdout(Stdio::piped());
    let listed = fed(tar, &archive);
    assert_eq!(
        listed.out, "blobs/\nblobs/sha256/\nblobs/sha256/ab\noci-layout\n",
        "{}",
        listed.err
    );
}

#[test]
fn an_archive_that_is_refused_is_not_read_on() {
    let fake = Fake::default();
    fake.book().refuses_archives = true;
    let (daemon, dir) = start(&fake);
    // Its input never ends.
    let refused = ran({
        let mut load = command(&daemon.socket, "load");
        load.stdin(fs::File::open("/dev/zero").unwrap());
        load
    });
    assert_eq!((refused.code, refused.err.as_str()), (1, "ctl: that is no archive\n"));
    // And here it never begins.
    let mut load = command(&daemon.socket, "load");
    load.stdin(Stdio::piped());
    let mut child = load.spawn().unwrap();
    let held = child.stdin.take();
    let refused = crate::ctl::finished(child);
    assert_eq!((refused.code, refused.err.as_str()), (1, "ctl: that is no archive\n"));
    drop(held);
    let missing = ran(command(&daemon.socket, &format!("load -i {}/none", dir.path().display())));
    assert_eq!(missing.code, 1);
    assert!(missing.err.contains("/none: No such file"), "{}", missing.err);
}

#[test]
fn an_input_that_fails_is_no_end() {
    let fake = Fake::default();
    let (daemon, dir) = start(&fake);
    // A directory as stdin can't be read.
    let mut load = command(&daemon.socket, "load");
    load.stdin(fs::File::open(dir.path()).unwrap());
    let failed = ran(load);
    assert_eq!(failed.code, 1);
    assert!(failed.err.starts_with("ctl: cannot read the input: "), "{}", failed.err);
    assert!(fake.book().archives.is_empty(), "it was taken for an empty archive");
}
