"""The agent with networks: what it learns along, what it solves, and what it refuses."""

import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import CallbackList

from metarl_agents import BOMRL, MAML, evaluate_adaptation
from metarl_agents.bilevel.network_hypergradient import sampled_hypergradient
from metarl_agents.bilevel.network_tasks import centred_values, effective_sample_size
from metarl_agents.common.collect import collect_episodes
from metarl_agents.common.inner_loop import inner_gradient
from metarl_envs.probes import LinearQuadraticVector, SignFlip, SignFlipVector

SMALL = {
    "meta_batch_size": 4,
    "n_episodes_per_task": 4,
    "policy_kwargs": {"net_arch": [8]},
    "n_lower_steps": 5,
    "polish_steps": 0,
    "n_implicit_iterations": 3,
    "n_cg_iterations": 3,
    "seed": 0,
    "device": "cpu",
}
STEPS = 2 * 4 * 4 * 3  # of one meta-iteration: two phases x tasks x episodes x steps

# Small problems are not solved in five steps, and say so.
pytestmark = pytest.mark.filterwarnings("ignore:the hypergradient", "ignore:adaptation moves")


def small(env=None, **arguments):
    env = LinearQuadraticVector(4, n_stages=3) if env is None else env
    return BOMRL("MlpPolicy", env, **{**SMALL, **arguments})


def data_of(agent):
    agent._setup_learn(1)
    callback = CallbackList([])
    callback.init_callback(agent)
    callback.on_training_start({}, {})
    return agent.collect(callback)


def learned(agent, n_iterations=2):
    return agent.learn(n_iterations * STEPS, log_interval=None)


def differing(first, second):
    ours, theirs = first._learned_state(), second._learned_state()
    assert ours.keys() == theirs.keys()
    return [name for name in ours if not th.equal(ours[name], theirs[name])]


def batch_of(agent):
    """The initial policy, and episodes of it in one task."""
    policy = agent.initial_policy()
    policies = agent.initial_policies([np.random.default_rng(i) for i in range(4)])
    return policy, collect_episodes(agent.env, policies, 4, seed=1).task(0)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": 4}, "algorithm=4"),
        ({"lam": 0.0}, "lam=0.0"),
        ({"adapt_lam": -1}, "adapt_lam=-1"),
        ({"lam_relative": 1}, "lam_relative=1"),
        ({"eta": -0.1}, "eta=-0.1"),
        ({"squash": None}, "squash=None"),
        ({"discounted_states": "yes"}, "discounted_states='yes'"),
        ({"n_lower_steps": -1}, "n_lower_steps=-1"),
        ({"n_lower_steps": 0, "polish_steps": 0}, "never adapts"),
        ({"lower_lr": 0}, "lower_lr=0"),
        ({"lower_optimizer": "rmsprop"}, "lower_optimizer='rmsprop'"),
        ({"max_distance": 0.0}, "max_distance=0.0"),
        ({"polish_steps": 1.5}, "polish_steps=1.5"),
        ({"tolerance": 0.0}, "tolerance=0.0"),
        ({"strict": 1}, "strict=1"),
        ({"mode": "exact"}, "mode='exact'"),
        ({"parts": "distance"}, "parts='distance'"),
        ({"parts": ("value",)}, "parts"),
        ({"mode": "first_order", "strict": True}, "strict=True"),
        ({"mode": "first_order", "parts": ("distance",)}, "parts"),
        ({"n_implicit_iterations": 0}, "n_implicit_iterations=0"),
        ({"outer": "ppo"}, "outer='ppo'"),
        ({"max_kl": 0.0}, "max_kl=0.0"),
        ({"n_cg_iterations": 0}, "n_cg_iterations=0"),
        ({"cg_damping": -1.0}, "cg_damping=-1.0"),
        ({"max_backtracks": -1}, "max_backtracks=-1"),
        ({"backtrack_ratio": 1.5}, "backtrack_ratio=1.5"),
        ({"n_episodes_after_factor": 0}, "n_episodes_after_factor=0"),
        ({"meta_batch_size": 0}, "meta_batch_size=0"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"baseline": "mlp"}, "baseline='mlp'"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"policy_kwargs": {"layers": [8]}}, "layers"),
    ],
)
def test_arguments_without_sense_are_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small(**arguments)


