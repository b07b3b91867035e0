//! Names of images: looking up, listing, tagging, removing, pruning.

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;

use bosun_image::{Digest, Reference};

use super::tree::{Choice, Resolved};
use super::work::image_event;
use super::{Images, resolved_key};
use crate::error::{Error, Result};
use crate::gc::{Item, Mode, Without};
use crate::snapshots::Presence;
use crate::store::{ImageRow, OfImage, Transaction};

/// The least characters of an image id.
const SHORTEST_ID: usize = 4;

/// A name with its image.
#[derive(Clone, Debug)]
pub struct Named {
    pub row: ImageRow,
    /// `None` when that part of the image is not here, or can't be read.
    pub image: Option<Arc<Resolved>>,
}

/// A name with what is known of it.
#[derive(Clone, Debug)]
pub struct Found {
    pub row: ImageRow,
    /// As of [`Named`].
    pub image: Option<Arc<Resolved>>,
    /// Whether its layers are unpacked.
    pub unpacked: bool,
    /// Ids of containers made from it.
    pub containers: Vec<String>,
}

/// What a container is made from.
#[derive(Clone, Debug)]
pub struct Base {
    /// The image's name.
    pub name: String,
    /// The digest that the name stands for.
    pub target: String,
    pub image: Arc<Resolved>,
    /// The name of the snapshot of its layers; empty when it has none.
    pub snapshot: String,
}

/// What a removal did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Removed {
    pub untagged: Vec<String>,
    pub deleted: Vec<String>,
}

/// What a prune did, or would.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Pruned {
    pub names: Vec<String>,
    pub items: Vec<Item>,
}

impl Images {
    /// The rows that a text means: a name, a name with a digest, or the beginning of an image id,
    /// which may have several names.
    ///
    /// # Errors
    /// There is none; the beginning of an id is that of several; the text is no name.
    pub async fn find(
        &self,
        namespace: &str,
        text: &str,
        choice: &Choice,
    ) -> Result<Vec<ImageRow>> {
        let owner = namespace.to_owned();
        let rows = self.store.read(move |tx| tx.images(&owner)).await?;
        let reference = text.parse::<Reference>();
        if let Ok(reference) = &reference
            && let Some(row) = by_name(&rows, reference)
        {
            return Ok(vec![row.clone()]);
        }
        let hex = text.strip_prefix(Digest::PREFIX).unwrap_or(text);
        if (SHORTEST_ID..=64).contains(&hex.len()) && hex.bytes().all(|b| b.is_ascii_hexdigit()) {
            let mut matches: BTreeMap<Digest, Vec<ImageRow>> = BTreeMap::new();
            for Named { row, image } in
                self.named_rows(namespace, Some(rows.clone()), choice).await?
            {
                let mut ids = vec![row.target.digest.clone()];
                if let Some(image) = image {
                    ids.insert(0, image.manifest.config.digest.clone());
                    ids.push(image.descriptor.digest.clone());
                }
                if let Some(id) = ids.iter().find(|id| id.hex().starts_with(hex)) {
                    matches.entry(id.clone()).or_default().push(row);
                }
            }
            match matches.len() {
                0 => {}
                1 => return Ok(matches.into_values().flatten().collect()),
                _ => {
                    let matches = matches.into_keys().map(|id| id.to_string()).collect();
                    return Err(Error::AmbiguousImage { prefix: text.to_owned(), matches });
                }
            }
        }
        match reference {
            Ok(reference) => Err(no_such_image(&rows, &reference)),
            Err(_) if hex.len() == 64 => {
                Err(Error::NoSuchImage { reference: text.to_owned(), similar: None })
            }
            Err(source) => Err(source.into()),
        }
    }

