//! The GGUF writer: what it writes reads as what was meant, and nothing that goes wrong leaves half a file.

#[path = "common/allocator.rs"]
mod allocator;
mod common;

use std::collections::BTreeSet;
use std::io::{self, Write};
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use llm::gguf::{Builder, ElementType, Gguf, PartLimit, Value, Writer};
use llm::{Error, Result};

/// A folder of the calling test's own, empty.
fn folder(name: &str) -> PathBuf {
    let folder = common::scratch(name);
    let _ = std::fs::remove_dir_all(&folder);
    std::fs::create_dir_all(&folder).unwrap();
    folder
}

fn names_in(folder: &Path) -> Vec<String> {
    let mut names: Vec<_> =
        std::fs::read_dir(folder).unwrap().map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    names
}

fn bad(file: &str) -> Vec<u8> {
    std::fs::read(common::data(&format!("gguf-bad/{file}"))).unwrap()
}

/// A stream that a test looks at afterwards, and that fails from `room` bytes on.
#[derive(Clone)]
struct Memory {
    bytes: Arc<Mutex<Vec<u8>>>,
    room: usize,
}

impl Memory {
    fn new(room: usize) -> Memory {
        Memory { bytes: Arc::default(), room }
    }
}

impl Write for Memory {
    fn write(&mut self, data: &[u8]) -> io::Result<usize> {
        let mut bytes = self.bytes.lock().unwrap();
        if bytes.len() + data.len() > self.room {
            return Err(io::Error::from(io::ErrorKind::StorageFull));
        }
        bytes.extend(data);
        Ok(data.len())
    }
    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

/// A builder of everything in a file.
fn builder_of(gguf: &Gguf) -> Result<Builder> {
    let mut builder = Builder::new();
    builder.copy_keys(gguf)?;
    for tensor in gguf.tensors() {
        builder.add_tensor_like(tensor)?;
    }
    Ok(builder)
}

/// Copies the data of all tensors, in pieces of an odd size.
fn copy_data(gguf: &Gguf, writer: &mut Writer) -> Result<()> {
    for tensor in gguf.tensors() {
        let mut at = 0;
        while at < tensor.bytes {
            let mut piece = vec![0; (tensor.bytes - at).min(100_003) as usize];
            gguf.read(tensor, at, &mut piece)?;
            writer.write(&tensor.name, &piece)?;
            at += piece.len() as u64;
        }
    }
    Ok(())
}

/// A file written again.
fn again(gguf: &Gguf) -> Vec<u8> {
    let memory = Memory::new(usize::MAX);
    let mut writer = builder_of(gguf).unwrap().write_to(Box::new(memory.clone())).unwrap();
    copy_data(gguf, &mut writer).unwrap();
    writer.finish().unwrap();
    std::mem::take(&mut *memory.bytes.lock().unwrap())
}

/// Keys, types and values, to the bit.
fn entries(gguf: &Gguf) -> Vec<(String, String)> {
    let value = |value: Value<'_>| match value {
        Value::F32(x) => format!("f32 {:08x}", x.to_bits()),
        Value::F64(x) => format!("f64 {:016x}", x.to_bits()),
        Value::Str(bytes) => format!("string {bytes:?}"),
        Value::Array(array) => match array.raw() {
            Some((bytes, _)) => format!("{value} {bytes:?}"),
            None => format!("{value} {:?}", array.strings().unwrap().collect::<Vec<_>>()),
        },
        other => other.to_string(),
    };
    gguf.keys().map(|(key, v)| (key.to_owned(), value(v))).collect()
}

fn data_of(gguf: &Gguf, name: &str) -> Vec<u8> {
    let tensor = gguf.tensor(name).unwrap();
    let mut bytes = vec![0; tensor.bytes as usize];
    gguf.read(tensor, 0, &mut bytes).unwrap();
    bytes
}

/// Two files hold the same, wherever in them it lies.
fn assert_same(a: &Gguf, b: &Gguf, what: &str) {
    assert_eq!(entries(a), entries(b), "{what}");
    assert_eq!(a.alignment(), b.alignment(), "{what}");
    let infos = |gguf: &Gguf| -> Vec<_> {
        gguf.tensors().iter().map(|t| (t.name.clone(), t.dims, t.type_id, t.bytes)).collect()
    };
    assert_eq!(infos(a), infos(b), "{what}");
    for tensor in a.tensors() {
        assert_eq!(data_of(a, &tensor.name), data_of(b, &tensor.name), "{what}: {}", tensor.name);
    }
}

/// Every file of a folder and its folders.
fn files(folder: &Path, all: &mut Vec<PathBuf>) {
    for entry in std::fs::read_dir(folder).unwrap() {
        let path = entry.unwrap().path();
        if path.is_dir() { files(&path, all) } else { all.push(path) }
    }
}

