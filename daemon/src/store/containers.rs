//! Rows of containers, living and removed.

use rusqlite::{OptionalExtension, params};
use serde::{Deserialize, Serialize};

use super::copies::{self, Key};
use super::{Error, Transaction};
use crate::container::Record;

/// A container as a daemon that starts finds it.
#[derive(Debug)]
pub struct Loaded {
    pub namespace: String,
    pub id: String,
    pub name: String,
    /// The text, when it can't be read: such a container is quarantined, and nothing else suffers.
    pub record: Result<Record, String>,
}

/// A removed container whose surroundings are not gone yet.
#[derive(Debug)]
pub struct Removed {
    pub namespace: String,
    pub id: String,
    /// The number of its snapshot, as far as that is known.
    pub snapshot: Option<i64>,
    /// How often it was started.
    pub attempts: u64,
}

/// A container that was made from an image.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OfImage {
    pub id: String,
    pub name: String,
    /// The digest of the image's manifest.
    pub manifest: String,
}

/// What stands in the place of a record that is lost.
#[derive(Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(super) struct Lost {
    /// What is wrong with it.
    pub quarantined: String,
    /// Its snapshot, when it has been removed.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub snapshot: Option<i64>,
    /// Trees that were set aside when it was lost, for nothing said whose they are: its own is among them.
    #[serde(default, skip_serializing_if = "Vec::is_empty")]
    pub trees: Vec<String>,
}

/// A record, or why there is none.
pub(super) fn parse(text: &str) -> Result<Record, String> {
    match serde_json::from_str::<Lost>(text) {
        Ok(Lost { quarantined, trees, .. }) if trees.is_empty() => Err(quarantined),
        Ok(Lost { quarantined, trees, .. }) => Err(format!(
            "{quarantined}; its files are among what was set aside: {}",
            trees.join(", ")
        )),
        Err(_) => serde_json::from_str(text).map_err(|error| error.to_string()),
    }
}

fn container(namespace: &str, id: &str) -> Key {
    Key::Container { namespace: namespace.to_owned(), id: id.to_owned() }
}

/// How many removed containers are remembered.
const HISTORY: i64 = 10_000;

