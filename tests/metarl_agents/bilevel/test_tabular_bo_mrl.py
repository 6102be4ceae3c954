"""The tabular agent: what it learns from models and from episodes, and what it refuses."""

import gymnasium as gym
import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import CallbackList

from metarl_agents import TabularBOMRL, evaluate_adaptation
from metarl_agents.bilevel import adapted_policies, hypergradient
from metarl_agents.bilevel.exact import evaluate
from metarl_agents.common.collect import collect_task_episodes, sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies import FunctionalPolicies
from metarl_envs.probes import SignFlip, WhichArm

HOLES, REWARD = "metarl/FrozenLakeHoles-v0", "metarl/FrozenLakeReward-v0"
PRESET = {"preset": "bomrl2024"}
SMALL = {"meta_batch_size": 4, "n_episodes_per_task": 3, "seed": 0, "device": "cpu"}


def lake(env=REWARD, **arguments):
    return TabularBOMRL(
        "TabularPolicy", env, **{**SMALL, "n_envs": 4, "env_kwargs": PRESET, **arguments}
    )


def data_of(agent):
    agent._setup_learn(1)
    callback = CallbackList([])
    callback.init_callback(agent)
    callback.on_training_start({}, {})
    return agent.collect(callback)


def mdps_of(env, tasks):
    found = gym.make(env, **PRESET).unwrapped.finite_mdps(tasks)
    return [found[i] for i in range(len(tasks))]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"algorithm": 4}, "algorithm=4"),
        ({"lam": 0.0}, "lam=0.0"),
        ({"adapt_lam": -1}, "adapt_lam=-1"),
        ({"lam_relative": 1}, "lam_relative=1"),
        ({"mode": "model"}, "mode='model'"),
        ({"method": "magic"}, "method='magic'"),
        ({"mode": "sampled", "method": "implicit"}, "closed_form"),
        ({"solver": "sgd20"}, "forward_kl"),
        ({"n_tasks": 3}, "n_tasks=3 must be at least meta_batch_size=4"),
        ({"n_episodes_per_task": 0}, "n_episodes_per_task=0"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"optimizer": "lbfgs"}, "optimizer='lbfgs'"),
        ({"gamma": 1.0}, "gamma=1.0 must be below 1"),
        ({"q_step_size": 1.5}, "q_step_size=1.5"),
        ({"initial_q": float("inf")}, "initial_q=inf"),
        ({"mode": "sampled", "backtracking": True}, "backtracking=True"),
        ({"audit_interval": 5}, "first_order"),
        ({"n_envs": 3}, "n_envs=3 must divide meta_batch_size=4"),
        ({"policy_kwargs": {"net_arch": [8]}}, "policy_kwargs"),
    ],
)
def test_arguments_without_sense_are_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        lake(**arguments)


def test_spaces_that_no_table_holds_are_refused():
    with pytest.raises(ValueError, match="Discrete"):
        TabularBOMRL("TabularPolicy", SignFlip())


def test_exact_modes_ask_for_a_model():
    with pytest.raises(ValueError, match=r"finite_mdp\(task\).*mode='sampled'"):
        TabularBOMRL("TabularPolicy", WhichArm())
    wrapped = gym.wrappers.TransformReward(gym.make(HOLES, **PRESET), lambda reward: 2 * reward)
    with pytest.raises(ValueError, match="TransformReward"):
        TabularBOMRL("TabularPolicy", wrapped)


@pytest.mark.parametrize("algorithm", [1, 2])
def test_exact_update_follows_the_mean_hypergradient(algorithm):
    agent = lake(algorithm=algorithm, optimizer="sgd", learning_rate=0.5, lam=0.7)
    data = data_of(agent)
    before = agent._meta.logits
    logs = agent.train(data)
    mdps = [mdp for mdp in mdps_of(REWARD, drawn_by(agent, data))]
    objective, gradient = hypergradient(mdps, before, algorithm=algorithm, lam=0.7)
    np.testing.assert_allclose(agent._meta.logits - before, 0.5 * gradient, atol=1e-12)
    assert logs["return_after"] == pytest.approx(objective)
    assert {"residual", "min_eigenvalue", "hessian_cond", "mean_kl", "relative_lam"} <= set(logs)