    /// One name with its image.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn get(&self, namespace: &str, text: &str, choice: &Choice) -> Result<Found> {
        let rows = self.find(namespace, text, choice).await?;
        let row = rows.into_iter().next();
        let row = row.ok_or(Error::NoSuchImage { reference: text.to_owned(), similar: None })?;
        let users = self.users(namespace).await?;
        let found = self.look(namespace, row, choice, &users).await;
        if choice.asked && found.image.is_none() {
            self.resolve(namespace, &found.row.name, &found.row.target, choice).await?;
        }
        Ok(found)
    }

    /// What a container is made from: the image, and the snapshot that it stands on, unpacked now if
    /// it is not yet.
    ///
    /// # Errors
    /// As [`find`](Self::find); a layer that can't be unpacked.
    pub async fn base(&self, namespace: &str, text: &str, choice: &Choice) -> Result<Base> {
        let rows = self.find(namespace, text, choice).await?;
        let row = rows.into_iter().next();
        let row = row.ok_or(Error::NoSuchImage { reference: text.to_owned(), similar: None })?;
        let image = self.resolve(namespace, &row.name, &row.target, choice).await?;
        let snapshot = self.unpacked(namespace, &image).await?;
        Ok(Base { name: row.name, target: row.target.digest.to_string(), image, snapshot })
    }

    /// All names of a namespace.
    ///
    /// # Errors
    /// The store's own.
    pub async fn list(&self, namespace: &str) -> Result<Vec<Found>> {
        let owner = namespace.to_owned();
        let rows = self.store.read(move |tx| tx.images(&owner)).await?;
        let users = self.users(namespace).await?;
        let choice = Choice::parse("")?;
        let mut found = Vec::with_capacity(rows.len());
        for row in rows {
            found.push(self.look(namespace, row, &choice, &users).await);
        }
        Ok(found)
    }

    /// All names of a namespace with their images alone, for who asks often: neither blobs nor snapshots
    /// are looked at.
    ///
    /// # Errors
    /// The store's own.
    pub async fn named(&self, namespace: &str) -> Result<Vec<Named>> {
        self.named_rows(namespace, None, &Choice::parse("")?).await
    }

    /// Of these rows, or of all: what is remembered of them is looked up at once, for each look waits for
    /// the store.
    async fn named_rows(
        &self,
        namespace: &str,
        rows: Option<Vec<ImageRow>>,
        choice: &Choice,
    ) -> Result<Vec<Named>> {
        let (owner, resolved, meant) =
            (namespace.to_owned(), self.resolved.clone(), choice.clone());
        let look = move |tx: &mut Transaction<'_>| -> Result<Vec<Named>> {
            let rows = match rows {
                Some(rows) => rows,
                None => tx.images(&owner)?,
            };
            let named = rows.into_iter().map(|row| {
                let known = resolved.get(&resolved_key(&owner, &row.target.digest, &meant));
                let image = known.filter(|known| is_here(tx, &owner, known));
                Named { row, image }
            });
            Ok(named.collect())
        };
        let mut named = self.store.read(look).await?;
        for one in named.iter_mut().filter(|one| one.image.is_none()) {
            let (name, target) = (&one.row.name, &one.row.target);
            one.image = self.resolve(namespace, name, target, choice).await.ok();
        }
        Ok(named)
    }

    /// All names of the image that a text means, as of [`named`](Self::named); none of one that is not
    /// here, or can't be read.
    ///
    /// # Errors
    /// As [`find`](Self::find).
    pub async fn names_of(&self, namespace: &str, text: &str) -> Result<Vec<Named>> {
        let choice = Choice::parse("")?;
        if let Ok(reference) = text.parse::<Reference>()
            && let Some(named) = self.remembered_names(namespace, reference, &choice).await?
        {
            return Ok(named);
        }
        let found = self.find(namespace, text, &choice).await?;
        let Some(one) = found.first() else { return Ok(Vec::new()) };
        let Ok(meant) = self.resolve(namespace, &one.name, &one.target, &choice).await else {
            return Ok(Vec::new());
        };
        let mut named = self.named_rows(namespace, None, &choice).await?;
        named.retain(|one| one.image.as_ref().is_some_and(|image| is_same(image, &meant)));
        Ok(named)
    }

    /// As [`names_of`](Self::names_of) a name, in one look; `None` where what is remembered does not say,
    /// or it is no name of an image.
    async fn remembered_names(
        &self,
        namespace: &str,
        reference: Reference,
        choice: &Choice,
    ) -> Result<Option<Vec<Named>>> {
        let (owner, resolved, choice) =
            (namespace.to_owned(), self.resolved.clone(), choice.clone());
        let look = move |tx: &mut Transaction<'_>| -> Result<Option<Vec<Named>>> {
            let known = |digest: &Digest| resolved.get(&resolved_key(&owner, digest, &choice));
            let row = tx
                .image(&owner, &reference.name())?
                .filter(|row| reference.digest().is_none_or(|digest| *digest == row.target.digest));
            let Some(meant) = row.and_then(|row| known(&row.target.digest)) else {
                return Ok(None);
            };
            if !is_here(tx, &owner, &meant) {
                return Ok(None);
            }
            let mut named = Vec::new();
            for (name, target) in tx.image_targets(&owner)? {
                let Some(image) = target.parse().ok().and_then(|digest| known(&digest)) else {
                    return Ok(None);
                };
                if is_same(&image, &meant)
                    && let Some(row) = tx.image(&owner, &name)?
                {
                    named.push(Named { row, image: Some(image) });
                }
            }
            Ok(Some(named))
        };
        self.store.read(look).await
    }

    /// Which containers were made from which manifests.
    pub(super) async fn users(&self, namespace: &str) -> Result<Vec<OfImage>> {
        let namespace = namespace.to_owned();
        Ok(self.store.read(move |tx| tx.containers_of_images(&namespace)).await?)
    }

    async fn look(
        &self,
        namespace: &str,
        row: ImageRow,
        choice: &Choice,
        users: &[OfImage],
    ) -> Found {
        let image = self.resolve(namespace, &row.name, &row.target, choice).await.ok();
        let chain_id = image.as_ref().and_then(|image| image.chain_id());
        let unpacked = match chain_id {
            Some(chain_id) => {
                let presence = self.snapshots.presence(namespace, chain_id.as_str(), None).await;
                matches!(presence, Ok(Presence::Whole))
            }
            None => false,
        };
        let manifests = self.manifests(namespace, &row).await;
        let containers = users.iter().filter(|user| manifests.contains(&user.manifest));
        let containers = containers.map(|user| user.id.clone()).collect();
        Found { row, image, unpacked, containers }
    }

    /// The digests of all manifests that a name reaches.
    async fn manifests(&self, namespace: &str, row: &ImageRow) -> BTreeSet<String> {
        let reached = self.reach(namespace, &row.target).await.unwrap_or_default();
        let mut manifests: BTreeSet<String> = reached
            .iter()
            .filter(|blob| blob.kind() == bosun_image::Kind::Manifest)
            .map(|blob| blob.digest.to_string())
            .collect();
        manifests.insert(row.target.digest.to_string());
        manifests
    }

    /// Gives an image another name; one that exists moves.
    ///
    /// # Errors
    /// There is no such image, or the new name is none, or has a digest.
    pub async fn tag(&self, namespace: &str, text: &str, asked: &str) -> Result<()> {
        let name: Reference = asked.parse().map_err(Error::from)?;
        let is_digest = |text: &str| text.parse::<Digest>().is_ok();
        if name.digest().is_some() || is_digest(asked) {
            return Err(Error::InvalidArgument {
                what: "new name of the image",
                problem: format!("{name} has a digest, which can't be chosen: give a tag"),
            });
        }
        let choice = Choice::parse("")?;
        let _turn = self.names.wait(namespace.to_owned()).await;
        let row = self.get(namespace, text, &choice).await?.row;
        self.name(namespace, &name, &row.target, row.labels, "tag").await?;
        Ok(())
    }

    /// Removes a name, or all names of an id; with the last one what only it reached.
    ///
    /// # Errors
    /// There is none; an id has several names; a container was made from it and no other name keeps
    /// it. With `force`, the last two are no obstacle.
    pub async fn remove(
        &self,
        namespace: &str,
        text: &str,
        force: bool,
        prune: bool,
    ) -> Result<Removed> {
        let choice = Choice::parse("")?;
        let turn = self.names.wait(namespace.to_owned()).await;
        let rows = self.find(namespace, text, &choice).await?;
        if rows.len() > 1 && !force {
            let names = rows.into_iter().map(|row| row.name).collect();
            return Err(Error::SeveralNames { id: text.to_owned(), names });
        }
        let mut going = Vec::with_capacity(rows.len());
        for row in &rows {
            going.push(Going {
                name: row.name.clone(),
                target: row.target.digest.clone(),
                manifests: self.manifests(namespace, row).await,
            });
        }
        let mut reached = BTreeSet::new();
        for row in &rows {
            for blob in self.reach(namespace, &row.target).await.unwrap_or_default() {
                reached.insert(blob.digest.to_string());
            }
        }
        let in_use = if force { InUse::Goes } else { InUse::Refused };
        let untagged = self.untag(namespace, going, in_use).await?;
        drop(turn);
        shim_failpoints::step!("daemon.gc.after_untag");
        let mut removed = Removed { untagged, deleted: Vec::new() };
        if !prune {
            return Ok(removed);
        }
        for name in &removed.untagged {
            self.drop_rests(namespace, Some(name)).await?;
        }
        self.resolved.clear();
        for item in self.collector.collect(namespace, Mode::default()).await? {
            match item {
                Item::Blob { digest, .. } if reached.contains(&digest) => {
                    removed.deleted.push(digest);
                }
                Item::Blob { .. }
                | Item::Image { .. }
                | Item::Snapshot { .. }
                | Item::Ingest { .. } => {}
            }
        }
        Ok(removed)
    }

    /// Forgets names, as far as they still stand for what was looked at. Whether a container needs one
    /// is seen in the same transaction: one that is just being made is either there, or finds that
    /// its image is gone.
    async fn untag(
        &self,
        namespace: &str,
        going: Vec<Going>,
        in_use: InUse,
    ) -> Result<Vec<String>> {
        let namespace = namespace.to_owned();
        self.store
            .write(move |tx: &mut Transaction<'_>| -> Result<Vec<String>> {
                let rows = tx.images(&namespace)?;
                let users = tx.containers_of_images(&namespace)?;
                let mut gone = Vec::new();
                for one in &going {
                    let is_it =
                        |row: &ImageRow| row.name == one.name && row.target.digest == one.target;
                    if !rows.iter().any(is_it) {
                        continue;
                    }
                    let keeps = |row: &ImageRow| {
                        row.target.digest == one.target
                            && !going.iter().any(|other| other.name == row.name)
                    };
                    let user = users.iter().find(|user| one.manifests.contains(&user.manifest));
                    match (user, in_use) {
                        (Some(_), InUse::Stays) => continue,
                        (Some(user), InUse::Refused) if !rows.iter().any(keeps) => {
                            let (name, container) = (one.name.clone(), user.name.clone());
                            return Err(Error::ImageInUse { name, container });
                        }
                        (Some(_), InUse::Refused | InUse::Goes) | (None, _) => {}
                    }
                    tx.remove_image(&namespace, &one.name)?;
                    tx.event(image_event(&namespace, "untag", &one.name, Vec::new()))?;
                    gone.push(one.name.clone());
                }
                Ok(gone)
            })
            .await
    }

    /// Removes what nothing reaches; with `all` also the names that no container was made from and
    /// that `keep` does not keep.
    ///
    /// # Errors
    /// The store's own, or files that can't be removed.
    pub async fn prune(
        &self,
        namespace: &str,
        all: bool,
        dry_run: bool,
        keep: impl Fn(&ImageRow) -> bool,
    ) -> Result<Pruned> {
        let turn = self.names.wait(namespace.to_owned()).await;
        let mut going = Vec::new();
        for found in self.list(namespace).await? {
            // What has no name but its digest is docker's dangling image.
            let takes = all || is_unnamed(&found.row.name);
            if takes && found.containers.is_empty() && !keep(&found.row) {
                let manifests = self.manifests(namespace, &found.row).await;
                let (name, target) = (found.row.name, found.row.target.digest);
                going.push(Going { name, target, manifests });
            }
        }
        let names: BTreeSet<String> = match dry_run {
            true => going.into_iter().map(|one| one.name).collect(),
            false => self.untag(namespace, going, InUse::Stays).await?.into_iter().collect(),
        };
        if !dry_run {
            self.drop_rests(namespace, None).await?;
        }
        self.resolved.clear();
        drop(turn);
        let mode = Mode { dry_run, by_hand: true };
        let without = Without { images: names.clone(), containers: BTreeSet::new() };
        let items = self.collector.collect_without(namespace, mode, without).await?;
        Ok(Pruned { names: names.into_iter().collect(), items })
    }

    /// What [`prune`](Self::prune) would do once these containers are gone.
    ///
    /// # Errors
    /// The store's own.
    pub async fn would_prune(
        &self,
        namespace: &str,
        all: bool,
        containers: BTreeSet<String>,
    ) -> Result<Pruned> {
        let mut names = BTreeSet::new();
        for found in self.list(namespace).await? {
            let takes = all || is_unnamed(&found.row.name);
            if takes && found.containers.iter().all(|id| containers.contains(id)) {
                names.insert(found.row.name);
            }
        }
        let mode = Mode { dry_run: true, by_hand: true };
        let without = Without { images: names.clone(), containers };
        let items = self.collector.collect_without(namespace, mode, without).await?;
        Ok(Pruned { names: names.into_iter().collect(), items })
    }
}

