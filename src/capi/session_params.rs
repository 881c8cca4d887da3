//! How to make a session, and how it generates.

use super::args::{self, Growing};
use super::model::{LLM_THREADS_AUTO, threads};
use crate::cache::CacheKind;
use crate::error::Result;
use crate::generate::SessionOptions;
use crate::model::CacheOptions;
use crate::{Isa, KvType};

/// How keys and values are stored: one of LLM_KV_.
pub type llm_kv_type_t = i32;

/// Floats of 16 bits.
pub const LLM_KV_F16: llm_kv_type_t = 0;
/// Floats of 32 bits.
pub const LLM_KV_F32: llm_kv_type_t = 1;
/// 8.5 bits: blocks of 32 numbers as GGUF's Q8_0 has them. For heads whose length is a multiple of 32.
pub const LLM_KV_Q8_0: llm_kv_type_t = 2;
/// 4.5 bits: blocks of 32 numbers as GGUF's Q4_0 has them. For heads whose length is a multiple of 32.
pub const LLM_KV_Q4_0: llm_kv_type_t = 3;

const KV_TYPES: [(llm_kv_type_t, KvType); 4] =
    [(LLM_KV_F16, KvType::F16), (LLM_KV_F32, KvType::F32), (LLM_KV_Q8_0, KvType::Q8_0), (LLM_KV_Q4_0, KvType::Q4_0)];

/// Which positions a session keeps, and how: one of LLM_CACHE_. All give the same bits.
pub type llm_cache_kind_t = i32;

/// All positions, in one piece of memory that is committed as they come.
pub const LLM_CACHE_CONTIGUOUS: llm_cache_kind_t = 0;
/// Of layers with a window only the positions within it, in a ring: their memory does not grow with the text. Forgetting
/// more of the last tokens than a chunk has makes all tokens be processed again.
pub const LLM_CACHE_SLIDING: llm_cache_kind_t = 1;
/// All positions, in pages that are taken as they come; forks share them until one writes. For pages that sessions share
/// see llm_session_new_in_pages.
pub const LLM_CACHE_PAGED: llm_cache_kind_t = 2;

const CACHE_KINDS: [(llm_cache_kind_t, CacheKind); 3] = [
    (LLM_CACHE_CONTIGUOUS, CacheKind::Contiguous),
    (LLM_CACHE_SLIDING, CacheKind::Sliding),
    (LLM_CACHE_PAGED, CacheKind::Paged),
];

/// Which instruction set the kernels use: one of LLM_ISA_. All give the same bits.
pub type llm_isa_t = i32;

/// The best of this machine.
pub const LLM_ISA_AUTO: llm_isa_t = 0;
/// Portable code, the definition of the results; slow.
pub const LLM_ISA_SCALAR: llm_isa_t = 1;
/// x86-64 with AVX2, FMA and F16C; AVX-VNNI is used where the CPU has it.
pub const LLM_ISA_AVX2: llm_isa_t = 2;
/// x86-64 with AVX-512 (F, BW, DQ, VL, VNNI).
pub const LLM_ISA_AVX512: llm_isa_t = 3;
/// 64-bit ARM with NEON; its dot products are used where the CPU has them.
pub const LLM_ISA_NEON: llm_isa_t = 4;

const ISAS: [(llm_isa_t, Option<Isa>); 5] = [
    (LLM_ISA_AUTO, None),
    (LLM_ISA_SCALAR, Some(Isa::Scalar)),
    (LLM_ISA_AVX2, Some(Isa::Avx2)),
    (LLM_ISA_AVX512, Some(Isa::Avx512)),
    (LLM_ISA_NEON, Some(Isa::Neon)),
];

/// A flag of llm_generate_params_t: end-of-generation tokens do not end it; they are appended like others. With a grammar
/// they end it all the same.
pub const LLM_GENERATE_IGNORE_EOG: u32 = 1;

/// How to make a session. Begin with llm_session_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_session_params_t {
    /// sizeof(llm_session_params_t).
    pub struct_size: usize,
    /// Positions in the key/value cache. 0 means the context that the model was trained for, or 4096 if that is longer;
    /// a number is taken as it is.
    pub context_length: u32,
    /// Threads that compute; LLM_THREADS_AUTO (0, physical cores), LLM_THREADS_CALLER, or how many with the calling one;
    /// more than 1024 are 1024. They are the session's own, and sleep while it has nothing to do; forks share them.
    pub threads: u32,
    /// One of LLM_KV_.
    pub kv_type: llm_kv_type_t,
    /// Tokens of a prompt that are processed at once; 0 means 256, or fewer if these would take more memory than the
    /// weights and than 256 MiB. More needs more memory and is hardly faster. At most 72 where the logits of each are asked
    /// for (llm_session_eval, llm_session_score).
    pub chunk: u32,
    /// One of LLM_ISA_; one that the machine lacks is UNSUPPORTED.
    pub isa: llm_isa_t,
    /// One of LLM_CACHE_.
    pub cache: llm_cache_kind_t,
    /// A token sees this many of the last positions, its own included, in every layer whose own window is not shorter;
    /// 0: all of them.
    pub window: u32,
    /// And in these layers the first so many positions of the text ("attention sinks"), at most 256, and only with a
    /// window. Positions are counted from the start of the text all the same.
    pub sinks: u32,
    /// Positions of a page of LLM_CACHE_PAGED, a multiple of 16; 0 means 16.
    pub page_size: u32,
    /// Zero.
    pub reserved: u32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_session_params_t {
    const DEFAULT: Self = llm_session_params_t {
        struct_size: size_of::<Self>(),
        context_length: 0,
        threads: LLM_THREADS_AUTO,
        kv_type: LLM_KV_F16,
        chunk: 0,
        isa: LLM_ISA_AUTO,
        cache: LLM_CACHE_CONTIGUOUS,
        window: 0,
        sinks: 0,
        page_size: 0,
        reserved: 0,
    };
}

/// How to generate. Begin with llm_generate_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_generate_params_t {
    /// sizeof(llm_generate_params_t).
    pub struct_size: usize,
    /// End after this many tokens; 0 is no limit.
    pub max_tokens: u32,
    /// LLM_GENERATE_IGNORE_EOG or 0.
    pub flags: u32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_generate_params_t {
    const DEFAULT: Self = llm_generate_params_t { struct_size: size_of::<Self>(), max_tokens: 0, flags: 0 };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_session_params_init(params: *mut llm_session_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_generate_params_init(params: *mut llm_generate_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

pub(super) fn kv_type(number: llm_kv_type_t, argument: &'static str) -> Result<KvType> {
    args::one_of(number, &KV_TYPES, argument)
}

pub(super) fn isa(number: llm_isa_t, argument: &'static str) -> Result<Option<Isa>> {
    args::one_of(number, &ISAS, argument)
}

pub(super) fn cache_options(params: &llm_session_params_t) -> Result<CacheOptions> {
    args::flags(params.reserved, 0, "params.reserved")?;
    Ok(CacheOptions {
        kind: args::one_of(params.cache, &CACHE_KINDS, "params.cache")?,
        context_length: params.context_length as usize,
        kv_type: kv_type(params.kv_type, "params.kv_type")?,
        window: params.window as usize,
        sinks: params.sinks as usize,
        page_size: params.page_size as usize,
    })
}

pub(super) fn options(params: &llm_session_params_t) -> Result<SessionOptions> {
    Ok(SessionOptions {
        cache: cache_options(params)?,
        threads: threads(params.threads),
        chunk: params.chunk as usize,
        isa: isa(params.isa, "params.isa")?,
    })
}
