//! Key/value pages that sequences share.

use std::sync::Arc;

use super::args::{self, Growing};
use super::error::llm_error_t;
use super::handle::{self, Handle, Kind};
use super::model::{LLM_THREADS_AUTO, llm_model_t, threads};
use super::session_params::{LLM_ISA_AUTO, LLM_KV_F16, isa, kv_type, llm_isa_t, llm_kv_type_t};
use super::status::llm_status_t;
use crate::cache::{AttentionOptions, PagedCache, PagedOptions};
use crate::error::Result;

/// Keys and values of many sequences in pages of one pool. A forked sequence shares all pages with the one it came from;
/// who first writes to a page that others have too gets a copy of it (copy-on-write). Shared, reference counted:
/// different sequences can be used by different threads at the same time, the same one by one call at a time (BUSY
/// otherwise).
///
/// Sessions of a model keep their tokens in it with llm_session_new_in_pages; those with a common beginning then share
/// it. On its own it serves engines that have models of their own:
///
/// @code{.c}
/// llm_paged_cache_params_t params;
/// llm_paged_cache_params_init(&params, sizeof params);
/// params.num_layers = 2;
/// params.num_kv_heads = 4;
/// params.head_dim = 64;
/// params.max_pages = 1000;
/// llm_paged_cache_t *cache = NULL;
/// llm_sequence_t sequence, fork;
/// if (llm_paged_cache_new(&params, &cache, &error) == LLM_STATUS_OK
///     && llm_paged_cache_create_sequence(cache, &sequence, &error) == LLM_STATUS_OK) {
///     // for each token, in each layer:
///     // llm_paged_cache_append_token(cache, sequence, layer, k, v, &error)
///     // llm_paged_cache_attention(cache, sequence, layer, q, 1, NULL, out, capacity, &error)
///     if (llm_paged_cache_fork_sequence(cache, sequence, &fork, &error) != LLM_STATUS_OK)
///         fprintf(stderr, "%s\n", llm_error_message(error));
/// }
/// llm_paged_cache_free(cache);
/// @endcode
pub struct llm_paged_cache_t {
    _opaque: [u8; 0],
}

impl Handle for llm_paged_cache_t {
    type Value = Arc<PagedCache>;
    const KIND: Kind = Kind::PagedCache;
}

/// A sequence of an llm_paged_cache_t. Numbers begin at 1 and are not used again.
pub type llm_sequence_t = u64;

/// What a paged cache is to hold. Begin with llm_paged_cache_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_paged_cache_params_t {
    /// sizeof(llm_paged_cache_params_t).
    pub struct_size: usize,
    /// L, from 1 to 65,536.
    pub num_layers: u32,
    /// K, at least 1.
    pub num_kv_heads: u32,
    /// E, at least 1.
    pub head_dim: u32,
    /// Pages that there may be, at least 1. Memory is taken as they are first used.
    pub max_pages: u32,
    /// Positions of a page, a multiple of 16; 0 means 16.
    pub page_size: u32,
    /// One of LLM_KV_.
    pub kv_type: llm_kv_type_t,
    /// Threads that compute; as in llm_session_params_t.
    pub threads: u32,
    /// One of LLM_ISA_; one that the machine lacks is UNSUPPORTED.
    pub isa: llm_isa_t,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_paged_cache_params_t {
    const DEFAULT: Self = llm_paged_cache_params_t {
        struct_size: size_of::<Self>(),
        num_layers: 0,
        num_kv_heads: 0,
        head_dim: 0,
        max_pages: 0,
        page_size: 0,
        kv_type: LLM_KV_F16,
        threads: LLM_THREADS_AUTO,
        isa: LLM_ISA_AUTO,
    };
}

/// How attention is computed. Begin with llm_attention_params_init.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_attention_params_t {
    /// sizeof(llm_attention_params_t).
    pub struct_size: usize,
    /// H, a multiple of K: query head h reads key/value head h * K / H. 0 means K.
    pub num_heads: u32,
    /// A query at position p sees the positions p - window + 1 to p; 0: all up to p.
    pub window: u32,
    /// What products of queries and keys are multiplied by; 0 means 1 / sqrt(E).
    pub scale: f32,
    /// Scores become softcap * tanh(score / softcap); 0: they stay.
    pub softcap: f32,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_attention_params_t {
    const DEFAULT: Self =
        llm_attention_params_t { struct_size: size_of::<Self>(), num_heads: 0, window: 0, scale: 0.0, softcap: 0.0 };
}