#[test]
fn every_readable_file_is_the_same_when_written_again() {
    // Older version, bytes after the end, gaps or missing padding, and a bool that is neither 0 nor 1.
    let not_canonical = [
        "any-end-padding.gguf",
        "any-offset-gap.gguf",
        "ok-all-kv-types.gguf",
        "ok-trailing-bytes.gguf",
        "ok-version-2.gguf",
    ];
    let mut all = Vec::new();
    // These two are archives, which are unpacked elsewhere.
    for folder in ["", "gguf-bad", "tokenizer"] {
        let (root, mut paths) = (common::data(folder), Vec::new());
        files(&root, &mut paths);
        let name = |path: &Path| Path::new(folder).join(path.strip_prefix(&root).unwrap()).display().to_string();
        all.extend(paths.into_iter().map(|path| (name(&path), path)));
    }
    let (mut read, mut ok, mut differ) = (0, 0, BTreeSet::new());
    for (name, path) in all {
        let packed = name.strip_suffix(".zst").map(|rest| rest.strip_suffix(".planes").unwrap_or(rest));
        if !packed.unwrap_or(&name).ends_with(".gguf") {
            continue;
        }
        let bytes = packed.map_or_else(|| std::fs::read(&path).unwrap(), common::unpacked);
        let Ok(gguf) = Gguf::from_bytes(bytes.clone()) else { continue };
        let written = again(&gguf);
        assert_same(&gguf, &Gguf::from_bytes(written.clone()).unwrap(), &name);
        if written != bytes {
            differ.insert(name.trim_start_matches("gguf-bad/").to_owned());
        }
        read += 1;
        ok += usize::from(name.starts_with("gguf-bad/ok"));
    }
    assert!(read > 90 && ok == 13, "{read} files, {ok} of them ok");
    assert_eq!(Vec::from_iter(differ), not_canonical);
}

#[test]
fn a_file_of_our_own_reads_as_it_was_meant() {
    let mut builder = Builder::new();
    builder.set("old", 1u8).unwrap();
    builder.set("u8", 255u8).unwrap();
    builder.set("i8", -128i8).unwrap();
    builder.set("u16", u16::MAX).unwrap();
    builder.set("i16", i16::MIN).unwrap();
    builder.set("u32", 1u64).unwrap();
    builder.set("i32", i32::MIN).unwrap();
    builder.set("u64", u64::MAX).unwrap();
    builder.set("i64", i64::MIN).unwrap();
    builder.set("f32", f32::MIN_POSITIVE).unwrap();
    builder.set("f64", f64::NAN).unwrap();
    builder.set("bool", true).unwrap();
    builder.set("text", "größer").unwrap();
    builder.set("bytes", &b"\xff\0\xfe"[..]).unwrap();
    builder.set_strings("strings", &[&b""[..], b"\xc3", "ab".as_bytes()]).unwrap();
    builder.set_strings::<&str>("no strings", &[]).unwrap();
    builder.set_array("floats", &[1.5f32, f32::NEG_INFINITY]).unwrap();
    builder.set_array("bools", &[true, false, true]).unwrap();
    builder.set_raw_array("shorts", ElementType::I16, &[1, 0, 0xff, 0xff]).unwrap();
    builder.set("u32", u32::MAX).unwrap();
    builder.set("general.alignment", 64u32).unwrap();
    assert!(builder.remove("old") && !builder.remove("old") && !builder.remove("none"));
    builder.set("old", "back, at the end").unwrap();
    builder.add_tensor("three bytes", 24, &[3]).unwrap();
    builder.add_tensor("nothing", 0, &[4, 0]).unwrap();
    builder.add_tensor("scalar", 0, &[]).unwrap();
    builder.add_tensor("blocks", 8, &[64, 1, 2]).unwrap();
    builder.add_tensor("nothing again", 30, &[0]).unwrap();
    let path = folder("own").join("own.gguf");
    let mut writer = builder.create(&path).unwrap();
    writer.write("three bytes", &[1]).unwrap();
    writer.write("three bytes", &[]).unwrap();
    assert_eq!(writer.next_tensor(), Some("three bytes"));
    writer.write("three bytes", &[2, 3]).unwrap();
    writer.write("scalar", &7f32.to_le_bytes()).unwrap();
    writer.write("blocks", &[9; 136]).unwrap();
    writer.finish().unwrap();
    assert_eq!(names_in(path.parent().unwrap()), ["own.gguf"]);

    let gguf = Gguf::open(&path).unwrap();
    let shown: Vec<_> = gguf.keys().map(|(key, value)| format!("{key}: {value}")).collect();
    let expected = [
        "u8: u8 255",
        "i8: i8 -128",
        "u16: u16 65535",
        "i16: i16 -32768",
        "u32: u32 4294967295",
        "i32: i32 -2147483648",
        "u64: u64 18446744073709551615",
        "i64: i64 -9223372036854775808",
        "f32: f32 0.000000000000000000000000000000000000011754944",
        "f64: f64 NaN",
        "bool: bool true",
        "text: string \"größer\"",
        "bytes: string \"\\xff\\x00\\xfe\"",
        "strings: array of 3 string",
        "no strings: array of 0 string",
        "floats: array of 2 f32",
        "bools: array of 3 bool",
        "shorts: array of 2 i16",
        "general.alignment: u32 64",
        "old: string \"back, at the end\"",
    ];
    assert_eq!(shown, expected);
    let array = |key: &str| gguf.array(key).unwrap().unwrap();
    assert_eq!(array("strings").strings().unwrap().collect::<Vec<_>>(), [&b""[..], b"\xc3", b"ab"]);
    assert_eq!(array("floats").to_f32s().unwrap(), [1.5, f32::NEG_INFINITY]);
    assert_eq!(array("bools").to_bools().unwrap(), [true, false, true]);
    assert_eq!(array("shorts").to_i32s().unwrap(), [1, -1]);
    assert_eq!(gguf.alignment(), 64);
    assert!(gguf.tensors().iter().all(|tensor| tensor.offset % 64 == 0));
    assert_eq!(gguf.file_size() % 64, 0, "the last tensor is padded too");
    assert_eq!(data_of(&gguf, "three bytes"), [1, 2, 3]);
    assert_eq!(gguf.decode(gguf.tensor("scalar").unwrap()).unwrap(), [7.0]);
    assert_eq!(data_of(&gguf, "blocks"), [9; 136]);
    assert_eq!(&*gguf.tensor("blocks").unwrap().dims, [64, 1, 2]);
}

