//! Sessions in files.
//!
//! A file has, little-endian:
//!
//! | bytes | content |
//! |---|---|
//! | 8 | `LLMSTATE` |
//! | 4 each | version (2), the model's fingerprint, the adapters', window, sinks |
//! | 4 each | whether positions are those of a long context, number type, L, K, E of keys, E of values, V |
//! | 4 | flags: 1 the logits follow, 2 the keys are not what the tokens lead to (after a shift) |
//! | 8 each | tokens, positions held |
//! | 4 each | the tokens |
//! | 4 each | V logits of what follows the last token, if the flag is set |
//! | 4 each | for each layer the first tile of 16 positions that is held |
//! | | for each layer its tiles: the pinned ones before that, then from it on |
//! | 4 | CRC-32 of all before |
//!
//! How a tile holds keys and values is private to the version.

use std::io::{BufReader, Read};
use std::path::Path;

use super::Session;
use super::wanted::Wanted;
use crate::KvType;
use crate::error::{Error, Result, try_vec};
use crate::gguf::{NewFile, open_file};

const MAGIC: &[u8; 8] = b"LLMSTATE";
const VERSION: u32 = 2;
/// Bytes before the tokens.
const HEAD: usize = 8 + (NAMES + 1) * 4 + 2 * 8;
/// What a file must agree in.
const NAMES: usize = 12;
const LOGITS: u32 = 1;
const ALTERED: u32 = 2;

/// Where bytes go or come from, and the checksum of those so far.
struct Checked<F> {
    stream: F,
    crc: crc32fast::Hasher,
}

impl<F: FnMut(&[u8]) -> Result<()>> Checked<F> {
    fn write(&mut self, bytes: &[u8]) -> Result<()> {
        self.crc.update(bytes);
        (self.stream)(bytes)
    }
}

impl Checked<&mut dyn Read> {
    fn read(&mut self, bytes: &mut [u8]) -> Result<()> {
        self.stream.read_exact(bytes).map_err(|e| match e.kind() {
            std::io::ErrorKind::UnexpectedEof => corrupt("it ends too early"),
            _ => Error::io(format!("cannot read the session: {e}")),
        })?;
        self.crc.update(bytes);
        Ok(())
    }

    fn u32s(&mut self, count: usize, what: &'static str) -> Result<Vec<u32>> {
        let mut numbers = try_vec(count, 0u32, what)?;
        self.read(bytemuck::cast_slice_mut(&mut numbers))?;
        numbers.iter_mut().for_each(|number| *number = u32::from_le(*number));
        Ok(numbers)
    }
}

fn corrupt(what: &str) -> Error {
    Error::corrupt_file(format!("this is no session that was saved whole: {what}"))
}

impl Session {
    fn adapters_fingerprint(&self) -> u32 {
        let mut crc = crc32fast::Hasher::new();
        for (lora, scale) in &self.adapters {
            crc.update(&lora.fingerprint().to_le_bytes());
            crc.update(&scale.to_bits().to_le_bytes());
        }
        crc.finalize()
    }

