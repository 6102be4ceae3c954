"""What the agents are to each other, and to what is known of their gradients."""

import numpy as np
import pytest
import torch as th
from stable_baselines3.common.callbacks import CallbackList

from metarl_agents import EMAML, FOMAML, MAML, SGMRL, DiCEMAML, ProMP
from metarl_agents.gradient import certify_meta_gradient
from metarl_agents.gradient.outer_losses import outer_loss
from metarl_envs.probes import Chain, LinearQuadraticVector
from tests.metarl_agents.gradient.literal_tasks import BOTH, LOGITS

SMALL = {
    "meta_batch_size": 4,
    "n_episodes_per_task": 4,
    "policy_kwargs": {"net_arch": [8]},
    "seed": 0,
    "device": "cpu",
}


def small(cls, **arguments):
    return cls("MlpPolicy", LinearQuadraticVector(4, n_stages=3), **{**SMALL, **arguments})


def data_of(agent):
    agent._setup_learn(1)
    callback = CallbackList([])
    callback.init_callback(agent)
    callback.on_training_start({}, {})
    return agent.collect(callback)


def gradient_of(agent, task_loss, batch):
    return agent._meta_gradient(task_loss, batch).gradient


def trained_theta(cls, **arguments):
    agent = small(cls, **arguments)
    agent.learn(2 * 96, log_interval=None)
    return agent._theta()


def assert_close(ours, theirs, tolerance=1e-6):
    for name, tensor in ours.items():
        np.testing.assert_allclose(tensor, theirs[name], atol=tolerance, rtol=tolerance)


@pytest.mark.parametrize(
    ("cls", "arguments", "name"),
    [
        (MAML, {}, "maml"),
        (FOMAML, {}, "fomaml"),
        (ProMP, {}, "lvc"),
        (DiCEMAML, {}, "loaded_dice"),
        (DiCEMAML, {"inner_loss": "dice"}, "dice"),
        (EMAML, {}, "emaml"),
        (SGMRL, {}, "sgmrl"),
    ],
)
def test_an_agent_is_certified_as_its_published_estimator(cls, arguments, name):
    agent = cls("MlpPolicy", Chain(), **arguments)
    found, known = (
        certify_meta_gradient(estimator, BOTH, LOGITS, n_episodes=1, inner_lr=0.5)
        for estimator in (agent, name)
    )
    np.testing.assert_allclose(found.expected, known.expected, rtol=0, atol=1e-12)
    if name in ("sgmrl", "emaml"):
        assert found.relative_bias < 1e-10


def test_without_score_sgmrl_is_maml_with_one_plain_step():
    arguments = {"normalize_advantage": False}
    assert_close(
        trained_theta(SGMRL, score_weight=0.0, **arguments),
        trained_theta(MAML, outer="vpg", **arguments),
    )


def test_emaml_with_the_sum_is_sgmrl():
    assert_close(
        trained_theta(EMAML, score_scale="sum", outer="vpg"),
        trained_theta(SGMRL),
    )


def test_the_paper_s_emaml_credits_one_nth_of_it():
    assert_close(
        trained_theta(EMAML, score_scale="mean", outer="vpg"),
        trained_theta(SGMRL, score_weight=0.25),
    )


def test_the_score_coefficient_is_not_lost_by_normalising_advantages():
    agent = small(SGMRL)
    logs = agent.train(data_of(agent))
    assert logs["score_coefficient"] > 0.01


def test_promp_begins_with_the_gradient_of_low_variance_curvature():
    agent = small(ProMP, kl_coef=0.0, n_inner_steps=2)
    batch = agent._task_batch(data_of(agent))

    def curvature(params, task):
        return agent.meta_loss(
            agent.network,
            params,
            task.inner,
            outer_loss("ratio", agent.network, task.outer, reduction="mean"),
            task.coefficients,
            inner_lr=0.1,
            reduction="mean",
        )

    ours, theirs = (gradient_of(agent, loss, batch) for loss in (agent._task_loss, curvature))
    # float32; recorded log-probabilities come from NumPy's forward pass.
    assert_close(ours, theirs, 1e-5)
    assert float(agent._divergences(batch).abs().max()) < 1e-6


