//! A model's file in smaller number formats: the work of `llm-quantize`.
//!
//! Tensors are read, decoded, encoded and written a batch of stripes at a time, on all threads: memory is that of a
//! batch, whatever the size of the model. A row is encoded the same way whoever does it, so the result does not depend
//! on threads.

mod importance;
mod recipe;

pub use importance::Importance;
pub use recipe::Recipe;

use std::ops::ControlFlow;
use std::path::Path;

use crate::cancel::Cancel;
use crate::device::Threads;
use crate::error::{Error, Result, try_vec};
use crate::gguf::{Builder, Gguf, TensorInfo, Writer};
use crate::log::{self, Level};
use crate::quant::Format;
use recipe::{Plan, is_embedding};

/// How to quantise.
#[derive(Clone, Default)]
pub struct Options {
    /// The format of `output.weight`, or of the embedding where that makes the logits too, instead of the recipe's.
    pub output: Option<Format>,
    /// The format of the embedding instead of the recipe's.
    pub embedding: Option<Format>,
    /// The pool to compute on; a new one with a thread for each physical core if `None`.
    pub threads: Option<Threads>,
    /// A request to stop, looked at about every MiB.
    pub cancel: Cancel,
}

/// Elements that a thread converts at a time.
const STRIPE: usize = 1 << 18;

/// Writes the model of `gguf` to `path` with its matrices in the formats of a recipe; vectors, norms, routers and the
/// like stay as they are. Rows that are no whole blocks of a format get one of shorter blocks: Q4_0 for Q2_K and Q3_K,
/// Q5_0 for Q4_K, Q5_1 for Q5_K, Q8_0 for Q6_K, IQ4_NL for IQ4_XS, and F16 if those do not fit either. Tensors of the
/// wanted format are copied; quantised tensors of another are quantised again, which costs accuracy and is logged as a
/// warning.
///
/// `progress` is called on this thread with the bytes read and the bytes in all; if it breaks, the call ends with
/// `Aborted`. The file appears when it is complete.
///
/// Importances that tensors lack are logged as a warning.
///
/// Errors: `Unsupported` naming a tensor whose format is not decoded; `InvalidArgument` if a format cannot be encoded, if
/// there are importances but of no tensor of the file, if one has not the shape of its tensor, naming a
/// tensor with a number that its new format has no room for, or if the file is packed; `Io`, `OutOfMemory`, `Cancelled`,
/// `Aborted`.
pub fn quantize(
    gguf: &Gguf,
    path: &Path,
    recipe: &Recipe,
    importance: Option<&Importance>,
    options: &Options,
    mut progress: impl FnMut(u64, u64) -> ControlFlow<()>,
) -> Result<()> {
    if gguf.is_packed() {
        let message = "the file is packed for loading: the model's own file can be quantised";
        return Err(Error::invalid_argument(message).with("path", gguf.name()));
    }
    let asked = [options.output, options.embedding].into_iter().flatten();
    if let Some(format) = asked.into_iter().find(|format| !format.can_encode()) {
        let message = format!("{} cannot be encoded by this version", format.name());
        return Err(Error::invalid_argument(message).with("format", format.name()));
    }
    let plan = Plan::new(gguf, recipe, options.output, options.embedding, importance.is_some());
    let mut builder = Builder::new();
    builder.copy_keys(gguf)?;
    builder.set("general.file_type", recipe.file_type())?;
    // That of the K formats as they are since 2023.
    builder.set("general.quantization_version", 2u32)?;
    if let Some(importance) = importance {
        importance.describe(&mut builder)?;
    }
    let mut tensors = Vec::new();
    tensors.try_reserve_exact(gguf.tensors().len()).map_err(|_| Error::out_of_memory("no memory for the plan"))?;
    let mut again = 0;
    for tensor in gguf.tensors() {
        let target = conversion(tensor, &plan)?;
        again += u32::from(target.is_some_and(|(from, _)| from.block_len() > 1));
        builder.declare(&tensor.name, target.map_or(tensor.type_id, |(_, to)| to.id()), &tensor.dims)?;
        tensors.push((tensor, target));
    }
    if again > 0 {
        let message = format_args!("{again} tensors are quantised already: quantising them again costs accuracy");
        log::event(Level::Warn, message);
    }
    if let Some(importance) = importance {
        let quantised = tensors.iter().filter(|(_, target)| target.is_some_and(|(_, to)| to.block_len() > 1));
        // Of embeddings and logits programs seldom collect them.
        let usual = |name: &&str| !is_embedding(name) && *name != "output.weight";
        let names = quantised.map(|(tensor, _)| &*tensor.name).filter(usual);
        importance.check_names(gguf, names)?;
    }
    let threads = options.threads.clone().unwrap_or_else(Threads::automatic);
    let total = gguf.tensors().iter().map(|tensor| tensor.bytes).sum();
    let mut done = 0;
    let mut step = |bytes: u64| {
        options.cancel.check("quantising")?;
        done += bytes;
        match progress(done, total) {
            ControlFlow::Continue(()) => Ok(()),
            ControlFlow::Break(()) => Err(Error::aborted("the progress callback stopped the quantising")),
        }
    };
    let mut writer = builder.create(path)?;
    step(0)?;
    for (tensor, target) in tensors {
        let weights = match target {
            Some(_) => importance.map_or(Ok(None), |importance| importance.weights(tensor))?,
            None => None,
        };
        let work = Work { gguf, tensor, target, weights: weights.as_deref() };
        work.run(&threads, &mut writer, &mut step)?;
    }
    writer.finish()
}

