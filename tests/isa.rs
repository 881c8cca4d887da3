//! No instruction set is skipped in silence: the other tests loop over those that are available, and here what is
//! available is held against what the CPU says of itself.

use llm::Isa;

/// The CPU's flags as Linux lists them, read here and not by the code under test.
#[cfg(target_os = "linux")]
fn needs(isa: Isa) -> &'static [&'static str] {
    match isa {
        Isa::Scalar => &[],
        Isa::Neon => &["asimd"],
        Isa::Avx2 => &["avx2", "fma", "f16c"],
        Isa::Avx512 => &["avx512f", "avx512bw", "avx512dq", "avx512vl", "avx512_vnni", "avx2", "fma", "f16c"],
    }
}

#[cfg(target_os = "linux")]
#[test]
fn what_the_cpu_has_is_available() {
    let cpuinfo = std::fs::read_to_string("/proc/cpuinfo").unwrap();
    let flags = |line: &&str| line.starts_with("flags") || line.starts_with("Features");
    let line = cpuinfo.lines().find(flags).expect("a line of flags");
    let flags: Vec<&str> = line.split_whitespace().collect();
    for isa in Isa::ALL {
        let has = needs(isa).iter().all(|flag| flags.contains(flag));
        println!("{isa}: {}", if has { "tested here" } else { "this CPU lacks it" });
        assert_eq!(isa.is_available(), has, "{isa} needs {:?}", needs(isa));
    }
}

#[test]
fn scalar_is_everywhere_and_names_are_read_back() {
    assert!(Isa::Scalar.is_available());
    for isa in Isa::ALL {
        assert_eq!(isa.name().parse::<Isa>().unwrap(), isa);
        assert_eq!(isa.to_string(), isa.name());
    }
    let error = "AVX2".parse::<Isa>().unwrap_err();
    assert!(matches!(error, llm::Error::Unsupported(_)) && error.fact("isa") == Some("AVX2"), "{error}");
}

/// Each instruction set by the environment variable, in a process of its own.
#[test]
fn the_environment_variable_chooses() {
    const ASKED: &str = "LLM_TEST_ISA_CHILD";
    if std::env::var_os(ASKED).is_some() {
        print!("chosen: {}", Isa::choose().map_or_else(|error| error.to_string(), |isa| isa.to_string()));
        return;
    }
    let run = |value: &str| {
        let program = std::env::current_exe().unwrap();
        let mut command = std::process::Command::new(program);
        command.args(["--exact", "the_environment_variable_chooses", "--nocapture"]);
        let output = command.env(ASKED, "1").env("LLM_ISA", value).output().unwrap();
        let text = String::from_utf8(output.stdout).unwrap();
        let (_, chosen) = text.split_once("chosen: ").unwrap_or_else(|| panic!("{text}"));
        chosen.to_string()
    };
    for isa in Isa::ALL {
        let chosen = run(isa.name());
        assert_eq!(chosen.starts_with(isa.name()), isa.is_available(), "{isa}: {chosen}");
    }
    let fastest = Isa::ALL.into_iter().rfind(|isa| isa.is_available()).unwrap();
    assert!(run("").starts_with(fastest.name()));
    assert!(run("sse9").contains("there is no instruction set \"sse9\""));
}
