"""Agents of Stable-Baselines3 as learners: a fixed one, one that is fine-tuned, one that starts
afresh in every task.
"""

import copy
import io
import warnings
from collections.abc import Mapping, Sequence
from typing import Any, Protocol, runtime_checkable

import gymnasium as gym
import numpy as np
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.monitor import Monitor
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.on_policy_algorithm import OnPolicyAlgorithm
from stable_baselines3.common.type_aliases import PolicyPredictor
from stable_baselines3.common.vec_env import DummyVecEnv

from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.evaluation.learners import ScopedPolicy
from metarl_agents.common.evaluation.sb3_policies import SB3Policies, is_sb3_model
from metarl_agents.common.policies import PolicyList, TaskPolicies


@runtime_checkable
class InteractingLearner(Protocol):
    """A learner that acts in the env by itself while it adapts, as SB3's agents do in `learn`.

    `evaluate_adaptation` gives it an env on the task, of which it plays as much as it is let: the
    env raises `TrainingOverError` at the first step beyond the budget, which the learner must not
    catch.
    """

    interacts: bool
    n_steps: int | None
    """Env steps per adaptation; None means as many as the adaptation episodes have."""

    def start_in(self, env: gym.Env[Any, Any], *, seed: int) -> Any:
        """An agent that is about to train in `env`."""
        ...

    def train_in(self, agent: Any, n_steps: int) -> None:
        """Trains it for `n_steps` env steps, the budget of all adaptations together."""
        ...

    def policy_of(self, agent: Any, rng: np.random.Generator) -> PolicyPredictor:
        """How the agent acts at the moment it is asked."""
        ...


class Frozen:
    """A multi-task policy that does not adapt: what meta-learning has to beat.

    :param model: a trained SB3 model, or anything with SB3's `predict`
    :param name: for tables and plots
    """

    def __init__(self, model: PolicyPredictor, *, name: str | None = None) -> None:
        if not hasattr(model, "predict"):
            raise TypeError(
                f"model={model!r} has no predict(); pass a trained SB3 model or a policy"
            )
        self.model = model
        self.name = name or f"Frozen({type(model).__name__})"

    def initial_policies(self, rngs: Sequence[np.random.Generator]) -> TaskPolicies:
        """The model, once per task.

        :param rngs: for sampling actions, one per task
        """
        if is_sb3_model(self.model):
            return SB3Policies(self.model, rngs)  # type: ignore[arg-type]
        return PolicyList([ScopedPolicy(self.model, rng) for rng in rngs])

    def initial_policy(self, *, rng: np.random.Generator | None = None) -> PolicyPredictor:
        """The model.

        :param rng: for sampling actions
        """
        return self.initial_policies([rng or np.random.default_rng(0)])[0]

    def adapt_tasks(
        self, policies: TaskPolicies, episodes: EpisodeBatch, *, rngs: Sequence[np.random.Generator]
    ) -> TaskPolicies:
        """The same policies: nothing is learned.

        :param policies: the policies so far
        :param episodes: not looked at
        :param rngs: for sampling actions, one per task
        """
        return self.initial_policies(rngs)

    def adapt(
        self, policy: PolicyPredictor, episodes: EpisodeBatch, *, rng: np.random.Generator
    ) -> PolicyPredictor:
        """The same policy: nothing is learned.

        :param policy: the policy so far
        :param episodes: not looked at
        :param rng: for sampling actions
        """
        return self.initial_policy(rng=rng)


class _TrainedInTask:
    """What `FineTuned` and `FromScratch` share: training in the task by the model's own `learn`."""

    interacts = True

    def __init__(self, n_steps: int | None, name: str) -> None:
        if n_steps is not None and (
            isinstance(n_steps, bool) or int(n_steps) != n_steps or n_steps < 1
        ):
            raise ValueError(
                f"n_steps={n_steps!r} must be a positive number of env steps per adaptation step, "
                "or None for as many as "
                "the adaptation episodes have"
            )
        self.n_steps = n_steps
        self.name = name

    def train_in(self, agent: BaseAlgorithm, n_steps: int) -> None:
        """One `learn` over the whole budget, so that its schedules span it.

        :param agent: what `start_in` gave
        :param n_steps: env steps of all adaptations together
        """
        _warn_if_it_never_learns(self.name, agent, n_steps)
        agent.learn(n_steps, reset_num_timesteps=agent.num_timesteps == 0, log_interval=None)  # type: ignore[arg-type]

    def policy_of(self, agent: BaseAlgorithm, rng: np.random.Generator) -> PolicyPredictor:
        """How the agent acts at the moment it is asked, exploration included.

        :param agent: what `start_in` gave
        :param rng: for sampling actions
        """
        return SB3Policies(agent, [rng])