def drawn_by(agent, data):
    """The tasks of a first mini-batch, drawn again."""
    again = lake()
    rng = np.random.default_rng(again._begin_collect())
    return again._drawn_tasks(rng)


def test_exact_mode_counts_the_one_episode_that_it_plays_in_each_task():
    agent = lake()
    agent.learn(1, log_interval=None)
    assert agent.num_timesteps == 4 * 49
    sampled = lake(mode="sampled", n_envs=12, n_episodes_per_task=3)
    sampled.learn(1, log_interval=None)
    assert sampled.num_timesteps == 2 * 4 * 3 * 49


def test_meta_training_raises_the_return_after_adaptation():
    agent = lake(lam=0.3, n_tasks=4, learning_rate=0.1)
    tasks = sample_tasks(agent.env, 4, seed=agent._task_seed)
    mdps = mdps_of(REWARD, tasks)

    def returns():
        policy = adapted_policies(mdps, agent._meta.logits, algorithm=2, lam=0.3)
        models = data_of(lake(n_tasks=4)).models
        return float(evaluate(models, th.as_tensor(policy)).returns.mean())

    before = returns()
    agent.learn(30 * 4 * 49, log_interval=None)
    assert returns() > before + 0.1


def test_the_training_tasks_of_a_fixed_set_come_again():
    agent = lake(n_tasks=4)
    first, second = data_of(agent).models, data_of(agent).models
    # Mini-batches are the whole set, in another order.
    assert {tuple(row.flatten().tolist()) for row in first.rewards} == {
        tuple(row.flatten().tolist()) for row in second.rewards
    }


def test_adapting_to_models_is_what_the_pure_function_does():
    agent = lake(lam=0.4, adapt_lam=0.2)
    mdps = mdps_of(REWARD, sample_tasks(agent.env, 3, seed=1))
    policies = agent.adapt_to_models(mdps, n_steps=2)
    expected = adapted_policies(mdps, agent._meta.logits, algorithm=2, lam=0.2, n_steps=2)
    np.testing.assert_allclose(policies.action_probabilities(np.arange(16)), expected, atol=1e-12)
    one = agent.adapt_to_models(mdps[0], n_steps=2)
    np.testing.assert_allclose(one.action_probabilities(np.arange(16))[0], expected[0], atol=1e-12)


@pytest.mark.parametrize("algorithm", [1, 2, 3])
def test_adapting_to_many_episodes_comes_near_adapting_to_the_model(algorithm):
    lam = {1: 1.0, 2: 1.0, 3: 0.3}[algorithm]
    agent = lake(algorithm=algorithm, lam=lam, n_episodes_per_task=100, q_step_size=0.1)
    (task,) = sample_tasks(agent.env, 1, seed=3)
    adapted = agent.adapt_to(REWARD, 100, task=task, seed=0)
    found = adapted.action_probabilities(np.arange(16))
    (mdp,) = mdps_of(REWARD, [task])
    exact = adapted_policies([mdp], agent._meta.logits, algorithm=algorithm, lam=lam)[0]
    is_visited = np.arange(16) < 8
    # Of tables that end at the noise of a constant step size.
    assert np.abs(found - exact)[is_visited].max() < 0.15


def test_sampled_hypergradient_points_where_the_exact_one_does():
    arguments = {"lam": 1.0, "optimizer": "sgd", "learning_rate": 1.0}
    exact = lake(**arguments)
    sampled = lake(
        **arguments, mode="sampled", n_envs=100, n_episodes_per_task=100, q_step_size=0.1
    )
    moves = []
    for agent in (exact, sampled):
        logs = agent.train(data_of(agent))
        moves.append(agent._meta.logits.flatten())
    assert th.cosine_similarity(moves[0], moves[1], dim=0) > 0.7
    assert 0.0 < logs["coverage"] <= 1.0
    assert 0.0 <= logs["skipped_mass"] < 0.5


