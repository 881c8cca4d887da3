//! Where a model's tensors go in memory, and their packing.

use std::collections::HashSet;
use std::ops::{ControlFlow, Range};
use std::sync::Arc;

use super::packed::{self, Packed};
use super::weights::Projection;
use crate::cancel::Cancel;
use crate::device::{Arena, Matrix, PANEL_ROWS, Shape, Threads, Weight};
use crate::error::{Error, Result, try_vec};
use crate::gguf::{Gguf, TensorInfo};
use crate::quant::Format;
use crate::token::TABLES;

/// A matrix in the order of the arena: rows of a tensor of the file.
struct Placement<'a> {
    tensor: &'a TensorInfo,
    first_row: usize,
    shape: Shape,
    /// The matrix is the transpose of that many rows, as F32.
    transposed: bool,
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
    /// What is packed in the file already.
    packed: Option<&'a Packed>,
    arena: Arc<Arena>,
    matrices: Vec<Placement<'a>>,
    slots: Vec<Slot>,
    bytes: usize,
    parameters: u64,
    /// The names of the tensors that were laid out.
    taken: HashSet<&'a str>,
}

impl<'a> Plan<'a> {
    /// An empty plan; `packed` is [`Packed::of`] the file.
    pub(crate) fn new(gguf: &'a Gguf, packed: Option<&'a Packed>) -> Self {
        let (arena, matrices, slots) = (Arc::default(), Vec::new(), Vec::new());
        Plan { gguf, packed, arena, matrices, slots, bytes: 0, parameters: 0, taken: HashSet::new() }
    }

    /// The tensors that matrices are made of, in the order of the first ones.
    pub(crate) fn packed_tensors(&self) -> Vec<&'a TensorInfo> {
        let mut seen = HashSet::new();
        let tensors = self.matrices.iter().map(|placement| placement.tensor);
        tensors.filter(|tensor| seen.insert(&tensor.name)).collect()
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

    /// Takes note of a tensor that nothing is done with.
    pub(crate) fn pass_over(&mut self, name: &str) {
        if let Some(tensor) = self.tensor(name) {
            self.taken.insert(&tensor.name);
        }
    }

    /// True if the file has the tensor.
    pub(crate) fn has(&self, name: &str) -> bool {
        self.tensor(name).is_some()
    }

