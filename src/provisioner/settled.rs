//! What one daemon leaves for the next: that a PgBouncer was settled, in an annotation of the object.
//!
//! It is believed by the same build only, as long as what it says it saw is what is there. It is
//! sealed, because whoever may annotate the object could compute the number as well.

use kube::ResourceExt;
use serde_json::json;

use super::Provisioner;
use super::around::number;
use super::build_id::build_id;
use super::copies::Copies;
use super::memory::Ask;
use crate::api::PgBouncer;
use crate::api::annotations::SETTLED;
use crate::cluster::reference;
use crate::names::ObjectRef;
use crate::seal::{Kind, Seal};

/// What a daemon has found.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Note {
    /// What was asked, what was around it, and who looked.
    mark: u64,
    /// What the pods are to carry.
    digest: String,
}

impl Note {
    fn new(ask: &Ask, around: u64, digest: &str) -> Self {
        Self {
            mark: number(&(ask, around, build_id())),
            digest: digest.to_owned(),
        }
    }

    /// Reads a note about the object at `at`; `None` for one that does not carry its seal.
    fn parse(text: &str, at: &ObjectRef, seal: &Seal) -> Option<Self> {
        let (said, mark) = text.rsplit_once('/')?;
        let (number, digest) = said.split_once('/')?;
        let found = Self {
            mark: u64::from_str_radix(number, 16).ok()?,
            digest: digest.to_owned(),
        };
        let parts = [at.namespace.as_bytes(), at.name.as_bytes(), said.as_bytes()];
        seal.holds(Kind::Settled, &parts, mark).then_some(found)
    }

    fn text(&self, at: &ObjectRef, seal: &Seal) -> String {
        let said = format!("{:016x}/{}", self.mark, self.digest);
        let parts = [at.namespace.as_bytes(), at.name.as_bytes(), said.as_bytes()];
        let mark = seal.seal(Kind::Settled, &parts);
        format!("{said}/{mark}")
    }
}

impl Provisioner {
    /// Whether a daemon before this one has found the object settled, and nothing has changed since:
    /// then the digest that its pods are to carry.
    pub(super) fn was_settled(
        &self,
        bouncer: &PgBouncer,
        ask: &Ask,
        copies: &Copies,
    ) -> Option<String> {
        let at = reference(bouncer);
        if !self.memory.is_new(&at) {
            return None;
        }
        let text = bouncer.annotations().get(SETTLED)?;
        let found = Note::parse(text, &at, self.materials.seal()?)?;
        let changes = self.memory.changes(&at);
        let expected = Note::new(ask, copies.mark(bouncer)?, &found.digest);
        if expected != found {
            return None;
        }
        let digest = found.digest.clone();
        self.memory.settle(&at, ask.clone(), changes, found.digest);
        Some(digest)
    }

    /// Writes down that a full look, before which `around` was the mark, has left the object settled.
    /// Nothing depends on it.
    pub(super) async fn leave_word(
        &self,
        bouncer: &PgBouncer,
        digest: &str,
        around: Option<u64>,
        copies: &Copies,
    ) {
        // What has moved meanwhile is looked at again, and then does not.
        let Some(around) = around.filter(|_| around == copies.mark(bouncer)) else {
            return;
        };
        let Some(seal) = self.materials.seal() else {
            return;
        };
        let at = reference(bouncer);
        let text = Note::new(&Ask::of(bouncer), around, digest).text(&at, seal);
        if bouncer.annotations().get(SETTLED) == Some(&text) {
            return;
        }
        let patch = json!({ "metadata": { "annotations": { SETTLED: text } } });
        if let Err(error) = self.cluster.patch::<PgBouncer>(&at, &patch).await {
            let error = &error as &dyn std::error::Error;
            tracing::debug!(pgbouncer = %at, error, "not written down that it is settled");
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::blueprint::testing;

    #[test]
    fn a_note_is_read_as_it_was_written_and_says_who_asked_for_what() {
        let mut bouncer = testing::bouncer("billing");
        let note = Note::new(&Ask::of(&bouncer), 7, "d1");
        let (at, seal) = (reference(&bouncer), Seal::new(&[3; 32]).unwrap());
        let text = note.text(&at, &seal);
        assert_eq!(Note::parse(&text, &at, &seal), Some(note.clone()));
        let elsewhere = ObjectRef::new("team-b", &at.name);
        assert_eq!(Note::parse(&text, &elsewhere, &seal), None);
        let other = Seal::new(&[4; 32]).unwrap();
        assert_eq!(Note::parse(&text, &at, &other), None);
        // The form of a version that did not seal.
        assert_eq!(Note::parse("0000000000000007/d1", &at, &seal), None);
        assert_ne!(Note::new(&Ask::of(&bouncer), 8, "d1"), note);
        // The note itself is nothing that is asked for.
        bouncer.annotations_mut().insert(SETTLED.to_owned(), text);
        assert_eq!(Note::new(&Ask::of(&bouncer), 7, "d1"), note);
        bouncer.labels_mut().insert("team".into(), "books".into());
        assert_ne!(Note::new(&Ask::of(&bouncer), 7, "d1"), note);
        for strange in ["", "7", "seven/d1"] {
            assert_eq!(Note::parse(strange, &at, &seal), None);
        }
    }
}