def test_one_sgd_step_on_the_squared_distance_is_the_inner_step_of_maml():
    # l2 without a proximal term: theta - grad / (2 lambda), by a step of 1/2.
    shared = {key: SMALL[key] for key in ("meta_batch_size", "policy_kwargs", "seed", "device")}
    ours = small(
        algorithm=3,
        lam=2.5,
        lam_relative=False,
        eta=0.0,
        n_lower_steps=1,
        lower_lr=0.5,
        lower_optimizer="sgd",
        max_distance=1e6,
        gamma=0.9,
    )
    theirs = MAML(
        "MlpPolicy",
        LinearQuadraticVector(4, n_stages=3),
        inner_lr=0.2,
        gamma=0.9,
        normalize_advantage=False,
        **shared,
    )
    policy, batch = batch_of(ours)
    # Advantages of the linear baseline have mean zero up to its ridge.
    first, second = (
        agent.adapt(policy, batch, rng=np.random.default_rng(0))
        for agent in (
            ours,
            theirs,
        )
    )
    for name, tensor in first.params.items():
        # Float32, and a step of about 1.
        np.testing.assert_allclose(tensor, second.params[name], atol=1e-5)


def test_adapting_in_many_tasks_has_the_bits_of_adapting_one_by_one():
    agent = small(n_workers=2, polish_steps=1)
    rngs = [np.random.default_rng(i) for i in range(4)]
    policies = agent.initial_policies(rngs)
    episodes = collect_episodes(agent.env, policies, 4, seed=2)
    after = agent.adapt_tasks(policies, episodes, rngs=rngs)
    for task in range(4):
        alone = agent.adapt(policies[task], episodes.task(task), rng=np.random.default_rng(0))
        assert all(th.equal(alone.params[n], after[task].params[n]) for n in alone.params)
        assert alone.n_updates == 1


def test_the_number_of_workers_changes_nothing():
    assert not differing(*(learned(small(n_workers=n)) for n in (1, 3)))


def test_the_update_follows_the_mean_hypergradient():
    agent = small(outer="adam", learning_rate=0.01)
    data, theta = data_of(agent), agent._theta()
    total = {name: th.zeros_like(tensor) for name, tensor in theta.items()}
    for problem, solution, after in zip(
        data.problems, data.solutions, data.after.tasks(), strict=True
    ):
        values = centred_values(agent._weighted(after.trimmed(), normalize=None))
        slope = inner_gradient(agent.network, solution.params, values, create_graph=False)
        cotangent = {name: -part for name, part in slope.items()}
        gradient, _ = sampled_hypergradient(
            problem, solution.params, cotangent, gamma=agent.gamma, n_cg=3
        )
        total = {name: total[name] + gradient[name] / 4 for name in total}
    agent.train(data)
    # The first step of Adam is the sign of the gradient, where that is not tiny.
    for name, tensor in agent._theta().items():
        clear = total[name].abs() > 1e-5
        moved = (tensor - theta[name])[clear]
        np.testing.assert_allclose(moved, 0.01 * total[name].sign()[clear], atol=1e-4)


def test_first_order_mode_follows_the_gradient_after_adaptation():
    agent = small(mode="first_order")
    found = agent._hypergradients(data_of(agent))
    assert "implicit_residual" not in found[0].numbers
    assert all(one.is_valid for one in found)


@pytest.mark.parametrize("parts", [("distance",), ("action_values",), ("occupancy",)])
def test_parts_add_up_to_the_whole(parts):
    agent = small()
    data = data_of(agent)
    whole = agent._hypergradients(data)[0].gradient
    total = {name: th.zeros_like(tensor) for name, tensor in whole.items()}
    for part in ("distance", "action_values", "occupancy"):
        agent.parts = (part,)
        gradient = agent._hypergradients(data)[0].gradient
        if (part,) == parts:
            assert any(tensor.any() for tensor in gradient.values())
        total = {name: total[name] + gradient[name] for name in total}
    for name, tensor in total.items():
        # Sums of float32 numbers in another order.
        np.testing.assert_allclose(tensor, whole[name], atol=1e-4 * float(whole[name].abs().max()))


