//! Documents, configurations and references: what is read is printed, and read as the same again.

use bosun_image::{Config, Document, Draft, Reference};

/// A manifest or an index, under each media type that could be claimed for it.
pub fn manifest(data: &[u8]) {
    let types = [
        None,
        Some(bosun_image::media_type::OCI_INDEX),
        Some(bosun_image::media_type::OCI_MANIFEST),
        Some(bosun_image::media_type::DOCKER_MANIFEST),
        Some("application/json"),
    ];
    let mut kinds = Vec::new();
    for media_type in types {
        let Ok(document) = Document::parse(data, media_type) else { continue };
        let bytes = match &document {
            Document::Index(index) => index.to_bytes(),
            Document::Manifest(manifest) => manifest.to_bytes(),
        };
        let again = Document::parse(&bytes, Some(document.media_type())).unwrap();
        assert_eq!(again, document);
        kinds.push(matches!(document, Document::Index(_)));
    }
    // Never an index for one and a manifest for another.
    assert!(kinds.windows(2).all(|pair| pair[0] == pair[1]));
}

/// An image's configuration, and a new image made of it.
pub fn config(data: &[u8]) {
    let parsed = Config::parse(data);
    if let Ok(draft) = Draft::of(data)
        && let Ok((bytes, config)) = draft.finish()
    {
        assert_eq!(Config::parse(&bytes).unwrap(), config);
        assert!(parsed.is_ok());
    }
}

/// A name of an image.
pub fn reference(data: &[u8]) {
    let Ok(text) = std::str::from_utf8(data) else { return };
    let Ok(reference) = text.parse::<Reference>() else { return };
    assert_eq!(reference.to_string().parse::<Reference>().unwrap(), reference);
    assert_eq!(reference.familiar().parse::<Reference>().unwrap(), reference);
    // It becomes part of a URL and of a path.
    let repository = reference.repository();
    assert!(repository.chars().all(|c| c.is_ascii_graphic()));
    assert!(!repository.split('/').any(|part| matches!(part, "" | "." | "..")));
}
