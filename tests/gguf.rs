//! The GGUF reader: what good files hold, and that no file does harm.

#[path = "common/allocator.rs"]
mod allocator;

mod common;

use allocator::most_held;
use llm::gguf::{Builder, ElementType, Gguf, ReadAt, Value};
use llm::{Error, Result};
use std::path::{Path, PathBuf};

const MIB: isize = 1 << 20;

fn folder() -> PathBuf {
    common::data("gguf-bad")
}

fn bytes_of(file: &str) -> Vec<u8> {
    std::fs::read(folder().join(file)).unwrap()
}

fn memory(file: &str) -> Gguf {
    Gguf::from_bytes(bytes_of(file)).unwrap()
}

struct Slow(Vec<u8>);

impl ReadAt for Slow {
    fn size(&self) -> u64 {
        self.0.len() as u64
    }
    fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
        let start = offset as usize;
        out.copy_from_slice(&self.0[start..start + out.len()]);
        Ok(())
    }
}

/// The three ways to open the same bytes.
fn open_all_ways(file: &str) -> [Result<Gguf>; 3] {
    let bytes = bytes_of(file);
    [Gguf::open(&folder().join(file)), Gguf::from_reader(Box::new(Slow(bytes.clone()))), Gguf::from_bytes(bytes)]
}

/// Reads everything a GGUF offers.
fn use_all(gguf: &Gguf) {
    for (key, value) in gguf.keys() {
        let _ = (format!("{value}"), format!("{value:?}"), gguf.get(key).is_some());
        let _ = (gguf.u32(key), gguf.u64(key), gguf.f32(key), gguf.bool(key), gguf.str(key));
        if let Ok(Some(array)) = gguf.array(key) {
            assert!(array.iter().count() <= array.len());
            let _ = (array.to_f32s(), array.to_i32s(), array.to_u32s(), array.to_bools());
            let _ = array.strings().map(|strings| strings.count());
        }
    }
    for tensor in gguf.tensors() {
        assert!(gguf.tensor(&tensor.name).is_some());
        assert_eq!(tensor.rows() * tensor.row_len(), tensor.elements());
        let _ = gguf.decode(tensor);
    }
}

/// (file, verdict, what is wrong) of every file.
fn index() -> Vec<(String, String, String)> {
    let text = std::fs::read_to_string(folder().join("index.csv")).unwrap();
    let mut rows = Vec::new();
    for line in text.lines().skip(1) {
        let mut fields = line.splitn(3, ',').map(str::to_owned);
        rows.push((fields.next().unwrap(), fields.next().unwrap(), fields.next().unwrap()));
    }
    assert_eq!(rows.len(), 95);
    rows
}

#[test]
fn every_file_gets_its_verdict_in_each_way() {
    for (file, verdict, what) in index() {
        for (way, opened) in ["path", "reader", "memory"].into_iter().zip(open_all_ways(&file)) {
            let opens = match (verdict.as_str(), file.as_str()) {
                ("ok" | "ok-model", _) => true,
                ("open" | "data", _) => false,
                // Cut inside a tensor, which opening finds.
                (_, "load-data-cut.gguf") => false,
                // A key is handed out as a string.
                (_, "any-key-utf8.gguf") => false,
                ("load" | "any", _) => true,
                _ => panic!("{file}: unknown verdict {verdict}"),
            };
            match opened {
                Ok(gguf) => {
                    assert!(opens, "{file} ({what}) must not open by {way}");
                    use_all(&gguf);
                }
                Err(error) => {
                    assert!(!opens, "{file} ({what}) must open by {way}: {error}");
                    assert!(matches!(error, Error::CorruptFile(_) | Error::Unsupported(_)), "{file}: {error:?}");
                    let path = folder().join(&file).display().to_string();
                    assert_eq!(error.fact("path"), (way == "path").then_some(path.as_str()));
                }
            }
        }
    }
}

