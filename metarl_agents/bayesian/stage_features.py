"""Ask an environment for the features of its optimal Q-function, and check what it answers."""

import copy
import inspect
from collections.abc import Callable
from typing import Any

import numpy as np
from gymnasium import spaces
from stable_baselines3.common.vec_env import VecEnv

from metarl_agents.common.evaluation.transparency import opaque_wrapper

FeatureFunction = Callable[[int, np.ndarray], np.ndarray]
MaskFunction = Callable[[np.ndarray], np.ndarray]


class StageFeatures:
    """The features ``phi_h(s, a)`` and action masks of a finite-horizon family, block by block.

    :param features: ``(stage, observations) -> (..., A, d)``
    :param masks: ``observations -> (..., A)`` bool, or None when every action is always allowed
    :param stages: ``observations -> (...)`` int, or None when observations do not tell the stage
    :param n_stages: H
    :param n_actions: A
    :param n_features: d
    :param n_blocks: C, 1 or A: blocks that the features of single actions are confined to
    :param observation_space: of one environment
    :raises ValueError: if d does not divide into C blocks, or C is neither 1 nor A
    """

    def __init__(
        self,
        features: FeatureFunction,
        masks: MaskFunction | None,
        stages: MaskFunction | None,
        *,
        n_stages: int,
        n_actions: int,
        n_features: int,
        n_blocks: int,
        observation_space: spaces.Space[Any],
    ):
        if n_blocks not in (1, n_actions):
            raise ValueError(
                f"n_feature_blocks={n_blocks} must be 1 or the number of actions, {n_actions}"
            )
        if n_features % n_blocks:
            raise ValueError(
                f"n_features={n_features} must be a multiple of n_feature_blocks={n_blocks}"
            )
        self._features, self._masks, self._stages = features, masks, stages
        self.n_stages, self.n_actions, self.n_features = n_stages, n_actions, n_features
        self.n_blocks, self.block_size = n_blocks, n_features // n_blocks
        self.observation_space = observation_space

    def replaced(
        self, features: FeatureFunction, *, n_features: int, n_blocks: int
    ) -> "StageFeatures":
        """Return other features for the same stages, actions and masks."""
        return StageFeatures(
            features,
            self._masks,
            self._stages,
            n_stages=self.n_stages,
            n_actions=self.n_actions,
            n_features=n_features,
            n_blocks=n_blocks,
            observation_space=self.observation_space,
        )

    @property
    def shape(self) -> tuple[int, int, int]:
        """(H, C, m): the shape of one task's parameters."""
        return self.n_stages, self.n_blocks, self.block_size

    def __call__(self, stage: int, observations: np.ndarray) -> np.ndarray:
        """Return the features of every action within its block.

        :param stage: h, from 0
        :param observations: shape (..., *observation_shape)
        :return: shape (..., A, m), float64
        :raises ValueError: if the features have another shape, are not finite, or leave their block
        """
        observations = self._typed(observations)
        lead = observations.shape[: observations.ndim - len(self.observation_space.shape or ())]
        values = np.asarray(self._features(stage, observations), dtype=np.float64)
        expected = (*lead, self.n_actions, self.n_features)
        if values.shape != expected:
            raise ValueError(
                f"features(stage={stage}, observations) has shape {values.shape}, not {expected}: "
                "return (..., n_actions, n_features) for observations with leading axes"
            )
        if not np.isfinite(values).all():
            raise ValueError(f"features(stage={stage}, observations) are not finite")
        return values if self.n_blocks == 1 else self._own_blocks(stage, values)

    def _own_blocks(self, stage: int, values: np.ndarray) -> np.ndarray:
        blocks = values.reshape(*values.shape[:-1], self.n_blocks, self.block_size)
        own = np.einsum("...aam->...am", blocks)
        if np.count_nonzero(own) != np.count_nonzero(values):
            raise ValueError(
                f"features(stage={stage}, observations) leave the block of their action: "
                "give the env n_feature_blocks=1, or the agent covariance='full'"
            )
        return np.ascontiguousarray(own)

    def masks(self, observations: np.ndarray) -> np.ndarray:
        """Return which actions are allowed, shape (..., A), bool."""
        observations = self._typed(observations)
        lead = observations.shape[: observations.ndim - len(self.observation_space.shape or ())]
        if self._masks is None:
            return np.ones((*lead, self.n_actions), dtype=bool)
        masks = np.asarray(self._masks(observations), dtype=bool)
        if masks.shape != (*lead, self.n_actions):
            raise ValueError(
                f"action_masks(observations) has shape {masks.shape}, "
                f"not {(*lead, self.n_actions)}: return (..., n_actions)"
            )
        return masks

    @property
    def knows_stages(self) -> bool:
        """Whether observations tell their stage."""
        return self._stages is not None

    def stages(self, observations: np.ndarray) -> np.ndarray:
        """Return the stage of every observation, shape (...), int, at most H - 1."""
        assert self._stages is not None
        return np.minimum(
            np.asarray(self._stages(self._typed(observations)), dtype=np.int64), self.n_stages - 1
        )

    def _typed(self, observations: np.ndarray) -> np.ndarray:
        """Return observations of a discrete space as integers; batches of episodes hold floats."""
        dtype = self.observation_space.dtype
        whole = dtype is not None and not np.issubdtype(dtype, np.floating)
        observations = np.asarray(observations)
        return observations.astype(dtype, copy=False) if whole else observations

    def batched(self, observation: np.ndarray) -> tuple[np.ndarray, bool]:
        """Return observations with one leading axis, and whether they had one."""
        shape = self.observation_space.shape or ()
        array = np.asarray(observation)
        if array.shape == shape:
            return array[None], False
        if array.shape[1:] != shape:
            raise ValueError(
                f"observation has shape {array.shape}: pass {shape} or (n, *{shape}) as the "
                "observation space says"
            )
        return array, True