def test_rescaled_rewards_change_nothing_with_a_relative_lambda():
    agent = lake(mode="sampled", lam=0.5, lam_relative=True, optimizer="sgd")
    policy = agent.initial_policy()
    batch = episodes_of(agent, policy)
    plain, scaled = (
        agent.adapt(policy, batch._replace(rewards=factor * batch.rewards), rng=generator(0))
        for factor in (1.0, 7.0)
    )
    th.testing.assert_close(plain.params["logits"], scaled.params["logits"])
    data = data_of(agent)
    times_seven = data._replace(
        before=data.before._replace(rewards=7.0 * data.before.rewards),
        after=data.after._replace(rewards=7.0 * data.after.rewards),
        lam_unit=7.0 * data.lam_unit,
    )
    gradients = [agent._from_episodes(each)[0] for each in (data, times_seven)]
    th.testing.assert_close(7.0 * gradients[0], gradients[1])


def generator(seed):
    return np.random.default_rng(seed)


def test_the_unit_of_lambda_is_kept_and_saved(tmp_path):
    agent = lake(lam_relative=True)
    agent.learn(1, log_interval=None)
    unit = float(agent._meta.lam_unit)
    assert unit > 0.0
    agent.learn(3 * 4 * 49, log_interval=None, reset_num_timesteps=False)
    assert float(agent._meta.lam_unit) == unit
    agent.save(tmp_path / "agent.zip")
    loaded = TabularBOMRL.load(tmp_path / "agent.zip")
    assert float(loaded._meta.lam_unit) == unit


def test_episodes_that_end_early_lead_to_nothing():
    agent = TabularBOMRL("TabularPolicy", WhichArm(), mode="sampled", lam=0.1, **SMALL)
    adapted = agent.adapt_to(WhichArm(), 3, seed=0)
    probabilities = adapted.action_probabilities(np.array([[0, 0]]))
    assert probabilities.sum() == pytest.approx(1.0)


def test_a_task_adapts_as_it_would_beside_longer_ones():
    env = gym.make(HOLES, horizon=20)
    agent = TabularBOMRL("TabularPolicy", env, algorithm=3, lam=0.05, **SMALL)
    tasks = sample_tasks(agent.env, 4, seed=2)
    policies = FunctionalPolicies.shared(
        agent.network,
        {"logits": agent._meta.logits},
        4,
        action_space=agent.action_space,
        rng=np.random.default_rng(0),
    )
    episodes = collect_task_episodes(agent.env, policies, 3, tasks=tasks, seed=0, dtype=th.float64)
    rngs = [np.random.default_rng(i) for i in range(4)]
    together = agent.adapt_tasks(policies, episodes, rngs=rngs)
    assert len(set(episodes.lengths.amax(-1).tolist())) > 1
    for i in range(4):
        alone = agent.adapt(policies[i], episodes.task(i), rng=np.random.default_rng(i))
        th.testing.assert_close(
            alone.params["logits"], together.params["logits"][i], rtol=1e-12, atol=1e-12
        )


def test_episodes_cut_at_different_lengths_are_refused():
    agent = lake()
    policy = agent.initial_policy()
    batch = episodes_of(agent, policy)
    mask = batch.mask.clone()
    mask[0, 5:] = 0.0
    with pytest.raises(ValueError, match="same time limit"):
        agent.adapt(policy, batch._replace(mask=mask), rng=np.random.default_rng(0))


def test_forbidden_actions_are_refused():
    agent = lake()
    policy = agent.initial_policy()
    batch = episodes_of(agent, policy)
    masks = th.ones(*batch.mask.shape, 4, dtype=th.bool)
    masks[0, 0, 1] = False
    with pytest.raises(ValueError, match="action_masks"):
        agent.adapt(policy, batch._replace(action_masks=masks), rng=np.random.default_rng(0))


def test_untried_first_actions_are_refused_where_that_is_asked_for():
    agent = lake(require_start=True)
    policy = agent.initial_policy()
    batch = episodes_of(agent, policy)
    # The start is left at once, and never tried with most actions.
    stays = batch._replace(
        observations=batch.observations.clamp(min=1.0).index_fill(1, th.tensor([0]), 0.0)
    )
    with pytest.raises(ValueError, match="no episode played"):
        agent.adapt(policy, stays, rng=np.random.default_rng(0))