    fn tensor(&self, name: &str) -> Option<&'a TensorInfo> {
        self.packed.and_then(|packed| packed.tensor(name)).or_else(|| self.gguf.tensor(name))
    }

    fn decode(&self, tensor: &TensorInfo) -> Result<Vec<f32>> {
        self.check_not_packed(tensor)?;
        self.gguf.decode(tensor)
    }

    fn check_not_packed(&self, tensor: &TensorInfo) -> Result<()> {
        if self.packed.is_some_and(|packed| packed.tensor(&tensor.name).is_some()) {
            let message = format!("the tensor {} is packed, though it is no matrix", tensor.name);
            return Err(Error::corrupt_file(message).with("tensor", &tensor.name));
        }
        Ok(())
    }

    fn find(&self, name: &str) -> Result<&'a TensorInfo> {
        self.tensor(name).ok_or_else(|| {
            Error::corrupt_file(format!("the tensor {name} is missing"))
                .with("tensor", name)
                .with("path", self.gguf.name())
        })
    }

    /// Counts the tensor's parameters and checks its shape: (rows, columns), or (columns) with `rows` 1.
    fn check(&mut self, tensor: &'a TensorInfo, rows: usize, columns: usize) -> Result<()> {
        if self.taken.insert(&tensor.name) {
            self.parameters += tensor.elements() as u64;
        }
        if tensor.row_len() == columns && tensor.rows() == rows {
            if tensor.elements() > 0 {
                return Ok(());
            }
            let message = format!("the tensor {} has the shape {}: nothing", tensor.name, tensor.dims);
            let error = Error::corrupt_file(message).with("tensor", &tensor.name);
            return Err(error.with("found", tensor.dims));
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
        let total = rows.iter().try_fold(0usize, |sum, n| sum.checked_add(*n)).ok_or_else(|| too_large(name))?;
        self.check(tensor, total, columns)?;
        let format = tensor.format()?;
        let scale = self.scales(name, 1)?[0];
        let mut first_row = 0;
        let mut weights = Vec::with_capacity(N);
        for rows in rows {
            weights.push(self.place(tensor, first_row, Shape { format, rows, columns }, false)?.scaled(scale));
            first_row += rows;
        }
        weights.try_into().map_err(|_| Error::internal("a matrix was lost"))
    }

    /// What the products of a tensor's `count` matrices are multiplied with: `<name>.scale`, where the file has it beside
    /// `<name>.weight`, as for NVFP4. That of its activations, `<name>.input_scale`, is for kernels that quantise them
    /// to NVFP4 too.
    fn scales(&mut self, weight: &str, count: usize) -> Result<Vec<f32>> {
        let name = weight.strip_suffix(".weight").unwrap_or(weight);
        self.pass_over(&format!("{name}.input_scale"));
        match self.optional_vector(&format!("{name}.scale"), count)? {
            Some(scales) => Ok(scales),
            None => try_vec(count, 1.0, "the scales of a tensor"),
        }
    }

    /// A place for the matrix.
    fn place(&mut self, tensor: &'a TensorInfo, first_row: usize, shape: Shape, transposed: bool) -> Result<Weight> {
        if self.matrices.len() >= MOST_MATRICES {
            let message = format!("the model has more than {MOST_MATRICES} matrices");
            return Err(Error::unsupported(message).with("tensor", &tensor.name).with("expected", MOST_MATRICES));
        }
        let weight = Weight::new(shape, Arc::clone(&self.arena), self.bytes);
        self.matrices.push(Placement { tensor, first_row, shape, transposed });
        let bytes = shape.packed_bytes().and_then(|n| self.bytes.checked_add(n));
        self.bytes = bytes.ok_or_else(|| too_large(&tensor.name))?;
        // The shapes of packed tensors are keys: what is made for them must not be more than the file has.
        if self.packed.is_some() {
            packed::check_room(self.gguf, self.bytes)?;
        }
        Ok(weight)
    }

    /// `<name>.weight` (count, rows, columns) and, if there is one, `<name>.bias` (count, rows): `count` times the
    /// matrices of `rows` that lie one below the other.
    pub(crate) fn stacked<const N: usize>(
        &mut self,
        name: &str,
        count: usize,
        rows: [usize; N],
        columns: usize,
    ) -> Result<[Vec<Matrix>; N]> {
        let tensor_name = format!("{name}.weight");
        let tensor = self.find(&tensor_name)?;
        let each: usize = rows.iter().try_fold(0usize, |sum, n| sum.checked_add(*n)).ok_or_else(|| too_large(name))?;
        let total = each.checked_mul(count).ok_or_else(|| too_large(name))?;
        self.check(tensor, total, columns)?;
        if tensor.dims.get(1).is_some_and(|n| *n != each as u64) {
            let message = format!(
                "the tensor {tensor_name} has the shape {}, but must have {columns} x {each} x {count}",
                tensor.dims
            );
            return Err(Error::corrupt_file(message).with("tensor", tensor_name).with("found", tensor.dims));
        }
        let bias_name = format!("{name}.bias");
        let bias = match self.tensor(&bias_name) {
            Some(tensor) => {
                self.check(tensor, count, each)?;
                Some(self.decode(tensor)?)
            }
            None => None,
        };
        let format = tensor.format()?;
        let mut all: [Vec<Matrix>; N] = std::array::from_fn(|_| Vec::new());
        let mut first_row = 0;
        for scale in self.scales(&tensor_name, count)? {
            for (matrices, &rows) in all.iter_mut().zip(&rows) {
                let weight = self.place(tensor, first_row, Shape { format, rows, columns }, false)?.scaled(scale);
                let bias = bias.as_ref().map(|bias| bias[first_row..first_row + rows].to_vec());
                matrices.push(Matrix { weight, bias });
                first_row += rows;
            }
        }
        Ok(all)
    }

    /// The tensor `name`, (count, rows, columns), as `count` transposed matrices (columns, rows) of F32 of the first
    /// `first` rows of each, and `count` matrices of the others.
    pub(crate) fn halves_of_heads(
        &mut self,
        name: &str,
        count: usize,
        (first, second): (usize, usize),
        columns: usize,
    ) -> Result<[Vec<Matrix>; 2]> {
        let tensor = self.find(name)?;
        let each = first.checked_add(second).ok_or_else(|| too_large(name))?;
        self.check(tensor, each.checked_mul(count).ok_or_else(|| too_large(name))?, columns)?;
        let (mut transposed, mut others) = (Vec::new(), Vec::new());
        let format = tensor.format()?;
        let scale = self.scales(name, 1)?[0];
        for i in 0..count {
            let shape = Shape { format: Format::F32, rows: columns, columns: first };
            let weight = self.place(tensor, i * each, shape, true)?.scaled(scale);
            transposed.push(Matrix { weight, bias: None });
            let shape = Shape { format, rows: second, columns };
            let weight = self.place(tensor, i * each + first, shape, false)?.scaled(scale);
            others.push(Matrix { weight, bias: None });
        }
        Ok([transposed, others])
    }

    /// The first row of a matrix with rows of `columns`, if the file has it.
    pub(crate) fn first_row_if_there(&mut self, name: &str, columns: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensor(name) else { return Ok(None) };
        self.check(tensor, tensor.rows(), columns)?;
        self.check_not_packed(tensor)?;
        let format = tensor.format()?;
        let mut row = try_vec(format.row_bytes(columns).unwrap_or(0), 0, "a row of a tensor")?;
        self.gguf.read(tensor, 0, &mut row)?;
        let mut values = try_vec(columns, 0.0, "a row of a tensor")?;
        format.decode(&row, &mut values)?;
        Ok(Some(values))
    }

    /// The rows of a tensor.
    pub(crate) fn rows(&self, name: &str) -> Result<usize> {
        self.find(name).map(TensorInfo::rows)
    }

    /// `Unsupported` naming the first tensor of the file that nothing asked for: a model that has it computes something
    /// else than what would be run.
    pub(crate) fn refuse_others(&self, layers: usize) -> Result<()> {
        let of_layer = |name: &str| -> Option<usize> { name.strip_prefix("blk.")?.split('.').next()?.parse().ok() };
        let of_packing = |name: &str| self.packed.is_some() && matches!(name, packed::WEIGHTS | TABLES);
        let strange = |name: &str| {
            // Layers beyond the last predict further tokens; frequencies were once stored in every layer.
            !self.taken.contains(name)
                && !of_packing(name)
                && of_layer(name).is_none_or(|l| l < layers)
                && !["rope_freqs", "rot_embd", "rope_factors", "rope.freqs"].iter().any(|part| name.contains(part))
        };
        let mut tensors = self.packed.iter().flat_map(|packed| packed.tensors()).chain(self.gguf.tensors());
        match tensors.find(|tensor| strange(&tensor.name)) {
            None => Ok(()),
            Some(tensor) => {
                let message = format!("the tensor {} is none of the architecture's", tensor.name);
                Err(Error::unsupported(message).with("tensor", &tensor.name).with("path", self.gguf.name()))
            }
        }
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
        self.decode(tensor)
    }

    /// The (rows, columns) numbers of a tensor, read at once, if the file has it.
    pub(crate) fn optional_rows(&mut self, name: &str, rows: usize, columns: usize) -> Result<Option<Vec<f32>>> {
        let Some(tensor) = self.tensor(name) else { return Ok(None) };
        self.check(tensor, rows, columns)?;
        self.decode(tensor).map(Some)
    }

    /// The vector, if the file has it.
    pub(crate) fn optional_vector(&mut self, name: &str, n: usize) -> Result<Option<Vec<f32>>> {
        self.optional_rows(name, 1, n)
    }

    /// Reads and packs the matrices, on all threads, or maps those of a packed file. `progress` gets the bytes done and
    /// in all, on this thread, and may break off. `beside` is called on one of the threads meanwhile, before that if
    /// nothing is packed; its error ends the loading. Gives where the matrices are.
    pub(crate) fn load(
        self,
        threads: &Threads,
        cancel: &Cancel,
        beside: impl FnOnce() -> Result<()> + Send,
        mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
    ) -> Result<Arc<Arena>> {
        let mut step = |done, total| {
            cancel.check("loading the model")?;
            match progress(done, total) {
                ControlFlow::Continue(()) => Ok(()),
                ControlFlow::Break(()) => Err(Error::aborted("the progress callback stopped the loading of the model")),
            }
        };
        if self.packed.is_some() {
            let total = self.bytes as u64;
            step(0, total)?;
            beside()?;
            packed::fill(&self.arena, self.gguf, self.bytes)?;
            step(total, total)?;
            return Ok(self.arena);
        }
        let mut memory = Arena::allocate(self.bytes)?;
        let total = self.matrices.iter().map(|m| (m.shape.rows * m.shape.row_bytes()) as u64).sum();
        let mut stripes = self.stripes(&mut memory).into_iter();
        let first = FIRST_BATCH.min(stripes.len().div_ceil(2));
        let mut work = vec![Work::Beside(beside)];
        let mut done = 0;
        step(done, total)?;
        loop {
            let batch = if work.is_empty() { BATCH } else { first };
            work.extend(stripes.by_ref().take(batch).map(Work::Stripe));
            if work.is_empty() {
                break;
            }
            done += work.iter().map(Work::file_bytes).sum::<u64>();
            threads.try_each(work.drain(..), |work| match work {
                Work::Beside(beside) => beside(),
                Work::Stripe(stripe) => {
                    cancel.check("loading the model")?;
                    stripe.pack(self.gguf)
                }
            })?;
            step(done, total)?;
        }
        drop(stripes);
        self.arena.fill(memory)?;
        Ok(self.arena)
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
            // A transpose reads all of its rows for any of its own.
            let panels = (STRIPE / (PANEL_ROWS * shape.row_bytes()).max(1)).max(1);
            let panels = if placement.transposed { shape.panels() } else { panels };
            for (i, out) in own[..whole].chunks_mut(panels * shape.panel_bytes()).enumerate() {
                all.push(Stripe {
                    tensor: placement.tensor,
                    shape,
                    first_row: i * panels * PANEL_ROWS,
                    offset_rows: placement.first_row,
                    transposed: placement.transposed,
                    out,
                });
            }
        }
        all
    }
}