/// The state of a paged cache. Set struct_size before it is filled.
#[derive(Clone, Copy)]
#[repr(C)]
pub struct llm_paged_cache_stats_t {
    /// sizeof(llm_paged_cache_stats_t).
    pub struct_size: usize,
    /// Pages that there may be.
    pub pages_total: u64,
    /// Pages that sequences and sessions hold.
    pub pages_used: u64,
    /// Pages that more than one of them holds.
    pub pages_shared: u64,
    /// Pages that none of them holds, kept because a session may begin with their tokens; they make room when it is
    /// needed.
    pub pages_idle: u64,
    /// The most pages that were taken at a time, idle ones included.
    pub pages_peak: u64,
    /// pages_used / pages_total.
    pub utilisation: f64,
    /// Committed positions of all sequences; one that several share counts for each.
    pub positions: u64,
    /// Sequences, without sessions.
    pub sequences: u64,
    /// Bytes of the pages that are used or idle.
    pub bytes: u64,
    /// Forks that were made.
    pub forks: u64,
    /// Pages that were copied because one of several holders wrote to it.
    pub copies: u64,
    /// Pages that sessions took over because they begin with their tokens.
    pub prefix_hits: u64,
    /// Idle pages that made room.
    pub evictions: u64,
}

// SAFETY: repr(C), begins with struct_size, only numbers, no padding (layout_tests).
unsafe impl Growing for llm_paged_cache_stats_t {
    const DEFAULT: Self = llm_paged_cache_stats_t {
        struct_size: size_of::<Self>(),
        pages_total: 0,
        pages_used: 0,
        pages_shared: 0,
        pages_idle: 0,
        pages_peak: 0,
        utilisation: 0.0,
        positions: 0,
        sequences: 0,
        bytes: 0,
        forks: 0,
        copies: 0,
        prefix_hits: 0,
        evictions: 0,
    };
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_params_init(params: *mut llm_paged_cache_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

/// Writes the defaults.
///
/// @param[out] params @nullable Room for `size` bytes; NULL does nothing.
/// @param[in] size sizeof *params.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_attention_params_init(params: *mut llm_attention_params_t, size: usize) {
    value!((), { args::init(params, size) })
}

fn options(params: &llm_paged_cache_params_t) -> Result<PagedOptions> {
    Ok(PagedOptions {
        layers: params.num_layers as usize,
        kv_heads: params.num_kv_heads as usize,
        head_dim: params.head_dim as usize,
        max_pages: params.max_pages as usize,
        page_size: params.page_size as usize,
        kv_type: kv_type(params.kv_type, "params.kv_type")?,
        threads: threads(params.threads),
        isa: isa(params.isa, "params.isa")?,
    })
}

/// Makes an empty cache.
///
/// @param[in] params What it is to hold.
/// @param[out] cache The cache, to be freed with llm_paged_cache_free.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT names a number that is 0 or, of layers, too large, or a page size that is no multiple of 16; UNSUPPORTED for an
///     instruction set that the machine lacks, or a head_dim that kv_type does not allow; OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_new(
    params: *const llm_paged_cache_params_t,
    cache: *mut *mut llm_paged_cache_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let out = args::out(cache, "cache")?;
        let params = args::required(params, "params")?;
        out.write(handle::new::<llm_paged_cache_t>(Arc::new(PagedCache::new(&options(&params)?)?))?);
        Ok(())
    })
}

/// Makes an empty cache for sessions and engines of a model. Where the model's values are narrower than its keys (latent
/// attention) it has no sequences of its own.
///
/// @param[in] model The model. It is not kept.
/// @param[in] params max_pages, page_size, kv_type, threads and isa; the numbers of layers and heads and the head's
///     length are the model's.
/// @param[out] cache The cache, to be freed with llm_paged_cache_free.
/// @param[out] error @nullable Why it failed.
/// @status as llm_paged_cache_new
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_new_for_model(
    model: *const llm_model_t,
    params: *const llm_paged_cache_params_t,
    cache: *mut *mut llm_paged_cache_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let model = handle::shared(model, "model")?;
        let out = args::out(cache, "cache")?;
        let params = args::required(params, "params")?;
        let cache = model.model.paged_cache(&options(&params)?)?;
        out.write(handle::new::<llm_paged_cache_t>(Arc::new(cache))?);
        Ok(())
    })
}

