import warnings

import gymnasium as gym
import numpy as np
import pytest
import torch as th

from metarl_agents import MAML, SGMRL, DiCEMAML, ProMP, evaluate_adaptation
from metarl_agents.common.collect import collect_episodes
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.policies import FunctionalPolicy, PolicyList, stack_policies
from metarl_envs.probes import LinearQuadraticVector, SignFlip, SignFlipVector

SMALL = {"meta_batch_size": 4, "n_episodes_per_task": 4, "policy_kwargs": {"net_arch": [8]}}


def small(cls=ProMP, env=None, **arguments):
    return cls(
        "MlpPolicy",
        LinearQuadraticVector(4, n_stages=3) if env is None else env,
        **{**SMALL, "seed": 0, "device": "cpu", **arguments},
    )


def learned(agent, n_iterations=2):
    n_phases = agent.n_inner_steps + 1
    agent.learn(n_iterations * n_phases * 4 * 4 * 3, log_interval=None)
    return agent


def same(first, second):
    ours, theirs = first._learned_state(), second._learned_state()
    return ours.keys() == theirs.keys() and all(th.equal(ours[n], theirs[n]) for n in ours)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"meta_batch_size": 0}, "meta_batch_size=0"),
        ({"n_episodes_per_task": 2.0}, "n_episodes_per_task=2.0"),
        ({"n_inner_steps": 0}, "n_inner_steps=0"),
        ({"inner_lr": float("nan")}, "inner_lr=nan"),
        ({"inner_lr": 0.0}, "inner_lr=0.0"),
        ({"learn_inner_lr": "layer"}, "learn_inner_lr='layer'"),
        ({"learn_inner_lr": "tensor", "inner_lr": 5.0}, r"inner_lr=5.0.*learn_inner_lr"),
        ({"adapt_lr_decay": -1}, "adapt_lr_decay=-1"),
        ({"learning_rate": "fast"}, "learning_rate='fast'"),
        ({"learning_rate": "lin_x"}, "lin_x"),
        ({"gamma": 1.5}, "gamma=1.5"),
        ({"gae_lambda": True}, "gae_lambda=True"),
        ({"normalize_advantage": 1}, "normalize_advantage=1"),
        ({"baseline": "mlp"}, "baseline='mlp'"),
        ({"baseline": "none", "bootstrap_truncated": True}, r"bootstrap_truncated.*baseline"),
        ({"loss_reduction": "max"}, "loss_reduction='max'"),
        ({"policy_kwargs": [64]}, "policy_kwargs"),
        ({"policy_kwargs": {"layers": [64]}}, "layers"),
        ({"policy_kwargs": {"net_arch": [0]}}, "net_arch"),
        ({"policy_kwargs": {"activation_fn": "gelu"}}, "activation_fn"),
        ({"n_workers": 0}, "n_workers=0"),
        ({"n_epochs": 0}, "n_epochs=0"),
        ({"clip_range": 0.0}, "clip_range=0.0"),
        ({"kl_coef": -1.0}, "kl_coef=-1.0"),
        ({"adaptive_kl": "yes"}, "adaptive_kl='yes'"),
        ({"kl_target": 0}, "kl_target=0"),
    ],
)
def test_arguments_without_sense_are_refused_by_name(arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small(**arguments)


def test_a_number_of_sub_environments_that_cannot_be_shared_out_is_refused():
    with pytest.raises(ValueError, match="n_envs=3 must divide or be a multiple of meta_batch"):
        small(env=LinearQuadraticVector(3, n_stages=3))


def test_envs_without_tasks_are_refused_when_learning_starts():
    agent = small(env=gym.make("Pendulum-v1"))
    with pytest.raises(ValueError, match="task distribution"):
        agent.learn(1)


def test_a_table_has_no_layers():
    with pytest.raises(ValueError, match="policy_kwargs"):
        ProMP("TabularPolicy", "metarl/RandomMDP-v0", policy_kwargs={"net_arch": [8]})
    with pytest.raises(ValueError, match="TabularPolicy"):
        ProMP("TabularPolicy", LinearQuadraticVector(4, n_stages=3))


def test_policies_of_other_kinds_are_refused_at_construction():
    from stable_baselines3.common.policies import ActorCriticPolicy

    with pytest.raises(TypeError, match="MlpPolicy"):
        ProMP(ActorCriticPolicy, SignFlip())


def test_activation_functions_can_be_classes_as_in_sb3():
    agent = small(policy_kwargs={"net_arch": [8], "activation_fn": th.nn.ReLU})
    assert agent.network.activation == "relu"


def test_one_adaptation_is_one_step_of_reinforce_on_exactly_these_episodes():
    agent = MAML(
        "TabularPolicy",
        "metarl/RandomMDP-v0",
        normalize_advantage=False,
        baseline="none",
        inner_lr=0.5,
        gamma=0.9,
        meta_batch_size=2,
        n_episodes_per_task=4,
        seed=0,
    )
    policy = agent.initial_policy()
    batch = collect_episodes(agent.env, stack_policies([policy]), 3, seed=3).task(0)
    after = agent.adapt(policy, batch, rng=np.random.default_rng(0))
    expected, n_steps = np.zeros(policy.params["logits"].shape), int(batch.mask.sum())
    for e, length in enumerate(batch.mask.sum(-1).to(th.int64).tolist()):
        for t in range(length):
            to_go = sum(0.9**k * float(batch.rewards[e, t + k]) for k in range(length - t))
            # For equal logits, grad log pi(a | s) is 1 at a less 1 / A; losses are step means.
            row = np.eye(expected.shape[1])[int(batch.actions[e, t, 0])] - 1 / expected.shape[1]
            expected[int(batch.observations[e, t, 0])] += 0.5 * to_go * row / n_steps
    # Rewards are float32 on their way through the vector env, sums are float64.
    np.testing.assert_allclose(after.params["logits"], expected, atol=1e-12)
    assert after.n_updates == 1 and not policy.params["logits"].any()


def test_later_adaptations_take_decayed_steps():
    agents = [small(adapt_lr_decay=decay) for decay in (1.0, 0.5)]
    policy = agents[0].initial_policy()
    batch = collect_episodes(
        agents[0].env,
        agents[0].initial_policies([np.random.default_rng(i) for i in range(4)]),
        2,
        seed=1,
    ).task(0)
    moves = []
    for agent in agents:
        first = agent.adapt(policy, batch, rng=np.random.default_rng(0))
        second = agent.adapt(first, batch, rng=np.random.default_rng(0))
        moves.append((first.params, second.params))
    for name in policy.params:
        assert th.equal(moves[0][0][name], moves[1][0][name])
        full, half = (second[name] - first[name] for first, second in moves)
        # Differences of float32 parameters of size 1.
        np.testing.assert_allclose(half, 0.5 * full, atol=1e-6)


def test_adaptation_does_not_see_padding_that_other_tasks_call_for():
    agent = small()
    policies = agent.initial_policies([np.random.default_rng(i) for i in range(4)])
    episodes = collect_episodes(agent.env, policies, 2, seed=1)
    pad = th.nn.functional.pad
    padded = EpisodeBatch._make(
        None
        if field is None
        else pad(field, (0, 0, 0, 5))
        if name in ("observations", "actions", "dist_params")
        else pad(field, (0, 5))
        if name in ("rewards", "mask")
        else field
        for name, field in episodes._asdict().items()
    )
    alone = agent.adapt(policies[2], episodes.task(2), rng=np.random.default_rng(0))
    beside = agent.adapt_tasks(policies, padded, rngs=[np.random.default_rng(0)] * 4)[2]
    assert all(th.equal(alone.params[name], beside.params[name]) for name in alone.params)


def test_policies_of_others_cannot_be_adapted():
    agent, other = small(), small(policy_kwargs={"net_arch": [9]})
    batch = collect_episodes(
        agent.env, agent.initial_policies([np.random.default_rng(i) for i in range(4)]), 1, seed=0
    ).task(0)
    with pytest.raises(TypeError, match="initial_policy"):
        agent.adapt(PolicyList([agent]), batch, rng=np.random.default_rng(0))
    with pytest.raises(ValueError, match="network"):
        agent.adapt(other.initial_policy(), batch, rng=np.random.default_rng(0))


def test_adapting_to_a_task_steps_once_per_batch_of_as_many_episodes_as_in_training():
    agent, env = small(env=SignFlipVector(4)), SignFlip()
    for n_episodes, n_updates in ((0, 0), (3, 1), (4, 1), (9, 3)):
        policy = agent.adapt_to(env, n_episodes, seed=0)
        assert isinstance(policy, FunctionalPolicy) and policy.n_updates == n_updates


class PixelSignFlip(gym.ObservationWrapper):
    """What it sees is a picture."""

    def __init__(self):
        super().__init__(SignFlip())
        self.observation_space = gym.spaces.Box(0, 255, (4, 5, 3), np.uint8)

    def observation(self, observation):
        return np.arange(60, dtype=np.uint8).reshape(4, 5, 3)

    def __getattr__(self, name):
        return getattr(self.env, name)


def test_pictures_have_the_same_axes_wherever_they_are_seen():
    agent = small(env=PixelSignFlip())
    assert agent.observation_space.shape == (4, 5, 3)
    assert agent.adapt_to(PixelSignFlip(), 4, seed=0).n_updates == 1
    agent.set_env(PixelSignFlip())
    picture = PixelSignFlip().observation(None)
    assert agent.predict(picture)[0].shape == agent.action_space.shape


def test_acting_at_random_has_no_part_in_training():
    observation = np.zeros(2, dtype=np.float32)
    agent = small()
    draws = {float(agent.predict(observation)[0][0]) for _ in range(8)}
    assert len(draws) > 1
    assert same(learned(agent), learned(small()))


def test_a_gradient_that_is_not_finite_is_skipped_counted_and_warned_of_once(tmp_path):
    agent = learned(small(), 1)
    before = {name: tensor.clone() for name, tensor in agent._learned_state().items()}
    batch = agent._task_batch(agent_data(agent))
    with pytest.warns(UserWarning, match="not finite"):
        agent._descend(lambda params, task: broken(params), batch)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        agent._descend(lambda params, task: broken(params), batch)
    assert all(th.equal(before[name], tensor) for name, tensor in agent._learned_state().items())
    agent.save(tmp_path / "agent")
    assert ProMP.load(tmp_path / "agent")._n_skipped_updates == 2


def test_a_gradient_whose_square_overflows_is_skipped_too(tmp_path):
    agent = small()
    with pytest.warns(UserWarning, match="not finite"):
        agent._descend(lambda params, _: params["layers.0.bias"].sum(-1) * 1e20, agent_batch(agent))
    agent.save(tmp_path / "agent")
    assert same(ProMP.load(tmp_path / "agent"), agent)


def test_episodes_of_several_tasks_are_no_episodes_to_adapt_to():
    agent = small()
    episodes = agent_data(agent).phases[0]
    with pytest.raises(ValueError, match="episodes has a task axis"):
        agent.adapt(agent.initial_policy(), episodes, rng=np.random.default_rng(0))


def agent_batch(agent):
    return agent._task_batch(agent_data(agent))


def broken(params):
    lead = params["layers.0.bias"]
    return lead.sum(-1) * float("nan")


def agent_data(agent):
    from stable_baselines3.common.callbacks import CallbackList

    agent._setup_learn(1)
    callback = CallbackList([])
    callback.init_callback(agent)
    callback.on_training_start({}, {})
    return agent.collect(callback)


def test_workers_change_neither_results_nor_the_number_of_threads():
    before = th.get_num_threads()
    agents = [learned(small(n_workers=n)) for n in (1, 2)]
    assert same(*agents) and th.get_num_threads() == before


@pytest.mark.parametrize("per", ["tensor", "element"])
@pytest.mark.parametrize("cls", [ProMP, MAML])
def test_learned_step_sizes_move_and_are_saved(cls, per, tmp_path):
    agent = learned(small(cls, learn_inner_lr=per))
    rates = agent.learned_step_sizes()
    assert all(0 < float((rate - 0.1).abs().max()) < 0.1 for rate in rates.values())
    agent.save(tmp_path / "agent")
    assert same(agent, cls.load(tmp_path / "agent"))


def test_a_value_baseline_is_learned_and_saved(tmp_path):
    agent = small(baseline="value")
    before = agent._baseline.state()
    learned(agent)
    after = agent._baseline.state()
    assert any(not th.equal(before[name], after[name]) for name in before)
    agent.save(tmp_path / "agent")
    assert same(agent, ProMP.load(tmp_path / "agent"))


def test_a_learning_rate_may_fall_to_zero():
    agent = small(learning_rate="lin_1e-2")
    agent._current_progress_remaining = 0.25
    assert agent._learning_rate() == pytest.approx(2.5e-3)
    assert small(learning_rate=0.5)._learning_rate() == 0.5


@pytest.mark.parametrize("n_inner_steps", [1, 2])
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (MAML, {"outer": "ppo"}),
        (MAML, {"hvp_fraction": 0.5, "loss_reduction": "sum"}),
        (ProMP, {"adaptive_kl": True, "bootstrap_truncated": True}),
        (SGMRL, {"control_variate": True, "baseline": "value", "score_baseline": "regression"}),
        (SGMRL, {"score_baseline": "ema", "normalize_advantage": False}),
        (DiCEMAML, {"inner_loss": "dice"}),
        (DiCEMAML, {"inner_loss": "dice_baseline", "baseline": "time"}),
    ],
)
def test_every_variant_learns_a_meta_iteration_and_logs_it(cls, arguments, n_inner_steps):
    agent = small(cls, n_inner_steps=n_inner_steps, **arguments)
    before = agent._theta()
    logs = agent.train(agent_data(agent))
    assert all(np.isfinite(value) for value in logs.values()), logs
    assert {"pre_update_return", "post_update_return", "skipped_updates", "loss"} <= logs.keys()
    assert any(not th.equal(before[name], after) for name, after in agent._theta().items())


