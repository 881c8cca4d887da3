//! What a cache gives to a saved session, and takes from it: the tiles that the positions held have to be kept in.

use super::{Cache, GroupLayout, Growth};
use crate::device::{Held, TILE};
use crate::error::{Error, Result};

impl Cache {
    /// Bytes of a tile of a layer.
    pub(crate) fn tile_bytes(&self) -> usize {
        self.layout.groups.first().map_or(0, |group| group.pages.pool.shape().kv.tile_bytes())
    }

    /// The first tile of a layer that is held: before it a ring has only the pinned ones.
    pub(crate) fn first_tile(&self, layer: usize) -> usize {
        let group = &self.layout.groups[self.layout.of_layer[layer].0];
        match group.growth {
            Growth::Ring { positions, .. } => self.written.saturating_sub(positions).div_ceil(TILE),
            _ => 0,
        }
    }

    /// True if what follows `length` positions needs some of a layer that lie before the tile `first`.
    pub(crate) fn needs_before(&self, layer: usize, length: usize, first: usize) -> bool {
        match self.layout.groups[self.layout.of_layer[layer].0].growth {
            Growth::Ring { window, .. } => (length + 1).saturating_sub(window) < first * TILE,
            _ => first > 0,
        }
    }

    /// The tiles of a layer that have to be kept for the positions held: the pinned ones and those from the first on.
    pub(crate) fn held_tiles(&self, layer: usize, first: usize) -> impl Iterator<Item = usize> + use<> {
        let pinned = self.layout.groups[self.layout.of_layer[layer].0].places.pinned;
        let end = self.length.div_ceil(TILE);
        (0..pinned.min(first).min(end)).chain(first.min(end)..end)
    }

    /// Copies a tile of a layer in from elsewhere. Its positions are reserved.
    pub(crate) fn set_tile(&mut self, layer: usize, tile: usize, bytes: &[u8]) -> Result<()> {
        let (group, layer) = self.layout.of_layer[layer];
        let places = self.layout.groups[group].places;
        let pages = &mut self.groups[group];
        let place = places.of(tile, pages.len());
        let page = pages.get_mut(place / places.tiles).and_then(Held::get_mut);
        let target = page.and_then(|page| page.tiles_mut(layer).nth(place % places.tiles));
        target.ok_or_else(|| Error::internal("a tile that is not reserved is written to"))?.copy_from_slice(bytes);
        Ok(())
    }

    /// The first tile of a layer to be held of `length` positions, where there are those from tile `saved` on.
    pub(crate) fn first_of(&self, layer: usize, length: usize, saved: usize) -> usize {
        match self.layout.groups[self.layout.of_layer[layer].0].growth {
            Growth::Ring { positions, .. } => saved.max(length.div_ceil(TILE).saturating_sub(positions / TILE)),
            _ => saved,
        }
    }

    /// True if no layer has forgotten a position.
    pub(crate) fn is_whole(&self) -> bool {
        let places = |group: &GroupLayout| match group.growth {
            Growth::Ring { .. } => group.places.tiles * TILE,
            _ => usize::MAX,
        };
        self.layout.groups.iter().all(|group| self.written <= places(group))
    }

    /// Takes `length` positions as held, whose tiles were set, from the tiles `first` of each layer on.
    pub(crate) fn restore(&mut self, length: usize, first: &[usize]) {
        (self.length, self.written, self.restored) = (length, length, length > 0);
        for (layer, first) in first.iter().enumerate() {
            if let Growth::Ring { positions, .. } = self.layout.groups[self.layout.of_layer[layer].0].growth {
                self.written = self.written.max(first * TILE + positions);
            }
        }
    }
}
