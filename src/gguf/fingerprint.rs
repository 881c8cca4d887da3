//! Numbers that tell files apart.

use super::{Gguf, Value};
use crate::error::Result;

/// Bytes of a tensor that are looked at.
const SAMPLE: u64 = 64;

/// Keys that packing a file adds, changes or removes.
const OF_PACKING: [&str; 3] = ["llm.packed.", "general.alignment", "split."];

impl Gguf {
    /// Files that differ in what they compute hardly share it. `tensors`: [`tensors_checksum`](Self::tensors_checksum),
    /// of a packed file that of the model's.
    pub(crate) fn fingerprint(&self, tensors: u32) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        crc.update(&tensors.to_le_bytes());
        // What tokens mean does not change what is computed of them, and there are many.
        let counts = |key: &str| !key.starts_with("tokenizer.") && !OF_PACKING.iter().any(|part| key.starts_with(part));
        self.visit_keys(counts, |bytes| crc.update(bytes));
        crc.finalize()
    }

    /// A CRC-32 of each tensor's name, shape, type and first bytes.
    pub(crate) fn tensors_checksum(&self) -> Result<u32> {
        let mut crc = crc32fast::Hasher::new();
        let mut sample = [0; SAMPLE as usize];
        for tensor in self.tensors() {
            crc.update(format!("{} {:?} {}\n", tensor.name, tensor.dims, tensor.type_id).as_bytes());
            let sample = &mut sample[..tensor.bytes.min(SAMPLE) as usize];
            self.read(tensor, 0, sample)?;
            crc.update(sample);
        }
        Ok(crc.finalize())
    }

    /// Calls `visit` with the bytes of some keys and of their values whole.
    pub(crate) fn visit_keys(&self, which: impl Fn(&str) -> bool, mut visit: impl FnMut(&[u8])) {
        for (key, value) in self.keys().filter(|(key, _)| which(key)) {
            match value {
                Value::Array(array) => {
                    visit(format!("{key} {} {}\n", array.element_type().name(), array.len()).as_bytes());
                    visit(array.bytes);
                }
                value => visit(format!("{key} {value:?}\n").as_bytes()),
            }
        }
    }
}