/// The error of a call that must fail, with a fact.
fn refused<T>(result: Result<T>, fact: &str, value: &str) -> Error {
    let error = result.err().expect("must fail");
    assert_eq!(error.fact(fact), Some(value), "{error:?}");
    error
}

#[test]
fn keys_and_tensors_that_no_file_can_have_are_refused() {
    let mut builder = Builder::new();
    refused(builder.set("", 1u8), "found", "0");
    refused(builder.set(&"k".repeat(65536), 1u8), "found", "65536");
    builder.set(&"k".repeat(65535), 1u8).unwrap();
    for value in [Value::U32(0), Value::U32(48), Value::U64(32)] {
        refused(builder.set("general.alignment", value), "found", &value.to_string());
    }
    refused(builder.set_array("general.alignment", &[32u32]), "key", "general.alignment");
    refused(builder.set_raw_array("k", ElementType::I32, &[0; 6]), "key", "k");
    refused(builder.set_raw_array("k", ElementType::Str, &[0; 8]), "type", "string");

    builder.add_tensor("t", 0, &[4]).unwrap();
    builder.add_tensor(&"n".repeat(64), 0, &[4]).unwrap();
    refused(builder.add_tensor("t", 0, &[5]), "tensor", "t");
    refused(builder.add_tensor(&"n".repeat(65), 0, &[4]), "found", "65");
    refused(builder.add_tensor("u", 0, &[1, 1, 1, 1, 1]), "found", "5");
    refused(builder.add_tensor("u", 12, &[255]), "expected", "256");
    refused(builder.add_tensor("u", 0, &[1 << 40, 1 << 40]), "tensor", "u");
    let error = refused(builder.add_tensor("u", 4, &[32]), "type", "4");
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
    builder.add_tensor("u", 0, &[4]).unwrap();
    builder.add_tensor("huge", 0, &[1 << 61]).unwrap();
    builder.add_tensor("huge too", 0, &[1 << 61]).unwrap();
    builder.add_tensor("beyond", 0, &[1 << 61]).unwrap();
    let path = folder("refused").join("x.gguf");
    refused(builder.create(&path), "tensor", "huge too");
    assert_eq!(names_in(path.parent().unwrap()), [""; 0]);
}

fn two_tensors() -> Builder {
    builder_of(&Gguf::from_bytes(bad("ok-two-tensors.gguf")).unwrap()).unwrap()
}

