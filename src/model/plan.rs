//! Where a model's tensors go in memory, and their packing.

use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::weights::Projection;
use crate::cancel::Cancel;
use crate::device::{Arena, PANEL_ROWS, Shape, Threads, Weight};
use crate::error::{Error, Result};
use crate::gguf::{Gguf, TensorInfo};

/// A matrix in the order of the arena: rows of a tensor of the file.
struct Placement<'a> {
    tensor: &'a TensorInfo,
    first_row: usize,
    shape: Shape,
}

/// What a projection is in its file: rows of a tensor.
#[derive(Debug, PartialEq, Eq)]
pub(crate) struct Slot {
    /// The tensor's name.
    pub tensor: String,
    /// The rows of the tensor.
    pub rows: Range<usize>,
    /// Inputs.
    pub columns: usize,
}

/// The layout of a model's weights in memory, made from the file's tensor list alone: nothing is read or allocated
/// in proportion to the weights before `load`.
pub(crate) struct Plan<'a> {
    gguf: &'a Gguf,
    arena: Arc<Arena>,
    matrices: Vec<Placement<'a>>,
    slots: Vec<Slot>,
    bytes: usize,
    parameters: u64,
}

impl<'a> Plan<'a> {
    /// An empty plan.
    pub(crate) fn new(gguf: &'a Gguf) -> Self {
        Plan { gguf, arena: Arc::default(), matrices: Vec::new(), slots: Vec::new(), bytes: 0, parameters: 0 }
    }

    /// Bytes of the packed weights.
    pub(crate) fn bytes(&self) -> usize {
        self.bytes
    }

    /// Numbers in the tensors that were laid out.
    pub(crate) fn parameters(&self) -> u64 {
        self.parameters
    }

    /// What the projections are in the file, by their index; leaves nothing.
    pub(crate) fn take_slots(&mut self) -> Vec<Slot> {
        std::mem::take(&mut self.slots)
    }

