//! The op `linear`: y = s W x + b for several matrices that share their input, in one stage.

use std::ops::Range;

use super::act::Act;
use super::packed::ROWS;
use super::threads::Columns;
use super::weight::Weight;
use super::{Buffer, Device};

/// Bytes of a chunk's panels at most where they are read again, for each tile of columns, or the panels that are multiplied
/// together: they are to stay in the second cache.
const RESIDENT: usize = 192 << 10;

/// What one chunk of the stage computes: some panels of one matrix, for all columns.
pub(super) struct Job<'a> {
    pub weight: &'a Weight,
    pub bias: Option<&'a [f32]>,
    pub panels: Range<usize>,
    pub act: &'a Act,
    /// The rows of act that the matrix is for.
    pub group: usize,
    /// Take the activations in 16 bits.
    pub fine: bool,
    out: &'a Columns<'a>,
}

impl Job<'_> {
    /// The tiles of the columns: (first, width).
    pub(super) fn tiles(&self) -> impl Iterator<Item = (usize, usize)> + use<> {
        self.act.tiles(self.group)
    }

    /// The bytes of the panels from `p` on, as they are packed.
    pub(super) fn packed_from(&self, p: usize) -> std::slice::ChunksExact<'_, u8> {
        self.weight.panels_from(p).chunks_exact(self.weight.shape().panel_bytes())
    }

    /// Stores the rows of panel `p` for the columns (tokens) from `start` on, once they are scaled and have the bias added, in
    /// their place.
    #[allow(unsafe_code)]
    #[inline(always)]
    pub(super) fn write(&self, p: usize, start: usize, tile: &mut [[f32; ROWS]]) {
        assert!(self.panels.contains(&p));
        let first = p * ROWS;
        let rows = ROWS.min(self.weight.shape().rows - first);
        let scale = self.weight.scale();
        if scale != 1.0 {
            tile.as_flattened_mut().iter_mut().for_each(|value| *value *= scale);
        }
        if let Some(bias) = self.bias {
            for values in tile.iter_mut() {
                for (value, bias) in values.iter_mut().zip(&bias[first..first + rows]) {
                    *value += bias;
                }
            }
        }
        // SAFETY: panel `p` is one of this job's, as checked above; other jobs of the matrix have other panels, and those of
        // other matrices other outputs or, for other groups, other columns.
        unsafe { self.out.write(start, first, tile, rows) };
    }
}

/// One of the matrices of a `linear`: y = s W x + b, where s is the weight's scale.
pub(crate) struct Product<'a> {
    /// (n, D) weights.
    pub weight: &'a Weight,
    /// (n) bias.
    pub bias: Option<&'a [f32]>,
    /// Take the activations in 16 bits, which `act` must have, instead of 8. Nothing to float weights.
    pub fine: bool,
    /// (T, n) result; resized.
    pub out: &'a mut Buffer,
}

/// One of several matrices that a tensor holds, with its bias: an expert's, or a head's.
#[derive(Debug)]
pub(crate) struct Matrix {
    /// (n, D)
    pub weight: Weight,
    /// (n)
    pub bias: Option<Vec<f32>>,
}

/// As [`Product`], in 8 bits, with a matrix of its own for each group of rows of act.
pub(crate) struct GroupProduct<'a> {
    /// One for each group, all of the same n.
    pub matrices: &'a [Matrix],
    /// (T, n) result; resized.
    pub out: &'a mut Buffer,
}

impl Device {
    /// Each product's out = W act + b. act is (T, D), W (n, D), out (T, n).
    pub(crate) fn linear<const N: usize>(&self, act: &Act, products: [Product<'_>; N]) -> crate::Result<()> {
        self.linear_each(products.into_iter().map(|product| (act, product)).collect())
    }

    /// The rows `rows` of a product, from a multiple of 16 on; the others of its result stay.
    pub(crate) fn linear_rows(&self, act: &Act, product: Product<'_>, rows: Range<usize>) -> crate::Result<()> {
        let Product { weight, bias, fine, out } = product;
        let n = weight.shape().rows;
        assert!(rows.start.is_multiple_of(ROWS) && rows.end <= n);
        out.reset(act.rows(), n)?;
        let (panels, out) = (rows.start / ROWS..rows.end.div_ceil(ROWS), &Columns::new(out.data_mut(), n));
        self.run_jobs(&[Job { weight, bias, panels, act, group: 0, fine, out }]);
        Ok(())
    }

    /// As `linear`, each product with an act of its own; still one stage.
    pub(crate) fn linear_each(&self, products: Vec<(&Act, Product<'_>)>) -> crate::Result<()> {
        let mut matrices = Vec::with_capacity(products.len());
        for (act, product) in products {
            let rows = product.weight.shape().rows;
            product.out.reset(act.rows(), rows)?;
            let out = Columns::new(product.out.data_mut(), rows);
            matrices.push((act, product.weight, product.bias, product.fine, out));
        }
        let whole = matrices.iter().map(|(act, weight, bias, fine, out)| {
            let panels = 0..weight.shape().panels();
            Job { weight, bias: *bias, panels, act, group: 0, fine: *fine, out }
        });
        self.run_jobs(&whole.collect::<Vec<_>>());
        Ok(())
    }

    /// Runs jobs of whole matrices in one stage, each cut into chunks of panels.
    fn run_jobs(&self, whole: &[Job<'_>]) {
        let total: usize = whole.iter().map(|job| job.panels.len()).sum();
        // Enough chunks that a thread which comes late finds some to take; not so many that taking them costs.
        let size = total.div_ceil(self.threads.count() * 8).max(1);
        let mut jobs = Vec::with_capacity(total.div_ceil(size) + whole.len());
        for job in whole {
            debug_assert_eq!(job.weight.shape().columns, job.act.width());
            let end = job.panels.end;
            let resident = (RESIDENT / job.weight.shape().panel_bytes().max(1)).max(1);
            // Floats are not unpacked, so that none of their panels go together.
            let together = if job.weight.takes_blocks() { self.kernels.together } else { 1 };
            let whole_groups = |size: usize| (size / together).max(1) * together;
            let size = if job.tiles().nth(1).is_some() { whole_groups(size.min(resident)) } else { size };
            let chunks = job.panels.clone().step_by(size);
            jobs.extend(chunks.map(|start| Job { panels: start..end.min(start + size), ..*job }));
        }
        self.threads.run(jobs.len(), |i| (self.kernels.linear)(&jobs[i]));
    }

    /// Each product's out = W act + b, where W and b are those of the row's group. act is (T, D), out (T, n). Matrices of
    /// groups without rows are not touched.
    pub(crate) fn linear_groups<const N: usize>(
        &self,
        act: &Act,
        products: [GroupProduct<'_>; N],
    ) -> crate::Result<()> {
        let groups: Vec<usize> = (0..act.groups()).filter(|&group| act.tiles(group).next().is_some()).collect();
        let mut outs = Vec::with_capacity(N);
        for product in products {
            let n = product.matrices.first().map_or(0, |matrix| matrix.weight.shape().rows);
            product.out.reset(act.rows(), n)?;
            outs.push((product.matrices, Columns::new(product.out.data_mut(), n)));
        }
        let mut whole = Vec::with_capacity(groups.len() * N);
        for &group in &groups {
            for (matrices, out) in &outs {
                let Matrix { weight, bias } = &matrices[group];
                let panels = 0..weight.shape().panels();
                whole.push(Job { weight, bias: bias.as_deref(), panels, act, group, fine: false, out });
            }
        }
        self.run_jobs(&whole);
        Ok(())
    }
}
