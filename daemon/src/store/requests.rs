//! Request ids: what makes a repeated call safe.

use rusqlite::{OptionalExtension, params};

use super::{Error, Transaction};

/// How many answers are kept.
const KEPT: i64 = 10_000;

/// What the store knows of a request id.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Repeated {
    /// Not seen before.
    New,
    /// The same body was answered with this.
    Same(String),
    /// It was used for another body.
    Different,
}

impl Transaction<'_> {
    /// Looks a request up by its id and a digest of its body.
    ///
    /// # Errors
    /// The store's own.
    pub fn request(&mut self, namespace: &str, id: &str, body: &str) -> Result<Repeated, Error> {
        if id.is_empty() {
            return Ok(Repeated::New);
        }
        let known: Option<(String, String)> = self
            .sql
            .prepare_cached(
                "SELECT body, answer FROM requests WHERE namespace = ?1 AND request_id = ?2",
            )?
            .query_row(params![namespace, id], |row| Ok((row.get(0)?, row.get(1)?)))
            .optional()?;
        Ok(match known {
            None => Repeated::New,
            Some((known, answer)) if known == body => Repeated::Same(answer),
            Some(_) => Repeated::Different,
        })
    }

    /// Stores the answer to a request.
    ///
    /// # Errors
    /// The store's own.
    pub fn answered(
        &mut self,
        namespace: &str,
        id: &str,
        body: &str,
        answer: &str,
    ) -> Result<(), Error> {
        if id.is_empty() {
            return Ok(());
        }
        self.sql
            .prepare_cached(
                "INSERT OR REPLACE INTO requests (namespace, request_id, body, answer, sequence)
                 VALUES (?1, ?2, ?3, ?4, (SELECT coalesce(max(sequence), 0) + 1 FROM requests))",
            )?
            .execute(params![namespace, id, body, answer])?;
        self.sql
            .prepare_cached(
                "DELETE FROM requests
                 WHERE sequence <= (SELECT max(sequence) FROM requests) - ?1",
            )?
            .execute([KEPT])?;
        Ok(())
    }

    /// Forgets a request whose effect was undone, so that it may be tried again.
    ///
    /// # Errors
    /// The store's own.
    pub fn forget_request(&mut self, namespace: &str, id: &str) -> Result<(), Error> {
        self.sql
            .prepare_cached("DELETE FROM requests WHERE namespace = ?1 AND request_id = ?2")?
            .execute(params![namespace, id])?;
        Ok(())
    }
}