class FineTuned(_TrainedInTask):
    """A copy of a trained SB3 model goes on training in each task; the model never changes.

    Training goes on as SB3's `learn(reset_num_timesteps=False)` would: optimiser state, step
    counter and schedules are kept, the replay buffer starts empty. Rollouts and gradient steps run
    across adaptation steps as they come, so a rollout of PPO (`model_kwargs={"n_steps": 30}`) may
    be longer than one of them.

    :param model: a trained SB3 model
    :param n_steps: env steps of training per adaptation step; None means as many as the
        adaptation episodes have
    :param model_kwargs: attributes of the copy to change, e.g. `{"n_steps": 30, "learning_rate":
        1e-3}`
    :param name: for tables and plots
    """

    def __init__(
        self,
        model: BaseAlgorithm,
        n_steps: int | None = None,
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
    ) -> None:
        if not is_sb3_model(model):
            raise TypeError(f"model={model!r} is no SB3 model; FineTuned goes on with its learn()")
        super().__init__(n_steps, name or f"FineTuned({type(model).__name__})")
        self.model = model
        self.model_kwargs = dict(model_kwargs or {})
        unknown = [key for key in self.model_kwargs if not hasattr(model, key)]
        if unknown:
            raise ValueError(
                f"model_kwargs has {unknown}, which {type(model).__name__} does not have"
            )

    def start_in(self, env: gym.Env[Any, Any], *, seed: int) -> BaseAlgorithm:
        """A copy of the model in `env`.

        :param env: on the task
        :param seed: of the copy's randomness
        """
        stored = io.BytesIO()
        self.model.save(stored)
        stored.seek(0)
        changes = {"tensorboard_log": None, "verbose": 0, **self.model_kwargs, "seed": seed}
        return type(self.model).load(
            stored, env=self._wrapped(env), device=self.model.device, **changes
        )

    def _wrapped(self, env: gym.Env[Any, Any]) -> Any:
        normalizer = self.model.get_vec_normalize_env()
        if normalizer is None:
            return env
        normalizer = copy.deepcopy(normalizer)  # without its env, as for pickle
        normalizer.set_venv(DummyVecEnv([lambda: Monitor(env)]))
        return normalizer


class FromScratch(_TrainedInTask):
    """A fresh SB3 agent in every task: what learning without a past costs.

    Rollouts and gradient steps run across adaptation steps as they come; exploration and
    learning-rate schedules span the whole adaptation budget.

    :param cls: class of the SB3 agent, e.g. `stable_baselines3.DQN`
    :param n_steps: env steps of training per adaptation step; None means as many as the
        adaptation episodes have
    :param model_kwargs: further arguments of the agent whose names are taken here, e.g. PPO's
        `{"n_steps": 30}`
    :param name: for tables and plots
    :param kwargs: arguments of the agent, `policy` among them
    """

    def __init__(
        self,
        cls: type[BaseAlgorithm],
        n_steps: int | None = None,
        *,
        model_kwargs: Mapping[str, Any] | None = None,
        name: str | None = None,
        **kwargs: Any,
    ) -> None:
        if not (isinstance(cls, type) and issubclass(cls, BaseAlgorithm)):
            raise TypeError(
                f"cls={cls!r} is no SB3 algorithm class; pass e.g. stable_baselines3.DQN"
            )
        super().__init__(n_steps, name or f"FromScratch({cls.__name__})")
        self.cls = cls
        self.kwargs = {**kwargs, **(model_kwargs or {})}
        if "policy" not in self.kwargs:
            raise ValueError(
                f"policy is missing; pass e.g. FromScratch({cls.__name__}, policy='MlpPolicy')"
            )
        taken = sorted({"env", "seed"} & set(self.kwargs))
        if taken:
            raise ValueError(
                f"{taken} cannot be given: the evaluation chooses the env and the seed of every "
                "task"
            )

    def start_in(self, env: gym.Env[Any, Any], *, seed: int) -> BaseAlgorithm:
        """A fresh agent in `env`.

        :param env: on the task
        :param seed: of its initial weights and of its randomness
        """
        # SB3 writes into the policy_kwargs it is given, which the next task needs as they were.
        return self.cls(env=env, seed=seed, **copy.deepcopy(self.kwargs))


def _warn_if_it_never_learns(name: str, agent: BaseAlgorithm, n_steps: int) -> None:
    if isinstance(agent, OnPolicyAlgorithm):
        needed, setting = agent.n_steps * agent.n_envs, f"n_steps={agent.n_steps}"
    elif isinstance(agent, OffPolicyAlgorithm):
        needed = agent.learning_starts - agent.num_timesteps
        setting = f"learning_starts={agent.learning_starts}"
    else:
        return
    if needed >= n_steps:
        warnings.warn(
            f"{name} with {setting} never updates within the {n_steps} env steps of this "
            "evaluation; "
            "lower it through model_kwargs",
            stacklevel=2,
        )
