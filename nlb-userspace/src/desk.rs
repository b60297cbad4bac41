//! The desk: where the document lies, and where every change of it is judged and kept.
//!
//! The document is the base with the overlay on it. The base is what was declared last: the
//! configuration file, or a document that was applied in its place; an applied document counts
//! until the file is edited. A change becomes a [`Proposal`], which is judged whole and changes
//! nothing; [`Desk::keep`] makes it durable, [`Desk::adopt`] makes it the document.

use std::{
    collections::{BTreeMap, BTreeSet},
    fmt,
    path::{Path, PathBuf},
    sync::Arc,
};

use crate::{
    config::{self, Desired, Faults},
    document::{
        Document, DocumentError,
        changes::{self, PlannedChange},
        edit::{Edit, EditError, Named},
        overlay::{Delta, Dropped, Overlay},
        resource::ResourceId,
    },
    store::{Applied, Record, State, Store, StoreError},
};

/// What stands for a file's name in messages about a document that came over the API.
const THE_DOCUMENT: &str = "the configuration with this change";

/// What is wanted of the document.
#[derive(Clone, PartialEq)]
pub enum Intent {
    /// One resource is changed.
    Edit(Edit),
    /// The document is to say exactly this, in TOML; changes that came before are discarded.
    Apply(String),
    /// The configuration file is read again, and changes are laid over it.
    Reload,
}

impl fmt::Debug for Intent {
    /// A whole document may hold a secret.
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Edit(edit) => out.debug_tuple("Edit").field(edit).finish(),
            Self::Apply(_) => out.write_str("Apply(..)"),
            Self::Reload => out.write_str("Reload"),
        }
    }
}

/// Why a change is refused. Nothing has changed then.
#[derive(Debug, thiserror::Error)]
pub enum Refused {
    /// It cannot be made.
    #[error(transparent)]
    Edit(#[from] EditError),
    /// Its result has faults.
    #[error(transparent)]
    Config(#[from] Faults),
    /// Not a document.
    #[error("the document {0}")]
    Document(#[from] DocumentError),
    /// The document is another one than the condition says.
    #[error(
        "{what} has changed since it was read: its ETag is {now}; read it again and decide anew"
    )]
    Precondition {
        /// Of what.
        what: String,
        /// Its tag now.
        now: String,
    },
    /// It could not be kept.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// Under which condition a change may be made.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Condition {
    /// One of these tags, or `*` for any: `If-Match`.
    pub any_of: Option<Vec<String>>,
    /// It is not there yet: `If-None-Match: *`.
    pub absent: bool,
}

/// A change that was judged and may be made.
#[derive(Debug)]
pub struct Proposal {
    /// What the daemon is to bring about.
    pub desired: Desired,
    /// What will differ, for people.
    pub changes: Vec<PlannedChange>,
    /// Changes over the API that cannot be laid over the base any more.
    pub dropped: Vec<Dropped>,
    /// Changes over the API that an applied document discards.
    pub discarded: Vec<String>,
    /// What was edited.
    pub id: Option<ResourceId>,
    /// Whether targets differ, and nothing else does.
    pub only_targets: bool,
    base: Arc<Document>,
    document: Arc<Document>,
    record: Record,
}

/// What can be read: one state, however long it is looked at.
#[derive(Debug, Clone)]
pub struct View {
    /// The document, without secrets.
    pub document: Arc<Document>,
    /// How it differs from the base.
    pub overlay: Arc<Overlay>,
}

/// The document and where it is kept.
#[derive(Debug)]
pub struct Desk {
    file: PathBuf,
    base: Arc<Document>,
    document: Arc<Document>,
    view: View,
    state: State,
    store: Store,
}

impl View {
    /// The tag of a resource, or of the whole document: a hash of what it says. What is said again
    /// has its tag again, so a condition holds exactly if nothing that was read has changed.
    pub fn tag(&self, id: Option<&ResourceId>) -> Option<String> {
        let hash = match id {
            None => Document::hash(self.document.root()),
            Some(id) => Document::hash(self.document.get(id)?),
        };
        Some(format!("\"{hash:016x}\""))
    }

