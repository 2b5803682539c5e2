//! From the files of databases to sorted rows: the canonical form.

use std::sync::Arc;

use crate::durability::savepoint::{BACKEND_CANONICAL, BACKEND_NONE, ChunkWriter, Form, Part, Savepoint};
use crate::durability::snapshot::{ContentHash, StoredFile};
use crate::ids::StoreId;
use crate::state::StateBackend;

use crate::worker::assemble_savepoint;

use super::archive::damaged;
use super::create::Creation;
use super::error::SavepointError;
use super::load::{Scratch, fetch};
use super::restore::OriginTask;
use super::rows::{Rows, for_each_batch};

impl Creation {
    /// Makes the rows of a savepoint of form canonical, all of whose native parts are stored, and with them the savepoint. `seen` is told of each
    /// task that is done.
    ///
    /// # Errors
    /// [`SavepointError`]: the savepoint is not complete then.
    pub fn convert(&self, scratch: &dyn Scratch, seen: &mut dyn FnMut(&Part)) -> Result<Savepoint, SavepointError> {
        let census = self
            .census()?
            .ok_or_else(|| damaged(&self.request.folder().census(), "it is gone"))?;
        let native = assemble_savepoint(&**self.store(), &self.request, &census, self.now_ms())?;
        let mut parts = Vec::new();
        for part in &native.parts {
            parts.push(self.convert_part(part, scratch)?);
            seen(part);
        }
        let savepoint = Savepoint {
            form: Form::Canonical,
            made_ms: self.now_ms(),
            parts,
            ..native.clone()
        };
        let (store, object) = (self.store(), self.request.name.document());
        store.create(&object, &savepoint.to_json())?;
        if store.read(&object)? != savepoint.to_json() {
            return Err(damaged(&object, "it was read back otherwise than it was written"));
        }
        let folder = self.request.name.folder();
        let native: Vec<String> = native
            .objects()
            .into_iter()
            .map(|object| format!("{folder}{object}"))
            .collect();
        if !native.is_empty() {
            store.delete(&native)?;
        }
        Ok(savepoint)
    }

    fn convert_part(&self, part: &Part, scratch: &dyn Scratch) -> Result<Part, SavepointError> {
        if part.backend == BACKEND_NONE {
            return Ok(part.clone());
        }
        let origin = OriginTask::of_part(part, self.request.name.folder());
        let databases = scratch.databases(&part.backend)?;
        databases.clear(part.task)?;
        let backend = fetch(&**self.store(), &origin, &*databases)?;
        let mut files = Vec::new();
        for index in 0..part.stores.len() {
            self.write_rows(part, index, &backend, &mut files)?;
        }
        drop(backend);
        databases.clear(part.task)?;
        Ok(Part {
            backend: BACKEND_CANONICAL.to_owned(),
            files,
            ..part.clone()
        })
    }

    fn write_rows(
        &self,
        part: &Part,
        store: usize,
        backend: &Arc<dyn StateBackend>,
        files: &mut Vec<StoredFile>,
    ) -> Result<(), SavepointError> {
        let spec = &part.stores[store];
        let mut writer = ChunkWriter::new(spec);
        let mut number = 0;
        let mut take = |rows: Rows| -> Result<(), SavepointError> {
            for (key, value) in &rows.rows {
                if writer.push(key, value) {
                    let full = std::mem::replace(&mut writer, ChunkWriter::new(spec));
                    files.push(self.write_chunk(part, &format!("{store}-{number}.tgc"), full)?);
                    number += 1;
                }
            }
            Ok(())
        };
        for_each_batch(backend, StoreId(store as u16), &mut take)?;
        if !writer.is_empty() {
            files.push(self.write_chunk(part, &format!("{store}-{number}.tgc"), writer)?);
        }
        Ok(())
    }

    fn write_chunk(&self, part: &Part, name: &str, writer: ChunkWriter) -> Result<StoredFile, SavepointError> {
        let bytes = writer.finish();
        let relative = self.request.folder().file(part.task, name);
        let object = format!("{}{relative}", self.request.name.folder());
        self.store().create(&object, &bytes)?;
        if self.store().read(&object)? != bytes {
            return Err(damaged(&object, "it was read back otherwise than it was written"));
        }
        Ok(StoredFile {
            name: name.to_owned(),
            bytes: bytes.len() as u64,
            immutable: true,
            hash: ContentHash::of(&bytes),
            object: relative,
            offset: 0,
        })
    }
}