/// A name that is to go, and what it stood for when that was looked at.
struct Going {
    name: String,
    target: Digest,
    /// All manifests that it reaches.
    manifests: BTreeSet<String>,
}

/// What becomes of a name whose image a container was made from.
#[derive(Clone, Copy, PartialEq, Eq)]
enum InUse {
    /// It stays; that is an error, unless another name keeps the image.
    Refused,
    /// It stays.
    Stays,
    /// It goes all the same: what the container needs stays.
    Goes,
}

/// Whether a name is one that only says a digest, given to what had none.
fn is_unnamed(name: &str) -> bool {
    name.starts_with(super::import::UNNAMED)
}

/// Whether the documents of a remembered image have not gone.
fn is_here(tx: &mut Transaction<'_>, namespace: &str, image: &Resolved) -> bool {
    matches!(tx.blob(namespace, image.manifest.config.digest.as_str()), Ok(Some(_)))
}

fn is_same(one: &Resolved, other: &Resolved) -> bool {
    one.manifest.config.digest == other.manifest.config.digest
}

/// A name to the letter; with a tag and a digest, the tag's while it stands for that digest.
fn by_name<'a>(rows: &'a [ImageRow], reference: &Reference) -> Option<&'a ImageRow> {
    let name = reference.name();
    let is_meant = |row: &&ImageRow| {
        row.name == name && reference.digest().is_none_or(|digest| *digest == row.target.digest)
    };
    if let Some(row) = rows.iter().find(is_meant) {
        return Some(row);
    }
    let digest = reference.digest()?;
    let repository = reference.repository();
    let is_same = |row: &&ImageRow| {
        row.target.digest == *digest
            && row.name.parse::<Reference>().is_ok_and(|own| own.repository() == repository)
    };
    rows.iter().find(is_same)
}

fn no_such_image(rows: &[ImageRow], reference: &Reference) -> Error {
    let names = rows.iter().filter_map(|row| row.name.parse::<Reference>().ok());
    let last =
        |reference: &Reference| reference.path().rsplit('/').next().unwrap_or_default().to_owned();
    let wanted = last(reference);
    // The same repository with another tag, or the same name of another place.
    let similar = names.filter(|own| last(own) == wanted).map(|own| own.familiar()).next();
    Error::NoSuchImage { reference: reference.familiar(), similar }
}
