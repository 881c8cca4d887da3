//! THE table of number formats: what each ggml type id is called, how its blocks are laid out, and how they become
//! f32 and back.
//!
//! A tensor's row is cut into blocks of a fixed number of elements; a block is a fixed number of bytes. A format that
//! this library decodes is one row of the table below plus one block type (one file per family) that implements
//! `Block`; a type that it can only size and list is a row without one. Ids, names and layouts are those of ggml
//! (`ggml.h`, `ggml-common.h` of ggml 0.25), on which the GGUF format rests.

mod bits;
mod float;
mod grid;
mod grids;
mod groups;
mod k;
mod legacy;
mod levels;
mod search;
mod table;
mod ternary;

use crate::error::{Error, Result};
use crate::numeric::FloatEnvironment;

pub(crate) use float::TO_HALF;
pub(crate) use grid::{IQ1, IQ2, IQ3_S, IQ3_XXS, Scales};
pub(crate) use table::{E2M1, IQ4, e4m3, power_of_two};

/// A block as it lies in a file: no padding, no alignment, little-endian.
pub(crate) trait Block: bytemuck::Pod {
    /// Elements of a block.
    const LEN: usize;
    /// The block's elements; `y` has `LEN` places.
    fn decode(&self, y: &mut [f32]);
    /// The integer codes of the elements, in the elements' order; `codes` has `LEN` places. Single floats have none.
    fn codes(&self, _codes: &mut [u8]) {}
    /// The inverse of `codes`: everything else in the block stays.
    fn set_codes(&mut self, _codes: &[u8]) {}
    /// What the codes are multiplied with, in formats that mix it with the bits of the codes.
    fn scales(&self) -> Scales {
        Scales::default()
    }
    /// The inverse of `scales`: the codes stay.
    fn set_scales(&mut self, _scales: Scales) {}
}

/// A block that can be made from numbers.
pub(crate) trait Encode: Block {
    /// The lowest and the highest number that any block can hold, whatever its others are. Beyond, scales overflow.
    const RANGE: [f32; 2];
    /// The block of the `LEN` elements of `x`; an error in an element costs its square times the element's weight, in
    /// formats whose encoder has a choice. NaN and infinity give some block, never a panic.
    fn encode(x: &[f32], weights: Option<&[f32]>) -> Self;
}

type DecodeBlocks = fn(&[u8], &mut [f32]);
type EncodeBlocks = fn(&[f32], Option<&[f32]>, &mut [u8]);

/// A row's right side: the sizes of a block and the functions of its format, which whole slices of blocks go through.
struct Layout {
    block_len: usize,
    block_bytes: usize,
    decode: Option<DecodeBlocks>,
    encode: Option<EncodeBlocks>,
    range: [f32; 2],
    codes: fn(&[u8], &mut [u8]),
    set_codes: fn(&mut [u8], &[u8]),
    scales: fn(&[u8], &mut [Scales]),
    set_scales: fn(&mut [u8], Scales),
}

/// A type that can be sized and listed, not decoded.
const fn listed(block_len: usize, block_bytes: usize) -> Layout {
    Layout {
        block_len,
        block_bytes,
        decode: None,
        encode: None,
        range: [0.0; 2],
        codes: |_, _| {},
        set_codes: |_, _| {},
        scales: |_, _| {},
        set_scales: |_, _| {},
    }
}

/// A format that can be decoded.
const fn decoded<B: Block>() -> Layout {
    Layout {
        block_len: B::LEN,
        block_bytes: size_of::<B>(),
        decode: Some(decode_blocks::<B>),
        encode: None,
        range: [0.0; 2],
        codes: codes_of_blocks::<B>,
        set_codes: |block, codes| bytemuck::from_bytes_mut::<B>(block).set_codes(codes),
        scales: scales_of_blocks::<B>,
        set_scales: |block, scales| bytemuck::from_bytes_mut::<B>(block).set_scales(scales),
    }
}