#[test]
fn data_must_come_in_order_and_all_of_them() {
    let folder = folder("order");
    let path = folder.join("x.gguf");
    std::fs::write(&path, "old").unwrap();
    let mut writer = two_tensors().create(&path).unwrap();
    let error = refused(writer.write("u", &[0; 32]), "expected", "t");
    assert!(matches!(error, Error::InvalidArgument(_)) && error.fact("tensor") == Some("u"), "{error:?}");
    refused(writer.write("none", &[0; 8]), "tensor", "none");
    writer.write("t", &[0; 10]).unwrap();
    let error = refused(writer.write("t", &[0; 7]), "found", "17");
    assert_eq!(error.fact("expected"), Some("16"));
    // What was refused was not written, and changed nothing.
    writer.write("t", &[0; 6]).unwrap();
    refused(writer.write("t", &[0; 1]), "expected", "u");
    writer.write("u", &[0; 3]).unwrap();
    let error = refused(writer.finish(), "tensor", "u");
    assert!(matches!(error, Error::FailedPrecondition(_)) && error.fact("found") == Some("3"), "{error:?}");
    assert_eq!((names_in(&folder), std::fs::read(&path).unwrap()), (vec!["x.gguf".to_owned()], b"old".to_vec()));
}

#[test]
fn an_interrupted_write_leaves_the_old_file() {
    let folder = folder("interrupted");
    let path = folder.join("x.gguf");
    std::fs::write(&path, "old").unwrap();
    let mut writer = two_tensors().create(&path).unwrap();
    writer.write("t", &[0; 16]).unwrap();
    assert_eq!(names_in(&folder).len(), 2, "the new file lies beside the old");
    // Two writers at once do not disturb each other.
    let mut other = two_tensors().create(&path).unwrap();
    assert_eq!(names_in(&folder).len(), 3);
    drop(writer);
    assert_eq!(std::fs::read(&path).unwrap(), b"old");
    other.write("t", &[0; 16]).unwrap();
    other.write("u", &[1; 32]).unwrap();
    other.finish().unwrap();
    assert_eq!(names_in(&folder), ["x.gguf"]);
    assert_eq!(data_of(&Gguf::open(&path).unwrap(), "u"), [1; 32]);
}

#[test]
fn a_link_stays_a_link() {
    let folder = folder("link");
    std::fs::create_dir(folder.join("real")).unwrap();
    std::fs::write(folder.join("real/x.gguf"), "old").unwrap();
    std::os::unix::fs::symlink("real/x.gguf", folder.join("x.gguf")).unwrap();
    Builder::new().create(&folder.join("x.gguf")).unwrap().finish().unwrap();
    assert!(folder.join("x.gguf").is_symlink());
    assert!(Gguf::open(&folder.join("real/x.gguf")).is_ok());
    // Also where nothing is yet, by way of another.
    std::os::unix::fs::symlink("real/new.gguf", folder.join("one.gguf")).unwrap();
    std::os::unix::fs::symlink("one.gguf", folder.join("two.gguf")).unwrap();
    Builder::new().create(&folder.join("two.gguf")).unwrap().finish().unwrap();
    assert!(folder.join("two.gguf").is_symlink() && folder.join("one.gguf").is_symlink());
    assert!(Gguf::open(&folder.join("real/new.gguf")).is_ok());
    // A pipe is no path, and neither is a file whose name is gone, behind a link of /proc.
    #[cfg(target_os = "linux")]
    {
        use std::io::Read;
        use std::os::fd::AsRawFd;
        let through = |fd: i32| format!("/proc/self/fd/{fd}");
        let (mut end, pipe) = std::io::pipe().unwrap();
        Builder::new().create(through(pipe.as_raw_fd()).as_ref()).unwrap().finish().unwrap();
        drop(pipe);
        let mut bytes = Vec::new();
        end.read_to_end(&mut bytes).unwrap();
        assert_eq!(bytes, std::fs::read(folder.join("real/x.gguf")).unwrap());
        let nameless = std::fs::File::create_new(folder.join("nameless")).unwrap();
        std::fs::remove_file(folder.join("nameless")).unwrap();
        Builder::new().create(through(nameless.as_raw_fd()).as_ref()).unwrap().finish().unwrap();
        assert_eq!(nameless.metadata().unwrap().len(), bytes.len() as u64);
        assert_eq!(names_in(&folder), ["one.gguf", "real", "two.gguf", "x.gguf"]);
    }
    // Nothing is behind a link to itself.
    let round = folder.join("round.gguf");
    std::os::unix::fs::symlink("round.gguf", &round).unwrap();
    refused(Builder::new().create(&round), "path", round.to_str().unwrap());
    refused(Builder::new().create("".as_ref()), "path", "");
    assert!(round.is_symlink());
}

