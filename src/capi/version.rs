//! Which library this is.

use std::ffi::{CStr, c_char};

use crate::Isa;

/// The version of this header; llm_version() tells the library's.
pub const LLM_VERSION_MAJOR: u32 = 0;
/// See LLM_VERSION_MAJOR.
pub const LLM_VERSION_MINOR: u32 = 1;
/// See LLM_VERSION_MAJOR.
pub const LLM_VERSION_PATCH: u32 = 0;
/// The version of the binary interface: a program runs with a library of the same number. While the major version
/// is 0 it is the minor version.
pub const LLM_ABI_VERSION: u32 = 1;

/// cbindgen wants literals; Cargo.toml has the last word.
const _: () = {
    const fn number(text: &str) -> u32 {
        match u32::from_str_radix(text, 10) {
            Ok(number) => number,
            Err(_) => panic!("versions are numbers"),
        }
    }
    assert!(LLM_VERSION_MAJOR == number(env!("CARGO_PKG_VERSION_MAJOR")));
    assert!(LLM_VERSION_MINOR == number(env!("CARGO_PKG_VERSION_MINOR")));
    assert!(LLM_VERSION_PATCH == number(env!("CARGO_PKG_VERSION_PATCH")));
    assert!(LLM_ABI_VERSION == if LLM_VERSION_MAJOR == 0 { LLM_VERSION_MINOR } else { LLM_VERSION_MAJOR });
};

const VERSION: &CStr = match CStr::from_bytes_with_nul(concat!(env!("CARGO_PKG_VERSION"), "\0").as_bytes()) {
    Ok(version) => version,
    Err(_) => panic!("a version has no zero byte"),
};

/// The version of the library, "0.1.0".
///
/// @return A constant.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_version() -> *const c_char {
    bare!(c"".as_ptr(), { Some(VERSION.as_ptr()) })
}

/// The version of the library's binary interface, to be compared with LLM_ABI_VERSION by programs that load it at
/// run time.
///
/// @return A constant.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_abi_version() -> u32 {
    bare!(0, { Some(LLM_ABI_VERSION) })
}

/// The instruction set that kernels use if a session does not ask for another: the best of this machine, or what the
/// environment variable LLM_ISA names.
///
/// @return A constant: "scalar", "neon", "avx2", "avx512"; "" if LLM_ISA names none that this machine has.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_isa() -> *const c_char {
    value!(c"".as_ptr(), {
        let name = match Isa::choose().ok()? {
            Isa::Scalar => c"scalar",
            Isa::Neon => c"neon",
            Isa::Avx2 => c"avx2",
            Isa::Avx512 => c"avx512",
        };
        Some(name.as_ptr())
    })
}

/// The number of threads that LLM_THREADS_AUTO means: the physical cores among the processors this process may use.
///
/// @return At least 1; 0 in a child process after fork.
/// @thread any
#[unsafe(no_mangle)]
pub unsafe extern "C" fn llm_physical_cores() -> u32 {
    value!(0, { u32::try_from(crate::physical_cores()).ok() })
}
