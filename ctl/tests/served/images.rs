//! Images: what is seen of a pull, what reaches the daemon, which exit code comes out.

use bosun_proto::v1::progress::Status as Layer;
use tonic::Code;

use crate::ctl::{command, fed, ran};
use crate::daemon::images::{digest, image, layer};
use crate::daemon::{Fake, ID, Process, exit, refusal, running, start};

const PULLED: &str = "\
Using default tag: latest
latest: Pulling from library/alpine
111111111111: Waiting
222222222222: Already exists
111111111111: Downloading
111111111111: Download complete
111111111111: Extracting
111111111111: Pull complete
";

fn a_pull() -> Fake {
    let fake = Fake::default();
    fake.book().progress = [vec![
        layer("1", Layer::Waiting, 0),
        layer("2", Layer::Exists, 0),
        layer("1", Layer::Downloading, 0),
        layer("1", Layer::Downloading, 50),
        layer("1", Layer::Downloaded, 100),
        layer("1", Layer::Unpacking, 100),
        layer("1", Layer::Done, 100),
    ]]
    .into();
    fake
}

#[test]
fn a_pull_is_a_line_for_each_change() {
    let fake = a_pull();
    let (daemon, _dir) = start(&fake);
    let pulled = ran(command(&daemon.socket, "pull alpine"));
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    let end = format!(
        "Digest: {}\nStatus: Downloaded newer image for alpine:latest\n\
         docker.io/library/alpine:latest\n",
        digest("b")
    );
    assert_eq!(pulled.out, format!("{PULLED}{end}"));
    assert!(!pulled.out.contains(|c: char| c.is_control() && c != '\n'));
    let again = ran(command(&daemon.socket, "pull alpine"));
    assert!(again.out.contains("Status: Image is up to date for alpine:latest\n"), "{}", again.out);
    let quiet = ran(command(&daemon.socket, "image pull -q --platform linux/arm64 alpine"));
    assert_eq!(quiet.out, "docker.io/library/alpine:latest\n");
    assert_eq!(fake.book().calls.last().unwrap(), "pull alpine \"linux/arm64\"");
}

#[test]
fn a_pull_that_breaks_off_is_joined_again() {
    let fake = a_pull();
    fake.book().progress.push_front(vec![layer("1", Layer::Waiting, 0)]);
    let (daemon, _dir) = start(&fake);
    let pulled = ran(command(&daemon.socket, "pull alpine"));
    assert_eq!(pulled.code, 0, "{}", pulled.err);
    assert!(pulled.out.starts_with(PULLED), "nothing is said twice: {}", pulled.out);
    let ids = fake.book().request_ids.clone();
    assert_eq!(ids.len(), 2);
    assert_eq!(ids[0], ids[1]);
}

#[test]
fn a_registry_that_fails_is_not_a_daemon_that_is_gone() {
    let fake = Fake::default();
    let sentence = "registry reg.example: 503 Service Unavailable";
    fake.book().pull_failures =
        [refusal(Code::Unavailable, "REGISTRY_UNAVAILABLE", sentence)].into();
    let (daemon, _dir) = start(&fake);
    let failed = ran(command(&daemon.socket, "pull -q reg.example/a:1"));
    assert_eq!((failed.code, failed.err), (1, format!("ctl: {sentence}\n")));
    assert_eq!(fake.book().calls.len(), 1);
}

#[test]
fn a_push_says_where_it_goes_and_what_arrived() {
    let fake = Fake::default();
    let mut mounted = layer("2", Layer::Mounted, 0);
    mounted.message = "team/base".to_owned();
    fake.book().progress =
        [vec![layer("1", Layer::Uploading, 1), mounted, layer("1", Layer::Done, 100)]].into();
    let (daemon, _dir) = start(&fake);
    let pushed = ran(command(&daemon.socket, "push web reg.example/team/web:1"));
    assert_eq!(pushed.code, 0, "{}", pushed.err);
    assert_eq!(
        pushed.out,
        format!(
            "The push refers to repository [reg.example/team/web]\n111111111111: Pushing\n\
             222222222222: Mounted from team/base\n111111111111: Pushed\n1: digest: {} size: 500\n",
            digest("b")
        )
    );
    let quiet = ran(command(&daemon.socket, "push -q reg.example/team/web:1"));
    assert_eq!(quiet.out, "reg.example/team/web:1\n");
}

