"""Envs that know nothing of this package: early ends, masks and features of their own."""

import gymnasium as gym
import numpy as np
import pytest
from stable_baselines3.common.vec_env import DummyVecEnv

from metarl_agents import MTSRL, RLSVI, MetaOracle, MTSRLPlus, evaluate_adaptation
from metarl_envs.distributions import UniformTasks


class Task:
    """A bonus on the best action."""

    def __init__(self, bonus):
        self.bonus = float(bonus[0])

    def to_array(self):
        return np.array([self.bonus])

    def __eq__(self, other):
        return isinstance(other, Task) and self.bonus == other.bonus

    def __hash__(self):
        return hash(self.bonus)


class Ladder(gym.Env):
    """Action h pays at step h; episodes end after ``length`` of at most three steps, or are cut."""

    n_stages, n_features = 3, 3

    def __init__(self, length=2, truncates=False, space=None):
        self.length, self.truncates = length, truncates
        self.observation_space = space or gym.spaces.Box(1.0, 10.0, (1,), np.float64)
        self.action_space = gym.spaces.Discrete(3)
        self.task_distribution = UniformTasks(Task, [1.0], [2.0])
        self.task, self.pin = None, None

    def sample_tasks(self, n, *, seed=None):
        rng = np.random.default_rng(seed)
        return [self.task_distribution.sample(rng) for _ in range(n)]

    def set_task(self, task):
        self.pin = task

    def get_task(self):
        return self.task

    def features(self, stage, observations):
        assert (observations >= 1).all(), "features were asked for an observation outside the space"
        lead = observations.shape[: observations.ndim - len(self.observation_space.shape)]
        return np.broadcast_to(np.eye(3), (*lead, 3, 3))

    def action_masks(self, observations=None):
        lead = () if observations is None else observations.shape[:-1]
        return np.ones((*lead, 3), dtype=bool)

    def reset(self, *, seed=None, options=None):
        super().reset(seed=seed)
        self.task = self.pin or self.sample_tasks(1, seed=int(self.np_random.integers(2**31)))[0]
        self.t = 0
        return np.ones(1), {}

    def step(self, action):
        reward = self.task.bonus * (action == self.t)
        self.t += 1
        over = self.t == self.length
        return np.ones(1), float(reward), over and not self.truncates, over and self.truncates, {}


def test_stages_are_counted_from_every_episode_start_where_episodes_end_early():
    env = Ladder()
    oracle = MetaOracle(
        "LinearQPolicy", env, prior_mean=np.eye(3), prior_covariance=1e-6, sigma2=0.1, device="cpu"
    )
    task = Task([1.0])
    result = evaluate_adaptation(
        oracle, env, [task, Task([2.0])], n_adapt_steps=1, episodes_per_step=2, n_eval_episodes=4
    )
    np.testing.assert_allclose(result.returns[0], 2.0)
    np.testing.assert_allclose(result.returns[1], 4.0)


@pytest.mark.parametrize("truncates", [False, True])
def test_learns_in_envs_whose_episodes_end_early_or_are_cut(truncates):
    env = DummyVecEnv([lambda: Ladder(truncates=truncates), lambda: Ladder(length=3)])
    agent = MTSRL("LinearQPolicy", env, n_episodes_per_task=15, seed=0, device="cpu", sigma2=0.1)
    agent.learn_tasks(12, log_interval=None)
    policy = agent.adapt_to(Ladder(length=3), 5, seed=1)
    taken, state = [], None
    for step in range(2):
        action, state = policy.predict(np.ones(1), state, np.array([step == 0]), deterministic=True)
        taken.append(int(action))
    assert taken == [0, 1]


def test_integer_observations_reach_the_features_as_integers():
    class Table(Ladder):
        def __init__(self):
            super().__init__(length=3, space=gym.spaces.Discrete(4))
            self.table = np.arange(4 * 3 * 3, dtype=float).reshape(4, 3, 3) / 10

        def features(self, stage, observations):
            return self.table[observations]

        def action_masks(self, observations=None):
            return np.ones((*np.shape(observations), 3), dtype=bool)

        def reset(self, *, seed=None, options=None):
            return 1, super().reset(seed=seed)[1]

        def step(self, action):
            return 2, *super().step(action)[1:]

    agent = RLSVI("LinearQPolicy", Table(), n_episodes_per_task=3, device="cpu")
    assert agent.learn_tasks(1, log_interval=None).n_tasks_seen == 1


@pytest.mark.parametrize("arguments", ["", ", observations"])
def test_masks_that_cannot_be_asked_both_ways_are_refused_with_the_remedy(arguments):
    namespace = {}
    exec(f"def action_masks(self{arguments}): ...", namespace)
    broken = type("Broken", (Ladder,), {"action_masks": namespace["action_masks"]})
    with pytest.raises(ValueError, match="action_masks\\(self, observations=None\\)"):
        RLSVI("LinearQPolicy", broken(), device="cpu")


@pytest.mark.parametrize("algorithm", [MTSRL, MTSRLPlus])
@pytest.mark.parametrize("estimator", ["ols", "gls", "em"])
def test_an_action_that_no_logged_task_tried_keeps_the_independent_prior(
    algorithm, estimator, tmp_path
):
    rng, rows = np.random.default_rng(0), ["task,episode,stage,obs_0,action,reward"]
    for task in range(8):
        level = rng.normal(0.5, 0.2, 2)
        for episode in range(10):
            action = episode % 2
            rows.append(f"{task},{episode},0,1.0,{action},{level[action] + rng.normal(0, 0.1)}")
    (tmp_path / "log.csv").write_text("\n".join(rows))
    agent = algorithm(
        "LinearQPolicy", Ladder(), estimator=estimator, sigma2=0.01, device="cpu", n_stages=1
    ).fit_prior(tmp_path / "log.csv")
    mean, covariance = agent.prior()
    assert abs(mean[0, 2]) < 1e-6
    if estimator == "em" or algorithm is MTSRL:
        # A fitted covariance may take the unseen direction's scale from the seen ones.
        assert covariance[0, 2, 2] > 1e-3
    else:
        assert covariance[0, 2, 2] >= 1.0
    np.testing.assert_allclose(mean[0, :2], 0.5, atol=0.3)


def test_learns_where_repeats_are_allowed_and_observations_do_not_tell_the_stage():
    agent = RLSVI(
        "LinearQPolicy",
        "metarl/RecommendationSmall-v0",
        env_kwargs={"repeat": "noop"},
        n_episodes_per_task=3,
        seed=0,
        device="cpu",
    )
    assert not agent.learn_tasks(1, log_interval=None).stage_features.knows_stages


class Shifted(gym.ActionWrapper):
    """Renames the actions, unknown to the features of the env below."""

    def action(self, action):
        return (action + 1) % 3


def test_features_from_below_a_wrapper_that_changes_actions_are_refused():
    with pytest.raises(ValueError, match="Shifted lies between the agent and the env"):
        RLSVI("LinearQPolicy", Shifted(Ladder()), device="cpu")
    own = RLSVI(
        "LinearQPolicy", Shifted(Ladder()), features=Ladder().features, n_stages=3, device="cpu"
    )
    assert own.stage_features.n_features == 3
