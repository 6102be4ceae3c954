"""BO-MRL for tasks with finitely many states and actions."""

from collections.abc import Callable, Mapping, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy
from torch import Tensor

from metarl_agents.bilevel.adaptation import adaptation_steps
from metarl_agents.bilevel.agent_arguments import check_tabular_arguments, settings_of
from metarl_agents.bilevel.bilevel_meta import TabularBilevelMeta
from metarl_agents.bilevel.diagnostics import absolute_lam, warn_of_regime
from metarl_agents.bilevel.episode_gradients import action_values_of, episode_hypergradients
from metarl_agents.bilevel.exact import TabularTasks, evaluate, optimal_action_values
from metarl_agents.bilevel.hypergradient import first_order_cosine, task_hypergradients
from metarl_agents.bilevel.lower_level import Solver
from metarl_agents.bilevel.meta_step import backtracked_step
from metarl_agents.bilevel.settings import Method
from metarl_agents.bilevel.task_models import task_models
from metarl_agents.common.checkpoint.named_callables import named_callable
from metarl_agents.common.collect import collect_task_episodes, sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm.seeds import draw_seed

_WORST = {
    "residual": "max",
    "min_eigenvalue": "min",
    "max_eigenvalue": "max",
    "hessian_cond": "max",
    "min_log_probability": "min",
    "effective_sample_size": "min",
    "unvisited_mass": "max",
    "largest_span": "max",
    "coverage": "min",
    "skipped_mass": "max",
}
"""Diagnostics of which the worst task is logged; of the others, the mean."""


class TabularData(NamedTuple):
    """What one meta-iteration collected.

    :param before: episodes of the meta-policy in M tasks
    :param after: of the adapted policies, in sampled mode
    :param models: of the tasks, in the other modes
    :param lam_unit: what lambda counts in; 1 for an absolute one
    """

    before: EpisodeBatch
    after: EpisodeBatch | None
    models: TabularTasks | None
    lam_unit: float