#[test]
fn a_missing_image_is_pulled_beside_the_output() {
    for (words, out) in [("run -d -q web", format!("{ID}\n")), ("create -q web", format!("{ID}\n"))]
    {
        let fake = a_pull();
        let (daemon, _dir) = start(&fake);
        let made = ran(command(&daemon.socket, words));
        assert_eq!((made.code, &made.out), (0, &out), "{words}: {}", made.err);
        assert!(
            made.err.starts_with("Unable to find image 'web:latest' locally\n"),
            "{}",
            made.err
        );
        let calls = fake.book().calls.clone();
        assert_eq!(calls, ["create ", "pull web \"\"", "create "], "{words}");
        let ids = fake.book().request_ids.clone();
        assert_ne!(ids[0], ids[2], "another answer is wanted");
    }
    let fake = a_pull();
    fake.book().process = Some(Process::Writes(Vec::new(), exit(3)));
    let (daemon, _dir) = start(&fake);
    let run = ran(command(&daemon.socket, "run --platform linux/arm64 -P web"));
    assert_eq!((run.code, run.out.as_str()), (3, ""), "{}", run.err);
    assert!(run.err.contains("111111111111: Pull complete\n"), "{}", run.err);
    assert!(run.err.contains("Status: Downloaded newer image for web:latest\n"), "{}", run.err);
    let created = fake.book().created.clone().unwrap();
    assert_eq!((created.platform.as_str(), created.publish_all), ("linux/arm64", true));
}

#[test]
fn when_to_pull_is_a_flag() {
    let fake = Fake::default();
    let (daemon, _dir) = start(&fake);
    let never = ran(command(&daemon.socket, "run --pull never web"));
    assert_eq!((never.code, never.err.as_str()), (125, "ctl: no such image: web\n"));
    assert_eq!(fake.book().calls, ["create "]);
    let always = ran(command(&daemon.socket, "create --pull=always -q web"));
    assert_eq!(always.code, 0, "{}", always.err);
    assert_eq!(fake.book().calls[1..], ["pull web \"\"", "create "]);
    fake.book().images.clear();
    fake.book().pull_failures =
        [refusal(Code::NotFound, "NOT_IN_REGISTRY", "image \"web\": not found")].into();
    let absent = ran(command(&daemon.socket, "run web"));
    assert_eq!(absent.code, 125);
    assert!(absent.err.ends_with("ctl: image \"web\": not found\n"), "{}", absent.err);
}

#[test]
fn images_are_listed_tagged_and_removed() {
    let fake = Fake::default();
    fake.book().images =
        vec![image("docker.io/library/alpine:latest"), image("reg.example:5000/web:1")];
    let (daemon, _dir) = start(&fake);
    for (words, code, out) in [
        ("images -q", 0, "cccccccccccc\ncccccccccccc\n".to_owned()),
        (
            "images --format {{.Repository}}:{{.Tag}}|{{.Size}}",
            0,
            "alpine:latest|2MB\nreg.example:5000/web:1|2MB\n".to_owned(),
        ),
        ("image ls --no-trunc -q", 0, format!("{0}\n{0}\n", digest("c"))),
        ("history -q alpine", 0, "cccccccccccc\n".to_owned()),
        ("history --format {{.CreatedBy}}:{{.Size}} alpine", 0, "ADD:2.05kB\n".to_owned()),
        ("image inspect -f {{.Config.Cmd}} alpine", 0, "[sh]\n".to_owned()),
        (
            "inspect -f {{.RepoTags}} alpine",
            0,
            "[alpine:latest reg.example:5000/web:1]\n".to_owned(),
        ),
        ("inspect --type container alpine", 1, "[]\n".to_owned()),
        ("tag alpine mine:2", 0, String::new()),
        ("rmi alpine none", 1, format!("Untagged: alpine:latest\nDeleted: {}\n", digest("c"))),
        ("rmi -f none", 0, String::new()),
    ] {
        let ran = ran(command(&daemon.socket, words));
        assert_eq!((ran.code, &ran.out), (code, &out), "{words}: {}", ran.err);
    }
    assert_eq!(fake.book().calls, ["tag alpine mine:2", "rmi alpine false"]);
    ran(command(&daemon.socket, "images -f dangling=true */web"));
    let asked = "images [\"dangling=true\", \"reference=*/web\"]";
    assert_eq!(fake.book().calls.last().unwrap(), asked);
}

