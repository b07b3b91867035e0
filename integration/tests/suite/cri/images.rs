//! Images.

use bosun_proto::{NAMESPACE_KEY, cri, v1};
use integration::fake_registry::{Answer, FakeRegistry};
use integration::image::{Recipe, noise};
use integration::kubelet::{IMAGE, Kubelet, NAMESPACE, load, node};
use integration::registry::{PASSWORD, Registry, USER};
use integration::tar::Entry;
use serde_json::json;

fn pull(
    kubelet: &Kubelet,
    name: &str,
    auth: Option<cri::AuthConfig>,
) -> Result<String, tonic::Status> {
    let image = Some(cri::ImageSpec { image: name.to_owned(), ..Default::default() });
    let request = cri::PullImageRequest { image, auth, sandbox_config: None };
    let answer = kubelet.image_call(|mut client| async move { client.pull_image(request).await });
    answer.map(|answer| answer.image_ref)
}

/// What says that an image is not to be removed for want of space.
const PINNED: (&str, &str) = ("io.cri-containerd.pinned", "pinned");

/// As an administrator does, by bosun's own API.
fn pull_labelled(kubelet: &Kubelet, name: &str, labels: &[(&str, &str)]) {
    let mut request = tonic::Request::new(v1::PullRequest {
        reference: name.to_owned(),
        labels: labels
            .iter()
            .map(|(key, value)| ((*key).to_owned(), (*value).to_owned()))
            .collect(),
        ..v1::PullRequest::default()
    });
    request.metadata_mut().insert(NAMESPACE_KEY, NAMESPACE.parse().unwrap());
    let pulled: Result<(), tonic::Status> = kubelet.api().wait(async {
        let mut stream = kubelet.api().images().pull(request).await?.into_inner();
        while stream.message().await?.is_some() {}
        Ok(())
    });
    pulled.unwrap();
}

#[test]
fn an_image_has_one_id_everywhere_and_all_its_names() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let registry = Registry::start(daemon.netns());
    let image = Recipe::busybox().config(json!({"User": "1002:3"})).image();
    let one = registry.push("test/one", "a", &image);
    let two = registry.push("test/two", "b", &image);
    let id = pull(&kubelet, &one, None).unwrap();
    assert_eq!(id, image.id());
    assert_eq!(pull(&kubelet, &two, None).unwrap(), id);
    let listed = kubelet.image_list();
    let shown = listed.iter().find(|image| image.id == id).unwrap();
    assert_eq!(shown.repo_tags, [one.clone(), two]);
    let digest = |repository| format!("{}/test/{repository}@{}", registry.host(), image.digest());
    assert_eq!(shown.repo_digests, [digest("one"), digest("two")]);
    assert_eq!(shown.uid.unwrap().value, 1002);
    assert!(shown.size > 0);
    for name in [&one, &id, &digest("one"), &id["sha256:".len()..].to_owned()] {
        assert_eq!(kubelet.image(name).unwrap().id, id, "{name}");
    }
    let filter =
        cri::ImageFilter { image: Some(cri::ImageSpec { image: one, ..Default::default() }) };
    let request = cri::ListImagesRequest { filter: Some(filter) };
    let some = kubelet.image_call(|mut client| async move { client.list_images(request).await });
    assert_eq!(some.unwrap().images.len(), 1);
    kubelet.remove_image(&digest("two")).unwrap();
    assert!(kubelet.image(&id).is_none(), "with all its names");
    kubelet.remove_image(&id).unwrap();
}

#[test]
fn an_image_by_its_digest_has_no_tag_and_one_that_is_missing_is_no_error() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let registry = Registry::start(daemon.netns());
    let image = Recipe::busybox().config(json!({"User": "www-data"})).image();
    registry.push("test/one", "a", &image);
    let name = format!("{}/test/one@{}", registry.host(), image.digest());
    let id = pull(&kubelet, &name, None).unwrap();
    let shown = kubelet.image(&name).unwrap();
    assert_eq!((shown.repo_tags.len(), shown.repo_digests), (0, vec![name]));
    assert_eq!((shown.uid, shown.username.as_str()), (None, "www-data"));
    assert_eq!(shown.id, id);
    assert!(kubelet.image("registry.example.org/nowhere:1").is_none());
    kubelet.remove_image("registry.example.org/nowhere:1").unwrap();
    let missing = pull(&kubelet, &format!("{}/test/two:a", registry.host()), None).unwrap_err();
    assert_eq!(missing.code(), tonic::Code::NotFound, "{missing}");
}