    /// True if the file has the tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.gguf.tensor(name).is_some()
    }

    fn find(&self, name: &str) -> Result<&'a TensorInfo> {
        self.gguf.tensor(name).ok_or_else(|| {
            Error::corrupt_file(format!("the tensor {name} is missing"))
                .with("tensor", name)
                .with("path", self.gguf.name())
        })
    }

    /// Counts the tensor's parameters and checks its shape: (rows, columns), or (columns) with `rows` 1.
    fn check(&mut self, tensor: &TensorInfo, rows: usize, columns: usize) -> Result<()> {
        self.parameters += tensor.elements() as u64;
        if tensor.row_len() == columns && tensor.rows() == rows {
            return Ok(());
        }
        let (name, found) = (&tensor.name, format!("{} x {}", tensor.rows(), tensor.row_len()));
        let expected = format!("{rows} x {columns}");
        Err(Error::corrupt_file(format!("the tensor {name} has the shape {found}, but must have {expected}"))
            .with("tensor", name)
            .with("expected", expected)
            .with("found", found))
    }

    /// The (rows, columns) matrix of a tensor.
    pub(crate) fn matrix(&mut self, name: &str, rows: usize, columns: usize) -> Result<Weight> {
        let [weight] = self.matrices(name, [rows], columns)?;
        Ok(weight)
    }

    /// The matrices of a tensor that holds several, one below the other; `rows` are those of each.
    fn matrices<const N: usize>(&mut self, name: &str, rows: [usize; N], columns: usize) -> Result<[Weight; N]> {
        let tensor = self.find(name)?;
        let too_large = || {
            let message = format!("the tensor {name} is too large for this machine's addresses");
            Error::out_of_memory(message).with("tensor", name)
        };
        let total = rows.iter().try_fold(0usize, |sum, n| sum.checked_add(*n)).ok_or_else(too_large)?;
        self.check(tensor, total, columns)?;
        let format = tensor.format()?;
        let mut first_row = 0;
        let mut weights = Vec::with_capacity(N);
        for rows in rows {
            let shape = Shape { format, rows, columns };
            weights.push(Weight::new(shape, Arc::clone(&self.arena), self.bytes));
            self.matrices.push(Placement { tensor, first_row, shape });
            self.bytes = shape.packed_bytes().and_then(|n| self.bytes.checked_add(n)).ok_or_else(too_large)?;
            first_row += rows;
        }
        weights.try_into().map_err(|_| Error::internal("a matrix was lost"))
    }

    /// `<name>.weight` (rows, columns) and, if there is one, `<name>.bias` (rows).
    pub(crate) fn projection(&mut self, name: &str, rows: usize, columns: usize) -> Result<Projection> {
        let [projection] = self.projections(name, [rows], columns)?;
        Ok(projection)
    }

    /// Projections that share a tensor, one below the other.
    pub(crate) fn projections<const N: usize>(
        &mut self,
        name: &str,
        rows: [usize; N],
        columns: usize,
    ) -> Result<[Projection; N]> {
        let weights = self.matrices(&format!("{name}.weight"), rows, columns)?;
        let bias = self.optional_vector(&format!("{name}.bias"), rows.iter().sum())?;
        let mut start = 0;
        Ok(weights.map(|weight| {
            let own: Range<usize> = start..start + weight.shape().rows;
            start = own.end;
            let bias = bias.as_ref().map(|bias| bias[own.clone()].to_vec());
            self.slot(&format!("{name}.weight"), own, weight, bias)
        }))
    }

    /// The projection by a matrix that is laid out: the rows `rows` of a tensor, by the name that adapters know it by.
    pub(crate) fn slot(
        &mut self,
        tensor: &str,
        rows: Range<usize>,
        weight: Weight,
        bias: Option<Vec<f32>>,
    ) -> Projection {
        let columns = weight.shape().columns;
        self.slots.push(Slot { tensor: tensor.to_owned(), rows, columns });
        Projection { index: self.slots.len() - 1, weight, bias }
    }

    /// A vector of n numbers, read at once.
    pub(crate) fn vector(&mut self, name: &str, n: usize) -> Result<Vec<f32>> {
        let tensor = self.find(name)?;
        self.check(tensor, 1, n)?;
        self.gguf.decode(tensor)
    }

    /// The vector, if the file has it.
    pub(crate) fn optional_vector(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        if self.has(name) { self.vector(name, n).map(Some) } else { Ok(None) }
    }

    /// Reads and packs the matrices, on all threads. `progress` gets the bytes done and in all, on this thread, and
    /// may break off.
    pub(crate) fn load(
        self,
        threads: &Threads,
        cancel: &Cancel,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<()> {
        let mut memory = Arena::allocate(self.bytes)?;
        let total = self.matrices.iter().map(|m| (m.shape.rows * m.shape.row_bytes()) as u64).sum();
        let mut stripes = self.stripes(&mut memory).into_iter();
        let mut done = 0;
        loop {
            cancel.check("loading the model")?;
            if progress(done, total).is_break() {
                return Err(Error::aborted("the progress callback stopped the loading of the model"));
            }
            let batch: Vec<Stripe<'_>> = stripes.by_ref().take(BATCH).collect();
            if batch.is_empty() {
                break;
            }
            done += batch.iter().map(|stripe| stripe.file_bytes() as u64).sum::<u64>();
            threads.try_each(batch, |stripe| {
                cancel.check("loading the model")?;
                stripe.pack(self.gguf)
            })?;
        }
        drop(stripes);
        self.arena.fill(memory)
    }

    /// Cuts the matrices into stripes of whole panels.
    fn stripes<'m>(&self, mut memory: &'m mut [u8]) -> Vec<Stripe<'m>>
    where
        'a: 'm,
    {
        let mut all = Vec::new();
        for placement in &self.matrices {
            let shape = placement.shape;
            let whole = shape.panels() * shape.panel_bytes();
            let (own, rest) = memory.split_at_mut(shape.packed_bytes().unwrap_or(whole));
            memory = rest;
            if whole == 0 {
                continue;
            }
            let panels = (STRIPE / (PANEL_ROWS * shape.row_bytes()).max(1)).max(1);
            for (i, out) in own[..whole].chunks_mut(panels * shape.panel_bytes()).enumerate() {
                all.push(Stripe {
                    tensor: placement.tensor,
                    shape,
                    first_row: i * panels * PANEL_ROWS,
                    offset_rows: placement.first_row,
                    out,
                });
            }
        }
        all
    }
}

/// Bytes of the file that a thread packs at a time.
const STRIPE: usize = 1 << 20;
/// Stripes between two looks at progress.
const BATCH: usize = 16;

/// Consecutive panels of a matrix.
struct Stripe<'m> {
    tensor: &'m TensorInfo,
    shape: Shape,
    /// Of the matrix, and of the matrix in the tensor.
    first_row: usize,
    offset_rows: usize,
    out: &'m mut [u8],
}

thread_local! {
    /// A stripe's bytes as the file has them.
    static BYTES: std::cell::RefCell<Vec<u8>> = const { std::cell::RefCell::new(Vec::new()) };
}

impl Stripe<'_> {
    fn rows(&self) -> usize {
        let panels = self.out.len() / self.shape.panel_bytes();
        (panels * PANEL_ROWS).min(self.shape.rows - self.first_row)
    }

    fn file_bytes(&self) -> usize {
        self.rows() * self.shape.row_bytes()
    }

    fn pack(self, gguf: &Gguf) -> Result<()> {
        BYTES.with_borrow_mut(|bytes| {
            let n = self.file_bytes();
            bytes.clear();
            bytes.try_reserve_exact(n).map_err(|_| {
                Error::out_of_memory(format!("a buffer of {n} bytes cannot be had")).with("tensor", &self.tensor.name)
            })?;
            bytes.resize(n, 0);
            gguf.read(self.tensor, ((self.offset_rows + self.first_row) * self.shape.row_bytes()) as u64, bytes)?;
            let rows = bytes.chunks(PANEL_ROWS * self.shape.row_bytes());
            for (rows, panel) in rows.zip(self.out.chunks_exact_mut(self.shape.panel_bytes())) {
                self.shape.pack(rows, panel);
            }
            Ok(())
        })
    }
}