/// What a tensor is converted from and to; `None` if it is copied.
fn conversion(tensor: &TensorInfo, plan: &Plan<'_>) -> Result<Option<(Format, Format)>> {
    // Of nothing there is nothing to convert.
    let to = plan.format(tensor).filter(|to| to.id() != tensor.type_id && tensor.bytes > 0);
    let Some(to) = to else { return Ok(None) };
    Ok(Some((tensor.format()?, to)))
}

/// A tensor to be copied or converted.
struct Work<'a> {
    gguf: &'a Gguf,
    tensor: &'a TensorInfo,
    target: Option<(Format, Format)>,
    /// The importance of each column: of each matrix, or one for all.
    weights: Option<&'a [f32]>,
}

/// Rows of one matrix.
struct Stripe {
    matrix: usize,
    first_row: usize,
    rows: usize,
    out: Vec<u8>,
    /// The first number that the wanted format has no room for, and its place in the stripe.
    beyond: Option<(usize, f32)>,
}

impl Work<'_> {
    fn run(&self, threads: &Threads, writer: &mut Writer, step: &mut impl FnMut(u64) -> Result<()>) -> Result<()> {
        let name = &self.tensor.name;
        let Some((from, _)) = self.target else {
            let mut at = 0;
            while at < self.tensor.bytes {
                let n = (self.tensor.bytes - at).min(1 << 20);
                let mut piece = try_vec(n as usize, 0u8, "a part of a tensor")?;
                self.gguf.read(self.tensor, at, &mut piece)?;
                writer.write(name, &piece)?;
                at += n;
                step(n)?;
            }
            return Ok(());
        };
        let mut stripes = self.stripes();
        loop {
            let mut batch: Vec<Stripe> = stripes.by_ref().take(4 * threads.count()).collect();
            if batch.is_empty() {
                return Ok(());
            }
            threads.try_each(&mut batch, |stripe| self.convert(stripe))?;
            for stripe in &batch {
                self.check_range(stripe)?;
                writer.write(name, &stripe.out)?;
            }
            let rows: usize = batch.iter().map(|stripe| stripe.rows).sum();
            step((rows * self.row_bytes(from)) as u64)?;
        }
    }

    /// Fails if a stripe has numbers that its format has no room for.
    fn check_range(&self, stripe: &Stripe) -> Result<()> {
        let (Some((i, value)), Some((_, to))) = (stripe.beyond, self.target) else { return Ok(()) };
        let (name, i, [low, high]) = (&self.tensor.name, stripe.first_row * self.tensor.row_len() + i, to.range());
        let message = format!(
            "tensor {name}: number {i} is {value:e}, but {} has room for numbers from {low:e} to {high:e}",
            to.name()
        );
        let error = Error::invalid_argument(message).with("tensor", name).with("format", to.name());
        Err(error.with("index", i).with("found", value))
    }

    fn row_bytes(&self, format: Format) -> usize {
        // Both formats fit the rows: the file was read, and the plan looked.
        format.row_bytes(self.tensor.row_len()).unwrap_or_default()
    }

    /// The tensor in stripes, none of which reaches over two matrices.
    fn stripes(&self) -> impl Iterator<Item = Stripe> + use<> {
        let matrix_rows = self.tensor.dims.get(1).map_or(1, |n| *n as usize);
        let matrices = self.tensor.rows().checked_div(matrix_rows).unwrap_or(0);
        let most = (STRIPE / self.tensor.row_len().max(1)).max(1);
        (0..matrices).flat_map(move |matrix| {
            (0..matrix_rows).step_by(most).map(move |row| Stripe {
                matrix,
                first_row: matrix * matrix_rows + row,
                rows: most.min(matrix_rows - row),
                out: Vec::new(),
                beyond: None,
            })
        })
    }

    fn convert(&self, stripe: &mut Stripe) -> Result<()> {
        let Some((from, to)) = self.target else { return Ok(()) };
        let (row_len, rows) = (self.tensor.row_len(), stripe.rows);
        let mut bytes = try_vec(rows * self.row_bytes(from), 0u8, "a part of a tensor")?;
        let mut values = try_vec(rows * row_len, 0f32, "a part of a tensor")?;
        stripe.out = try_vec(rows * self.row_bytes(to), 0u8, "a part of a tensor")?;
        self.gguf.read(self.tensor, (stripe.first_row * self.row_bytes(from)) as u64, &mut bytes)?;
        from.decode(&bytes, &mut values)?;
        let ([low, high], single) = (to.range(), to.block_len() == 1);
        // Formats of single numbers have NaN and infinities too. Without branches, so that the compiler can use vectors.
        let inside = |value: &f32| (low <= *value) & (*value <= high) | single & !value.is_finite();
        if !values.iter().fold(true, |all, value| all & inside(value)) {
            stripe.beyond = values.iter().position(|value| !inside(value)).map(|i| (i, values[i]));
        }
        let weights = self.weights.map(|weights| {
            let own = weights.get(stripe.matrix * row_len..(stripe.matrix + 1) * row_len);
            own.or_else(|| weights.get(..row_len)).unwrap_or_default()
        });
        match weights {
            Some(weights) if to.block_len() > 1 => to.encode_weighted(&values, weights, &mut stripe.out),
            _ => to.encode(&values, &mut stripe.out),
        }
        .map_err(|error| error.with("tensor", &self.tensor.name))
    }
}
