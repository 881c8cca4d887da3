//! Link arguments of the shared library; nothing is generated here.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    let var = |name| std::env::var(name).unwrap_or_default();
    // While the major version is 0, each minor version is an ABI of its own.
    let abi = match var("CARGO_PKG_VERSION_MAJOR").as_str() {
        "0" => format!("0.{}", var("CARGO_PKG_VERSION_MINOR")),
        major => major.to_owned(),
    };
    // Programs find a library by the name that it has here; on Apple's systems that of the file that cargo makes.
    match (var("CARGO_CFG_TARGET_VENDOR").as_str(), var("CARGO_CFG_TARGET_FAMILY").as_str()) {
        ("apple", _) => println!("cargo::rustc-cdylib-link-arg=-Wl,-install_name,@rpath/libllm.dylib"),
        (_, "unix") => {
            println!("cargo::rustc-cdylib-link-arg=-Wl,-soname,libllm.so.{abi}");
            // dlclose must not unmap the code that the pool's threads run.
            println!("cargo::rustc-cdylib-link-arg=-Wl,-z,nodelete");
        }
        _ => {}
    }
}