impl Transaction<'_> {
    /// Makes the record: from the commit on the container exists.
    ///
    /// # Errors
    /// The store's own; a name or id that is taken is a constraint's error and never happens when
    /// the registry reserved it first.
    pub fn insert_container(
        &mut self,
        namespace: &str,
        record: &Record,
        spec: &str,
    ) -> Result<(), Error> {
        self.sql
            .prepare_cached("INSERT OR IGNORE INTO namespaces (name) VALUES (?1)")?
            .execute([namespace])?;
        self.sql
            .prepare_cached(
                "INSERT INTO containers (namespace, id, name, record, spec, image, spec_sum)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)",
            )?
            .execute(params![
                namespace,
                record.id.as_str(),
                record.name,
                serde_json::to_string(record)?,
                spec,
                record.image.as_ref().map_or("", |image| image.manifest.as_str()),
                copies::sum(&[spec])
            ])?;
        let key = container(namespace, &record.id);
        self.specs.insert(key.clone(), spec.to_owned());
        self.touched.insert(key);
        Ok(())
    }

    /// Replaces the record.
    ///
    /// # Errors
    /// The store's own.
    pub fn update_container(&mut self, namespace: &str, record: &Record) -> Result<(), Error> {
        self.sql
            .prepare_cached("UPDATE containers SET record = ?3 WHERE namespace = ?1 AND id = ?2")?
            .execute(params![namespace, record.id.as_str(), serde_json::to_string(record)?])?;
        self.touched.insert(container(namespace, &record.id));
        Ok(())
    }

    /// Replaces the OCI spec of a container.
    ///
    /// # Errors
    /// The store's own.
    pub fn update_spec(&mut self, namespace: &str, id: &str, spec: &str) -> Result<(), Error> {
        self.sql
            .prepare_cached(
                "UPDATE containers SET spec = ?3, spec_sum = ?4 WHERE namespace = ?1 AND id = ?2",
            )?
            .execute(params![namespace, id, spec, copies::sum(&[spec])])?;
        let key = container(namespace, id);
        self.specs.insert(key.clone(), spec.to_owned());
        self.touched.insert(key);
        Ok(())
    }

    /// Turns the container into a removed one: its name and id are free from the commit on, its
    /// surroundings are cleaned up afterwards. Answers whether its image may be garbage now: its name
    /// is gone, or stands for another one.
    ///
    /// # Errors
    /// The store's own.
    pub fn remove_container(&mut self, namespace: &str, record: &Record) -> Result<bool, Error> {
        let id = record.id.as_str();
        self.sql
            .prepare_cached("DELETE FROM containers WHERE namespace = ?1 AND id = ?2")?
            .execute(params![namespace, id])?;
        self.touched.insert(container(namespace, id));
        self.sql
            .prepare_cached(
                "INSERT INTO removed (namespace, id, name, record) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![namespace, id, record.name, serde_json::to_string(record)?])?;
        let Some(image) = &record.image else { return Ok(false) };
        let name = record.options.image.as_deref().unwrap_or_default();
        let known = self.image(namespace, name)?;
        Ok(known.is_none_or(|known| known.target.digest.as_str() != image.target))
    }

    /// As [`Transaction::remove_container`], of one whose record can't be read.
    ///
    /// # Errors
    /// The store's own.
    pub fn remove_quarantined(
        &mut self,
        namespace: &str,
        id: &str,
        name: &str,
        snapshot: Option<i64>,
    ) -> Result<(), Error> {
        self.sql
            .prepare_cached("DELETE FROM containers WHERE namespace = ?1 AND id = ?2")?
            .execute(params![namespace, id])?;
        self.touched.insert(container(namespace, id));
        let record = Lost { quarantined: "removed".to_owned(), snapshot, trees: Vec::new() };
        self.sql
            .prepare_cached(
                "INSERT INTO removed (namespace, id, name, record) VALUES (?1, ?2, ?3, ?4)",
            )?
            .execute(params![namespace, id, name, serde_json::to_string(&record)?])?;
        Ok(())
    }

    /// Nothing of a removed container is left.
    ///
    /// # Errors
    /// The store's own.
    pub fn container_cleaned(&mut self, namespace: &str, id: &str) -> Result<(), Error> {
        self.sql
            .prepare_cached("UPDATE removed SET cleaned = 1 WHERE namespace = ?1 AND id = ?2")?
            .execute([namespace, id])?;
        self.sql
            .prepare_cached(
                "DELETE FROM removed WHERE cleaned = 1
                 AND sequence <= (SELECT max(sequence) FROM removed) - ?1",
            )?
            .execute([HISTORY])?;
        Ok(())
    }

    /// The OCI spec as it was generated.
    ///
    /// # Errors
    /// The store's own.
    pub fn container_spec(&mut self, namespace: &str, id: &str) -> Result<Option<String>, Error> {
        Ok(self
            .sql
            .prepare_cached("SELECT spec FROM containers WHERE namespace = ?1 AND id = ?2")?
            .query_row(params![namespace, id], |row| row.get(0))
            .optional()?)
    }

    /// Which containers of a namespace were made from images: their ids and names, and the digests of
    /// the manifests.
    ///
    /// # Errors
    /// The store's own.
    pub fn containers_of_images(&mut self, namespace: &str) -> Result<Vec<OfImage>, Error> {
        let mut statement = self.sql.prepare_cached(
            "SELECT id, name, image FROM containers WHERE namespace = ?1 AND image <> '' ORDER BY id",
        )?;
        let rows = statement.query_map([namespace], |row| {
            Ok(OfImage { id: row.get(0)?, name: row.get(1)?, manifest: row.get(2)? })
        })?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// Every container of every namespace.
    ///
    /// # Errors
    /// The store's own.
    pub fn load_containers(&mut self) -> Result<Vec<Loaded>, Error> {
        let mut statement =
            self.sql.prepare_cached("SELECT namespace, id, name, record FROM containers")?;
        let rows = statement.query_map([], |row| {
            let text: String = row.get(3)?;
            Ok(Loaded {
                namespace: row.get(0)?,
                id: row.get(1)?,
                name: row.get(2)?,
                record: parse(&text),
            })
        })?;
        // What can't even be read as text was found when the store was opened.
        Ok(rows.filter_map(Result::ok).collect())
    }

    /// Removed containers that are not cleaned up yet. Of one whose record can't be read the directory
    /// of its snapshot is found as one without a row.
    ///
    /// # Errors
    /// The store's own.
    pub fn load_unclean(&mut self) -> Result<Vec<Removed>, Error> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT namespace, id, record FROM removed WHERE cleaned = 0")?;
        let rows = statement.query_map([], |row| {
            let text: String = row.get(2)?;
            let (snapshot, attempts) = match serde_json::from_str::<Record>(&text) {
                Ok(record) => (Some(record.snapshot), record.run.attempts()),
                Err(_) => {
                    (serde_json::from_str::<Lost>(&text).ok().and_then(|lost| lost.snapshot), 0)
                }
            };
            Ok(Removed { namespace: row.get(0)?, id: row.get(1)?, snapshot, attempts })
        })?;
        Ok(rows.filter_map(Result::ok).collect())
    }

    /// Whether a container of that id was removed, and all that was left of it.
    ///
    /// # Errors
    /// The store's own.
    pub fn was_removed(&mut self, namespace: &str, id: &str) -> Result<bool, Error> {
        let mut statement = self.sql.prepare_cached(
            "SELECT 1 FROM removed WHERE namespace = ?1 AND id = ?2 AND cleaned = 1 AND NOT EXISTS (
                 SELECT 1 FROM containers WHERE namespace = ?1 AND id = ?2)",
        )?;
        Ok(statement.exists([namespace, id])?)
    }

    /// The last removed container that `reference` names, by id, prefix of an id, or name.
    ///
    /// # Errors
    /// The store's own.
    pub fn find_removed(
        &mut self,
        namespace: &str,
        reference: &str,
    ) -> Result<Option<Record>, Error> {
        let text: Option<String> = self
            .sql
            .prepare_cached(
                "SELECT record FROM removed
                 WHERE namespace = ?1 AND (id = ?2 OR name = ?2 OR substr(id, 1, length(?2)) = ?2)
                 ORDER BY sequence DESC LIMIT 1",
            )?
            .query_row(params![namespace, reference], |row| row.get(0))
            .optional()?;
        Ok(text.and_then(|text| serde_json::from_str(&text).ok()))
    }
}