def test_the_divergence_of_promp_pulls_towards_the_policies_that_sampled():
    moves = []
    for kl_coef in (0.0, 1e3):
        agent = small(ProMP, kl_coef=kl_coef, n_epochs=5)
        moves.append(agent.train(data_of(agent))["kl"])
    assert moves[1] < 0.5 * moves[0]


def test_an_adaptive_coefficient_follows_the_divergence():
    agent = small(ProMP, adaptive_kl=True, kl_target=1e-9, n_inner_steps=2)
    agent.train(data_of(agent))
    np.testing.assert_allclose(agent._groups["kl"]["coefficients"], 2 * [1e-3], rtol=1e-6)


@pytest.mark.parametrize("cls", [MAML, FOMAML, EMAML])
def test_a_trust_region_step_lowers_the_surrogate_within_the_region(cls):
    agent = small(cls, max_kl=0.005)
    data = data_of(agent)
    batch = agent._task_batch(data)
    before, kl = agent._surrogate_and_kl(agent._theta(), batch)
    # Recorded distributions come from NumPy's forward pass: float32.
    assert float(kl) < 1e-6
    logs = agent._update(data)
    after, kl = agent._surrogate_and_kl(agent._theta(), batch)
    assert 0 < float(kl) <= 0.005 and float(after) < float(before)
    np.testing.assert_allclose([logs["kl"], logs["loss_after"]], [float(kl), float(after)], 1e-6)
    assert 0 < logs["step_fraction"] <= 1


def test_a_trust_region_step_that_helps_nothing_is_not_taken():
    agent = small(MAML, max_backtracks=0, max_kl=1e3)
    before = agent._theta()
    logs = agent.train(data_of(agent))
    if logs["step_fraction"] == 0:
        assert all(th.equal(before[name], tensor) for name, tensor in agent._theta().items())


def test_the_score_term_has_no_clipped_epochs():
    with pytest.raises(ValueError, match="outer='ppo'"):
        small(EMAML, outer="ppo")


@pytest.mark.parametrize("baseline", ["linear", "time"])
def test_with_a_control_variate_advantages_do_not_see_their_own_episode(baseline):
    agent = small(SGMRL, control_variate=True, baseline=baseline)
    episodes = data_of(agent).phases[0]
    rewards = episodes.rewards.clone()
    rewards[1, 2] += 7.0
    returns, changed = (r.flip(-1).cumsum(-1).flip(-1) for r in (episodes.rewards, rewards))
    before = agent._baseline(episodes, returns)
    after = agent._baseline(episodes._replace(rewards=rewards), changed)
    assert th.equal(before[1, 2], after[1, 2]) and not th.equal(before[1, 1], after[1, 1])
    assert th.equal(before[0], after[0])


@pytest.mark.parametrize(
    ("cls", "arguments", "message"),
    [
        (MAML, {"outer": "sgd"}, "outer='sgd'"),
        (MAML, {"max_kl": 0}, "max_kl=0"),
        (MAML, {"n_cg_iterations": 0}, "n_cg_iterations=0"),
        (MAML, {"cg_damping": -1.0}, "cg_damping=-1.0"),
        (MAML, {"max_backtracks": -1}, "max_backtracks=-1"),
        (MAML, {"backtrack_ratio": 2.0}, "backtrack_ratio=2.0"),
        (MAML, {"hvp_fraction": 0.0}, "hvp_fraction=0.0"),
        (EMAML, {"score_scale": "max"}, "score_scale='max'"),
        (EMAML, {"score_baseline": "ema"}, "score_baseline='ema'"),
        (SGMRL, {"score_weight": -0.1}, "score_weight=-0.1"),
        (SGMRL, {"score_baseline": "own"}, "score_baseline='own'"),
        (SGMRL, {"control_variate": 1}, "control_variate=1"),
        (DiCEMAML, {"inner_loss": "lvc"}, "inner_loss='lvc'"),
    ],
)
def test_arguments_of_their_own_are_checked(cls, arguments, message):
    with pytest.raises((ValueError, TypeError), match=message):
        small(cls, **arguments)