#[test]
fn errors_name_the_key_or_tensor_and_the_facts() {
    // File, fact, value, a part of the message.
    let expected = [
        ("open-empty", "found", "0", "header"),
        ("open-short-magic", "expected", "4", "header"),
        ("open-magic", "found", "\"FUGG\"", "not a GGUF file"),
        ("open-magic-ggjt", "found", "\"tjgg\"", "not a GGUF file"),
        ("open-version-0", "found", "0", "version 2 or 3"),
        ("open-version-1", "found", "1", "version 1"),
        ("open-version-4", "found", "4", "version 4"),
        ("open-big-endian", "expected", "2 or 3", "big-endian"),
        ("open-header-cut", "offset", "16", "header"),
        ("open-n-tensors-max", "found", "18446744073709551615", "tensors"),
        ("open-n-tensors-huge", "found", "1000000000000", "tensors"),
        ("open-n-kv-max", "found", "18446744073709551615", "keys"),
        ("open-n-kv-huge", "found", "1000000000", "keys"),
        ("open-key-len-max", "key_index", "0", "18446744073709551615"),
        ("open-key-len-eof", "expected", "1000", "key number 0"),
        ("open-key-empty", "key_index", "0", "length of 0"),
        ("open-key-duplicate", "key", "k", "more than once"),
        ("any-key-utf8", "key_index", "0", "UTF-8"),
        ("open-str-len-huge", "key", "k", "1099511627776"),
        ("open-kv-type-13", "key", "k", "found 13"),
        ("open-kv-type-max", "key", "k", "found 4294967295"),
        ("open-arr-nested", "key", "k", "arrays of arrays"),
        ("open-arr-type", "key", "k", "found 99"),
        ("open-arr-n-overflow", "key", "k", "2305843009213693953"),
        ("open-arr-n-eof", "key", "k", "1000000000"),
        ("open-arr-str-cut", "key", "k", "at most 2 elements of type string"),
        ("open-kv-cut", "key", "k", "expected 8 bytes"),
        ("open-align-0", "key", "general.alignment", "u32 0"),
        ("open-align-3", "found", "u32 3", "general.alignment"),
        ("open-align-type", "found", "i32 32", "power of two"),
        ("open-info-cut", "tensor", "u", "end of the file"),
        ("open-no-data", "tensor", "t", "the file ends at"),
        ("data-cut", "tensor", "u", "the file ends at 204"),
        ("open-name-duplicate", "tensor", "t", "more than once"),
        ("open-dims-5", "tensor", "t", "at most 4 dimensions, found 5"),
        ("open-dims-max", "found", "4294967295", "tensor t"),
        ("open-dim-negative", "tensor", "t", "9223372036854775808"),
        ("open-dims-overflow", "tensor", "t", "4294967296 x 4294967296 x 2"),
        ("open-type-99", "tensor", "t", "type 99"),
        ("open-type-removed", "type", "4", "removed"),
        ("open-row-block", "tensor", "t", "multiple of 32 elements (Q4_0), found 48"),
        ("open-offset-unaligned", "tensor", "t", "multiple of 32, found 4"),
        ("open-offset-overflow", "offset", "18446744073709551584", "beyond 2^64"),
        ("open-offset-eof", "tensor", "t", "the file ends at 160"),
        ("open-offset-overlap", "tensor", "u", "tensors t and u overlap"),
        ("load-data-cut", "tensor", "blk.0.ffn_down.weight", "the file ends at"),
    ];
    for (file, fact, value, part) in expected {
        for error in open_all_ways(&format!("{file}.gguf")).into_iter().map(|opened| opened.err().unwrap()) {
            assert_eq!(error.fact(fact), Some(value), "{file}: {error:?}");
            assert!(error.to_string().contains(part), "{file}: {error}");
            if file == "open-arr-nested" {
                assert!(matches!(error, Error::Unsupported(_)), "the format allows them: {error:?}");
            }
        }
    }
    let errors = index().iter().filter(|(_, verdict, _)| verdict == "open" || verdict == "data").count();
    assert_eq!(expected.len(), errors + 2, "one row for each file that must not open");
}

