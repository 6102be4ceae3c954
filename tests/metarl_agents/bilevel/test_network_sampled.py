"""What samples say about the parts of a hypergradient, against exact expectations."""

import pytest
import torch as th

from metarl_agents.bilevel.network_problem import network_problem
from metarl_agents.bilevel.network_sampled import (
    PARTS,
    sampled_pullback,
    score_weights,
    step_derivatives,
)
from metarl_agents.bilevel.sampled import sampled_rollouts
from metarl_agents.common.policies.distributions import Categorical
from metarl_agents.common.policies.networks import MlpNetwork
from metarl_agents.common.returns import WeightedEpisodes, discounted_returns
from tests.metarl_agents.bilevel.network_tasks import (
    ExactLevels,
    flat,
    named,
    two_gaussian_steps,
    two_states,
)
from tests.metarl_agents.bilevel.small_tasks import relative_error
from tests.metarl_agents.common.policy_batches import some_params

GAMMA = 0.8
N_BATCHES, N_EPISODES, N_STEPS = 40, 100, 40  # 0.8^40 = 1e-4 is left of an episode
NETWORK = MlpNetwork(5, Categorical(3), net_arch=(3,), dtype=th.float64)
LAM, ETA = 0.5, 0.1


@pytest.fixture(scope="module")
def batches():
    """The exact levels, phi, theta and u, and many batches of episodes of pi_phi."""
    phi = some_params(NETWORK)
    generator = th.Generator().manual_seed(5)
    theta, adjoint = (
        named(centre + scale * th.randn(len(flat(phi)), generator=generator, dtype=th.float64), phi)
        for centre, scale in ((flat(phi), 0.2), (0.0, 1.0))
    )
    levels = ExactLevels.of("forward_kl", LAM, ETA, network=NETWORK)
    at = levels.evaluated(levels.log_policy({name: param[None] for name, param in phi.items()}))
    repeated = levels.tasks.subset([0] * N_BATCHES)
    rollouts = sampled_rollouts(
        repeated, at.policy.expand(N_BATCHES, -1, -1), n_episodes=N_EPISODES, n_steps=N_STEPS,
        generator=generator,
    )  # fmt: skip
    baseline = float((at.occupancy * at.values).sum())
    return levels, phi, theta, adjoint, rollouts, baseline


def batch_problem(rollouts, index, phi, baseline, distance, squash):
    states, actions = rollouts.states[index, :, :-1], rollouts.actions[index]
    mask = th.ones(actions.shape, dtype=th.float64)
    returns = discounted_returns(rollouts.rewards[index], mask, GAMMA) - baseline
    episodes = WeightedEpisodes(
        th.nn.functional.one_hot(states, 5).double(), actions[..., None], mask, mask, mask,
        returns, mask, mask, mask[:, 0],
    )  # fmt: skip
    return network_problem(
        NETWORK, phi, episodes, distance=distance, lam=LAM, eta=ETA, squash=squash, discount=GAMMA
    )


@pytest.mark.parametrize(
    ("distance", "squash"),
    [("forward_kl", True), ("reverse_kl", False), ("l2", True)],
)
def test_estimates_are_unbiased_and_every_part_is_needed(batches, distance, squash):
    """z-scores over 40 batches, in each of 30 parameters: the largest of so many is below 4.5 but
    once in 500 times. Without a part some parameter is off by more than 7 standard errors."""
    levels, phi, theta, adjoint, rollouts, baseline = batches
    levels = levels._replace(distance=distance, squash=squash, baseline=baseline)
    at = {name: param.clone().requires_grad_() for name, param in phi.items()}
    point = {name: param.clone().requires_grad_() for name, param in theta.items()}
    slopes = th.autograd.grad(levels.loss(point, at), list(point.values()), create_graph=True)
    pulled = th.autograd.grad(slopes, list(at.values()), list(adjoint.values()))
    expected = -th.cat([part.flatten() for part in pulled])
    estimates = {part: [] for part in PARTS}
    for index in range(N_BATCHES):
        problem = batch_problem(rollouts, index, phi, baseline, distance, squash)
        for part in PARTS:
            found = sampled_pullback(problem, theta, adjoint, parts=[part], gamma=GAMMA)
            estimates[part].append(flat(found))
    of_part = {part: th.stack(values) for part, values in estimates.items()}

    def largest_z(parts):
        total = sum(of_part[part] for part in parts)
        error = total.std(dim=0) / N_BATCHES**0.5
        # Of l2 the distance is known without noise.
        return float(((total.mean(0) - expected) / error.clamp(min=1e-6)).abs().max())

    assert largest_z(PARTS) < 4.5
    for part in PARTS:
        assert largest_z([other for other in PARTS if other != part]) > 6.0, part


def test_parts_add_up():
    problem = two_gaussian_steps(distance="forward_kl", lam=1.0, eta=0.1).problem
    theta, adjoint = (some_params(problem.network, seed=seed) for seed in (1, 2))
    whole = flat(sampled_pullback(problem, theta, adjoint, gamma=0.9))
    parts = [
        flat(sampled_pullback(problem, theta, adjoint, parts=[part], gamma=0.9)) for part in PARTS
    ]
    assert relative_error(sum(parts), whole) < 1e-12
    assert all(float(part.norm()) > 1e-3 * float(whole.norm()) for part in parts)


def test_derivatives_along_a_direction_are_those_of_differences():
    for problem in (
        two_gaussian_steps(distance="l2", lam=1.0).problem,
        two_states(distance="l2", lam=1.0).problem,
    ):
        theta, adjoint = (some_params(problem.network, seed=seed) for seed in (0, 2))
        along = step_derivatives(problem, theta, adjoint)
        h, ends = 1e-5, []
        for sign in (1.0, -1.0):
            shifted = named(flat(theta) + sign * h * flat(adjoint), theta)
            at = step_derivatives(problem, shifted, adjoint)
            log_probs = problem.network.distribution.log_prob(at.numbers, problem.episodes.actions)
            ratios = (log_probs - problem.episodes.log_probs).exp()
            ends.append((at.numbers, 2.0 * th.sigmoid(2.0 * ratios - 2.0)))
        tangents, gains = ((up - down) / (2.0 * h) for up, down in zip(*ends, strict=True))
        # The rule errs by h^2 = 1e-10, rounding by 1e-16 / h.
        assert relative_error(along.tangents, tangents) < 1e-7
        assert relative_error(along.gains, gains) < 1e-7


def test_advantages_with_less_noise_serve_the_action_values_alone():
    problem = two_states(distance="forward_kl", lam=1.0).problem
    theta, adjoint = (some_params(problem.network, seed=seed) for seed in (1, 2))
    along = step_derivatives(problem, theta, adjoint)
    twice = 2.0 * problem.episodes.advantages
    for part, factor in (("action_values", 2.0), ("occupancy", 1.0)):
        plain, scaled = (
            score_weights(problem, along, parts=[part], gamma=0.9, advantages=advantages)
            for advantages in (None, twice)
        )
        assert th.allclose(scaled, factor * plain, rtol=1e-12, atol=0.0)


def test_l2_needs_no_pass_through_the_network_for_its_distance():
    problem = two_states(distance="l2", lam=2.0, eta=0.5).problem
    adjoint = some_params(problem.network, seed=2)
    found = sampled_pullback(
        problem._replace(network=None), problem.phi, adjoint, parts=["distance"], gamma=0.9
    )
    assert relative_error(flat(found), 2.5 * flat(adjoint)) < 1e-15
