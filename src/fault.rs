//! Panics on demand, so that tests can see what a defect would do. Nothing of it is left in release builds without the
//! feature `test-hooks`.

/// Panics if the environment variable `LLM_TEST_PANIC` names this place.
#[cfg(any(debug_assertions, feature = "test-hooks"))]
pub(crate) fn place(name: impl Fn() -> &'static str) {
    if let Some(wanted) = std::env::var_os("LLM_TEST_PANIC")
        && wanted == name()
    {
        panic!("injected by LLM_TEST_PANIC");
    }
}

#[cfg(not(any(debug_assertions, feature = "test-hooks")))]
pub(crate) fn place(_: impl Fn() -> &'static str) {}
