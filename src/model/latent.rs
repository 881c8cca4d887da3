//! Attention through latent vectors (DeepSeek-AI, "DeepSeek-V2: A Strong, Economical, and Efficient Mixture-of-Experts
//! Language Model", 2024): a position's keys and values of all heads are made from one short vector, and only that vector
//! and one rotated key are cached.
//!
//! What would make a head's keys is applied to its queries instead, and what would make its values to its weighted sum of
//! latent vectors. So the cache holds one head: its key is (rotated, latent), its value the latent vector.

use super::Model;
use super::adapters::Adapters;
use super::config;
use super::forward::{Observer, observe, precision};
use super::weights::Latent;
use crate::device::{Act, Buffer, Device, GroupProduct, Precision, RopeTable};
use crate::error::{Error, Result};

/// Room for latent attention.
#[derive(Debug, Default)]
pub(crate) struct LatentScratch {
    /// (T, query rank)
    low: Buffer,
    /// Input of the second product for queries.
    act: Act,
    /// (T, H*(plain + rotated))
    q: Buffer,
    /// (T, rank + rotated)
    kv: Buffer,
    /// (H*T, ...): rows by head.
    heads: Act,
    by_head: Buffer,
    /// (T, H*value)
    values: Buffer,
}

impl Model {
    fn latent_lengths(&self) -> Result<&config::Latent> {
        self.config.latent.as_ref().ok_or_else(|| Error::internal("latent attention without a configuration"))
    }

    /// q (T, H*(rotated + rank)), k (T, rotated + rank) and v (T, rank) of act.
    #[allow(clippy::too_many_arguments)] // parts of the scratch
    pub(super) fn latent_in(
        &self,
        device: &Device,
        l: usize,
        weights: &Latent,
        rope: &RopeTable,
        (act, q, k, v): (&Act, &mut Buffer, &mut Buffer, &mut Buffer),
        room: &mut LatentScratch,
        adapters: &mut Adapters,
        observer: &mut Option<Box<dyn Observer>>,
    ) -> Result<()> {
        let (heads, rotated) = (self.config.head_count, self.config.rope.dims);
        let config::Latent { rank, plain, .. } = *self.latent_lengths()?;
        let LatentScratch { low, act: low_act, q: raw, kv, heads: rows, by_head, .. } = room;
        match &weights.q_down {
            Some((down, norm)) => {
                observe(observer, l, &["attn_q_a", "attn_kv_a_mqa"], act);
                adapters.linear(device, act, [down.to(low), weights.kv_down.fine(kv)])?;
                let taken = precision([&weights.q.weight], Precision::Eight);
                device.add_norm(low, None, Some(self.norm(norm)), low_act, taken)?;
                observe(observer, l, &["attn_q_b"], low_act);
                adapters.linear(device, low_act, [weights.q.to(raw)])?;
            }
            None => {
                observe(observer, l, &["attn_q", "attn_kv_a_mqa"], act);
                adapters.linear(device, act, [weights.q.to(raw), weights.kv_down.fine(kv)])?;
            }
        }
        // The latent vectors are values as they are; keys have the rotated part before them.
        device.norm_parts(kv, 0..rank, self.norm(&weights.kv_norm), v)?;
        let width = rotated + rank;
        k.reset(act.rows(), width)?;
        device.copy_parts((kv, width), rank..width, (k, width), 0);
        device.copy_parts((v, rank), 0..rank, (k, width), rotated);
        let head = plain + rotated;
        let taken = precision(weights.k_up.iter().map(|matrix| &matrix.weight), Precision::Eight);
        device.take_heads(raw.data(), heads, head, 0..plain, rows, taken)?;
        device.linear_groups(rows, [GroupProduct { matrices: &weights.k_up, out: by_head }])?;
        q.reset(act.rows(), heads * width)?;
        device.copy_parts((raw, head), plain..head, (q, width), 0);
        device.put_heads(by_head, heads, q.data_mut(), width, rotated);
        device.head_norm_rope((q, k), (None, None), true, width, rope);
        Ok(())
    }

    /// act (T, H*rank), the weighted sums of latent vectors, becomes (T, H*value).
    pub(super) fn latent_out(
        &self,
        device: &Device,
        weights: &Latent,
        act: &mut Act,
        taken: Precision,
        room: &mut LatentScratch,
    ) -> Result<()> {
        let heads = self.config.head_count;
        let config::Latent { rank, value, .. } = *self.latent_lengths()?;
        let LatentScratch { heads: rows, by_head, values, .. } = room;
        let of_heads = precision(weights.v_up.iter().map(|matrix| &matrix.weight), Precision::Eight);
        let sums = act.values();
        device.take_heads(sums, heads, rank, 0..rank, rows, of_heads)?;
        device.linear_groups(rows, [GroupProduct { matrices: &weights.v_up, out: by_head }])?;
        values.reset(act.rows(), heads * value)?;
        device.put_heads(by_head, heads, values.data_mut(), value, 0);
        device.add_norm(values, None, None, act, taken)
    }
}
