"""Acting with a Stable-Baselines3 model in M tasks, with a generator of its own in each.

SB3 samples actions from global generators. Here every task has its own, so that what happens in
one task does not depend on the others. Shapes: M tasks, S observations, A actions.
"""

import inspect
from collections.abc import Sequence
from typing import Any

import numpy as np
import torch as th
from gymnasium import spaces
from stable_baselines3.common.base_class import BaseAlgorithm
from stable_baselines3.common.off_policy_algorithm import OffPolicyAlgorithm
from stable_baselines3.common.policies import BasePolicy
from stable_baselines3.common.vec_env import VecEnv, unwrap_vec_normalize

from metarl_agents.common.evaluation.intervals import Floats
from metarl_agents.common.evaluation.streams import scoped_global_rng


def is_sb3_model(model: Any) -> bool:
    """Whether it is an SB3 algorithm with a network that acts.

    :param model: any object
    """
    return isinstance(model, BaseAlgorithm) and isinstance(
        getattr(model, "policy", None), BasePolicy
    )


class SB3Policies:
    """One SB3 model as the policy of M tasks.

    It looks at the model itself, not at a copy: while the model trains, the policies train with it.

    :param model: an SB3 algorithm
    :param rngs: one generator per task, for sampling actions
    :param venv: the env to ask for action masks, if the model takes them
    """

    def __init__(
        self, model: BaseAlgorithm, rngs: Sequence[np.random.Generator], venv: VecEnv | None = None
    ) -> None:
        self.model = model
        self.rngs = list(rngs)
        self.venv = venv
        self._takes_masks = "action_masks" in inspect.signature(model.predict).parameters
        self._normalizer = model.get_vec_normalize_env()

    @property
    def n_tasks(self) -> int:
        """M, the number of tasks."""
        return len(self.rngs)

    def __getitem__(self, index: int) -> "SB3Policies":
        return SB3Policies(self.model, [self.rngs[index]], self.venv)

    def in_env(self, venv: VecEnv) -> "SB3Policies":
        """The same policies, taking action masks from this env.

        :param venv: the env they are about to act in, one sub-environment per task
        """
        return SB3Policies(self.model, self.rngs, venv)

    def predict(
        self,
        observation: Any,
        state: Any | None = None,
        episode_start: np.ndarray | None = None,
        deterministic: bool = False,
    ) -> tuple[np.ndarray, Any | None]:
        """The action of each task and the next recurrent states.

        :param observation: (M, *obs_shape); with M = 1 also any number of rows, or a single one
        :param state: what the last call returned; None at the start
        :param episode_start: (M,) bool, True where the recurrent state starts anew
        :param deterministic: whether to take the most likely action
        """
        if np.shape(observation) == self.model.observation_space.shape:
            batch = np.asarray(observation)[None]
            action, state = self.predict(batch, state, episode_start, deterministic)
            return action[0], state
        shown = observation if self._env_normalizes() else self._normalized(observation)
        rngs = self.rngs * len(shown) if self.n_tasks == 1 else self.rngs
        masks = self._current_masks()
        if self._is_discrete():
            return _sampled(self._probabilities(shown, masks, deterministic), rngs), None
        actions, states = [], []
        for row, rng in enumerate(rngs):
            with scoped_global_rng(int(rng.integers(2**31))):
                action, following = self.model.predict(
                    shown[row : row + 1],
                    state=None if state is None else state[row],
                    episode_start=None if episode_start is None else episode_start[row : row + 1],
                    deterministic=deterministic,
                    **({} if masks is None else {"action_masks": masks[row : row + 1]}),
                )
            actions.append(action)
            states.append(following)
        return np.concatenate(actions), states

    @property
    def action_probabilities(self) -> Any:
        """A function from observations (S, ...) to (S, A), for discrete actions without memory."""
        if not self._is_discrete():
            raise AttributeError(f"{type(self.model).__name__} has no action probabilities here")
        if self._asks_masks() and not self._knows_masks_of_observations():
            raise AttributeError("action_masks() of this env is about its current state alone")

        def probabilities(
            observations: np.ndarray, stage: int | None = None, deterministic: bool = False
        ) -> Floats:
            shown = self._normalized(observations)
            return self._probabilities(shown, self._masks_of(observations), deterministic)

        return probabilities

    def _is_discrete(self) -> bool:
        policy: Any = self.model.policy
        return (
            isinstance(self.model.action_space, spaces.Discrete)
            and not hasattr(policy, "lstm_actor")
            and (hasattr(policy, "get_distribution") or hasattr(self.model, "exploration_rate"))
        )

    def _probabilities(
        self, observations: Any, masks: np.ndarray | None, deterministic: bool
    ) -> Floats:
        policy: Any = self.model.policy
        policy.set_training_mode(False)
        n_actions = int(self.model.action_space.n)  # type: ignore[attr-defined]
        tensors, _ = policy.obs_to_tensor(observations)
        with th.no_grad():
            if hasattr(self.model, "exploration_rate"):
                greedy = _one_hot(
                    policy._predict(tensors, deterministic=True).cpu().numpy(), n_actions
                )
                epsilon = 0.0 if deterministic else self._epsilon()
                return (1.0 - epsilon) * greedy + epsilon / n_actions
            extra = {} if masks is None else {"action_masks": masks}
            probs = policy.get_distribution(tensors, **extra).distribution.probs.double()
        probs = probs.cpu().numpy()
        if deterministic:
            return _one_hot(probs.argmax(axis=-1), n_actions)
        return np.asarray(probs / probs.sum(axis=-1, keepdims=True))

    def _epsilon(self) -> float:
        model: Any = self.model
        # In training a model acts uniformly until learning starts.
        warming_up = (
            isinstance(model, OffPolicyAlgorithm) and model.num_timesteps < model.learning_starts
        )
        return 1.0 if warming_up else float(model.exploration_rate)

    def _normalized(self, observations: Any) -> Any:
        return (
            observations
            if self._normalizer is None
            else self._normalizer.normalize_obs(observations)
        )

    def _env_normalizes(self) -> bool:
        return self.venv is not None and unwrap_vec_normalize(self.venv) is not None

    def _asks_masks(self) -> bool:
        return self._takes_masks and self.venv is not None and self.venv.has_attr("action_masks")

    def _knows_masks_of_observations(self) -> bool:
        assert self.venv is not None
        method = self.venv.get_attr("action_masks", indices=[0])[0]
        try:
            inspect.signature(method).bind(None)
        except TypeError:  # as sb3-contrib's ActionMasker has it
            return False
        return True

    def _current_masks(self) -> np.ndarray | None:
        if self.venv is None or not self._asks_masks():
            return None
        return np.stack(self.venv.env_method("action_masks")).astype(bool)

    def _masks_of(self, observations: np.ndarray) -> np.ndarray | None:
        if self.venv is None or not self._asks_masks():
            return None
        return np.asarray(
            self.venv.env_method("action_masks", observations, indices=[0])[0], dtype=bool
        )


def _one_hot(actions: np.ndarray, n_actions: int) -> Floats:
    return np.asarray(np.eye(n_actions)[np.asarray(actions).reshape(-1)])


def _sampled(probabilities: Floats, rngs: Sequence[np.random.Generator]) -> np.ndarray:
    uniforms = np.array([rng.random() for rng in rngs])
    cumulative = np.cumsum(probabilities, axis=-1)
    # The last entry becomes exactly 1, and actions of probability 0 are never counted past.
    cumulative /= cumulative[:, -1:]
    return np.asarray((cumulative <= uniforms[:, None]).sum(axis=-1))
