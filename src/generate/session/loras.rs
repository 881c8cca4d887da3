//! The adapters of a session.

use std::sync::Arc;

use super::Session;
use crate::error::Result;
use crate::model::Lora;

impl Session {
    /// Adds an adapter with a scale: from now on the model's products are those of W + s B A, with s = scale * alpha /
    /// R. Several add up in the order in which they were added, the same twice too; one of scale 0 does nothing. The
    /// model and its other sessions are not changed.
    ///
    /// # Errors
    /// `FailedPrecondition` if the session holds tokens: their keys and values are those of the adapters before;
    /// `InvalidArgument` for a scale that is not finite, or an adapter of another model.
    pub fn add_lora(&mut self, lora: Arc<Lora>, scale: f32) -> Result<()> {
        self.check_empty("adding an adapter")?;
        lora.check(&self.model, scale)?;
        self.adapters.push((lora, scale));
        Ok(())
    }

    /// Removes all adapters; results are then those of the model alone, bit for bit.
    ///
    /// # Errors
    /// `FailedPrecondition` if the session holds tokens.
    pub fn clear_loras(&mut self) -> Result<()> {
        self.check_empty("removing adapters")?;
        self.adapters.clear();
        Ok(())
    }
}