fn too_large(name: &str) -> Error {
    let message = format!("the tensor {name} is too large for this machine's addresses");
    Error::out_of_memory(message).with("tensor", name)
}

/// Bytes of the file that a thread packs at a time: they stay in its second cache.
const STRIPE: usize = 1 << 18;
/// Stripes between two looks at progress.
const BATCH: usize = 64;
/// Those that the other threads have while one does what is to be done beside: half of all, and at most so many.
const FIRST_BATCH: usize = 512;

/// What a thread does at a time.
enum Work<'m, F> {
    Beside(F),
    Stripe(Stripe<'m>),
}

impl<F> Work<'_, F> {
    fn file_bytes(&self) -> u64 {
        match self {
            Work::Beside(_) => 0,
            Work::Stripe(stripe) => stripe.file_bytes() as u64,
        }
    }
}

/// Consecutive panels of a matrix.
struct Stripe<'m> {
    tensor: &'m TensorInfo,
    shape: Shape,
    /// Of the matrix, and of the matrix in the tensor.
    first_row: usize,
    offset_rows: usize,
    transposed: bool,
    out: &'m mut [u8],
}

/// Matrices of a model at most, several times those of the largest: each takes memory beside its weights, and a small file
/// could have millions of tiny ones.
const MOST_MATRICES: usize = 1 << 18;