#[test]
fn credentials_open_a_registry_in_each_of_their_forms() {
    use base64::Engine as _;
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let registry = Registry::with_basic_auth(daemon.netns());
    let name = registry.push("test/one", "a", &Recipe::busybox().image());
    assert!(pull(&kubelet, &name, None).is_err());
    let plain = cri::AuthConfig {
        username: USER.to_owned(),
        password: PASSWORD.to_owned(),
        ..cri::AuthConfig::default()
    };
    let encoded = base64::engine::general_purpose::STANDARD.encode(format!("{USER}:{PASSWORD}"));
    let encoded = cri::AuthConfig { auth: encoded, ..cri::AuthConfig::default() };
    let id = pull(&kubelet, &name, Some(plain)).unwrap();
    assert_eq!(pull(&kubelet, &name, Some(encoded)).unwrap(), id);
    assert!(!daemon.log().contains(PASSWORD));
}

#[test]
fn images_are_streamed_and_their_disk_is_measured() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    load(&daemon, &[("registry.example.org/other:1", &Recipe::new().image())]);
    let streamed = kubelet.api().wait(async {
        let mut client = kubelet.images();
        let request = cri::StreamImagesRequest::default();
        let mut stream = client.stream_images(request).await.unwrap().into_inner();
        let mut ids = Vec::new();
        while let Some(piece) = stream.message().await.unwrap() {
            ids.extend(piece.images.into_iter().map(|image| image.id));
        }
        ids
    });
    let listed: Vec<String> = kubelet.image_list().into_iter().map(|image| image.id).collect();
    assert_eq!(streamed, listed);
    let info = || {
        let request = cri::ImageFsInfoRequest {};
        let call =
            kubelet.image_call(|mut client| async move { client.image_fs_info(request).await });
        let answer = call.unwrap();
        let of = |list: &[cri::FilesystemUsage]| list[0].used_bytes.unwrap().value;
        (of(&answer.image_filesystems), of(&answer.container_filesystems))
    };
    let before = info();
    assert!(before.0 > 1 << 20, "{before:?}");
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let script =
        kubelet.container_config("one", "head -c 1000000 /dev/zero > /file; sync; sleep 600");
    let id = kubelet.run(&pod, &script, &config);
    integration::wait::until_true("what it wrote", || info().1 > before.1 + 900_000);
    kubelet.remove(&id).unwrap();
    kubelet.remove_image(IMAGE).unwrap();
    integration::wait::until_true("what has gone", || info().0 < before.0);
}

#[test]
fn twenty_pulls_at_once_download_it_once_and_have_one_answer() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let registry = FakeRegistry::start(daemon.netns());
    let layer = |seed| [Entry::file(&format!("file-{seed}"), noise(seed, 300_000))];
    let image = Recipe::new().files(&layer(1)).files(&layer(2)).image();
    let name = registry.add("popular", "1", &image);
    registry.always("GET /v2/popular/blobs/", Answer::Hold(1000));
    let answers: Vec<String> = std::thread::scope(|scope| {
        let pulls: Vec<_> = (0..20).map(|_| scope.spawn(|| pull(&kubelet, &name, None))).collect();
        integration::wait::until_true("the first blob to be asked for", || {
            registry.count("GET /v2/popular/blobs/") > 0
        });
        registry.release();
        pulls.into_iter().map(|pull| pull.join().unwrap().unwrap()).collect()
    });
    assert_eq!(answers, vec![image.id(); 20]);
    for blob in &image.parts {
        let count = registry.count(&format!("GET /v2/popular/blobs/{}", blob.digest));
        assert_eq!(count, 1, "{} {}", blob.media_type, blob.digest);
    }
}

#[test]
fn an_image_is_pinned_by_its_label_and_removed_when_that_is_asked_for() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let registry = FakeRegistry::start(daemon.netns());
    let image = Recipe::new().files(&[Entry::file("a", "1")]).image();
    let name = registry.add("kept", "1", &image);
    pull_labelled(&kubelet, &name, &[PINNED]);
    let pinned = kubelet.image_list().into_iter().filter(|image| image.pinned);
    assert_eq!(pinned.map(|image| image.id).collect::<Vec<_>>(), [image.id()]);
    assert!(kubelet.image(&name).unwrap().pinned);
    assert!(!kubelet.image(IMAGE).unwrap().pinned);
    kubelet.remove_image(&name).unwrap();
    assert!(kubelet.image(&name).is_none());
}