#[test]
fn a_container_comes_before_an_image_of_its_name() {
    let fake = Fake::default();
    fake.book().containers.push(running("web"));
    fake.book().images.push(image("docker.io/library/web:latest"));
    let (daemon, _dir) = start(&fake);
    for (words, out) in [
        ("inspect -f {{.Id}} web", format!("{ID}\n")),
        ("inspect --type image -f {{.Id}} web", format!("{}\n", digest("c"))),
    ] {
        assert_eq!(ran(command(&daemon.socket, words)).out, out, "{words}");
    }
}

#[test]
fn a_prune_asks_first() {
    let fake = Fake::default();
    let (daemon, _dir) = start(&fake);
    let deleted = "Deleted Images:\nold:1\n\nTotal reclaimed space: 1kB\n";
    let dry = "Would remove image old:1 (1kB)\nTotal reclaimable space: 1kB\n";
    for (words, input, out, calls) in [
        ("system prune", "", "", &[][..]),
        ("system prune", "no\n", "", &[]),
        ("system prune -a", "y\n", deleted, &["prune true false"]),
        ("system prune -f", "", deleted, &["prune false false"]),
        ("system prune --dry-run", "", dry, &["prune false true"]),
        ("image prune", "n\n", "", &[]),
        ("image prune", "Y\n", deleted, &["prune images false false"]),
        ("image prune -a --dry-run", "", dry, &["prune images true true"]),
    ] {
        fake.book().calls.clear();
        let pruned = fed(command(&daemon.socket, words), input.as_bytes());
        assert_eq!((pruned.code, pruned.out.as_str()), (0, out), "{words}: {}", pruned.err);
        assert_eq!(fake.book().calls, calls, "{words}");
    }
    let df = ran(command(&daemon.socket, "system df --format {{.Type}}:{{.Reclaimable}}"));
    assert!(df.out.starts_with("Images:500kB (25%)\nContainers:0B\n"), "{}", df.out);
}

#[test]
fn a_commit_is_an_image() {
    let fake = Fake::default();
    fake.book().containers.push(running("web"));
    let (daemon, _dir) = start(&fake);
    let made = ran(command(&daemon.socket, "commit -c USER=me --pause=false web mine:1"));
    assert_eq!((made.code, made.out), (0, format!("{}\n", digest("c"))), "{}", made.err);
    assert_eq!(fake.book().calls, ["commit web mine:1 [\"USER=me\"] true"]);
    let diff = ran(command(&daemon.socket, "diff web"));
    assert_eq!(diff.out, "C /etc\nA /etc/a\\u{1b}b\nD /tmp/x\n");
}

#[test]
fn what_is_made_by_hand_is_kept_or_held_by_a_lease() {
    let fake = Fake::default();
    let (daemon, _dir) = start(&fake);
    for words in ["snapshot prepare a", "snapshot view b", "snapshot commit c a"] {
        let ran = ran(command(&daemon.socket, words));
        assert_eq!(ran.code, 0, "{words}: {}", ran.err);
        let labels = fake.book().labels.pop().unwrap();
        let at = &labels["containerd.io/gc.root"];
        assert!(at.ends_with('Z') && at.contains('T'), "{at}");
    }
    assert!(fake.book().leases.is_empty());
    let held = ran(command(&daemon.socket, "--lease build snapshot prepare d"));
    assert_eq!(held.code, 0, "{}", held.err);
    assert_eq!(fake.book().leases, ["build"]);
    assert!(fake.book().labels.pop().unwrap().is_empty());
}