/// Who could not read the old file cannot read the new one.
#[test]
fn a_replaced_file_keeps_its_permissions() {
    use std::os::unix::fs::PermissionsExt;
    let folder = folder("permissions");
    let path = folder.join("x.gguf");
    for mode in [0o600, 0o640, 0o400] {
        let _ = std::fs::remove_file(&path);
        std::fs::write(&path, "old").unwrap();
        std::fs::set_permissions(&path, std::fs::Permissions::from_mode(mode)).unwrap();
        let mut writer = two_tensors().create(&path).unwrap();
        for name in names_in(&folder) {
            assert_eq!(std::fs::metadata(folder.join(&name)).unwrap().permissions().mode() & 0o777, mode, "{name}");
        }
        writer.write("t", &[0; 16]).unwrap();
        writer.write("u", &[0; 32]).unwrap();
        writer.finish().unwrap();
        assert_eq!(std::fs::metadata(&path).unwrap().permissions().mode() & 0o777, mode);
    }
}

#[test]
fn a_name_may_be_as_long_as_the_system_allows() {
    let folder = folder("long-name");
    let path = folder.join("x".repeat(255));
    Builder::new().create(&path).unwrap().finish().unwrap();
    assert!(Gguf::open(&path).is_ok());
}

/// Names of files are any bytes, also those of parts.
#[test]
fn parts_may_have_names_that_are_no_text() {
    use std::os::unix::ffi::OsStrExt;
    let folder = folder("split-bytes");
    let whole = Gguf::from_bytes(bad("ok-two-tensors.gguf")).unwrap();
    let path = folder.join(std::ffi::OsStr::from_bytes(b"a\xFF-b"));
    let limit = PartLimit { tensors: Some(1), ..PartLimit::default() };
    let mut writer = builder_of(&whole).unwrap().create_split(&path, limit).unwrap();
    copy_data(&whole, &mut writer).unwrap();
    writer.finish().unwrap();
    let first = folder.join(std::ffi::OsStr::from_bytes(b"a\xFF-b-00001-of-00002.gguf"));
    assert_eq!(Gguf::open(&first).unwrap().part_count(), 2);
}

/// A part that cannot be made ends the writing: no file appears, whatever comes later.
#[test]
fn a_part_that_cannot_be_made_ends_it() {
    let folder = folder("split-no-folder");
    let (here, there) = (folder.join("here"), folder.join("there"));
    std::fs::create_dir(&here).unwrap();
    let mut builder = Builder::new();
    builder.add_tensor("a", 0, &[4]).unwrap();
    builder.add_tensor("none", 0, &[0]).unwrap();
    let limit = PartLimit { tensors: Some(1), ..PartLimit::default() };
    let mut writer = builder.create_split(&here.join("x"), limit).unwrap();
    std::fs::rename(&here, &there).unwrap();
    assert!(matches!(writer.write("a", &[0; 16]), Err(Error::NotFound(_))));
    std::fs::rename(&there, &here).unwrap();
    assert!(matches!(writer.write("none", &[]), Err(Error::FailedPrecondition(_))));
    assert!(matches!(writer.finish(), Err(Error::FailedPrecondition(_))));
    assert!(!names_in(&here).iter().any(|name| name.ends_with(".gguf")));
}

/// Where a part cannot have its name, those that have theirs already lose it.
#[test]
fn parts_of_two_files_do_not_mix() {
    let folder = folder("split-mixed");
    let whole = Gguf::from_bytes(bad("ok-two-tensors.gguf")).unwrap();
    let limit = PartLimit { tensors: Some(1), ..PartLimit::default() };
    let mut writer = builder_of(&whole).unwrap().create_split(&folder.join("x"), limit).unwrap();
    copy_data(&whole, &mut writer).unwrap();
    std::fs::create_dir_all(folder.join("x-00001-of-00002.gguf/full")).unwrap();
    assert!(matches!(writer.finish(), Err(Error::Io(_))));
    assert_eq!(names_in(&folder), ["x-00001-of-00002.gguf"]);
}

/// What is not its turn is refused, and those without data that stand before it have not ended.
#[test]
fn a_refused_write_changes_nothing() {
    let mut builder = Builder::new();
    builder.add_tensor("none", 0, &[0]).unwrap();
    builder.add_tensor("a", 0, &[4]).unwrap();
    builder.add_tensor("b", 0, &[4]).unwrap();
    let mut writer = builder.create(&folder("refused").join("x.gguf")).unwrap();
    refused(writer.write("b", &[0; 16]), "expected", "none");
    refused(writer.write("other", &[0; 16]), "expected", "none");
    refused(writer.write("a", &[0; 17]), "found", "17");
    writer.write("none", &[]).unwrap();
    writer.write("a", &[0; 16]).unwrap();
    writer.write("b", &[0; 16]).unwrap();
    writer.finish().unwrap();
}

