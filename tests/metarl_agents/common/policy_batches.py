"""Small policies with random episodes, for tests of what is differentiated through them."""

import numpy as np
import torch as th

from metarl_agents.common.policies.distributions import Categorical, DiagonalGaussian
from metarl_agents.common.policies.networks import MlpNetwork, Params, PolicyNetwork
from metarl_agents.common.returns import WeightedEpisodes

OBS_DIM = 3
GAUSSIAN = MlpNetwork(OBS_DIM, DiagonalGaussian(2), net_arch=(5, 4))
CATEGORICAL = MlpNetwork(OBS_DIM, Categorical(3), net_arch=(5, 4))
NETWORKS = {"gaussian": GAUSSIAN, "categorical": CATEGORICAL}


def some_params(network: PolicyNetwork, dtype: th.dtype = th.float64, seed: int = 0) -> Params:
    """Random parameters, biases and deviations included."""
    generator = th.Generator().manual_seed(seed)
    fresh = network.initial_params(np.random.default_rng(seed), dtype=dtype)
    return {
        name: param + 0.3 * th.randn(param.shape, generator=generator, dtype=dtype)
        for name, param in fresh.items()
    }


def random_episodes(
    network: PolicyNetwork,
    params: Params,
    lead: tuple[int, ...] = (),
    *,
    n_episodes: int = 3,
    n_steps: int = 4,
    seed: int = 0,
    with_masks: bool = False,
) -> WeightedEpisodes:
    """Episodes of unequal lengths with random weights, acted by the policy itself."""
    dtype = next(iter(params.values())).dtype
    generator = th.Generator().manual_seed(seed)
    shape = (*lead, n_episodes, n_steps)

    def normals(*more: int) -> th.Tensor:
        return th.randn(*shape, *more, generator=generator, dtype=dtype)

    lengths = th.randint(1, n_steps + 1, (*lead, n_episodes, 1), generator=generator)
    lengths[..., :1, :] = n_steps
    mask = (th.arange(n_steps) < lengths).to(dtype)
    observations = normals(OBS_DIM) * mask.unsqueeze(-1)
    distribution = network.distribution
    action_masks = None
    with th.no_grad():
        numbers = network.dist_params(params, observations)
        if isinstance(distribution, Categorical):
            actions = th.randint(0, distribution.n_params, (*shape, 1), generator=generator)
            if with_masks:
                allowed = th.rand(*shape, distribution.n_params, generator=generator) < 0.5
                action_masks = allowed.scatter(-1, actions, True) & (mask > 0).unsqueeze(-1)
        else:
            actions = numbers[..., : distribution.act_dim] + normals(distribution.act_dim)
        log_probs = distribution.log_prob(numbers, actions, action_masks) * mask
    return WeightedEpisodes(
        observations=observations,
        actions=actions,
        mask=mask,
        dist_params=numbers,
        log_probs=log_probs,
        advantages=normals() * mask,
        rewards=normals() * mask,
        baselines=normals() * mask,
        returns=normals().sum(dim=-1),
        action_masks=action_masks,
    )