def test_evaluation_runs_from_zero_to_k_steps():
    agent = small(env=SignFlipVector(4))
    tasks = SignFlip().sample_tasks(3, seed=0)
    result = evaluate_adaptation(
        agent, SignFlip(), tasks, n_adapt_steps=3, episodes_per_step=4, n_eval_episodes=2
    )
    assert result.returns.shape == (3, 4, 2)


FLIPS = {
    "meta_batch_size": 20,
    "n_episodes_per_task": 20,
    "inner_lr": 0.5,
    "policy_kwargs": {"net_arch": [16]},
    "learning_rate": 0.01,
    "seed": 0,
    "device": "cpu",
}


@pytest.mark.parametrize("cls", [SGMRL, ProMP])
def test_a_sign_that_only_rewards_tell_is_found_in_one_step(cls):
    agent = cls("MlpPolicy", SignFlipVector(400), **FLIPS)
    agent.learn(20 * 800, log_interval=None)
    both = SignFlip().task_distribution
    tasks = [both.from_array(np.array([sign])) for sign in (-1.0, 1.0)]
    found = evaluate_adaptation(
        agent,
        SignFlip(),
        tasks,
        n_adapt_steps=1,
        episodes_per_step=20,
        n_eval_episodes=5,
        deterministic=True,
    ).returns.mean(axis=(0, 2))
    # The same action in both tasks earns opposite rewards.
    assert abs(found[0]) < 1e-6
    assert found[1] > 0.99