/// A format that can be decoded and encoded.
const fn both<B: Encode>() -> Layout {
    Layout { encode: Some(encode_blocks::<B>), range: B::RANGE, ..decoded::<B>() }
}

fn decode_blocks<B: Block>(bytes: &[u8], out: &mut [f32]) {
    for (block, y) in bytemuck::cast_slice::<u8, B>(bytes).iter().zip(out.chunks_exact_mut(B::LEN)) {
        block.decode(y);
    }
}

fn codes_of_blocks<B: Block>(bytes: &[u8], codes: &mut [u8]) {
    for (block, codes) in bytemuck::cast_slice::<u8, B>(bytes).iter().zip(codes.chunks_exact_mut(B::LEN)) {
        block.codes(codes);
    }
}

fn scales_of_blocks<B: Block>(bytes: &[u8], scales: &mut [Scales]) {
    for (block, scales) in bytemuck::cast_slice::<u8, B>(bytes).iter().zip(scales) {
        *scales = block.scales();
    }
}

/// `weights` are those of a row, again from the start for each next row.
fn encode_blocks<B: Encode>(x: &[f32], weights: Option<&[f32]>, out: &mut [u8]) {
    let blocks = bytemuck::cast_slice_mut::<u8, B>(out);
    let mut weights = weights.map(|weights| weights.chunks_exact(B::LEN).cycle());
    for (x, block) in x.chunks_exact(B::LEN).zip(blocks) {
        *block = B::encode(x, weights.as_mut().and_then(Iterator::next));
    }
}

macro_rules! types {
    ($($id:literal $name:literal $($format:ident)? = $layout:expr;)*) => {
        /// A number format that this library decodes.
        #[derive(Clone, Copy, PartialEq, Eq, Debug, Hash)]
        #[repr(u32)]
        pub enum Format {
            $($(#[doc = concat!("ggml's `", $name, "`.")] $format = $id,)?)*
        }

        impl Format {
            /// Every format, in the order of the ids.
            pub const ALL: &[Format] = &[$($(Format::$format,)?)*];

            fn info(self) -> &'static TypeInfo {
                match self {
                    $($(Format::$format => const { &TypeInfo { id: $id, name: $name, layout: $layout } },)?)*
                }
            }
        }

        static TYPES: &[TypeInfo] = &[$(TypeInfo { id: $id, name: $name, layout: $layout },)*];
    };
}

// Each row: ggml type id, name, the format's variant if we decode it, layout.
// The ids 4, 5, 31 to 33 and 36 to 38 belonged to types that ggml has removed.
types! {
    0 "F32" F32 = both::<float::BlockF32>();
    1 "F16" F16 = both::<float::BlockF16>();
    2 "Q4_0" Q4_0 = both::<legacy::BlockQ4_0>();
    3 "Q4_1" Q4_1 = both::<legacy::BlockQ4_1>();
    6 "Q5_0" Q5_0 = both::<legacy::BlockQ5_0>();
    7 "Q5_1" Q5_1 = both::<legacy::BlockQ5_1>();
    8 "Q8_0" Q8_0 = both::<legacy::BlockQ8_0>();
    9 "Q8_1" = listed(32, 36);
    10 "Q2_K" Q2K = both::<k::BlockQ2K>();
    11 "Q3_K" Q3K = both::<k::BlockQ3K>();
    12 "Q4_K" Q4K = both::<k::BlockQ4K>();
    13 "Q5_K" Q5K = both::<k::BlockQ5K>();
    14 "Q6_K" Q6K = both::<k::BlockQ6K>();
    15 "Q8_K" = listed(256, 292);
    16 "IQ2_XXS" IQ2XXS = decoded::<grid::BlockIQ2XXS>();
    17 "IQ2_XS" IQ2XS = decoded::<grid::BlockIQ2XS>();
    18 "IQ3_XXS" IQ3XXS = decoded::<grid::BlockIQ3XXS>();
    19 "IQ1_S" IQ1S = decoded::<grid::BlockIQ1S>();
    20 "IQ4_NL" IQ4NL = both::<table::BlockIQ4NL>();
    21 "IQ3_S" IQ3S = decoded::<grid::BlockIQ3S>();
    22 "IQ2_S" IQ2S = decoded::<grid::BlockIQ2S>();
    23 "IQ4_XS" IQ4XS = both::<table::BlockIQ4XS>();
    24 "I8" = listed(1, 1);
    25 "I16" = listed(1, 2);
    26 "I32" = listed(1, 4);
    27 "I64" = listed(1, 8);
    28 "F64" = listed(1, 8);
    29 "IQ1_M" IQ1M = decoded::<grid::BlockIQ1M>();
    30 "BF16" BF16 = both::<float::BlockBF16>();
    34 "TQ1_0" TQ1_0 = both::<ternary::BlockTQ1_0>();
    35 "TQ2_0" TQ2_0 = both::<ternary::BlockTQ2_0>();
    39 "MXFP4" MXFP4 = both::<table::BlockMXFP4>();
    40 "NVFP4" NVFP4 = decoded::<table::BlockNVFP4>();
    41 "Q1_0" = listed(128, 18);
    42 "Q2_0" = listed(64, 18);
}

/// What is known of a ggml type, decoded or not.
pub struct TypeInfo {
    id: u32,
    name: &'static str,
    layout: Layout,
}

/// The type of an id; `None` for ids that are unknown or whose types ggml has removed.
pub fn type_info(id: u32) -> Option<&'static TypeInfo> {
    TYPES.iter().find(|info| info.id == id)
}

