"""Random regression data in the shapes of the Bayesian agents, for tests."""

import torch as th

from metarl_agents.bayesian.linear_gaussian import (
    GaussianPrior,
    Statistics,
    Transitions,
    add_transitions,
    empty_statistics,
)


def random_transitions(
    seed: int,
    *,
    lead: tuple[int, ...] = (),
    n_stages: int = 3,
    n_episodes: int = 12,
    n_actions: int = 3,
    n_blocks: int = 1,
    block_size: int = 4,
    n_states: int = 5,
    dropout: float = 0.0,
) -> Transitions:
    """Transitions between ``n_states`` successors per stage, each with features of its own."""
    rng = th.Generator().manual_seed(seed)

    def normal(*shape: int) -> th.Tensor:
        return th.randn(*shape, generator=rng, dtype=th.float64)

    shape = (*lead, n_stages, n_episodes)
    table = normal(n_stages, n_states, n_actions, block_size)
    masks = th.rand(n_stages, n_states, n_actions, generator=rng) < 0.8
    masks[..., 0] = True
    states = th.randint(n_states, shape, generator=rng)
    stage = th.arange(n_stages).view(n_stages, 1).expand(n_stages, n_episodes)
    stage = stage.expand(shape)
    allowed = masks[stage, states]
    allowed[..., -1, :, :] = False
    return Transitions(
        features=normal(*shape, block_size),
        blocks=th.randint(n_blocks, shape, generator=rng),
        rewards=normal(*shape),
        successor_features=table[stage, states] * allowed.unsqueeze(-1),
        successor_masks=allowed,
        weights=(th.rand(shape, generator=rng) >= dropout).double(),
    )


def statistics_of(transitions: Transitions, n_blocks: int = 1) -> Statistics:
    """The statistics of all transitions of every task."""
    *lead, n_stages, _, n_actions, size = transitions.successor_features.shape
    empty = empty_statistics(tuple(lead), n_stages, n_actions, n_blocks, size)
    return add_transitions(empty, transitions)


def random_prior(seed: int, shape: tuple[int, ...], rank: int | None = None) -> GaussianPrior:
    """A prior with a dense covariance, singular where ``rank`` is below m."""
    rng = th.Generator().manual_seed(seed)
    mean = th.randn(*shape, generator=rng, dtype=th.float64)
    factor = th.randn(*shape, shape[-1], generator=rng, dtype=th.float64)
    if rank is not None:
        factor[..., rank:] = 0
    return GaussianPrior(mean, factor)


def spread_design(transitions: Transitions, stage: int, n_blocks: int) -> th.Tensor:
    """The design matrix X of one task's stage in the full space of d = C m features, (E, d)."""
    phi, blocks = transitions.features[stage], transitions.blocks[stage]
    one_hot = th.nn.functional.one_hot(blocks, n_blocks).double()
    weighted = phi * transitions.weights[stage].unsqueeze(-1)
    return (one_hot.unsqueeze(-1) * weighted.unsqueeze(-2)).flatten(1)


def targets(transitions: Transitions, parameters: th.Tensor, stage: int) -> th.Tensor:
    """The targets y of one task's stage, computed transition by transition."""
    out = []
    for e in range(transitions.rewards.shape[-1]):
        value = 0.0
        if stage + 1 < parameters.shape[0]:
            allowed = transitions.successor_masks[stage, e]
            phi = transitions.successor_features[stage, e]
            theta = parameters[stage + 1].expand(len(phi), -1)
            values = [float(f @ t) for f, t, ok in zip(phi, theta, allowed, strict=True) if ok]
            value = max(values) if values else 0.0
        out.append(float(transitions.rewards[stage, e]) + value)
    return th.tensor(out, dtype=th.float64) * transitions.weights[stage]