#[test]
fn paths_that_cannot_be_written_are_named() {
    let folder = folder("paths");
    for path in [folder.clone(), folder.join("no/x.gguf"), PathBuf::new(), folder.join("..")] {
        let error = refused(Builder::new().create(&path), "path", path.to_str().unwrap());
        assert!(matches!(error, Error::InvalidArgument(_) | Error::NotFound(_)), "{error:?}");
    }
    assert_eq!(names_in(&folder), [""; 0]);
}

#[test]
fn a_full_disk_is_an_error_and_leaves_nothing() {
    let bytes = bad("ok-two-tensors.gguf");
    let gguf = Gguf::from_bytes(bytes.clone()).unwrap();
    for room in 0..bytes.len() {
        let write = || -> Result<()> {
            let mut writer = two_tensors().write_to(Box::new(Memory::new(room)))?;
            copy_data(&gguf, &mut writer).inspect_err(|_| {
                // After a failure nothing more is written.
                let error = writer.write("u", &[]).unwrap_err();
                assert!(matches!(error, Error::FailedPrecondition(_)), "{error:?}");
            })?;
            writer.finish()
        };
        let error = write().unwrap_err();
        assert!(matches!(error, Error::Io(_)), "room for {room}: {error:?}");
    }
    // A device is written as it is, and this one is always full.
    let mut builder = Builder::new();
    builder.add_tensor("t", 24, &[1 << 20]).unwrap();
    let mut writer = builder.create("/dev/full".as_ref()).unwrap();
    refused(writer.write("t", &vec![0; 1 << 20]), "path", "/dev/full");
    refused(Builder::new().create("/dev/full".as_ref()).unwrap().finish(), "path", "/dev/full");
}

/// Files may not grow beyond 64 KiB: in a process of its own, which the shell sets that limit for.
#[test]
fn a_file_that_may_not_grow_is_removed() {
    const FOLDER: &str = "LLM_TEST_LIMITED_FOLDER";
    if let Ok(folder) = std::env::var(FOLDER) {
        let path = Path::new(&folder).join("x.gguf");
        let mut builder = Builder::new();
        builder.add_tensor("t", 24, &[1 << 20]).unwrap();
        let mut writer = builder.create(&path).unwrap();
        let error = refused(writer.write("t", &vec![0; 1 << 20]), "path", path.to_str().unwrap());
        assert!(matches!(error, Error::Io(_)), "{error:?}");
        // Removed at once, not only when the writer is.
        assert_eq!(names_in(Path::new(&folder)), ["x.gguf"]);
        refused(writer.finish().map_err(|error| error.with("state", "failed")), "state", "failed");
        return;
    }
    let folder = folder("limited");
    std::fs::write(folder.join("x.gguf"), "old").unwrap();
    let status = std::process::Command::new("sh")
        .args(["-c", "ulimit -f 64; trap '' XFSZ; exec \"$0\" --exact a_file_that_may_not_grow_is_removed"])
        .arg(std::env::current_exe().unwrap())
        .env(FOLDER, &folder)
        .output()
        .unwrap();
    assert!(status.status.success(), "{}", String::from_utf8_lossy(&status.stdout));
    assert!(String::from_utf8_lossy(&status.stdout).contains("1 passed"));
    assert_eq!(std::fs::read(folder.join("x.gguf")).unwrap(), b"old");
}

#[test]
fn memory_is_that_of_the_pieces() {
    let path = folder("memory").join("x.gguf");
    let mut builder = Builder::new();
    builder.set("general.architecture", "none").unwrap();
    builder.add_tensor("t", 24, &[64 << 20]).unwrap();
    builder.add_tensor("u", 24, &[1]).unwrap();
    let piece = vec![7; 1 << 20];
    let (result, most) = allocator::most_held(|| -> Result<()> {
        let mut writer = builder.create(&path)?;
        for _ in 0..64 {
            writer.write("t", &piece)?;
        }
        writer.write("u", &[1])?;
        writer.finish()
    });
    result.unwrap();
    assert!(most < 64 << 10, "{most} bytes");
    assert_eq!(Gguf::open(&path).unwrap().file_size(), std::fs::metadata(&path).unwrap().len());
    std::fs::remove_file(path).unwrap();
}

/// Writes a file as parts and gives their names.
fn split(gguf: &Gguf, path: &Path, limit: PartLimit) -> Vec<String> {
    let mut writer = builder_of(gguf).unwrap().create_split(path, limit).unwrap();
    copy_data(gguf, &mut writer).unwrap();
    writer.finish().unwrap();
    names_in(path.parent().unwrap())
}

