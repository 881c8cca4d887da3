//! Numbers that tell files apart.

use super::{Gguf, Value};
use crate::error::Result;

/// Bytes of a tensor that are looked at.
const SAMPLE: u64 = 64;

impl Gguf {
    /// A CRC-32 of the keys with their values, of arrays only the length, and of each tensor's name, shape, type and
    /// first bytes: files that differ in what they compute hardly share it.
    pub(crate) fn fingerprint(&self) -> Result<u32> {
        let mut crc = crc32fast::Hasher::new();
        for (key, value) in self.keys() {
            let value = match value {
                Value::Array(array) => format!("{key} {}\n", array.len()),
                value => format!("{key} {value:?}\n"),
            };
            crc.update(value.as_bytes());
        }
        let mut sample = [0; SAMPLE as usize];
        for tensor in self.tensors() {
            crc.update(format!("{} {:?} {}\n", tensor.name, tensor.dims, tensor.type_id).as_bytes());
            let sample = &mut sample[..tensor.bytes.min(SAMPLE) as usize];
            self.read(tensor, 0, sample)?;
            crc.update(sample);
        }
        Ok(crc.finalize())
    }

    /// Calls `visit` with the bytes of all keys that begin so, and of their values whole.
    pub(crate) fn visit_keys(&self, prefix: &str, mut visit: impl FnMut(&[u8])) {
        for (key, value) in self.keys().filter(|(key, _)| key.starts_with(prefix)) {
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