class TabularBOMRL(TabularBilevelMeta):
    """Learns a policy from which a regularised problem, solved on one batch of data, adapts.

    Xu & Zhu 2024, "Meta-Reinforcement Learning with Universal Policy Adaptation: Provable
    Near-Optimality under All-task Optimum Comparator", https://arxiv.org/abs/2410.09728. From Q and
    nu of the meta-policy alone, a task's policy maximises `E_nu <pi, Q> - lambda D^2`, as far as
    that is possible; D is one of three distances from the meta-policy. The meta-policy ascends the
    return after that adaptation, by differentiating the solution implicitly. The formulas are our
    derivation; see `bilevel.lower_level` and `bilevel.hypergradient`.

    With ``mode="exact"`` or ``"first_order"`` the environment is asked for the models of the
    training tasks (``finite_mdp(task)``), and Q, nu and the gradient are computed from them. One
    episode of the meta-policy in each task is played all the same: it is what callbacks see, what
    the log reports and what `num_timesteps` counts, and no update depends on it. With
    ``mode="sampled"`` everything comes from episodes, of the meta-policy and of the adapted ones,
    and all of them count.

    ``adapt`` needs no model in any mode: it solves the lower level with Q and nu from the episodes
    that it is given, at the policy that played them. So k calls are k steps of adaptation, each
    with data of its own. `adapt_to_models` does the same from models.

    Time limits and horizons are not part of the problem that is solved: values are those of a task
    that goes on for ever with discount ``gamma``, unless an episode terminates.

    :param policy: "TabularPolicy", a table of logits for Discrete observations (or MultiDiscrete
        ones, whose last number runs fastest) and Discrete actions
    :param env: id, env, vector env or VecEnv of a family that draws tasks
    :param algorithm: 1, 2, 3, or "forward_kl", "reverse_kl", "l2": the distance, KL(pi_phi || pi),
        KL(pi || pi_phi) or the squared distance of the logits
    :param lam: lambda, the weight of the distance while training; a smaller one trusts Q more
    :param adapt_lam: lambda of ``adapt`` and `adapt_to_models`; None takes ``lam``
    :param lam_relative: whether both are multiples of a unit instead of returns: the span over
        actions of Q, mean over states and tasks, of the first meta-policy in the first mini-batch.
        That unit is then kept, as the hypergradient holds lambda fixed; an agent that has not
        learned yet takes the span of each task's own Q. Rescaling all rewards then changes nothing
    :param mode: "exact", "first_order" (the derivative of the adaptation is taken to be the
        identity, as in publicly available experiment scripts) or "sampled"
    :param method: of the exact mode, "closed_form" or "implicit" (conjugate gradients); they agree
    :param solver: of the lower level, "exact", or "sgd20" (20 gradient steps, ``algorithm=1``)
    :param max_iterations: of the lower level's solver
    :param tolerance: largest residual at which a lower level counts as solved
    :param strict: refuse hypergradients of lower levels that are not solved, instead of a warning
    :param n_tasks: training tasks, drawn once; None draws new ones in every meta-iteration
    :param meta_batch_size: M, tasks per meta-iteration (5, as in those scripts)
    :param n_episodes_per_task: E, episodes per task and phase in sampled mode, and those that
        `adapt_to` plays for each adaptation (those scripts play 500)
    :param learning_rate: of the meta-step; a number, or "lin_3e-2" for one that falls to 0 (0.03,
        with Adam, as in those scripts)
    :param optimizer: "adam" or "sgd"
    :param backtracking: whether a meta-step is shortened until the return after adaptation does not
        fall on the mini-batch
    :param gamma: discount (0.8, as in those scripts)
    :param q_step_size: of expected SARSA, which estimates Q (0.3, as in those scripts)
    :param initial_q: Q of pairs that were never played: a large one is optimistic about them
    :param require_start: refuse episodes in which an action of a start state was never played
    :param audit_interval: in first-order mode, meta-iterations between comparisons of the gradient
        with the exact one, which warn below a cosine of 0.9; None for none
    :param track_gap: whether to log how far adapted policies are from the optimum of each task
    :param policy_kwargs: none are known; there for the sake of other agents
    """

    # SB3 declares both more narrowly.
    learning_rate: Any
    policy_kwargs: Any

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        algorithm: int | str = 2,
        lam: float = 0.5,
        adapt_lam: float | None = None,
        lam_relative: bool = False,
        mode: str = "exact",
        method: Method = "closed_form",
        solver: Solver = "exact",
        max_iterations: int = 100,
        tolerance: float = 1e-8,
        strict: bool = True,
        n_tasks: int | None = None,
        meta_batch_size: int = 5,
        n_episodes_per_task: int = 100,
        learning_rate: float | str = 0.03,
        optimizer: str = "adam",
        backtracking: bool = False,
        gamma: float = 0.8,
        q_step_size: float = 0.3,
        initial_q: float = 0.0,
        require_start: bool = False,
        audit_interval: int | None = None,
        track_gap: bool = False,
        policy_kwargs: Mapping[str, Any] | None = None,
        n_envs: int = 1,
        env_kwargs: Mapping[str, Any] | None = None,
        stats_window_size: int = 100,
        tensorboard_log: str | None = None,
        verbose: int = 0,
        seed: int | None = None,
        device: th.device | str = "auto",
        _init_setup_model: bool = True,
    ):
        self.algorithm, self.lam, self.adapt_lam = algorithm, lam, adapt_lam
        self.lam_relative, self.mode, self.method = lam_relative, mode, method
        self.solver, self.max_iterations = solver, max_iterations
        self.tolerance, self.strict = tolerance, strict
        self.n_tasks, self.meta_batch_size = n_tasks, meta_batch_size
        self.n_episodes_per_task = n_episodes_per_task
        self.learning_rate, self.optimizer = learning_rate, optimizer
        self.backtracking, self.gamma = backtracking, gamma
        self.q_step_size, self.initial_q = q_step_size, initial_q
        self.require_start, self.audit_interval = require_start, audit_interval
        self.track_gap, self.policy_kwargs = track_gap, policy_kwargs
        check_tabular_arguments(self)
        if policy_kwargs:
            raise ValueError(f"policy_kwargs={policy_kwargs!r}: a table of logits has none")
        super().__init__(
            policy,
            env,
            n_envs=n_envs,
            env_kwargs=env_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=False,
        )
        # SB3's constructor has its own idea of both.
        self.learning_rate, self.policy_kwargs = learning_rate, policy_kwargs
        self._acting_rng = np.random.default_rng(seed)
        if _init_setup_model:
            self._setup_model()

    # Meta-training.

    def collect(self, callback: BaseCallback) -> TabularData | None:
        """Plays in a mini-batch of tasks; None where a callback asked to stop.

        :param callback: of `learn`
        """
        rng = np.random.default_rng(self._begin_collect())
        tasks = self._drawn_tasks(rng)
        logits = self._meta.logits.expand(len(tasks), -1, -1)
        before = self._played(logits, tasks, rng, callback)
        if before is None:
            return None
        if self.mode != "sampled":
            assert self.env is not None
            models = task_models(
                self.env, tasks, gamma=self.gamma, table=self.network, device=self.device
            )
            unit = self._unit(lambda: evaluate(models, logits.softmax(-1)).action_values)
            return TabularData(before, None, models, unit)
        unit = self._unit(
            partial(action_values_of, logits, before, table=self.network, sampling=self._sampling)
        )
        adapted = self._adapted(logits, before, lambda q: self.lam * unit)
        after = self._played(adapted, tasks, rng, callback)
        return None if after is None else TabularData(before, after, None, unit)

    def train(self, data: TabularData) -> dict[str, float]:
        """One meta-update along the mean hypergradient.

        :param data: what `collect` returned
        """
        if data.models is None:
            gradients, numbers = self._from_episodes(data)
        else:
            gradients, numbers = self._from_models(data.models, self.lam * data.lam_unit)
        gradient = gradients.mean(0)
        if not bool(gradient.isfinite().all()):
            raise ValueError(
                f"the hypergradient is not finite: lam={self.lam} may be too small for float64"
            )
        if self.lam_relative:
            self._meta.lam_unit = gradient.new_tensor(data.lam_unit)
        logs = self._ascend(gradient, data, float(numbers["return_after"].mean()))
        if self._n_updates == 0:
            warn_of_regime(numbers)
        logs |= {name: _logged(name, values) for name, values in numbers.items()}
        return {**logs, "lam": self.lam * data.lam_unit, "grad_norm": float(gradient.norm())}

    def _drawn_tasks(self, rng: np.random.Generator) -> list[Any]:
        assert self.env is not None
        seed = draw_seed(rng)
        if self.n_tasks is None:
            return sample_tasks(self.env, self.meta_batch_size, seed=seed)
        every = sample_tasks(self.env, self.n_tasks, seed=self._task_seed)
        picked = rng.choice(self.n_tasks, self.meta_batch_size, replace=False)
        return [every[i] for i in picked.tolist()]

    def _played(
        self,
        logits: Tensor,
        tasks: Sequence[Any],
        rng: np.random.Generator,
        callback: BaseCallback,
    ) -> EpisodeBatch | None:
        assert self.env is not None
        policies = self._stacked(logits, rng.spawn(len(tasks)), 0)
        episodes = collect_task_episodes(
            self.env,
            policies,
            self.n_episodes_per_task if self.mode == "sampled" else 1,
            tasks=tasks,
            seed=draw_seed(rng),
            on_step=self._step_hook(callback),
            dtype=th.float64,
        )
        return None if episodes is None else episodes.to(self.device)

    def _unit(self, action_values: Callable[[], Tensor]) -> float:
        """What lambda counts in: found out once, then kept."""
        if not self.lam_relative:
            return 1.0
        known = float(self._meta.lam_unit)
        # Without any reward there is nothing to measure, and nothing to adapt to.
        return known or absolute_lam(1.0, action_values()) or 1.0

    def _from_models(self, models: TabularTasks, lam: float) -> tuple[Tensor, dict[str, Tensor]]:
        """Hypergradients (M, S, A) and diagnostics (M,) from the models."""
        logits, settings = self._meta.logits, settings_of(self)
        found = task_hypergradients(
            models, logits, distance=self._distance, lam=lam, settings=settings
        )
        numbers = found.diagnostics
        if found.linear_solve is not None:
            solve = found.linear_solve
            numbers["cg_iterations"] = th.full_like(models.discount, solve.n_iterations)
            numbers["cg_residual"] = solve.residual.amax(-1)
        if self.track_gap:
            optimal = (models.initial * optimal_action_values(models).amax(-1)).sum(-1)
            numbers["gap"] = optimal - found.after.returns
        if self.audit_interval and self._n_updates % self.audit_interval == 0:
            cosine = first_order_cosine(models, logits, distance=self._distance, lam=lam)
            numbers["first_order_cosine"] = th.full_like(models.discount, cosine)
        return found.gradients, numbers

    def _from_episodes(self, data: TabularData) -> tuple[Tensor, dict[str, Tensor]]:
        """The same from episodes."""
        assert data.after is not None
        return episode_hypergradients(
            self._meta.logits.expand(data.before.n_tasks, -1, -1),
            data.before,
            data.after,
            self.lam * data.lam_unit,
            table=self.network,
            distance=self._distance,
            sampling=self._sampling,
            settings=settings_of(self),
        )

    def _ascend(self, gradient: Tensor, data: TabularData, value: float) -> dict[str, float]:
        """One step of the optimiser, shortened where that was asked for."""
        logits, adam = self._meta.ascended(gradient, self._learning_rate())
        if not self.backtracking:
            self._meta.set_logits(logits, adam)
            return {}
        models = data.models
        assert models is not None

        def objective(candidate: Tensor) -> float:
            lam, settings = self.lam * data.lam_unit, settings_of(self)
            _, after = adaptation_steps(
                models, candidate, self._distance, lam, n_steps=1, settings=settings
            )
            return float(evaluate(models, after.softmax(-1)).returns.mean())

        before = self._meta.logits
        step = backtracked_step(before, logits - before, objective, objective_before=value)
        self._meta.set_logits(step.logits, adam)
        return {"n_backtracks": float(step.n_backtracks), "accepted": float(step.accepted)}

    def _learning_rate(self) -> float:
        if isinstance(self.learning_rate, str):
            return float(named_callable(self.learning_rate)(self._current_progress_remaining))
        return float(self.learning_rate)


def _logged(name: str, values: Tensor) -> float:
    """The worst task, or the mean."""
    return float({"max": values.max, "min": values.min}.get(_WORST.get(name, ""), values.mean)())