#[test]
fn values_of_every_type() {
    let gguf = memory("ok-all-kv-types.gguf");
    assert!(matches!(gguf.get("k0"), Some(Value::U8(255))));
    assert!(matches!(gguf.get("k1"), Some(Value::I8(-128))));
    assert!(matches!(gguf.get("k2"), Some(Value::U16(65535))));
    assert!(matches!(gguf.get("k3"), Some(Value::I16(-32768))));
    assert!(matches!(gguf.get("k4"), Some(Value::U32(u32::MAX))));
    assert!(matches!(gguf.get("k5"), Some(Value::I32(i32::MIN))));
    assert!(matches!(gguf.get("k6"), Some(Value::F32(f32::NEG_INFINITY))));
    assert!(matches!(gguf.get("k7"), Some(Value::Bool(true))));
    assert!(matches!(gguf.get("k10"), Some(Value::U64(u64::MAX))));
    assert!(matches!(gguf.get("k11"), Some(Value::I64(i64::MIN))));
    assert!(matches!(gguf.get("k12"), Some(Value::F64(v)) if v.is_nan()));
    assert_eq!(gguf.bool("b2").unwrap(), Some(true), "any byte but 0 is true");
    let strings: Vec<&[u8]> = gguf.array("as").unwrap().unwrap().strings().unwrap().collect();
    assert_eq!(strings, [&b""[..], "x\u{e9}\n".as_bytes(), b"\0"]);
    for id in [0, 1, 2, 3, 4, 5, 10, 11] {
        let array = gguf.array(&format!("a{id}")).unwrap().unwrap();
        assert_eq!(array.element_type().id(), id);
        assert_eq!((array.to_u32s().unwrap(), array.to_i32s().unwrap()), (vec![1, 0], vec![1, 0]));
        assert_eq!(array.to_f32s().unwrap(), [1.0, 0.0]);
        assert!(array.strings().is_none() && array.to_bools().is_err());
    }
    assert_eq!(gguf.array("a6").unwrap().unwrap().to_f32s().unwrap(), [1.0, 0.0]);
    assert_eq!(gguf.array("a12").unwrap().unwrap().to_f32s().unwrap(), [1.0, 0.0]);
    assert_eq!(gguf.array("a7").unwrap().unwrap().to_bools().unwrap(), [true, false]);
    assert_eq!(gguf.keys().len(), gguf.keys().count());
    assert_eq!(gguf.keys().next().map(|(key, _)| key), Some("k0"), "keys come in the order of the file");

    let empty = memory("ok-empty-values.gguf");
    assert_eq!(empty.str("s").unwrap(), Some(""));
    assert_eq!(empty.array("as").unwrap().unwrap().strings().unwrap().count(), 0);
    assert_eq!(
        empty.array("a4").unwrap().map(|array| (array.element_type(), array.len())),
        Some((ElementType::U32, 0))
    );
}