/// Adds a reference, to be freed with llm_paged_cache_free.
///
/// @param[in] cache A cache.
/// @return The same cache; NULL if it is not one.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_retain(cache: *const llm_paged_cache_t) -> *mut llm_paged_cache_t {
    value!(std::ptr::null_mut(), { handle::retain(cache) })
}

/// Gives a reference back. The cache lives until its sessions are freed, too.
///
/// @param[in] cache @nullable A cache; NULL does nothing.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_free(cache: *mut llm_paged_cache_t) {
    value!((), {
        handle::free(cache);
        Some(())
    })
}

/// Makes an empty sequence.
///
/// @param[in] cache A cache.
/// @param[out] sequence The sequence. It takes memory until it is removed.
/// @param[out] error @nullable Why it failed.
/// @status OUT_OF_MEMORY; UNSUPPORTED if the cache is for a model whose keys and values differ in width
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_create_sequence(
    cache: *const llm_paged_cache_t,
    sequence: *mut llm_sequence_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        let out = args::out(sequence, "sequence")?;
        out.write(cache.create_sequence()?);
        Ok(())
    })
}

/// Makes a sequence with the committed positions of another, of which all pages are shared.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence to fork.
/// @param[out] fork The new one.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND, OUT_OF_MEMORY; BUSY if another call uses the sequence
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_fork_sequence(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    fork: *mut llm_sequence_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        let out = args::out(fork, "fork")?;
        out.write(cache.fork_sequence(sequence)?);
        Ok(())
    })
}

/// Removes a sequence. Pages that nobody else holds are free again.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; BUSY if another call uses the sequence
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_remove_sequence(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::shared(cache, "cache")?.remove_sequence(sequence) })
}

/// Keeps the first positions of a sequence in every layer, and forgets the others.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence.
/// @param[in] length How many to keep, at most llm_paged_cache_sequence_length.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; BUSY if another call uses the sequence; INVALID_ARGUMENT if it has fewer
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_truncate_sequence(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    length: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, { handle::shared(cache, "cache")?.truncate_sequence(sequence, length) })
}

/// Appends a position to a layer of a sequence: llm_paged_cache_append_tokens with a count of 1.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence.
/// @param[in] layer The layer, from 0.
/// @param[in] k (K,E) floats: the key.
/// @param[in] v (K,E) floats: the value.
/// @param[out] error @nullable Why it failed.
/// @status as llm_paged_cache_append_tokens
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_append_token(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    layer: u32,
    k: *const f32,
    v: *const f32,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        let row = cache.position_width();
        let (k, v) = (args::slice(k, row, "k")?, args::slice(v, row, "v")?);
        cache.append_tokens(sequence, layer as usize, k, v)
    })
}

/// Appends positions to a layer of a sequence. A layer takes no positions that the layer before it does not have. A
/// position is committed, and counts in the sequence's length, when the last layer has it.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence.
/// @param[in] layer The layer, from 0.
/// @param[in] k (T,K,E) floats: the keys.
/// @param[in] v (T,K,E) floats: the values.
/// @param[in] count T; 0 does nothing.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; BUSY if another call uses the sequence; INVALID_ARGUMENT for a layer that there is not;
///     FAILED_PRECONDITION for a layer out of order; CACHE_FULL if there are no pages left, and OUT_OF_MEMORY: every
///     sequence is as it was then
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_append_tokens(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    layer: u32,
    k: *const f32,
    v: *const f32,
    count: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        let n = count.saturating_mul(cache.position_width());
        let (k, v) = (args::slice(k, n, "k")?, args::slice(v, n, "v")?);
        cache.append_tokens(sequence, layer as usize, k, v)
    })
}

/// The key of a position, as it is stored: rounded to the cache's type. A finite number beyond the range of f16 becomes
/// its largest.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence.
/// @param[in] layer The layer, from 0.
/// @param[in] position The position, from 0; one that the layer has, committed or not.
/// @param[out] k (K,E) floats.
/// @param[in] capacity Of `k` in floats, at least K * E.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; BUSY if another call uses the sequence; INVALID_ARGUMENT for a layer or position that there is not;
///     BUFFER_TOO_SMALL
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_get_k(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    layer: u32,
    position: usize,
    k: *mut f32,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        cache.get_k(sequence, layer as usize, position, args::buffer(k, capacity, "k")?)
    })
}