impl TypeInfo {
    /// The id in GGUF files.
    pub fn id(&self) -> u32 {
        self.id
    }

    /// The name as users know it, for example `Q4_K`.
    pub fn name(&self) -> &'static str {
        self.name
    }

    /// Elements of a block.
    pub fn block_len(&self) -> usize {
        self.layout.block_len
    }

    /// Bytes of a block.
    pub fn block_bytes(&self) -> usize {
        self.layout.block_bytes
    }

    /// Bytes of a row of `n` elements; `None` if rows of `n` cannot be cut into blocks, or on overflow.
    pub fn row_bytes(&self, n: usize) -> Option<usize> {
        if !n.is_multiple_of(self.layout.block_len) {
            return None;
        }
        (n / self.layout.block_len).checked_mul(self.layout.block_bytes)
    }
}

impl Format {
    /// The format of a ggml type id; `None` for types that are not decoded.
    pub fn from_id(ggml_type: u32) -> Option<Format> {
        Format::ALL.iter().copied().find(|format| format.id() == ggml_type)
    }

    /// The format of a name such as `Q4_K`, in upper or lower case.
    pub fn from_name(name: &str) -> Option<Format> {
        Format::ALL.iter().copied().find(|format| format.name().eq_ignore_ascii_case(name))
    }

    /// The ggml type id.
    pub fn id(self) -> u32 {
        self as u32
    }

