"""What the checks of vector envs look at: fresh copies, rollouts, the single env as reference."""

from __future__ import annotations

import copy
from collections.abc import Callable, Sequence
from functools import cached_property
from typing import Any, NamedTuple, TypeAlias

import gymnasium as gym
import numpy as np
from gymnasium.envs.registration import EnvSpec
from gymnasium.vector import AutoresetMode, SyncVectorEnv
from numpy.typing import NDArray

from metarl_envs.checks.subject import (
    N_TASKS,
    AnyEnv,
    NotApplicableError,
    accepts,
    attribute,
    draws_never_repeat,
    is_same,
    random_action,
    require,
    same_task,
)
from metarl_envs.core import Task

AnyVectorEnv: TypeAlias = gym.vector.VectorEnv[Any, Any, Any]
N_ENVS = 4
MOST_STEPS = 1000
"""Steps after which a check no longer waits for the end of an episode."""
_VECTOR_ARGUMENTS = ("num_envs", "vectorization_mode", "vector_kwargs", "wrappers")


class VectorSubject:
    """A vector env under test: makes fresh copies of it, and of the single env.

    :param env: an id, a vector env made by ``gymnasium.make_vec`` (its ``spec`` makes the copies),
        or a callable that takes ``num_envs=``
    :param single: a callable that makes the single env; by default the spec does
    :param seed: seed of everything that the checks draw
    """

    def __init__(self, env: Any, single: Callable[[], AnyEnv] | None = None, seed: int = 0) -> None:
        self.seed = seed
        self.source = env
        self.single = single
        self._made: list[Any] = []
        if isinstance(env, gym.vector.VectorEnv):
            if env.spec is None:
                raise ValueError(
                    f"env={env} has no spec, so no fresh copies of it can be made; "
                    "pass a callable that makes one and takes num_envs="
                )
            self.source = copy.deepcopy(env.spec)
        elif not (isinstance(env, str) or callable(env)):
            raise TypeError(f"env={env!r} must be an id, a vector env or a callable")

    def make(self, num_envs: int = N_ENVS, **arguments: Any) -> AnyVectorEnv:
        """Make a fresh copy, with some constructor arguments replaced."""
        env = self._create(num_envs, arguments)
        self._made.append(env)
        if not isinstance(env, gym.vector.VectorEnv):
            raise TypeError(f"{self.source!r} made a {type(env).__name__}, no vector env")
        require(env.num_envs == num_envs, f"num_envs={env.num_envs}, but {num_envs} asked for")
        return env

    def make_single(self) -> AnyEnv:
        """Make the single env of the same family and arguments."""
        env = self._create_single()
        self._made.append(env)
        return env

    def close(self) -> None:
        """Close every copy that was made."""
        while self._made:
            self._made.pop().close()

    @cached_property
    def is_continuous(self) -> bool:
        """Whether draws from the task distribution never repeat."""
        return draws_never_repeat(attribute(self.make(), "task_distribution"), self.seed)

    @cached_property
    def n_steps_of_two_episodes(self) -> int:
        """Steps within which every sub-environment ended two episodes, or ``MOST_STEPS``.

        Counted once: where bodies are simulated, most of the time of the checks would go there.
        """
        player = VectorPlayer(self.make(), self.seed)
        player.reset(seed=self.seed)
        ended = np.zeros(player.env.num_envs)
        for index in range(MOST_STEPS):
            ended += player.step().dones
            if (ended >= 2).all():
                return index + 2
        return MOST_STEPS

    def distinct_tasks(self, n: int) -> list[Task]:
        """``n`` tasks, different ones as far as the family has them, and at least two."""
        tasks: list[Task] = []
        for task in attribute(self.make(), "sample_tasks")(N_TASKS, seed=self.seed + 1):
            if all(not same_task(task, other) for other in tasks):
                tasks.append(task)
        if len(tasks) < 2:
            raise NotApplicableError("the family has a single task")
        return [tasks[index % len(tasks)] for index in range(n)]

    def _create(self, num_envs: int, arguments: dict[str, Any]) -> Any:
        if isinstance(self.source, str | EnvSpec):
            source = _without(self.source, _VECTOR_ARGUMENTS)
            mode = "vector_entry_point"
            return gym.make_vec(source, num_envs=num_envs, vectorization_mode=mode, **arguments)
        if not accepts(self.source, ["num_envs", *arguments]):
            raise NotApplicableError(f"{self.source!r} takes no num_envs, {', '.join(arguments)}")
        return self.source(num_envs=num_envs, **arguments)

    def _create_single(self) -> AnyEnv:
        if self.single is not None:
            return self.single()
        if not isinstance(self.source, str | EnvSpec):
            raise NotApplicableError("no single env is known; pass single=")
        spec = _without(self.source, (*_VECTOR_ARGUMENTS, "autoreset_mode"))
        # make_vec turns a time limit into an argument of the vector env; make wraps the env.
        limit = spec.kwargs.pop("max_episode_steps", None) if isinstance(spec, EnvSpec) else None
        return gym.make(spec, max_episode_steps=limit)


def _without(source: str | EnvSpec, names: Sequence[str]) -> str | EnvSpec:
    source = copy.deepcopy(source)
    if isinstance(source, EnvSpec):
        for name in names:
            source.kwargs.pop(name, None)
    return source


