//! The kernels beside the limits of this machine, measured in the same run: `cargo bench --bench kernels [FILTER]`.
//!
//! - `limits`: reading memory (GB/s; the best of several ways to read), integer products and f32 products (both as
//!   operations a second, 2 a multiply-add), with the same number of threads as the kernels;
//! - `decode/FORMAT`: a matrix of 1 GiB times one column, bytes of the packed matrix a second;
//! - `prefill/FORMAT`: a matrix that stays in the caches times 512 columns, operations a second;
//! - `attention/TYPE`: 512 queries behind 4,096 positions, operations a second, and one query, bytes of keys and values a
//!   second.
//!
//! Two threads, or as many as LLM_BENCH_THREADS says.
// The probes of the limits are instructions, which not every CPU has.
#![allow(unsafe_code)]

use std::hint::black_box;
use std::time::{Duration, Instant};

use criterion::{Criterion, Throughput};
use llm::cache::{AttentionOptions, PagedCache, PagedOptions};
use llm::quant::Format;
use llm::timing::Linear;
use llm::{Isa, KvType, Result, Threads};

const FORMATS: [Format; 13] = [
    Format::Q4_0,
    Format::Q4_1,
    Format::Q5_0,
    Format::Q5_1,
    Format::Q8_0,
    Format::Q2K,
    Format::Q3K,
    Format::Q4K,
    Format::Q5K,
    Format::Q6K,
    Format::IQ4NL,
    Format::F16,
    Format::BF16,
];
const GIB: usize = 1 << 30;

fn threads() -> usize {
    std::env::var("LLM_BENCH_THREADS").ok().and_then(|n| n.parse().ok()).unwrap_or(2)
}

/// Seconds that `work` takes on all threads at once, each given its number.
fn together(threads: usize, work: impl Fn(usize) + Sync) -> f64 {
    let start = Instant::now();
    std::thread::scope(|scope| {
        for i in 0..threads {
            let work = &work;
            scope.spawn(move || work(i));
        }
    });
    start.elapsed().as_secs_f64()
}

#[cfg(target_arch = "x86_64")]
mod probes {
    use std::arch::x86_64::*;

    /// The sum of a buffer's vectors, prefetching `AHEAD` bytes before (0: not).
    #[target_feature(enable = "avx2")]
    pub fn read<const AHEAD: usize>(bytes: &[u8]) -> i32 {
        let mut sums = [_mm256_setzero_si256(); 8];
        for chunk in bytes.as_chunks::<256>().0 {
            for (i, sum) in sums.iter_mut().enumerate() {
                let at = chunk.as_ptr().wrapping_add(32 * i);
                if AHEAD > 0 && i % 2 == 0 {
                    _mm_prefetch::<_MM_HINT_T0>(at.wrapping_add(AHEAD).cast());
                }
                // SAFETY: the 32 bytes lie in the chunk.
                *sum = _mm256_add_epi32(*sum, unsafe { _mm256_loadu_si256(at.cast()) });
            }
        }
        _mm256_extract_epi32::<0>(sums.into_iter().fold(_mm256_setzero_si256(), |a, b| _mm256_add_epi32(a, b)))
    }

    const CHAINS: usize = 12;
    /// Steps of the chains in a round.
    const STEPS: usize = 64;

    /// A probe: the operations of `n` rounds of CHAINS chains of one instruction, which does so many; and what must not be
    /// left out. Each step takes the last one's result, and the
    /// compiler knows none of those after a round, so that none can be computed once for several.
    macro_rules! probe {
        ($name:ident, $features:literal, $operations:literal, $start:expr, |$chain:ident, $x:ident| $step:expr, $end:expr) => {
            #[target_feature(enable = $features)]
            pub fn $name(n: usize) -> (f64, i32) {
                let $x = std::hint::black_box($start);
                let mut chains = [$x; CHAINS];
                for _ in 0..n {
                    for _ in 0..STEPS {
                        for $chain in &mut chains {
                            *$chain = $step;
                        }
                    }
                    chains = std::hint::black_box(chains);
                }
                ((n * STEPS * CHAINS * $operations) as f64, chains.into_iter().map(|chain| $end(chain)).sum())
            }
        };
    }

    probe!(vnni, "avx512f,avx512vnni", 128, _mm512_set1_epi8(3), |c, x| _mm512_dpbusd_epi32(*c, x, x), |c| {
        _mm512_reduce_add_epi32(c)
    });
    // The products alone: a sum needs an addition for each besides.
    probe!(maddubs, "avx2", 64, _mm256_set1_epi8(3), |c, x| _mm256_maddubs_epi16(x, *c), |c| {
        _mm256_extract_epi32::<0>(c)
    });
    probe!(fma512, "avx512f", 32, _mm512_set1_ps(0.5), |c, x| _mm512_fmadd_ps(x, x, *c), |c| {
        _mm512_cvtss_f32(c) as i32
    });
    probe!(fma256, "avx2,fma", 16, _mm256_set1_ps(0.5), |c, x| _mm256_fmadd_ps(x, x, *c), |c| {
        _mm256_cvtss_f32(c) as i32
    });
}

