//! The adapters of a session.

use std::sync::Arc;

use super::Session;
use crate::error::{Error, Result};
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
        if !scale.is_finite() {
            return Err(Error::invalid_argument(format!("an adapter's scale is {scale}")).with("scale", scale));
        }
        if !lora.fits(&self.model) {
            return Err(Error::invalid_argument("the adapter was loaded for another model"));
        }
        self.scratch.adapters.add(lora, scale);
        Ok(())
    }

    /// Removes all adapters; results are then those of the model alone, bit for bit.
    ///
    /// # Errors
    /// `FailedPrecondition` if the session holds tokens.
    pub fn clear_loras(&mut self) -> Result<()> {
        self.check_empty("removing adapters")?;
        self.scratch.adapters.clear();
        Ok(())
    }
}