    /// The tags of a resource and of what it is in; its own count where both have one.
    pub fn tags(&self, id: &ResourceId) -> BTreeMap<String, String> {
        let mut tags = BTreeMap::new();
        for table in [self.document.get(&id.top()), self.document.get(id)] {
            let said = table.and_then(|table| table.get("tags")?.as_object());
            for (key, value) in said.into_iter().flatten() {
                let value = value.as_str().unwrap_or_default();
                tags.insert(key.clone(), value.to_owned());
            }
        }
        tags
    }
}

impl Desk {
    /// Reads a configuration file and lays what was changed before over it. The notes say what
    /// became of those changes.
    pub fn open(file: &Path) -> Result<(Self, Desired, Vec<String>), OpenError> {
        let (text, alone) = config::load_text(file)?;
        let (store, state, cut) = Store::open(&alone.node.state_directory)?;
        let mut notes = Vec::new();
        if cut > 0 {
            notes.push(format!(
                "{cut} bytes of a write that was never acknowledged were cut off the journal in {}",
                alone.node.state_directory.display()
            ));
        }
        let empty = Arc::new(Document::default());
        let mut desk = Self {
            file: file.to_owned(),
            base: Arc::clone(&empty),
            view: View {
                document: Arc::clone(&empty),
                overlay: Arc::default(),
            },
            document: empty,
            state,
            store,
        };
        let proposal = desk.laid_over(&text, alone)?;
        notes.extend(proposal.dropped.iter().map(|dropped| {
            format!(
                "{} that was {} over the API is no more: {}",
                dropped.resource, dropped.change, dropped.reason
            )
        }));
        notes.extend(proposal.discarded.iter().map(|what| {
            format!("{what} that was set over the API is discarded: the file was edited since")
        }));
        if let Err(error) = desk.keep(&proposal) {
            // What was dropped is dropped again next time.
            notes.push(error.to_string());
        }
        let desired = desk.adopt(proposal);
        if !desk.state.overlay.is_empty() {
            let count = desk.state.overlay.len();
            notes.push(format!(
                "{count} changes over the API are laid over the file"
            ));
        }
        Ok((desk, desired, notes))
    }

    /// What can be read now.
    pub fn view(&self) -> View {
        self.view.clone()
    }

    /// Judges a change.
    pub fn propose(&self, intent: &Intent, condition: &Condition) -> Result<Proposal, Refused> {
        self.check(intent, condition)?;
        match intent {
            Intent::Edit(edit) => self.edited(edit),
            Intent::Apply(text) => self.applied(text),
            Intent::Reload => {
                let (text, alone) = config::load_text(&self.file)?;
                self.laid_over(&text, alone)
            }
        }
    }

    /// Makes a change durable.
    pub fn keep(&mut self, proposal: &Proposal) -> Result<(), StoreError> {
        if proposal.record.is_empty() {
            return Ok(());
        }
        let mut state = self.state.clone();
        state.take(proposal.record.clone());
        self.store.keep(&proposal.record, &state)?;
        self.state = state;
        Ok(())
    }

    /// Makes a change that was kept the document.
    pub fn adopt(&mut self, proposal: Proposal) -> Desired {
        self.base = proposal.base;
        self.document = proposal.document;
        self.view = View {
            document: if self.document.has_secret() {
                Arc::new(self.document.shown())
            } else {
                Arc::clone(&self.document)
            },
            overlay: Arc::new(self.state.overlay.clone()),
        };
        proposal.desired
    }

    fn check(&self, intent: &Intent, condition: &Condition) -> Result<(), Refused> {
        let subject = match intent {
            Intent::Edit(edit) => edit.subject(),
            Intent::Apply(_) | Intent::Reload => None,
        };
        let id = subject
            .as_ref()
            .map(|named: &Named| named.id(&self.document))
            .transpose()?;
        let what = || {
            id.as_ref()
                .map_or("the document".to_owned(), ToString::to_string)
        };
        let now = self.view.tag(id.as_ref());
        if let Some(tags) = &condition.any_of {
            let holds = now.as_ref().is_some_and(|now| {
                tags.iter()
                    .any(|tag| tag == "*" || tag.trim_start_matches("W/") == now)
            });
            if !holds {
                return Err(Refused::Precondition {
                    what: what(),
                    now: now.unwrap_or_else(|| "none, for it is not there".to_owned()),
                });
            }
        }
        // What is added must not be there anyway.
        let is_added = matches!(intent, Intent::Edit(Edit::Add { .. }));
        if condition.absent
            && !is_added
            && let (Some(id), Some(_)) = (&id, &now)
        {
            return Err(EditError::Exists(id.clone()).into());
        }
        Ok(())
    }

    fn edited(&self, edit: &Edit) -> Result<Proposal, Refused> {
        let (mut document, id) = self.document.edited(edit)?;
        document.restore_secrets(&self.document);
        let desired = config::parse(THE_DOCUMENT, &document.to_toml()?)?;
        let tops: Vec<ResourceId> = match (&id, edit.subject()) {
            (Some(id), _) => vec![id.top()],
            (None, Some(subject)) => vec![subject.id(&document)?.top()],
            (None, None) => Vec::new(),
        };
        let record = Record {
            applied: None,
            delta: self.state.overlay.follow(&self.base, &document, &tops),
        };
        let changes = changes::of_tops(&self.document, &document, &tops);
        Ok(Proposal {
            desired,
            only_targets: (changes.iter()).all(|change| change.resource.contains("/target/")),
            changes,
            dropped: Vec::new(),
            discarded: Vec::new(),
            id,
            base: Arc::clone(&self.base),
            document: Arc::new(document),
            record,
        })
    }

