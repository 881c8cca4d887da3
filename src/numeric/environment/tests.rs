//! A host's float settings do not reach our results, and it gets them back.

use super::*;
use crate::numeric;

/// Sets what a host may have set, here without the code under test.
#[cfg(target_arch = "x86_64")]
fn set(value: u64) {
    let value = value as u32;
    // SAFETY: reads 4 bytes of `value`; the tests set defined bits only, and set them back before anything else runs.
    unsafe { std::arch::asm!("ldmxcsr [{}]", in(reg) &raw const value) };
}

#[cfg(target_arch = "x86_64")]
fn get() -> u64 {
    let mut value = 0u32;
    // SAFETY: writes 4 bytes of `value`.
    unsafe { std::arch::asm!("stmxcsr [{}]", in(reg) &raw mut value) };
    // Without the report of past exceptions.
    u64::from(value & !0x3F)
}

#[cfg(target_arch = "aarch64")]
fn set(value: u64) {
    // SAFETY: the tests set defined bits only, and set them back before anything else runs.
    unsafe { std::arch::asm!("msr fpcr, {}", in(reg) value) };
}

#[cfg(target_arch = "aarch64")]
fn get() -> u64 {
    let value;
    // SAFETY: reading FPCR has no side effect.
    unsafe { std::arch::asm!("mrs {}, fpcr", out(reg) value) };
    value
}

/// The default, and what a host may have set: flush to zero, subnormals read as zero, the three other roundings, all
/// of it.
#[cfg(target_arch = "x86_64")]
const SETTINGS: [u64; 7] = [0x1F80, 0x9F80, 0x1FC0, 0x3F80, 0x5F80, 0x7F80, 0xFFC0];
#[cfg(target_arch = "aarch64")]
const SETTINGS: [u64; 6] = [0, 1 << 24, 1 << 22, 2 << 22, 3 << 22, 1 << 24 | 3 << 22];

/// Results that notice each of the settings: subnormals in and out, sums that round, the functions. Not inlined, and
/// its input hidden, so that nothing is computed ahead of time or moved across the change of the settings.
#[inline(never)]
fn compute() -> Vec<u32> {
    let x = std::hint::black_box([1e-40f32, 3e-39, 1.1, -0.3, 1.000_000_1, 3e-20, 7.7, -2e-20, 0.1]);
    let mut results = Vec::new();
    for a in x {
        for b in x {
            let functions = [numeric::exp(a), numeric::tanh(a), numeric::silu(b), numeric::gelu_tanh(b)];
            results.extend([a * b, a + b, a / b, numeric::fma(a, b, -a)].into_iter().chain(functions));
            let wide = numeric::wide::exp(f64::from(a)) * f64::from(b);
            results.extend([wide as f32, numeric::wide::ln(f64::from(a.abs())) as f32]);
        }
    }
    results.into_iter().map(f32::to_bits).collect()
}

#[test]
fn a_hosts_settings_change_nothing_and_come_back() {
    let before = get();
    set(SETTINGS[0]);
    let expected = compute();
    let mut noticed = 0;
    for setting in SETTINGS {
        set(setting);
        let bare = compute();
        let environment = FloatEnvironment::enter();
        let (inside, found) = (get(), compute());
        {
            let _nested = FloatEnvironment::enter();
            assert_eq!(get(), SETTINGS[0]);
        }
        let after_nested = get();
        drop(environment);
        let after = get();
        set(SETTINGS[0]);
        assert_eq!((inside, after_nested, after), (SETTINGS[0], SETTINGS[0], setting), "{setting:#x}");
        assert_eq!(found, expected, "{setting:#x}");
        noticed += usize::from(bare != expected);
    }
    set(before);
    // Without the environment every setting but the default shows: the test can fail.
    assert_eq!(noticed, SETTINGS.len() - 1);
}

#[test]
fn the_settings_come_back_when_a_panic_passes() {
    let before = get();
    set(SETTINGS[1]);
    let result = std::panic::catch_unwind(|| {
        let _environment = FloatEnvironment::enter();
        std::panic::panic_any(get());
    });
    let after = get();
    set(before);
    assert_eq!(result.unwrap_err().downcast_ref::<u64>(), Some(&SETTINGS[0]));
    assert_eq!(after, SETTINGS[1]);
}

/// Threads inherit the settings of the one that starts them; the pool's compute with the defaults all the same.
#[test]
fn threads_of_a_pool_compute_with_the_defaults() {
    let before = get();
    set(SETTINGS[SETTINGS.len() - 1]);
    let threads = crate::Threads::new(3);
    let environment = FloatEnvironment::enter();
    let found = parking_lot::Mutex::new(Vec::new());
    threads.run(30, |_| {
        std::thread::sleep(std::time::Duration::from_micros(100));
        found.lock().push(get());
    });
    drop(environment);
    set(before);
    let found = found.into_inner();
    assert_eq!(found.len(), 30);
    assert!(found.iter().all(|&setting| setting == SETTINGS[0]), "{found:x?}");
}