def episodes_of(agent, policy, n_episodes=3) -> EpisodeBatch:
    tasks = sample_tasks(agent.env, 4, seed=0)
    policies = type(policy).stack([policy] * 4)
    batch = collect_task_episodes(
        agent.env, policies, n_episodes, tasks=tasks, seed=0, dtype=th.float64
    )
    return batch.task(0)


def test_first_order_training_is_audited():
    agent = lake(HOLES, mode="first_order", lam=0.1, audit_interval=1)
    with pytest.warns(UserWarning, match="first-order gradient has a cosine"):
        logs = agent.train(data_of(agent))
    assert logs["first_order_cosine"] < 0.9


def test_a_lambda_far_too_large_is_warned_of():
    agent = lake(lam=1e4)
    with pytest.warns(UserWarning, match="lam is large"):
        agent.train(data_of(agent))


def test_a_lambda_too_small_for_convexity_is_refused_or_warned_of():
    agent = lake(HOLES, algorithm=3, lam=1e-3, max_iterations=1)
    with pytest.raises(ValueError, match="hypergradient is not valid"):
        agent.train(data_of(agent))
    lenient = lake(HOLES, algorithm=3, lam=1e-3, max_iterations=1, strict=False)
    with pytest.warns(UserWarning, match="hypergradient is not valid"):
        lenient.train(data_of(lenient))


def test_backtracking_rejects_a_step_that_lowers_the_return_on_the_mini_batch():
    agent = lake(optimizer="sgd", learning_rate=1.0, backtracking=True, track_gap=True, lam=0.3)
    data = data_of(agent)
    gradients, numbers = agent._from_models(data.models, 0.3)
    before, value = agent._meta.logits, float(numbers["return_after"].mean())
    logs = agent._ascend(-gradients.mean(0), data, value)
    assert logs == {"n_backtracks": 10.0, "accepted": 0.0}
    assert th.equal(agent._meta.logits, before)
    logs = agent.train(data)
    assert logs["accepted"] == 1.0
    assert agent.train(data)["gap"] < logs["gap"]


def test_implicit_method_learns_the_same_and_logs_its_solves():
    moves = []
    for method in ("closed_form", "implicit"):
        agent = lake(method=method, optimizer="sgd", lam=0.5)
        logs = agent.train(data_of(agent))
        moves.append(agent._meta.logits)
    th.testing.assert_close(moves[0], moves[1], rtol=1e-7, atol=1e-9)
    assert logs["cg_iterations"] >= 1
    assert logs["cg_residual"] < 1e-8


def test_grid_cells_are_states():
    agent = TabularBOMRL("TabularPolicy", "metarl/GridGoal-v0", lam=1.0, gamma=0.9, **SMALL)
    agent.learn(1, log_interval=None)
    assert tuple(agent._meta.logits.shape) == (25, 5)
    (task,) = sample_tasks(agent.env, 1, seed=0)
    mdp = agent.env.env_method("finite_mdp", task)[0]
    first = agent.env.reset()
    state = agent.network.states(th.as_tensor(first))
    assert mdp.initial[int(state[0])] == 1.0


def test_hidden_phases_are_no_states():
    with pytest.raises(ValueError, match=r"\(S, A\)"):
        agent = TabularBOMRL("TabularPolicy", "metarl/DarkKeyToDoor-v0", **SMALL)
        agent.learn(1)


def test_evaluation_knows_the_exact_regret():
    agent = TabularBOMRL(
        "TabularPolicy", WhichArm(), mode="sampled", lam=0.05, **{**SMALL, "n_episodes_per_task": 6}
    )
    venv = WhichArm()
    tasks = venv.sample_tasks(8, seed=1, split="test")
    result = evaluate_adaptation(
        agent, venv, tasks, n_adapt_steps=2, episodes_per_step=6, n_eval_episodes=2
    )
    regret = np.asarray(result.regret).reshape(8, 3, -1).mean(-1)
    np.testing.assert_allclose(regret[:, 0], 2.0 / 3.0, atol=1e-9)
    assert regret[:, 2].mean() < 0.2
