//! The feed-forward half as a mixture of experts: only the experts that a token chose compute for it, and an expert
//! computes for all of its tokens at once.

use super::Model;
use super::config;
use super::forward::{Scratch, observe, precision};
use super::weights::Experts;
use crate::device::{Act, Buffer, Device, GroupProduct, Precision, Routes};
use crate::error::{Error, Result};

/// Room for a mixture; rows are (token, expert) pairs, k a token.
#[derive(Debug, Default)]
pub(crate) struct MixtureScratch {
    /// (T, X): the router's scores.
    scores: Buffer,
    routes: Routes,
    /// (T*k, D), then (T*k, F), by expert.
    act: Act,
    /// (T*k, F)
    gate: Buffer,
    up: Buffer,
    /// (T*k, D)
    down: Buffer,
    /// (T, 1): what the shared expert is weighted with.
    shared_gate: Buffer,
    /// (T, D): the sum of the experts.
    sum: Buffer,
}

impl Model {
    /// delta = the weighted sum of each token's experts of act, and the shared expert's.
    pub(super) fn mixture(&self, device: &Device, l: usize, experts: &Experts, scratch: &mut Scratch) -> Result<()> {
        let Some(config::Experts { count, routing, .. }) = &self.config.experts else {
            return Err(Error::internal("experts without a configuration"));
        };
        let Scratch { act, adapters, observer, mixture, .. } = &mut *scratch;
        let MixtureScratch { scores, routes, act: routed, gate, up, down, shared_gate, .. } = mixture;
        observe(observer, l, &["ffn_gate_inp", "ffn_gate_inp_shexp"], act);
        adapters.linear(device, act, [experts.router.fine(scores)])?;
        device.moe_route(routing, experts.choice_bias.as_deref(), scores, routes)?;
        let inputs = experts.gate.iter().chain(&experts.up).map(|matrix| &matrix.weight);
        device.moe_gather(act, routes, routed, precision(inputs, Precision::Eight))?;
        let mut see = |names: &[&str], act: &Act| {
            let Some(observer) = observer else { return };
            let mut rows = act.values().chunks(act.width());
            for (expert, &n) in routes.counts().iter().enumerate() {
                for row in rows.by_ref().take(n) {
                    observer.see(l, names, (expert, *count), act.width(), row);
                }
            }
        };
        see(&["ffn_gate_exps", "ffn_up_exps"], routed);
        let products =
            [GroupProduct { matrices: &experts.gate, out: gate }, GroupProduct { matrices: &experts.up, out: up }];
        device.linear_groups(routed, products)?;
        let taken = precision(experts.down.iter().map(|matrix| &matrix.weight), Precision::Eight);
        device.glu(self.config.architecture.activation, gate, Some(up), routed, taken)?;
        see(&["ffn_down_exps"], routed);
        device.linear_groups(routed, [GroupProduct { matrices: &experts.down, out: down }])?;
        if let Some((mlp, gate)) = &experts.shared {
            if let Some(gate) = gate {
                adapters.linear(device, act, [gate.fine(shared_gate)])?;
            }
            self.mlp(device, l, mlp, scratch)?;
        }
        let Scratch { delta, mixture: MixtureScratch { routes, down, shared_gate, sum, .. }, .. } = scratch;
        let shared = experts.shared.as_ref().map(|(_, gate)| (&*delta, gate.as_ref().map(|_| &*shared_gate)));
        device.moe_combine(down, routes, shared, sum)?;
        std::mem::swap(delta, sum);
        Ok(())
    }
}