    /// The name as users know it, for example `Q4_K`.
    pub fn name(self) -> &'static str {
        self.info().name()
    }

    /// Elements of a block.
    pub fn block_len(self) -> usize {
        self.info().block_len()
    }

    /// Bytes of a block.
    pub fn block_bytes(self) -> usize {
        self.info().block_bytes()
    }

    /// Bytes of a row of `n` elements; `None` if `n` is no multiple of the block length, or on overflow.
    pub fn row_bytes(self, n: usize) -> Option<usize> {
        self.info().row_bytes(n)
    }

    /// Whether [`Format::encode`] exists.
    pub fn can_encode(self) -> bool {
        self.info().layout.encode.is_some()
    }

    /// The lowest and the highest number that [`Format::encode`] has room for: beyond, it gives infinities, numbers
    /// that are none, or the largest there are.
    pub fn range(self) -> [f32; 2] {
        self.info().layout.range
    }

    /// Turns whole blocks into `out.len()` numbers, to the bit those of ggml.
    ///
    /// Errors: `InvalidArgument` if the sizes do not fit each other.
    pub fn decode(self, bytes: &[u8], out: &mut [f32]) -> Result<()> {
        self.check_sizes(out.len(), bytes.len())?;
        let decode = self.info().layout.decode.ok_or_else(|| self.missing("decoder"))?;
        let _environment = FloatEnvironment::enter();
        decode(bytes, out);
        Ok(())
    }

    /// Turns numbers into whole blocks. F16, BF16, Q4_0 to Q8_0, MXFP4, TQ1_0 and TQ2_0 are to the byte those of ggml
    /// (without importance matrix); the encoders of the K formats, IQ4_NL and IQ4_XS search for small squared errors.
    ///
    /// Errors: `InvalidArgument` if the sizes do not fit each other, `Unsupported` if the format has no encoder.
    pub fn encode(self, x: &[f32], out: &mut [u8]) -> Result<()> {
        self.encode_blocks(x, None, out)
    }

    /// As [`Format::encode`] for rows of `weights.len()` elements, where an error in element i of a row costs its square
    /// times `weights[i]`. The K formats, IQ4_NL, IQ4_XS, Q4_0, Q4_1, Q5_0 and Q5_1 make use of that. The encoders of the
    /// others have no choice (their bytes are fixed, see `encode`) and ignore the weights.
    ///
    /// Errors: as `encode`; `InvalidArgument` also if a weight is negative, infinite or not a number.
    pub fn encode_weighted(self, x: &[f32], weights: &[f32], out: &mut [u8]) -> Result<()> {
        if !x.len().is_multiple_of(weights.len()) || !weights.len().is_multiple_of(self.block_len()) {
            let message = format!("{} numbers are no rows of {} weights in {}", x.len(), weights.len(), self.name());
            let error = Error::invalid_argument(message).with("format", self.name());
            return Err(error.with("elements", x.len()).with("weights", weights.len()));
        }
        if let Some(i) = weights.iter().position(|weight| !(weight.is_finite() && *weight >= 0.0)) {
            let message = format!("weight {i} is {}, but must be finite and not negative", weights[i]);
            return Err(Error::invalid_argument(message).with("index", i).with("weight", weights[i]));
        }
        self.encode_blocks(x, Some(weights), out)
    }

    fn encode_blocks(self, x: &[f32], weights: Option<&[f32]>, out: &mut [u8]) -> Result<()> {
        self.check_sizes(x.len(), out.len())?;
        let encode = self.info().layout.encode.ok_or_else(|| self.missing("encoder"))?;
        let _environment = FloatEnvironment::enter();
        encode(x, weights, out);
        Ok(())
    }

    /// The integer codes of the elements of whole blocks, in the elements' order. Single floats have none.
    pub(crate) fn codes(self, bytes: &[u8], codes: &mut [u8]) {
        (self.info().layout.codes)(bytes, codes);
    }

    /// Gives a block other codes.
    pub(crate) fn set_codes(self, block: &mut [u8], codes: &[u8]) {
        (self.info().layout.set_codes)(block, codes);
    }

    /// What the codes of whole blocks are multiplied with, in formats that mix it with the bits of the codes.
    pub(crate) fn scales(self, bytes: &[u8], scales: &mut [Scales]) {
        (self.info().layout.scales)(bytes, scales);
    }

    /// Gives a block other scales.
    pub(crate) fn set_scales(self, block: &mut [u8], scales: Scales) {
        (self.info().layout.set_scales)(block, scales);
    }

    fn check_sizes(self, elements: usize, bytes: usize) -> Result<()> {
        if self.row_bytes(elements) == Some(bytes) {
            return Ok(());
        }
        let (len, block_bytes) = (self.block_len(), self.block_bytes());
        let message = format!(
            "{} has {block_bytes} bytes for each {len} elements: expected, found {bytes} for {elements}",
            self.name()
        );
        Err(Error::invalid_argument(message)
            .with("format", self.name())
            .with("elements", elements)
            .with("bytes", bytes))
    }

    fn missing(self, what: &str) -> Error {
        Error::unsupported(format!("there is no {what} for {}", self.name())).with("format", self.name())
    }
}