    /// The document is to be exactly this.
    fn applied(&self, text: &str) -> Result<Proposal, Refused> {
        let mut document = match Document::from_toml(text) {
            Ok(document) => document,
            // What is wrong with it is said as it is of a file.
            Err(error) => {
                config::parse(THE_DOCUMENT, text)?;
                return Err(error.into());
            }
        };
        let given = document.clone();
        document.restore_secrets(&self.document);
        let text = if document == given {
            text.to_owned()
        } else {
            document.to_toml()?
        };
        let desired = config::parse(THE_DOCUMENT, &text)?;
        // The file itself, applied, is the file.
        let applied = match config::load_text(&self.file) {
            Ok((file, _)) if Document::from_toml(&file)? == document => None,
            Ok((file, _)) => Some(Applied {
                text,
                file_hash: Document::hash(&file),
            }),
            Err(_) => Some(Applied { text, file_hash: 0 }),
        };
        let document = Arc::new(document);
        Ok(Proposal {
            desired,
            changes: changes::of_all(&self.document, &document),
            dropped: Vec::new(),
            discarded: self.overlaid(),
            id: None,
            only_targets: false,
            base: Arc::clone(&document),
            document,
            record: self.record(applied, &Overlay::default()),
        })
    }

    /// The base, read anew, with the overlay on it.
    fn laid_over(&self, file: &str, alone: Desired) -> Result<Proposal, Refused> {
        let applied = (self.state.applied.clone())
            .filter(|applied| applied.file_hash == Document::hash(&file));
        let is_superseded = self.state.applied.is_some() && applied.is_none();
        let base = match &applied {
            Some(applied) => Document::from_toml(&applied.text)?,
            None => Document::from_toml(file)?,
        };
        let base = Arc::new(base);
        let (document, overlay, dropped) = if self.state.overlay.is_empty() {
            (Arc::clone(&base), Overlay::default(), Vec::new())
        } else {
            let laid = self.state.overlay.lay(&base, judge);
            (Arc::new(laid.document), laid.overlay, laid.dropped)
        };
        // Messages about the file alone have the file's lines.
        let desired = if applied.is_none() && overlay.is_empty() {
            alone
        } else {
            config::parse(THE_DOCUMENT, &document.to_toml()?)?
        };
        Ok(Proposal {
            desired,
            changes: changes::of_all(&self.document, &document),
            dropped,
            discarded: is_superseded
                .then(|| "the document that was applied".to_owned())
                .into_iter()
                .collect(),
            id: None,
            only_targets: false,
            base,
            document,
            record: self.record(applied, &overlay),
        })
    }

    /// What leads from the state that is kept to this one.
    fn record(&self, applied: Option<Applied>, overlay: &Overlay) -> Record {
        let wanted = overlay.entries();
        let known = self.state.overlay.entries();
        let ids: BTreeSet<_> = known.keys().chain(wanted.keys()).collect();
        let delta: Delta = ids
            .into_iter()
            .filter(|id| known.get(id) != wanted.get(id))
            .map(|id| (id.clone(), wanted.get(id).cloned()))
            .collect();
        Record {
            applied: (applied != self.state.applied).then_some(applied),
            delta,
        }
    }

    /// What differs from the base, for people.
    fn overlaid(&self) -> Vec<String> {
        let entries = self.state.overlay.iter();
        entries.map(|(id, _)| id.to_string()).collect()
    }
}

/// Why a document is no configuration, in its first fault.
fn judge(document: &Document) -> Result<(), String> {
    let text = document.to_toml().map_err(|error| error.to_string())?;
    match config::parse(THE_DOCUMENT, &text) {
        Ok(_) => Ok(()),
        Err(faults) => Err(faults.iter().next().map_or_else(String::new, |fault| {
            format!("{} {}; {}", fault.field, fault.problem, fault.remedy)
        })),
    }
}

/// Why a daemon has no document.
#[derive(Debug, thiserror::Error)]
pub enum OpenError {
    /// The configuration file has faults.
    #[error(transparent)]
    Config(#[from] Faults),
    /// What was kept cannot be read.
    #[error(transparent)]
    Store(#[from] StoreError),
    /// What was kept cannot be laid over the file.
    #[error("what was changed over the API: {0}")]
    Kept(#[from] Refused),
}

#[cfg(test)]
#[path = "desk_tests.rs"]
mod tests;