#[test]
fn an_image_that_is_pulled_again_keeps_the_labels_of_its_name() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let registry = FakeRegistry::start(daemon.netns());
    let image = |text| Recipe::new().files(&[Entry::file("a", text)]).image();
    let name = registry.add("kept", "1", &image("1"));
    pull_labelled(&kubelet, &name, &[PINNED, ("team", "blue")]);
    let _ = pull(&kubelet, &name, None).unwrap();
    assert!(kubelet.image(&name).unwrap().pinned);
    // Also where it is another image now, and others are said.
    let other = image("2");
    registry.add("kept", "1", &other);
    assert_eq!(pull(&kubelet, &name, None).unwrap(), other.id());
    pull_labelled(&kubelet, &name, &[("team", "red"), ("stage", "test")]);
    assert!(kubelet.image(&name).unwrap().pinned);
    let shown = daemon.ctl(&format!("--namespace {NAMESPACE} image inspect {name}")).json();
    let labels = &shown[0]["Bosun"]["Labels"];
    assert_eq!((&labels["team"], &labels["stage"]), (&json!("red"), &json!("test")));
    // They go with it.
    kubelet.remove_image(&name).unwrap();
    let _ = pull(&kubelet, &name, None).unwrap();
    assert!(!kubelet.image(&name).unwrap().pinned);
}

#[test]
fn containers_have_the_id_of_their_image_and_removals_at_once_are_all_done() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let registry = Registry::start(daemon.netns());
    let image = Recipe::busybox().config(json!({"User": "5"})).image();
    let name = registry.push("test/one", "a", &image);
    let id = pull(&kubelet, &name, None).unwrap();
    let config = kubelet.pod_config("web");
    let pod = kubelet.run_pod(&config);
    let of = |container: &str, image: &str| {
        let mut container = kubelet.container_config(container, "true");
        container.image = Some(cri::ImageSpec { image: image.to_owned(), ..Default::default() });
        kubelet.try_create(&pod, &container, &config).unwrap()
    };
    for container in [of("by-name", &name), of("by-id", &id)] {
        let filter = cri::ContainerFilter { id: container.clone(), ..Default::default() };
        let listed = kubelet.containers(filter);
        assert_eq!((listed.len(), &listed[0].image_id), (1, &id));
        assert_eq!(kubelet.status(&container).image_id, id);
        kubelet.remove(&container).unwrap();
    }
    std::thread::scope(|scope| {
        for text in [&name, &id, &name, &id] {
            scope.spawn(|| kubelet.remove_image(text).unwrap());
        }
    });
    assert!(kubelet.image(&name).is_none());
    assert!(kubelet.image_list().iter().all(|image| image.id != id));
}

#[test]
fn who_does_not_wait_for_a_pull_is_told_and_the_next_one_has_it() {
    let daemon = node();
    let kubelet = Kubelet::of(&daemon);
    let registry = FakeRegistry::start(daemon.netns());
    let image = Recipe::busybox().config(json!({"User": "6"})).image();
    let name = registry.add("test/one", "a", &image);
    registry.always("GET /v2/test/one/blobs/", Answer::Hold(10));
    let spec = Some(cri::ImageSpec { image: name.clone(), ..Default::default() });
    let request = cri::PullImageRequest { image: spec, auth: None, sandbox_config: None };
    let mut request = tonic::Request::new(request);
    request.set_timeout(std::time::Duration::from_millis(1));
    let began = std::time::Instant::now();
    let late = kubelet.image_call(|mut client| async move { client.pull_image(request).await });
    let late = late.unwrap_err();
    // Its own client may be the first to say so.
    assert!(
        matches!(late.code(), tonic::Code::DeadlineExceeded | tonic::Code::Cancelled),
        "{late}"
    );
    assert!(began.elapsed() < std::time::Duration::from_secs(2), "{:?}", began.elapsed());
    registry.release();
    assert_eq!(pull(&kubelet, &name, None).unwrap(), image.id());
}