def test_a_single_task_cannot_be_compared_with_others():
    with pytest.raises(ValueError, match="meta_batch_size=1"):
        small(SGMRL, meta_batch_size=1)
    small(SGMRL, meta_batch_size=1, score_baseline="ema")


def test_the_control_variate_starts_with_the_second_meta_iteration():
    agent = small(SGMRL, control_variate=True, baseline="value")
    assert not any(tensor.any() for tensor in agent._groups["control_variate"].values())
    agent.learn(96, log_interval=None)
    assert any(tensor.any() for tensor in agent._groups["control_variate"].values())
    assert float(agent._groups["advantage"]["scale"]) > 0


def with_a_last_reward(data, value):
    last = data.phases[-1]
    rewards = last.rewards.clone()
    rewards[0, 0, 0] = value
    return data._replace(phases=(*data.phases[:-1], last._replace(rewards=rewards)))


@pytest.mark.parametrize("arguments", [{}, {"score_baseline": "ema"}, {"control_variate": True}])
def test_a_skipped_update_leaves_what_sgmrl_remembers_as_it_was(arguments):
    agent = small(SGMRL, baseline="none", **arguments)
    agent.learn(96, log_interval=None)
    before = agent.get_parameters()["learned_state"]
    with pytest.warns(UserWarning, match="not finite"):
        agent.train(with_a_last_reward(data_of(agent), float("nan")))
    after = agent._learned_state()
    assert all(th.equal(before[name], after[name]) for name in before)


def test_a_skipped_update_is_no_divergence_that_a_coefficient_follows():
    agent = small(ProMP, baseline="none", adaptive_kl=True)
    before = agent._groups["kl"]["coefficients"]
    with pytest.warns(UserWarning, match="not finite"):
        agent.train(with_a_last_reward(data_of(agent), float("nan")))
    assert th.equal(agent._groups["kl"]["coefficients"], before)


@pytest.mark.parametrize("adaptive", [False, True])
def test_a_coefficient_given_to_load_replaces_one_that_nothing_moved(adaptive, tmp_path):
    agent = small(ProMP, adaptive_kl=adaptive)
    agent.learn(96, log_interval=None)
    agent.save(tmp_path / "agent")
    loaded = ProMP.load(tmp_path / "agent", agent.get_env(), kl_coef=3.0)
    used = agent._coefficients() if adaptive else th.tensor([3.0])
    assert th.equal(loaded._coefficients(), used)


def test_a_loss_of_a_user_s_own_is_what_sgmrl_trains_with():
    class Twice(SGMRL):
        def meta_loss(self, *args, **kwargs):
            return 2.0 * super().meta_loss(*args, **kwargs)

    plain, twice = small(SGMRL), small(Twice)
    data = data_of(plain)
    assert twice._update(data)["loss"] == pytest.approx(2.0 * plain._update(data)["loss"])


@pytest.mark.slow
@pytest.mark.parametrize(
    ("cls", "arguments"),
    [
        (MAML, {}),
        (MAML, {"outer": "vpg"}),
        (FOMAML, {"outer": "vpg"}),
        (EMAML, {"outer": "vpg"}),
        (ProMP, {}),
        (ProMP, {"n_epochs": 1}),
        (DiCEMAML, {}),
        (SGMRL, {"score_weight": 0.1}),
    ],
)
def test_fifty_meta_iterations_teach_a_point_to_adapt(cls, arguments):
    agent = cls(
        "MlpPolicy",
        "metarl/PointGoal-v0",
        meta_batch_size=20,
        n_episodes_per_task=20,
        n_envs=400,
        seed=0,
        device="cpu",
        **arguments,
    )
    returns, train = [], agent.train

    def recorded(data):
        logs = train(data)
        returns.append((logs["pre_update_return"], logs["post_update_return"]))
        return logs

    agent.train = recorded
    agent.learn(50 * 2 * 20 * 20 * 100, log_interval=None)
    before, after = np.mean(returns[-10:], axis=0)
    assert after - before > 5
    assert after > -40