def test_a_trust_region_step_stays_within_the_region():
    agent = small(max_kl=0.02)
    data = data_of(agent)
    before = agent._theta()
    logs = agent.train(data)
    assert 0.0 < logs["kl"] <= 0.02 and logs["step_fraction"] > 0.0
    assert any(not th.equal(before[n], t) for n, t in agent._theta().items())


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"n_lower_steps": 1}, "residual of .* raise polish_steps"),
        ({"max_distance": 1e-6}, "stopped at a distance .* raise lam or max_distance"),
    ],
)
@pytest.mark.filterwarnings("default:the hypergradient")
def test_a_lower_level_that_is_not_solved_is_refused_or_warned_of_once(arguments, message):
    with pytest.raises(ValueError, match=message):
        learned(small(strict=True, eta=3.0, **arguments), 1)
    with pytest.warns(UserWarning, match=message) as caught:
        learned(small(eta=3.0, **arguments), 3)
    assert sum("not exact" in str(one.message) for one in caught) == 1


def test_negative_curvature_is_refused_with_what_to_raise():
    agent = small(strict=True, eta=0.0, lam=0.05, n_lower_steps=20, lower_lr=0.05, tolerance=1e3)
    with pytest.raises(ValueError, match=r"curvature .* raise eta or lam"):
        learned(agent, 3)


def test_newton_steps_solve_the_lower_level_that_strict_asks_for():
    agent = small(strict=True, eta=0.3, polish_steps=10, n_implicit_iterations=10)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        learned(agent)
    assert agent.logger.name_to_value["train/invalid_tasks"] == 0.0
    assert agent.logger.name_to_value["train/residual"] <= agent.tolerance


def test_a_lambda_that_adapts_nothing_is_warned_of():
    with pytest.warns(UserWarning, match="use a smaller lam"):
        learned(small(lam=1e3, lower_optimizer="sgd"), 1)
    with pytest.warns(UserWarning, match=r"lam is small.*effective sample size"):
        learned(small(lam=0.01), 1)


def test_a_relative_lambda_does_not_feel_the_scale_of_rewards():
    def scaled(factor):
        env = gym.make("metarl/PointGoal-v0", horizon=5)
        return gym.wrappers.TransformReward(env, lambda reward: factor * reward)

    # A power of two: rounding is the same.
    agents = [learned(small(scaled(factor), baseline="none"), 1) for factor in (1.0, 8.0)]
    assert differing(*agents) == ["lower_level/lam_unit"]


def test_the_unit_of_lambda_is_kept_from_the_first_meta_iteration():
    agent = small()
    assert agent._known_unit() is None
    learned(agent, 1)
    unit = agent._known_unit()
    learned(agent)
    assert agent._known_unit() == unit > 0
    assert small(lam_relative=False)._known_unit() == 1.0


def test_a_smaller_lambda_at_adaptation_moves_further():
    agents = [small(adapt_lam=lam, n_lower_steps=30, lower_lr=0.01) for lam in (3.0, 0.3)]
    policy, batch = batch_of(agents[0])
    near, far = (
        agent.adapt(policy, batch, rng=np.random.default_rng(0)).params for agent in agents
    )

    def moved(params):
        return sum(float((params[n] - t).square().sum()) for n, t in policy.params.items())

    assert moved(far) > 2 * moved(near)


def test_more_episodes_after_adaptation_are_counted():
    agent = learned(small(n_episodes_after_factor=3), 1)
    assert agent.num_timesteps == (1 + 3) * 4 * 4 * 3


@pytest.mark.parametrize("algorithm", [1, 2, 3])
@pytest.mark.parametrize("env", ["metarl/RandomMDP-v0", None])
def test_all_distances_learn_with_discrete_and_continuous_actions(algorithm, env):
    agent = small(env, algorithm=algorithm, env_kwargs=None, squash=algorithm != 1)
    before = agent._theta()
    agent.learn(1, log_interval=None)
    after = agent._theta()
    assert any(not th.equal(before[name], after[name]) for name in before)
    assert all(bool(tensor.isfinite().all()) for tensor in after.values())


def test_a_table_of_logits_learns():
    arguments = {**SMALL, "policy_kwargs": None}
    agent = BOMRL("TabularPolicy", "metarl/RandomMDP-v0", **arguments)
    agent.learn(1, log_interval=None)
    assert agent._theta()["logits"].any()


def test_a_loaded_agent_goes_on_as_the_one_that_was_saved(tmp_path):
    agent = learned(small(parts=["distance"], baseline="value"), 1)
    agent.save(tmp_path / "agent")
    again = BOMRL.load(tmp_path / "agent", LinearQuadraticVector(4, n_stages=3), device="cpu")
    assert again.parts == ["distance"] and not differing(agent, again)
    for one in (agent, again):
        one.learn(2 * STEPS, reset_num_timesteps=False, log_interval=None)
    assert not differing(agent, again)