#[test]
fn typed_getters_take_what_fits_and_name_the_key_otherwise() {
    let gguf = memory("ok-all-kv-types.gguf");
    assert_eq!((gguf.u32("k0").unwrap(), gguf.u64("k2").unwrap()), (Some(255), Some(65535)));
    assert_eq!((gguf.u32("k4").unwrap(), gguf.u64("k10").unwrap()), (Some(u32::MAX), Some(u64::MAX)));
    assert_eq!(gguf.f32("k6").unwrap(), Some(f32::NEG_INFINITY));
    assert!(gguf.f32("k12").unwrap().unwrap().is_nan());
    let absent = (gguf.u32("none").unwrap(), gguf.str("none").unwrap(), gguf.array("none").unwrap().is_none());
    assert_eq!(absent, (None, None, true));
    let errors = [
        (gguf.u32("k5").map(drop), "i32 -2147483648"),
        (gguf.u32("k10").map(drop), "u64 18446744073709551615"),
        (gguf.u64("k6").map(drop), "f32 -inf"),
        (gguf.f32("k4").map(drop), "u32 4294967295"),
        (gguf.bool("k0").map(drop), "u8 255"),
        (gguf.str("as").map(drop), "array of 3 string"),
        (gguf.array("k7").map(drop), "bool true"),
    ];
    for (result, found) in errors {
        let error = result.unwrap_err();
        assert!(matches!(error, Error::CorruptFile(_)) && error.fact("expected").is_some());
        assert_eq!(error.fact("found"), Some(found));
        assert!(error.to_string().contains(error.fact("key").unwrap()), "{error}");
    }
    let error = memory("any-str-utf8.gguf").str("k").unwrap_err();
    assert_eq!((error.fact("key"), error.fact("found")), (Some("k"), Some(r#"string "a\xc3(\xff""#)));
    let error = gguf.array("as").unwrap().unwrap().to_u32s().unwrap_err();
    assert_eq!((error.fact("key"), error.fact("index")), (Some("as"), Some("0")));
}

#[test]
fn tensors_are_found_sized_and_read() {
    for gguf in open_all_ways("ok-two-tensors.gguf").map(Result::unwrap) {
        assert_eq!((gguf.version(), gguf.alignment(), gguf.file_size(), gguf.tensors().len()), (3, 32, 224, 2));
        let t = gguf.tensor("t").unwrap();
        assert_eq!((&*t.dims, t.offset, t.bytes, t.type_name()), (&[4][..], 160, 16, "F32"));
        assert_eq!((t.row_len(), t.rows(), t.elements()), (4, 1, 4));
        assert_eq!(gguf.decode(t).unwrap(), [1.0, 2.0, 3.0, 4.0]);
        let mut part = [0; 4];
        gguf.read(t, 8, &mut part).unwrap();
        assert_eq!(part, 3f32.to_le_bytes());
        gguf.read(t, 16, &mut []).unwrap();
        for offset in [13, 16, u64::MAX - 1] {
            let error = gguf.read(t, offset, &mut part).unwrap_err();
            assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
            assert_eq!((error.fact("tensor"), error.fact("offset")), (Some("t"), Some(offset.to_string().as_str())));
        }
        assert!(gguf.tensor("v").is_none());
    }
    assert_eq!(memory("ok-align-64.gguf").alignment(), 64);
    let unaligned = memory("ok-align-1.gguf");
    assert_eq!(unaligned.tensors().iter().map(|t| t.bytes).collect::<Vec<_>>(), [3, 8]);
    let error = unaligned.decode(unaligned.tensor("t").unwrap()).unwrap_err();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    assert_eq!((error.fact("tensor"), error.fact("type")), (Some("t"), Some("I8")));
    let empty = memory("ok-zero-dim.gguf");
    let t = empty.tensor("t").unwrap();
    assert_eq!((&*t.dims, t.rows(), t.bytes, empty.decode(t).unwrap().len()), (&[4, 0][..], 0, 0, 0));
}

/// Files that are odd and good, or odd and accepted by preference: that they open is not enough.
#[test]
fn odd_files_hold_what_they_say() {
    let header = memory("ok-header-only.gguf");
    assert_eq!((header.keys().len(), header.tensors().len(), header.file_size()), (0, 0, 24));
    let unpadded = memory("ok-kv-no-padding.gguf");
    assert_eq!((unpadded.str("general.architecture").unwrap(), unpadded.tensors().len()), (Some("llama"), 0));
    let old = memory("ok-version-2.gguf");
    assert_eq!(old.version(), 2);
    for (gguf, name) in [(old, "t"), (memory("ok-trailing-bytes.gguf"), "t"), (memory("any-offset-gap.gguf"), "t")] {
        assert_eq!(gguf.decode(gguf.tensor(name).unwrap()).unwrap(), [1.0, 2.0, 3.0, 4.0]);
    }
    let gap = memory("any-offset-gap.gguf");
    assert_eq!(gap.tensor("u").unwrap().offset, gap.tensor("t").unwrap().offset + 64);
    assert_eq!(gap.decode(gap.tensor("u").unwrap()).unwrap(), [0.0; 4]);
    let ends = memory("any-end-padding.gguf");
    assert_eq!(ends.decode(ends.tensor("u").unwrap()).unwrap(), [0.0; 3]);
    assert_eq!(memory("any-name-64.gguf").tensors()[0].name, "n".repeat(64));
    let unknown = memory("ok-model-unknown-keys.gguf");
    assert_eq!(unknown.array("foo.bar").unwrap().unwrap().to_u32s().unwrap(), [1, 2, 3]);
    let (tiny, bpe) = (memory("ok-tiny-model.gguf"), memory("ok-bpe-model.gguf"));
    assert_eq!((tiny.tensors().len(), bpe.tensors().len()), (11, 11));
}

#[test]
fn paths_that_are_no_files_are_errors_with_the_path() {
    let error = Gguf::open(&folder()).err().unwrap();
    assert!(matches!(error, Error::InvalidArgument(_)), "{error}");
    assert!(error.to_string().contains("directory"), "{error}");
    assert_eq!(error.fact("path"), folder().to_str());
    let error = Gguf::open(Path::new("/nowhere/model.gguf")).err().unwrap();
    assert!(matches!(error, Error::NotFound(_)), "{error}");
    assert_eq!(error.fact("path"), Some("/nowhere/model.gguf"));
    for path in ["", "a\0b", "/dev/zero"] {
        let error = Gguf::open(Path::new(path)).err().unwrap();
        assert_eq!(error.fact("path"), Some(path), "{error}");
    }
}

#[test]
fn a_file_cut_while_open_gives_an_io_error() {
    let path = std::env::temp_dir().join(format!("llm-gguf-cut-{}.gguf", std::process::id()));
    std::fs::copy(folder().join("ok-tiny-model.gguf"), &path).unwrap();
    let gguf = Gguf::open(&path).unwrap();
    let cut = std::fs::OpenOptions::new().write(true).open(&path).unwrap();
    cut.set_len(20_000).unwrap();
    let result = gguf.decode(gguf.tensor("blk.0.ffn_down.weight").unwrap());
    std::fs::remove_file(&path).unwrap();
    let error = result.unwrap_err();
    assert!(matches!(error, Error::Io(_)), "{error}");
    assert_eq!((error.fact("tensor"), error.fact("path")), (Some("blk.0.ffn_down.weight"), path.to_str()));
}

/// A reader that fails, and one that claims a size it does not have.
#[test]
fn errors_and_lies_of_a_reader_are_errors() {
    struct Broken;
    impl ReadAt for Broken {
        fn size(&self) -> u64 {
            1 << 40
        }
        fn read_at(&self, _: u64, _: &mut [u8]) -> Result<()> {
            Err(Error::io("the disc is gone").with("disc", 7))
        }
    }
    let error = Gguf::from_reader(Box::new(Broken)).err().unwrap();
    assert!(matches!(&error, Error::Io(_)) && error.fact("disc") == Some("7"), "{error}");

    /// A valid start, then a string that is said to take 2^50 bytes, of a file of 2^60.
    struct Endless(Vec<u8>);
    impl ReadAt for Endless {
        fn size(&self) -> u64 {
            1 << 60
        }
        fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            for (i, byte) in out.iter_mut().enumerate() {
                *byte = self.0.get(offset as usize + i).copied().unwrap_or(0);
            }
            Ok(())
        }
    }
    let mut start = b"GGUF\x03\0\0\0".to_vec();
    start.extend([0u64, 1, 1].iter().flat_map(|n| n.to_le_bytes()));
    start.extend(b"k\x08\0\0\0");
    start.extend((1u64 << 50).to_le_bytes());
    let (opened, most) = most_held(|| Gguf::from_reader(Box::new(Endless(start))));
    let error = opened.err().unwrap();
    assert!(matches!(error, Error::Unsupported(_)), "{error}");
    assert!(most < MIB, "{most} bytes");
}

/// A dimension of 0 makes a tensor empty and its size in bytes 0: the other dimensions must be bounded all the same.
#[test]
fn dimensions_of_an_empty_tensor_are_bounded() {
    let open = |dims: [u64; 3]| {
        let mut bytes = b"GGUF\x03\0\0\0".to_vec();
        bytes.extend([1u64, 0, 1].iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend(b"t\x03\0\0\0");
        bytes.extend(dims.iter().flat_map(|n| n.to_le_bytes()));
        bytes.extend([0; 4 + 8]);
        bytes.resize(bytes.len().next_multiple_of(32), 0);
        Gguf::from_bytes(bytes)
    };
    let gguf = open([4, 1 << 40, 0]).unwrap();
    assert_eq!((gguf.tensors()[0].rows(), gguf.tensors()[0].elements()), (0, 0));
    for dims in [[1 << 63, 0, 1], [0, 1 << 63, 1], [1 << 40, 1 << 40, 0], [0, 1 << 40, 1 << 40], [1 << 62, 2, 0]] {
        let error = open(dims).err().unwrap();
        assert_eq!(error.fact("tensor"), Some("t"), "{dims:?}: {error}");
        assert!(error.to_string().contains("2^63 elements"), "{dims:?}: {error}");
    }
}

/// From a reader no more is read than the metadata need, in a few steps.
#[test]
fn a_reader_is_not_asked_for_the_weights() {
    use std::sync::atomic::{AtomicU64, Ordering::Relaxed};
    static ASKED: AtomicU64 = AtomicU64::new(0);
    struct Sparse(Vec<u8>);
    impl ReadAt for Sparse {
        fn size(&self) -> u64 {
            // Five tebibytes of weights after the metadata.
            5 << 40
        }
        fn read_at(&self, offset: u64, out: &mut [u8]) -> Result<()> {
            ASKED.fetch_add(out.len() as u64, Relaxed);
            for (i, byte) in out.iter_mut().enumerate() {
                *byte = self.0.get(offset as usize + i).copied().unwrap_or(0);
            }
            Ok(())
        }
    }
    let gguf = Gguf::from_reader(Box::new(Sparse(bytes_of("ok-tiny-model.gguf")))).unwrap();
    assert_eq!(ASKED.load(Relaxed), 64 << 10);
    assert_eq!(gguf.u32("llama.block_count").unwrap(), Some(1));
}

/// Opens bytes that may be anything and reads all they offer; the memory must stay in proportion.
fn survive(bytes: Vec<u8>) {
    let (_, most) = most_held(|| {
        let opened = [Gguf::from_reader(Box::new(Slow(bytes.clone()))), Gguf::from_bytes(bytes)];
        opened.iter().flatten().for_each(use_all);
    });
    assert!(most < 4 * MIB, "{most} bytes");
}

#[test]
fn truncated_files_do_no_harm() {
    for file in ["ok-all-kv-types.gguf", "ok-empty-values.gguf", "ok-two-tensors.gguf", "ok-align-1.gguf"] {
        let bytes = bytes_of(file);
        for n in 0..bytes.len() {
            survive(bytes[..n].to_vec());
        }
    }
    // The metadata of a model take a third of the file.
    let model = bytes_of("ok-tiny-model.gguf");
    for n in (0..model.len()).step_by(97) {
        assert!(Gguf::from_bytes(model[..n].to_vec()).is_err(), "cut at {n}");
    }
}

#[test]
fn changed_bytes_do_no_harm() {
    for file in ["ok-all-kv-types.gguf", "ok-two-tensors.gguf", "ok-zero-dim.gguf"] {
        let bytes = bytes_of(file);
        for i in 0..bytes.len() {
            for change in [0x01, 0x04, 0x08, 0x20, 0x80, 0xFF] {
                let mut changed = bytes.clone();
                changed[i] ^= change;
                survive(changed);
            }
        }
    }
}

proptest::proptest! {
    // Cases that failed are printed, not kept in a file.
    #![proptest_config(proptest::test_runner::Config { failure_persistence: None, ..Default::default() })]

    /// Any 64-bit number anywhere in the metadata, as lengths, counts and offsets are.
    #[test]
    fn any_number_anywhere_does_no_harm(at in 0usize..650, number: u64, shift in 0u32..64) {
        for file in ["ok-all-kv-types.gguf", "ok-two-tensors.gguf", "ok-bpe-model.gguf"] {
            let mut bytes = bytes_of(file);
            let at = at % bytes.len();
            for (byte, new) in bytes.iter_mut().skip(at).zip((number >> shift).to_le_bytes()) {
                *byte = new;
            }
            survive(bytes);
        }
    }
}

/// Opening takes memory for keys and tensors, not for the elements of arrays.
#[test]
fn a_large_vocabulary_takes_no_memory() {
    let n = 200_000u64;
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend([0u64, 1, 1].iter().flat_map(|n| n.to_le_bytes()));
    bytes.extend(b"k\x09\0\0\0\x08\0\0\0");
    bytes.extend(n.to_le_bytes());
    for i in 0..n {
        let piece = format!("piece {i}");
        bytes.extend((piece.len() as u64).to_le_bytes());
        bytes.extend(piece.as_bytes());
    }
    let (gguf, most) = most_held(|| Gguf::from_bytes(bytes).unwrap());
    assert!(most < 64 << 10, "{most} bytes");
    let strings = gguf.array("k").unwrap().unwrap().strings().unwrap();
    assert_eq!((strings.len(), strings.last()), (200_000, Some(&b"piece 199999"[..])));
}

/// As many keys as a file of a few MB can hold: neither quadratic time nor much memory.
#[test]
fn many_keys_are_found_quickly() {
    let n = 100_000u64;
    let mut bytes = b"GGUF\x03\0\0\0".to_vec();
    bytes.extend([0, n].iter().flat_map(|n| n.to_le_bytes()));
    for i in 0..n {
        bytes.extend(8u64.to_le_bytes());
        bytes.extend(format!("{i:08}").as_bytes());
        bytes.extend([0, 0, 0, 0, i as u8]);
    }
    let size = bytes.len() as isize;
    let (gguf, most) = most_held(|| Gguf::from_bytes(bytes).unwrap());
    assert!(most < 10 * size, "{most} bytes for a file of {size}");
    for i in 0..n {
        assert_eq!(gguf.u32(&format!("{i:08}")).unwrap(), Some(i as u32 & 255));
    }
}

/// Strings that a reader has not brought yet when the one before them ends.
#[test]
fn strings_go_on_over_the_steps_of_a_reader() {
    let texts: Vec<String> = (0..20_000).map(|i| format!("text {i}")).collect();
    let mut builder = Builder::new();
    builder.set_strings("a", &texts).unwrap();
    builder.set("b", 7u32).unwrap();
    let path = common::scratch("strings.gguf");
    builder.create(&path).unwrap().finish().unwrap();
    let gguf = Gguf::from_reader(Box::new(Slow(std::fs::read(&path).unwrap()))).unwrap();
    assert_eq!(gguf.u32("b").unwrap(), Some(7));
    let found: Vec<_> = gguf.array("a").unwrap().unwrap().strings().unwrap().collect();
    assert!(found.iter().eq(texts.iter().map(|text| text.as_bytes()).collect::<Vec<_>>().iter()));
}