class VectorStep(NamedTuple):
    """One row of a vector rollout; the first row is the reset."""

    observations: Any
    rewards: NDArray[Any]
    terminations: NDArray[Any]
    truncations: NDArray[Any]
    infos: dict[str, Any]

    @classmethod
    def of_reset(cls, observations: Any, infos: dict[str, Any], n: int) -> VectorStep:
        """What a reset of ``n`` sub-environments returned."""
        none = np.zeros(n, dtype=np.bool_)
        return cls(observations, np.zeros(n), none, none, infos)

    @property
    def dones(self) -> NDArray[np.bool_]:
        """Which episodes end here."""
        return np.asarray(self.terminations | self.truncations, dtype=np.bool_)


class VectorPlayer:
    """Plays random actions that ``infos["action_mask"]`` allows, the same ones for the same seed.

    Sub-environments have action streams of their own. In ``DISABLED`` mode it resets those that
    are done.

    :param env: the vector env
    :param seed: seed of the actions
    """

    def __init__(self, env: AnyVectorEnv, seed: int) -> None:
        self.env = env
        self.spaces = [copy.deepcopy(env.single_action_space) for _ in range(env.num_envs)]
        for index, space in enumerate(self.spaces):
            space.seed(seed + index)
        self.masks: list[Any] = [None] * env.num_envs
        self.last = VectorStep.of_reset(None, {}, env.num_envs)

    def reset(self, *, seed: Any = None, options: dict[str, Any] | None = None) -> VectorStep:
        """Begin an episode in every sub-environment, or in those of ``options["reset_mask"]``."""
        observations, infos = self.env.reset(seed=seed, options=options)
        return self._remember(VectorStep.of_reset(observations, infos, self.env.num_envs))

    def step(self) -> VectorStep:
        """Take one step everywhere."""
        disabled = self.env.metadata.get("autoreset_mode") == AutoresetMode.DISABLED
        if disabled and self.last.dones.any():
            self.reset(options={"reset_mask": self.last.dones})
        return self._remember(VectorStep(*self.env.step(self.actions())))

    def play(self, n_steps: int) -> list[VectorStep]:
        """Take ``n_steps`` steps."""
        return [self.step() for _ in range(n_steps)]

    def actions(self) -> Any:
        """The next action of every sub-environment."""
        chosen = map(random_action, self.spaces, self.masks)
        return np.stack([np.asarray(action) for action in chosen])

    def _remember(self, step: VectorStep) -> VectorStep:
        if "action_mask" in step.infos:
            for row in range(self.env.num_envs):
                info = info_of(step.infos, row)
                self.masks[row] = info.get("action_mask", self.masks[row])
        # A copy: what the env returned may be overwritten by it, and a check looks for that.
        self.last = copy.deepcopy(step)
        return self.last


def vector_rollout(
    env: AnyVectorEnv, *, seed: Any, options: dict[str, Any] | None = None, n_steps: int = 40
) -> list[VectorStep]:
    """``n_steps`` of random actions, the reset first."""
    player = VectorPlayer(env, seed if isinstance(seed, int) else 0)
    return [player.reset(seed=seed, options=options), *player.play(n_steps)]


def as_sync(subject: VectorSubject, mode: AutoresetMode) -> SyncVectorEnv:
    """Gymnasium's vector env of the single env: what ours must equal."""
    return SyncVectorEnv([subject.make_single] * N_ENVS, autoreset_mode=mode)


def require_same_rows(
    first: Sequence[VectorStep],
    second: Sequence[VectorStep],
    message: str,
    rows: Sequence[int] | None = None,
) -> None:
    """Raise with the first difference of two rollouts, of all sub-environments or of ``rows``."""
    for index, (left, right) in enumerate(zip(first, second, strict=True)):
        for name in ("observations", "rewards", "terminations", "truncations"):
            values = getattr(left, name), getattr(right, name)
            pair = [value if rows is None else pick(value, rows) for value in values]
            # The text of large arrays takes longer than to compare them.
            if not is_same(*pair):
                require(False, f"{message}: {name} {pair[0]} against {pair[1]}, step {index}")
        where = range(len(left.rewards)) if rows is None else rows
        require_same_infos(left.infos, right.infos, where, f"{message}, step {index}")


def without_new_tasks(rollout: Sequence[VectorStep]) -> list[VectorStep]:
    """The rollout, where infos name the tasks of its first step only."""
    first, *rest = rollout
    names = ("task", "_task")
    return [first] + [
        step._replace(infos={name: step.infos[name] for name in step.infos if name not in names})
        for step in rest
    ]


def require_same_infos(
    first: dict[str, Any], second: dict[str, Any], rows: Sequence[int], message: str
) -> None:
    """Raise with the first difference of two infos, for the sub-environments in ``rows``."""
    for row in rows:
        left, right = info_of(first, row), info_of(second, row)
        require(
            left.keys() == right.keys(),
            f"{message}: infos of env {row} have {sorted(left)} against {sorted(right)}",
        )
        for name, value in left.items():
            if not is_same(value, right[name]):
                require(False, f"{message}: infos[{name!r}][{row}] {value} against {right[name]}")


def info_of(infos: dict[str, Any], row: int) -> dict[str, Any]:
    """Info of one sub-environment: Gymnasium's masks ``_name`` say what it has."""
    found: dict[str, Any] = {}
    for name, value in infos.items():
        has_it = infos.get(f"_{name}")
        if name.startswith("_") or (has_it is not None and not has_it[row]):
            continue
        found[name] = info_of(value, row) if isinstance(value, dict) else value[row]
    return found


def pick(value: Any, rows: Sequence[int]) -> Any:
    """Rows of a batched observation, array, ..."""
    if isinstance(value, dict):
        return {name: pick(item, rows) for name, item in value.items()}
    if isinstance(value, tuple):
        return tuple(pick(item, rows) for item in value)
    return value[list(rows)]