    /// What a file must agree in with this session, by name.
    fn identity(&self) -> [(&'static str, u32); NAMES] {
        let shape = self.model.config().kv_shape(self.cache.kv_type());
        let size = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        let terms = self.model.cache_terms(&self.cache_options, self.cache.capacity());
        let [window, sinks, rotation] = terms.map(|(name, number)| (name, size(number)));
        [
            ("version", VERSION),
            ("model", self.model.fingerprint()),
            ("adapters", self.adapters_fingerprint()),
            window,
            sinks,
            rotation,
            ("number type", shape.kv_type as u32),
            ("layers", size(self.cache.layers())),
            ("key/value heads", size(shape.heads)),
            ("width of keys", size(shape.width)),
            ("width of values", size(shape.value_width)),
            ("vocabulary", size(self.model.config().vocab_size)),
        ]
    }

    /// Writes the tokens with their keys and values to a file, from which [`load`](Self::load) goes on bit for bit. What
    /// belongs to a generation (its sampler, limits, withheld text) is not part of it, nor are stop strings and adapters.
    /// The file appears under its name when it is complete. Tokens that a sliding cache has forgotten too much of are
    /// processed again before.
    ///
    /// # Errors
    /// `Io`, `NotFound` if there is no such folder; `Cancelled`, `OutOfMemory`; `FailedPrecondition` if that would change
    /// how a shifted session goes on.
    pub fn save(&mut self, path: &Path) -> Result<()> {
        self.cancel.check("saving")?;
        let mut file = NewFile::create(path)?;
        self.write_state(|bytes| file.write(bytes))?;
        file.commit()
    }

    /// What [`save`](Self::save) writes, in memory.
    ///
    /// # Errors
    /// `Cancelled`, `OutOfMemory`, `FailedPrecondition`.
    pub fn save_bytes(&mut self) -> Result<Vec<u8>> {
        self.cancel.check("saving")?;
        let mut out = Vec::new();
        self.write_state(|bytes| {
            out.try_reserve(bytes.len()).map_err(|_| Error::out_of_memory("the session's bytes cannot be had"))?;
            out.extend_from_slice(bytes);
            Ok(())
        })?;
        Ok(out)
    }

    fn write_state(&mut self, stream: impl FnMut(&[u8]) -> Result<()>) -> Result<()> {
        self.retract();
        let (cache, held) = (&self.cache, self.cache.length());
        // The first tile of a ring may have been overwritten in part.
        if (0..cache.layers()).any(|layer| cache.needs_before(layer, held, cache.first_tile(layer))) {
            if cache.altered() {
                let message =
                    "a shifted session whose sliding cache has forgotten a part of what it needs cannot be saved";
                return Err(Error::failed_precondition(format!("{message}: append tokens first")));
            }
            self.cache.truncate(0);
        }
        if self.cache.length() + 1 < self.tokens.len() {
            self.catch_up(0, Wanted::Last)?;
        }
        let mut out = Checked { stream, crc: crc32fast::Hasher::new() };
        out.write(MAGIC)?;
        for (_, number) in self.identity() {
            out.write(&number.to_le_bytes())?;
        }
        let held = self.cache.length();
        let follows = held == self.tokens.len() && held > 0;
        let flags = if follows { LOGITS } else { 0 } | if self.cache.altered() { ALTERED } else { 0 };
        out.write(&flags.to_le_bytes())?;
        for number in [self.tokens.len() as u64, held as u64] {
            out.write(&number.to_le_bytes())?;
        }
        for token in &self.tokens {
            out.write(&token.to_le_bytes())?;
        }
        if follows {
            for logit in &self.logits {
                out.write(&logit.to_le_bytes())?;
            }
        }
        for layer in 0..self.cache.layers() {
            out.write(&(self.cache.first_tile(layer) as u32).to_le_bytes())?;
        }
        for layer in 0..self.cache.layers() {
            let view = self.cache.view(layer);
            for tile in self.cache.held_tiles(layer, self.cache.first_tile(layer)) {
                out.write(view.tile(tile))?;
            }
        }
        let Checked { mut stream, crc } = out;
        stream(&crc.finalize().to_le_bytes())
    }

    /// Takes over what [`save`](Self::save) wrote, in the place of the tokens that the session holds. The session must
    /// be one of the same model, with the same adapters, number type, window and sinks; kind and context may differ.
    /// The next generation begins anew.
    ///
    /// # Errors
    /// `FailedPrecondition` names what differs; `CacheFull` if the context is shorter than the text; `CorruptFile`, `Io`,
    /// `NotFound`, `Cancelled`, `OutOfMemory`; `InvalidArgument` for what is no file. Nothing has changed then.
    pub fn load(&mut self, path: &Path) -> Result<()> {
        let mut read = || {
            let file = open_file(path, "a session's file")?;
            let size = file.metadata().map_err(|e| Error::io(format!("cannot read {}: {e}", path.display())))?.len();
            self.read_state(&mut BufReader::new(file), size)
        };
        read().map_err(|e| e.with("path", path.display()))
    }

    /// As [`load`](Self::load), of what [`save_bytes`](Self::save_bytes) gave.
    ///
    /// # Errors
    /// As `load`.
    pub fn load_bytes(&mut self, mut bytes: &[u8]) -> Result<()> {
        let size = bytes.len() as u64;
        self.read_state(&mut bytes, size)
    }

    fn read_state(&mut self, stream: &mut dyn Read, bytes: u64) -> Result<()> {
        self.cancel.check("loading")?;
        let mut input = Checked { stream, crc: crc32fast::Hasher::new() };
        let mut head = [0; HEAD];
        input.read(&mut head)?;
        if head[..8] != *MAGIC {
            return Err(corrupt("it does not begin as one"));
        }
        let (numbers, sizes) = head[8..].split_at((NAMES + 1) * 4);
        let mut numbers = numbers.as_chunks::<4>().0.iter().map(|bytes| u32::from_le_bytes(*bytes));
        for ((name, expected), found) in self.identity().into_iter().zip(&mut numbers) {
            if found != expected {
                let shown = |n: u32| match name {
                    "number type" => KvType::ALL.get(n as usize).map_or(n.to_string(), |kv| kv.name().to_owned()),
                    _ => n.to_string(),
                };
                let (expected, found) = (shown(expected), shown(found));
                let numbers = match name {
                    // Their numbers say nothing.
                    "model" | "adapters" => String::new(),
                    _ => format!(": {found}, and this one has {expected}"),
                };
                let message = format!("the session was saved with another {name}{numbers}");
                let error = Error::failed_precondition(message).with("what", name);
                return Err(error.with("expected", expected).with("found", found));
            }
        }
        let flags = numbers.next().unwrap_or_default();
        let [total, held] = [0, 8].map(|at| {
            let mut number = [0; 8];
            number.copy_from_slice(&sizes[at..at + 8]);
            usize::try_from(u64::from_le_bytes(number)).unwrap_or(usize::MAX)
        });
        let follows = flags & LOGITS != 0;
        if flags > LOGITS + ALTERED || held > total || total - held > 1 || follows != (held == total && held > 0) {
            return Err(corrupt("its lengths contradict each other"));
        }
        // Nothing is taken that the file cannot have.
        if total as u64 > bytes / 4 {
            return Err(corrupt("it is shorter than its tokens"));
        }
        self.check_room(0, total)?;
        let tokens = input.u32s(total, "the tokens of a session")?;
        self.model.check_tokens(&tokens).map_err(|_| corrupt("it has tokens that the vocabulary lacks"))?;
        let mut logits = try_vec(self.logits.len(), 0.0f32, "the logits of a token")?;
        if follows {
            let bits = input.u32s(logits.len(), "the logits of a token")?;
            logits.iter_mut().zip(bits).for_each(|(logit, bits)| *logit = f32::from_bits(bits));
        }
        let mut cache = self.cache.empty()?;
        cache.reserve(0..held)?;
        let saved = input.u32s(cache.layers(), "the layers of a session")?;
        let mut first = Vec::with_capacity(saved.len());
        for (layer, saved) in saved.iter().enumerate() {
            if *saved as usize > held.div_ceil(crate::device::TILE) {
                return Err(corrupt("a layer begins behind its end"));
            }
            if cache.needs_before(layer, held, *saved as usize) {
                let message = "the session was saved from a sliding cache, and this one needs more positions";
                return Err(Error::failed_precondition(message).with("what", "cache"));
            }
            first.push(cache.first_of(layer, held, *saved as usize));
        }
        cache.restore(held, &first);
        let mut tile = try_vec(cache.tile_bytes(), 0u8, "a tile of keys and values")?;
        for (layer, (saved, first)) in saved.iter().zip(&first).enumerate() {
            let mut wanted = cache.held_tiles(layer, *first).peekable();
            for i in cache.held_tiles(layer, *saved as usize) {
                input.read(&mut tile)?;
                if wanted.next_if_eq(&i).is_some() {
                    cache.set_tile(layer, i, &tile)?;
                }
            }
        }
        let crc = input.crc.clone().finalize();
        let mut stored = [0; 4];
        input.read(&mut stored)?;
        if u32::from_le_bytes(stored) != crc {
            return Err(corrupt("its checksum differs"));
        }
        if input.stream.read(&mut [0]).is_ok_and(|more| more > 0) {
            return Err(corrupt("it goes on behind its end"));
        }
        cache.set_altered(flags & ALTERED != 0);
        self.retract();
        self.cache = cache;
        self.tokens = tokens;
        self.logits = logits;
        self.timings = super::Timings::default();
        self.start(self.generation.options());
        Ok(())
    }
}