def features_of(
    env: VecEnv,
    features: FeatureFunction | None = None,
    *,
    n_stages: int | None = None,
    covariance: str = "block",
) -> StageFeatures:
    """Return the features of an environment, or ``features`` where the caller gives them.

    :param env: of a family that has the members of ``LinearQEnv``
    :param features: replaces the env's
    :param n_stages: H, replaces the env's
    :param covariance: "block" uses the feature blocks that the env declares, "full" ignores them
    :raises ValueError: if neither the env nor the caller knows the features, or if actions are
        not discrete
    """
    actions = env.action_space
    if not isinstance(actions, spaces.Discrete) or actions.start != 0:
        raise ValueError(
            f"action_space={actions}: a linear Q-function needs a Discrete space starting at 0"
        )
    function = features if features is not None else _member(env, "features")
    stages = n_stages if n_stages is not None else _member(env, "n_stages")
    if function is None or stages is None:
        raise ValueError(
            "env does not describe a linear Q-function: give it the members of "
            "metarl_envs.LinearQEnv (n_stages, n_features, features, action_masks), or pass "
            "features=callable and n_stages=int to the agent"
        )
    opaque = opaque_wrapper(env, "features") if features is None else None
    if opaque is not None:
        raise ValueError(
            f"{opaque} lies between the agent and the env whose features it would use, and may "
            "change what they are about: give the wrapper features(), action_masks() and n_stages "
            "of its own, or pass features= and n_stages= to the agent"
        )
    declared = _member(env, "n_feature_blocks") if features is None else None
    declared_width = _member(env, "n_features") if features is None else None
    return StageFeatures(
        function,
        _masks_of(env),
        _stages_of(env),
        n_stages=int(stages),
        n_actions=int(actions.n),
        n_features=_n_features(function, env.observation_space)
        if declared_width is None
        else int(declared_width),
        n_blocks=int(declared or 1) if covariance == "block" else 1,
        observation_space=env.observation_space,
    )


def _member(env: VecEnv, name: str) -> Any | None:
    try:
        return env.get_attr(name, indices=[0])[0]
    except AttributeError:
        return None


def _n_features(function: FeatureFunction, space: spaces.Space[Any]) -> int:
    """Return d, read off the features of some observation."""
    values = np.asarray(function(0, _probe(space)))
    if values.ndim != 3:
        raise ValueError(
            f"features(0, observations) has shape {values.shape}: return "
            "(n_observations, n_actions, n_features)"
        )
    return int(values.shape[-1])


def _masks_of(env: VecEnv) -> MaskFunction | None:
    """Return the env's masks as a function of observations.

    :raises ValueError: if they can only be asked for the current state
    """
    masks = _member(env, "action_masks")
    if masks is None:
        return None
    signature = inspect.signature(masks)
    for arguments in ((), (None,)):
        try:
            signature.bind(*arguments)
        except TypeError:
            raise ValueError(
                f"action_masks{signature} of the env must take observations and work without them: "
                "define action_masks(self, observations=None), None meaning the current state"
            ) from None
    return masks


def _stages_of(env: VecEnv) -> MaskFunction | None:
    """Return the env's stages; None where it says that observations do not tell them."""
    stages: MaskFunction | None = _member(env, "stages")
    if stages is None:
        return None
    try:
        stages(_probe(env.observation_space))
    except ValueError:
        return None
    return stages


def _probe(space: spaces.Space[Any]) -> np.ndarray:
    """Return one observation of the space, with a leading axis."""
    copied = copy.deepcopy(space)
    copied.seed(0)
    return np.asarray(copied.sample())[None]