/// The most that this machine does, for the instruction set that the kernels use.
#[cfg(target_arch = "x86_64")]
fn limits(isa: Isa, threads: usize) -> std::io::Result<()> {
    const ROUNDS: usize = 200_000;
    // What keeps a probe's result.
    let keep = |sum: i32| {
        black_box(sum);
    };
    for mib in [100, 240, 1024] {
        let mut map = memmap2::MmapMut::map_anon(mib << 20)?;
        #[cfg(target_os = "linux")]
        map.advise(memmap2::Advice::HugePage)?;
        map.fill(1);
        let part = map.len() / threads;
        let ways: [unsafe fn(&[u8]) -> i32; 4] =
            [probes::read::<0>, probes::read::<1024>, probes::read::<4096>, probes::read::<8192>];
        let mut best = 0f64;
        for way in ways {
            for _ in 0..5 {
                // SAFETY: the instruction sets that have kernels include AVX2.
                let seconds = together(threads, |i| keep(unsafe { way(&map[i * part..(i + 1) * part]) }));
                best = best.max(map.len() as f64 / seconds / 1e9);
            }
        }
        println!("limits/read {mib} MiB: {best:.1} GB/s");
    }
    let wide = isa == Isa::Avx512;
    let probe = |of_integers: bool| -> unsafe fn(usize) -> (f64, i32) {
        match (of_integers, wide) {
            (true, true) => probes::vnni,
            (true, false) => probes::maddubs,
            (false, true) => probes::fma512,
            (false, false) => probes::fma256,
        }
    };
    for (name, of_integers) in [("integer products", true), ("f32 products", false)] {
        let run = probe(of_integers);
        let mut best = 0f64;
        for _ in 0..5 {
            // SAFETY: the kernels of `isa` run on this CPU, so it has these instructions.
            let operations = unsafe { run(1) }.0 * ROUNDS as f64 * threads as f64;
            // SAFETY: as above.
            let seconds = together(threads, |_| keep(unsafe { run(ROUNDS) }.1));
            best = best.max(operations / seconds / 1e9);
        }
        println!("limits/{name}: {best:.0} GOP/s");
    }
    Ok(())
}

fn products(c: &mut Criterion, isa: Isa) -> Result<()> {
    // (name, matrix, columns): one as large as no cache is, and one that a core keeps while it goes through the columns.
    let phases = [("decode", None, 1), ("prefill", Some((1536, 2048)), 512)];
    for (phase, size, tokens) in phases {
        let mut group = c.benchmark_group(phase);
        for format in FORMATS {
            // Values that take a GiB; some formats are a little larger packed.
            let rows = GIB / format.row_bytes(4096).unwrap_or(GIB) / 16 * 16;
            let size = size.unwrap_or((rows, 4096));
            let mut linear = Linear::new(format, size, tokens, Threads::new(threads()), isa)?;
            let amount = if tokens == 1 {
                Throughput::BytesDecimal(linear.bytes() as u64)
            } else {
                Throughput::Elements(linear.operations() as u64)
            };
            group.throughput(amount);
            group.bench_function(format.name(), |b| b.iter(|| linear.run()));
        }
        group.finish();
    }
    Ok(())
}

fn attention(c: &mut Criterion, isa: Isa) -> Result<()> {
    const POSITIONS: usize = 4096;
    const QUERIES: usize = 512;
    const HEADS: usize = 9;
    const KV_HEADS: usize = 3;
    const HEAD: usize = 64;
    let options = AttentionOptions { heads: HEADS, scale: None, softcap: None, window: None };
    let mut group = c.benchmark_group("attention");
    for kv_type in [KvType::F16, KvType::Q8_0, KvType::F32] {
        let cache = PagedCache::new(&PagedOptions {
            layers: 1,
            kv_heads: KV_HEADS,
            head_dim: HEAD,
            max_pages: POSITIONS / 16,
            kv_type,
            threads: Some(Threads::new(threads())),
            isa: Some(isa),
            ..PagedOptions::default()
        })?;
        let sequence = cache.create_sequence().unwrap();
        let numbers = |n: usize| -> Vec<f32> { (0..n).map(|i| (i * 7919 % 1000) as f32 / 1000.0 - 0.5).collect() };
        let kv = numbers(POSITIONS * KV_HEADS * HEAD);
        cache.append_tokens(sequence, 0, &kv, &kv)?;
        for queries in [1, QUERIES] {
            let (q, mut out) = (numbers(queries * HEADS * HEAD), vec![0.0; queries * HEADS * HEAD]);
            // A query's products with the positions up to its own, and as many of weights and values.
            let pairs = queries * POSITIONS - queries * (queries - 1) / 2;
            let amount = if queries == 1 {
                Throughput::BytesDecimal(cache.stats().bytes)
            } else {
                Throughput::Elements((pairs * HEADS * HEAD * 4) as u64)
            };
            group.throughput(amount);
            group.bench_function(format!("{kv_type:?}, {queries} queries"), |b| {
                b.iter(|| cache.attention(sequence, 0, &q, &options, &mut out));
            });
        }
    }
    group.finish();
    Ok(())
}

fn main() -> Result<()> {
    let isa = Isa::choose()?;
    println!("{isa}, {} threads", threads());
    #[cfg(target_arch = "x86_64")]
    if isa != Isa::Scalar {
        limits(isa, threads()).map_err(|e| llm::Error::io(e.to_string()))?;
    }
    let mut c = Criterion::default()
        .sample_size(10)
        .warm_up_time(Duration::from_millis(300))
        .measurement_time(Duration::from_secs(2))
        .configure_from_args();
    products(&mut c, isa)?;
    attention(&mut c, isa)?;
    c.final_summary();
    Ok(())
}