/// The value of a position, as it is stored: as llm_paged_cache_get_k.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence.
/// @param[in] layer The layer, from 0.
/// @param[in] position The position, from 0; one that the layer has, committed or not.
/// @param[out] v (K,E) floats.
/// @param[in] capacity Of `v` in floats, at least K * E.
/// @param[out] error @nullable Why it failed.
/// @status as llm_paged_cache_get_k
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_get_v(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    layer: u32,
    position: usize,
    v: *mut f32,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        cache.get_v(sequence, layer as usize, position, args::buffer(v, capacity, "v")?)
    })
}

/// The committed positions of a sequence: those that every layer has.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence.
/// @param[out] length In positions.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; BUSY if another call uses the sequence
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_sequence_length(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    length: *mut usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        let out = args::out(length, "length")?;
        out.write(cache.sequence_length(sequence)?);
        Ok(())
    })
}

/// The attention of the last positions of a layer: out = softmax(scale * q k^T) v, each query over the positions up to
/// its own. With keys in q8_0 or q4_0 the queries are rounded to blocks of 32 integers of 8 bits first.
///
/// @param[in] cache A cache.
/// @param[in] sequence The sequence.
/// @param[in] layer The layer, from 0. Its last T positions are the queries'.
/// @param[in] q (T,H,E) floats: the queries.
/// @param[in] count T; 0 does nothing.
/// @param[in] params @nullable How; NULL means the defaults.
/// @param[out] out (T,H,E) floats.
/// @param[in] capacity Of `out` in floats, at least T * H * E.
/// @param[out] error @nullable Why it failed.
/// @status NOT_FOUND; BUSY if another call uses the sequence; INVALID_ARGUMENT for a layer that there is not, more
///     queries than the layer has positions, and numbers in params that are not finite or heads that K does not divide;
///     BUFFER_TOO_SMALL, OUT_OF_MEMORY
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_attention(
    cache: *const llm_paged_cache_t,
    sequence: llm_sequence_t,
    layer: u32,
    q: *const f32,
    count: usize,
    params: *const llm_attention_params_t,
    out: *mut f32,
    capacity: usize,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        let params = args::params(params, "params")?;
        let heads = if params.num_heads == 0 { cache.kv_heads() } else { params.num_heads as usize };
        let n = count.saturating_mul(heads).saturating_mul(cache.position_width() / cache.kv_heads());
        let (q, out) = (args::slice(q, n, "q")?, args::buffer(out, capacity, "out")?);
        let asked = |value: f32| (value != 0.0).then_some(value);
        let options = AttentionOptions {
            heads,
            scale: asked(params.scale),
            softcap: asked(params.softcap),
            window: (params.window > 0).then_some(params.window as usize),
        };
        cache.attention(sequence, layer as usize, q, &options, out)
    })
}

/// The state of the cache.
///
/// @param[in] cache A cache.
/// @param[in,out] stats Filled; its struct_size must be set.
/// @param[out] error @nullable Why it failed.
/// @status INVALID_ARGUMENT
/// @thread any
#[must_use]
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_paged_cache_stats(
    cache: *const llm_paged_cache_t,
    stats: *mut llm_paged_cache_stats_t,
    error: *mut *mut llm_error_t,
) -> llm_status_t {
    fallible!(error, {
        let cache = handle::shared(cache, "cache")?;
        let out = args::info(stats, "stats")?;
        let stats = cache.stats();
        out.write(llm_paged_cache_stats_t {
            pages_total: stats.pages_total,
            pages_used: stats.pages_used,
            pages_shared: stats.pages_shared,
            pages_idle: stats.pages_idle,
            pages_peak: stats.pages_peak,
            utilisation: stats.pages_used as f64 / stats.pages_total as f64,
            positions: stats.positions,
            sequences: stats.sequences,
            bytes: stats.bytes,
            forks: stats.forks,
            copies: stats.copies,
            prefix_hits: stats.prefix_hits,
            evictions: stats.evictions,
            ..Growing::DEFAULT
        });
        Ok(())
    })
}