def test_effective_sample_size_is_one_for_equal_ratios_and_ignores_padding():
    weights = th.tensor([[0.5, 0.5, 0.0]])
    assert float(effective_sample_size(th.tensor([[-800.0, -800.0, 0.0]]), weights)) == 1.0
    # Ratios 1 and 3: 2^2 / 5.
    uneven = effective_sample_size(th.tensor([[1.0, 3.0, 1.0]]).log(), weights)
    assert float(uneven) == pytest.approx(0.8)


def test_adapting_learns_the_sign():
    agent = BOMRL("MlpPolicy", SignFlip(), **{**SMALL, "n_lower_steps": 20, "lam": 0.1, "eta": 0.1})
    result = evaluate_adaptation(
        agent, SignFlipVector(20), 10, n_adapt_steps=3, episodes_per_step=20, n_eval_episodes=5
    )
    returns = result.returns.mean((0, 2))
    assert abs(returns[0]) < 0.3 and returns[-1] > 0.8


# An untrained policy of deviation 0.37 sees little of what to do, and squashed ratios let its
# adaptation move the mean by about one deviation: it has to learn to look further.
FLIPS = {
    "meta_batch_size": 8,
    "n_episodes_per_task": 20,
    "eta": 0.03,
    "n_lower_steps": 10,
    "lower_lr": 0.02,
    "polish_steps": 3,
    "max_kl": 0.1,
    "backtrack_ratio": 0.8,
    "max_backtracks": 15,
    "gamma": 0.0,  # no action changes what comes later
    "baseline": "none",
    "policy_kwargs": {"net_arch": [8], "log_std_init": -1.0},
    "seed": 0,
    "device": "cpu",
}
N_STAGES = 5


def flipping(**arguments):
    arguments = {**FLIPS, **arguments}
    n_envs = arguments["meta_batch_size"] * arguments["n_episodes_per_task"]
    return BOMRL("MlpPolicy", SignFlipVector(n_envs, n_stages=N_STAGES), **arguments)


def learned_flips(agent, n_iterations):
    n_steps = 2 * agent.meta_batch_size * agent.n_episodes_per_task * N_STAGES
    return agent.learn(n_iterations * n_steps, log_interval=None)


def share_of_the_optimum(agent, *, deterministic):
    """Return over the best return: before adaptation and after it, mean over both signs."""
    both = SignFlip().task_distribution
    tasks = [both.from_array(np.array([sign])) for sign in 5 * [-1.0, 1.0]]
    result = evaluate_adaptation(
        agent,
        SignFlip(n_stages=N_STAGES),
        tasks,
        n_adapt_steps=1,
        episodes_per_step=20,
        n_eval_episodes=5,
        deterministic=deterministic,
    )
    return result.returns.mean((0, 2)) / N_STAGES


def test_a_few_iterations_improve_what_adaptation_reaches():
    agent = flipping(meta_batch_size=6)
    untrained = share_of_the_optimum(agent, deterministic=True)
    trained = share_of_the_optimum(learned_flips(agent, 6), deterministic=True)
    assert abs(trained[0]) < 1e-6
    assert trained[1] > untrained[1] + 0.2


@pytest.mark.slow
@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_a_sign_that_only_rewards_tell_is_found_in_one_adaptation(algorithm):
    agent = flipping(algorithm=algorithm)
    assert share_of_the_optimum(agent, deterministic=True)[1] < 0.5
    found = share_of_the_optimum(learned_flips(agent, 18), deterministic=True)
    # The same action in both tasks earns opposite rewards.
    assert abs(found[0]) < 1e-6
    assert found[1] > 0.9


@pytest.mark.slow
def test_a_policy_that_explores_adapts_to_one_that_does_not():
    """Plain ratios can leave the noise of the meta-policy behind: its actions count as drawn."""
    agent = flipping(
        meta_batch_size=10,
        squash=False,
        parts=["distance"],
        lam=0.5,
        n_lower_steps=30,
        polish_steps=0,
        policy_kwargs={"net_arch": [16], "log_std_init": -1.0},
    )
    assert share_of_the_optimum(agent, deterministic=False)[1] < 0.7
    found = share_of_the_optimum(learned_flips(agent, 18), deterministic=False)
    assert abs(found[0]) < 0.2  # the mean of 250 actions: four standard errors
    assert found[1] > 0.9