#[test]
fn a_split_file_is_read_as_one() {
    let folder = folder("split");
    let whole = Gguf::from_bytes(bad("ok-tiny-model.gguf")).unwrap();
    let limit = PartLimit { tensors: Some(4), ..PartLimit::default() };
    let names = split(&whole, &folder.join("tiny.gguf"), limit);
    let expected: Vec<_> = (1..=3).map(|i| format!("tiny-0000{i}-of-00003.gguf")).collect();
    assert_eq!(names, expected);
    let gguf = Gguf::open(&folder.join(&names[0])).unwrap();
    assert_eq!(gguf.part_count(), 3);
    assert_eq!(gguf.tensors().iter().map(|tensor| tensor.part).collect::<Vec<_>>(), [0, 0, 0, 0, 1, 1, 1, 1, 2, 2, 2]);
    let sizes: u64 = names.iter().map(|name| std::fs::metadata(folder.join(name)).unwrap().len()).sum();
    assert_eq!(gguf.file_size(), sizes);
    let (number, count) = (gguf.get("split.no").unwrap(), gguf.get("split.count").unwrap());
    let tensors = gguf.get("split.tensors.count").unwrap();
    assert_eq!(format!("{number} {count} {tensors}"), "u16 0 u16 3 i32 11");
    // Written as one file it is what it was, to the byte.
    assert_eq!(again(&gguf), bad("ok-tiny-model.gguf"));
    // And as a model it is the same.
    let model = common::load(&gguf);
    assert_eq!(model.parameter_count(), common::load(&whole).parameter_count());
    // An error in a part names that part.
    let tensor = gguf.tensors().last().unwrap();
    let error = gguf.read(tensor, tensor.bytes, &mut [0]).unwrap_err();
    assert!(error.fact("path").unwrap().ends_with("-00003-of-00003.gguf"), "{error:?}");
}

#[test]
fn a_part_is_no_larger_than_was_allowed() {
    let whole = Gguf::from_bytes(bad("ok-tiny-model.gguf")).unwrap();
    let mut counts = Vec::new();
    for bytes in [1, 9000, 12_000, 20_000, 40_000] {
        let folder = folder(&format!("split-{bytes}"));
        let names = split(&whole, &folder.join("tiny"), PartLimit { bytes: Some(bytes), ..PartLimit::default() });
        let gguf = Gguf::open(&folder.join(&names[0])).unwrap();
        assert_eq!(gguf.part_count(), names.len());
        // A file of one part keeps its keys about the split, as any other.
        assert!(names.len() == 1 || again(&gguf) == bad("ok-tiny-model.gguf"), "{bytes}");
        for (part, name) in names.iter().enumerate() {
            let n = gguf.tensors().iter().filter(|tensor| tensor.part == part).count();
            let size = std::fs::metadata(folder.join(name)).unwrap().len();
            assert!(n >= 1 && (size <= bytes || n == 1), "{bytes}: {name} has {size} bytes and {n} tensors");
        }
        counts.push(names.len());
    }
    // One tensor each, and then ever fewer parts.
    assert_eq!((counts[0], counts[4]), (11, 1));
    assert!(counts.is_sorted_by(|a, b| a >= b) && counts[2] < 11 && counts[3] > 1, "{counts:?}");
    for limit in [PartLimit { bytes: Some(0), tensors: None }, PartLimit { bytes: None, tensors: Some(0) }] {
        assert!(builder_of(&whole).unwrap().create_split("x".as_ref(), limit).is_err());
    }
}

/// An alignment is that of every part, and what is left of parts when something fails is nothing.
#[test]
fn parts_keep_the_alignment_and_appear_together() {
    let folder = folder("split-alignment");
    let whole = Gguf::from_bytes(bad("ok-align-64.gguf")).unwrap();
    let limit = PartLimit { tensors: Some(1), ..PartLimit::default() };
    let mut writer = builder_of(&whole).unwrap().create_split(&folder.join("a"), limit).unwrap();
    copy_data(&whole, &mut writer).unwrap();
    assert!(names_in(&folder).iter().all(|name| name.ends_with(".part")));
    writer.finish().unwrap();
    let gguf = Gguf::open(&folder.join("a-00001-of-00002.gguf")).unwrap();
    assert_eq!(gguf.alignment(), 64);
    assert!(gguf.tensors().iter().all(|tensor| tensor.offset % 64 == 0 && tensor.offset >= 64));
    assert_eq!(again(&gguf), bad("ok-align-64.gguf"));
    let mut writer = builder_of(&whole).unwrap().create_split(&folder.join("b"), limit).unwrap();
    writer.write("t", &data_of(&whole, "t")).unwrap();
    drop(writer);
    assert_eq!(names_in(&folder), ["a-00001-of-00002.gguf", "a-00002-of-00002.gguf"]);
}

