//! Rows of images: names, and what each stands for.

use std::collections::BTreeMap;

use bosun_image::Descriptor;
use rusqlite::{OptionalExtension, Row, params};

use super::copies::Key;
use super::{Error, Transaction};
use crate::time::Time;

/// One name.
#[derive(Clone, Debug, PartialEq)]
pub struct ImageRow {
    /// Normalised, with its tag or its digest.
    pub name: String,
    /// An index or a manifest.
    pub target: Descriptor,
    pub created_at: Time,
    pub updated_at: Time,
    pub labels: BTreeMap<String, String>,
}

const COLUMNS: &str = "name, target, created_at, updated_at, labels";

fn from_row(row: &Row<'_>) -> rusqlite::Result<ImageRow> {
    let target: String = row.get(1)?;
    let time = |text: String| serde_json::from_str(&text).unwrap_or_default();
    Ok(ImageRow {
        name: row.get(0)?,
        target: serde_json::from_str(&target).map_err(|source| {
            rusqlite::Error::FromSqlConversionFailure(
                1,
                rusqlite::types::Type::Text,
                Box::new(source),
            )
        })?,
        created_at: time(row.get(2)?),
        updated_at: time(row.get(3)?),
        labels: serde_json::from_str(&row.get::<_, String>(4)?).unwrap_or_default(),
    })
}

fn image(namespace: &str, name: &str) -> Key {
    Key::Image { namespace: namespace.to_owned(), name: name.to_owned() }
}

impl Transaction<'_> {
    /// Stores a name; one that is there already moves to the new target, and keeps the time of its
    /// making and the labels that are not said anew: they are the name's, not the target's. Answers the
    /// digest that it stood for before.
    ///
    /// # Errors
    /// The store's own.
    pub fn put_image(&mut self, namespace: &str, row: &ImageRow) -> Result<Option<String>, Error> {
        let before: Option<(String, String)> = self
            .sql
            .prepare_cached("SELECT digest, labels FROM images WHERE namespace = ?1 AND name = ?2")?
            .query_row([namespace, &row.name], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        let (before, labels) = before.unzip();
        let mut labels: BTreeMap<String, String> =
            labels.and_then(|labels| serde_json::from_str(&labels).ok()).unwrap_or_default();
        labels.extend(row.labels.clone());
        self.sql
            .prepare_cached("INSERT OR IGNORE INTO namespaces (name) VALUES (?1)")?
            .execute([namespace])?;
        self.sql
            .prepare_cached(
                "INSERT INTO images (namespace, name, digest, target, created_at, updated_at, labels)
                 VALUES (?1, ?2, ?3, ?4, ?5, ?6, ?7)
                 ON CONFLICT (namespace, name) DO UPDATE SET digest = excluded.digest,
                 target = excluded.target, updated_at = excluded.updated_at, labels = excluded.labels",
            )?
            .execute(params![
                namespace,
                row.name,
                row.target.digest.as_str(),
                serde_json::to_string(&row.target)?,
                serde_json::to_string(&row.created_at)?,
                serde_json::to_string(&row.updated_at)?,
                serde_json::to_string(&labels)?
            ])?;
        self.touched.insert(image(namespace, &row.name));
        Ok(before)
    }

    /// The image of a name.
    ///
    /// # Errors
    /// The store's own.
    pub fn image(&mut self, namespace: &str, name: &str) -> Result<Option<ImageRow>, Error> {
        Ok(self
            .sql
            .prepare_cached(&format!(
                "SELECT {COLUMNS} FROM images WHERE namespace = ?1 AND name = ?2"
            ))?
            .query_row([namespace, name], from_row)
            .optional()?)
    }

    /// All images of a namespace, by name.
    ///
    /// # Errors
    /// The store's own.
    pub fn images(&mut self, namespace: &str) -> Result<Vec<ImageRow>, Error> {
        let mut statement = self.sql.prepare_cached(&format!(
            "SELECT {COLUMNS} FROM images WHERE namespace = ?1 ORDER BY name"
        ))?;
        let rows = statement.query_map([namespace], from_row)?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// The names of a namespace, each with the digest that it stands for: much less work than the rows.
    ///
    /// # Errors
    /// The store's own.
    pub fn image_targets(&mut self, namespace: &str) -> Result<Vec<(String, String)>, Error> {
        let mut statement = self
            .sql
            .prepare_cached("SELECT name, digest FROM images WHERE namespace = ?1 ORDER BY name")?;
        let rows = statement.query_map([namespace], |row| Ok((row.get(0)?, row.get(1)?)))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }

    /// Forgets a name; false when there was none.
    ///
    /// # Errors
    /// The store's own.
    pub fn remove_image(&mut self, namespace: &str, name: &str) -> Result<bool, Error> {
        let removed = self
            .sql
            .prepare_cached("DELETE FROM images WHERE namespace = ?1 AND name = ?2")?
            .execute([namespace, name])?;
        self.touched.insert(image(namespace, name));
        Ok(removed > 0)
    }

    /// Whether a name stands for this digest.
    ///
    /// # Errors
    /// The store's own.
    pub fn is_image_target(&mut self, namespace: &str, digest: &str) -> Result<bool, Error> {
        Ok(self
            .sql
            .prepare_cached("SELECT 1 FROM images WHERE namespace = ?1 AND digest = ?2")?
            .exists([namespace, digest])?)
    }

    /// Every namespace.
    ///
    /// # Errors
    /// The store's own.
    pub fn namespaces(&mut self) -> Result<Vec<String>, Error> {
        let mut statement = self.sql.prepare_cached("SELECT name FROM namespaces ORDER BY name")?;
        let rows = statement.query_map([], |row| row.get(0))?;
        Ok(rows.collect::<Result<Vec<_>, _>>()?)
    }
}