/// Bytes of a buffer that a thread keeps for the next model.
const MOST_KEPT: usize = 4 << 20;

thread_local! {
    /// A stripe's bytes as the file has them, and a panel: packed here, it goes out in whole cache lines, which are then
    /// not read from the memory before.
    static BYTES: std::cell::RefCell<(Vec<u8>, Vec<u8>)> = const { std::cell::RefCell::new((Vec::new(), Vec::new())) };
}

/// The first n bytes of `buffer`, which grows to that. What is in them is left from before.
fn resized<'b>(buffer: &'b mut Vec<u8>, n: usize, tensor: &TensorInfo) -> Result<&'b mut [u8]> {
    if buffer.len() < n {
        // Stripes of other matrices are a little longer or shorter.
        let n = n.checked_next_power_of_two().unwrap_or(n);
        *buffer = try_vec(n, 0, "a buffer for packing").map_err(|error| error.with("tensor", &tensor.name))?;
    }
    Ok(&mut buffer[..n])
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
        if self.transposed {
            return self.pack_transposed(gguf);
        }
        // Taken, since a reader of the caller's may load another model meanwhile.
        let (mut file, mut panel) = BYTES.take();
        let bytes = resized(&mut file, self.file_bytes(), self.tensor)?;
        gguf.read(self.tensor, ((self.offset_rows + self.first_row) * self.shape.row_bytes()) as u64, bytes)?;
        let (row_bytes, panel_bytes) = (self.shape.row_bytes(), self.shape.panel_bytes());
        let packed = resized(&mut panel, panel_bytes, self.tensor)?;
        for (rows, out) in bytes.chunks(PANEL_ROWS * row_bytes).zip(self.out.chunks_exact_mut(panel_bytes)) {
            if rows.len() < PANEL_ROWS * row_bytes {
                packed.fill(0);
            }
            self.shape.pack(rows, packed);
            out.copy_from_slice(packed);
        }
        for buffer in [&mut file, &mut panel] {
            if buffer.len() > MOST_KEPT {
                *buffer = Vec::new();
            }
        }
        BYTES.set((file, panel));
        Ok(())
    }

    fn pack_transposed(self, gguf: &Gguf) -> Result<()> {
        let (rows, columns) = (self.shape.columns, self.shape.rows);
        let numbers = || try_vec(rows * columns, 0.0f32, "a transposed matrix");
        let (mut values, mut transpose) = (numbers()?, numbers()?);
        let format = self.tensor.format()?;
        let row_bytes = columns / format.block_len() * format.block_bytes();
        let mut bytes = try_vec(rows * row_bytes, 0, "a transposed matrix")?;
        gguf.read(self.tensor, (self.offset_rows * row_bytes) as u64, &mut bytes)?;
        format.decode(&bytes, &mut values)?;
        for (i, row) in values.chunks_exact(columns).enumerate() {
            row.iter().zip(transpose[i..].iter_mut().step_by(rows)).for_each(|(x, out)| *out = *x);
        }
        let rows = bytemuck::cast_slice::<f32, u8>(&transpose).chunks(PANEL_ROWS * self.shape.row_bytes());
        for (rows, panel) in rows.zip(self.out.chunks_exact_mut(self.shape.panel_bytes())) {
            self.shape.pack(rows, panel);
        }
        Ok(())
    }
}