#[test]
fn a_missing_or_wrong_part_is_named() {
    let folder = folder("split-wrong");
    let whole = Gguf::from_bytes(bad("ok-tiny-model.gguf")).unwrap();
    let limit = PartLimit { tensors: Some(4), ..PartLimit::default() };
    let names = split(&whole, &folder.join("m"), limit);
    let path = |i: usize| folder.join(&names[i]);
    let bytes: Vec<_> = (0..3).map(|i| std::fs::read(path(i)).unwrap()).collect();
    let first = || Gguf::open(&path(0));
    let named = |i: usize| path(i).display().to_string();

    // Not the first.
    let error = refused(Gguf::open(&path(1)), "expected", &named(0));
    assert!(matches!(error, Error::InvalidArgument(_)) && error.to_string().contains(&named(0)), "{error:?}");
    assert_eq!(error.fact("path"), Some(&*named(1)));
    // No path to find the others by.
    let error = refused(Gguf::from_bytes(bytes[0].clone()), "key", "split.count");
    assert!(matches!(error, Error::Unsupported(_)), "{error:?}");
    // Missing.
    std::fs::remove_file(path(2)).unwrap();
    let error = refused(first(), "path", &named(2));
    assert!(matches!(error, Error::NotFound(_)) && error.to_string().contains(&names[2]), "{error:?}");
    // No part, a part of another number, cut.
    std::fs::write(path(2), "no GGUF").unwrap();
    refused(first(), "path", &named(2));
    std::fs::write(path(2), &bytes[1]).unwrap();
    let error = refused(first(), "path", &named(2));
    assert_eq!((error.fact("key"), error.fact("found")), (Some("split.no"), Some("1")));
    std::fs::write(path(2), &bytes[2][..bytes[2].len() - 64]).unwrap();
    let error = refused(first(), "path", &named(2));
    assert!(error.fact("tensor").is_some(), "{error:?}");
    std::fs::write(path(2), &bytes[2]).unwrap();
    first().unwrap();
    // Under a name that says nothing of parts, or another number.
    for name in ["m.gguf", "m-00001-of-00004.gguf", "m-00002-of-00003.gguf"] {
        let path = folder.join(name);
        std::fs::write(&path, &bytes[0]).unwrap();
        let error = refused(Gguf::open(&path), "path", path.to_str().unwrap());
        assert!(matches!(error, Error::InvalidArgument(_) | Error::CorruptFile(_)), "{error:?}");
    }
}

/// Parts made by hand: the keys of each are those given, beside a tensor each.
#[test]
fn keys_about_the_split_must_agree() {
    let folder = folder("split-keys");
    type Keys<'k> = &'k [(&'k str, u32)];
    let open = |first: Keys<'_>, second: Keys<'_>, tensors: [&str; 2]| {
        for (i, (keys, tensor)) in [first, second].into_iter().zip(tensors).enumerate() {
            let mut builder = Builder::new();
            keys.iter().for_each(|(key, value)| builder.set(key, *value).unwrap());
            builder.add_tensor(tensor, 24, &[1]).unwrap();
            let mut writer = builder.create(&folder.join(format!("k-0000{}-of-00002.gguf", i + 1))).unwrap();
            writer.write(tensor, &[1]).unwrap();
            writer.finish().unwrap();
        }
        Gguf::open(&folder.join("k-00001-of-00002.gguf"))
    };
    let good: Keys<'_> = &[("split.no", 0), ("split.count", 2), ("split.tensors.count", 2)];
    let second: Keys<'_> = &[("split.no", 1), ("split.count", 2), ("split.tensors.count", 2)];
    assert_eq!(open(good, second, ["a", "b"]).unwrap().tensors().len(), 2);
    refused(open(good, second, ["a", "a"]), "tensor", "a");
    refused(open(&[("split.count", 2), ("split.tensors.count", 2)], second, ["a", "b"]), "key", "split.no");
    refused(open(&[("split.count", 2), ("split.no", 0)], second, ["a", "b"]), "key", "split.tensors.count");
    refused(open(&[good[0], good[1], ("split.tensors.count", 3)], second, ["a", "b"]), "found", "2");
    refused(open(good, &[("split.count", 2)], ["a", "b"]), "key", "split.no");
    refused(open(good, &[("split.no", 1)], ["a", "b"]), "key", "split.count");
    refused(open(good, &[("split.no", 1), ("split.count", 3)], ["a", "b"]), "found", "3");
    // A file of one part is a file.
    assert_eq!(open(&[("split.no", 0), ("split.count", 1)], second, ["a", "b"]).unwrap().part_count(), 1);
}
