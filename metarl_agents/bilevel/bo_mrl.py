"""BO-MRL for policy networks: bilevel meta-learning by implicit derivatives.

Xu, Zhu (2024), "Meta-Reinforcement Learning with Universal Policy Adaptation: Provable
Near-Optimality under All-task Optimum Comparator", https://arxiv.org/abs/2410.09728.
"""

from collections.abc import Mapping, Sequence
from math import isfinite
from statistics import fmean
from typing import Any

import numpy as np
import torch as th
from stable_baselines3.common.callbacks import BaseCallback
from stable_baselines3.common.policies import BasePolicy

from metarl_agents.bilevel.lower_level import distance_of
from metarl_agents.bilevel.network_arguments import check_network_bilevel_arguments
from metarl_agents.bilevel.network_diagnostics import (
    check_validity,
    logged_numbers,
    warn_of_network_regime,
)
from metarl_agents.bilevel.network_lower_level import (
    NetworkSolution,
    Optimizer,
    solve_lower_level,
)
from metarl_agents.bilevel.network_meta_step import meta_policy_step
from metarl_agents.bilevel.network_problem import NetworkProblem, network_problem
from metarl_agents.bilevel.network_sampled import PARTS
from metarl_agents.bilevel.network_tasks import (
    BilevelEpisodes,
    HypergradientChoice,
    TaskHypergradient,
    centred_values,
    task_hypergradient,
    value_unit,
)
from metarl_agents.common.collect import sample_tasks
from metarl_agents.common.episodes import EpisodeBatch
from metarl_agents.common.meta_algorithm.seeds import child_generator, draw_seed
from metarl_agents.common.meta_parameters import Groups
from metarl_agents.common.network_meta import NetworkMeta
from metarl_agents.common.policies import FunctionalPolicy, Params
from metarl_agents.common.returns import WeightedEpisodes
from metarl_agents.common.solvers import flatten
from metarl_agents.common.step_baselines import learn_from
from metarl_agents.common.task_chunks import run_on_threads


class BOMRL(NetworkMeta):
    """Learns a policy network from which many steps on one batch of episodes adapt to a task.

    Xu & Zhu (2024), https://arxiv.org/abs/2410.09728. From one batch of episodes of the meta-policy
    pi_phi, a task's policy maximises `E[Qhat g(rho)] - lambda D^2 - eta ||theta - phi||^2`, rho the
    ratio of its probabilities to those of pi_phi, D one of three distances from pi_phi: all of it
    is in `bilevel.network_problem`. The meta-policy ascends the return after that adaptation, by
    differentiating the solution implicitly: no adaptation step is differentiated through, however
    many there are. Derivatives are our derivation; see `bilevel.network_hypergradient`.

    They hold where the lower level is solved: Newton steps (``polish_steps``) see to that, the log
    has the residual that is left, and ``strict`` insists. Differs from publicly available
    experiment scripts, whose settings are the presets bomrl2024: these take 50 steps of Adam alone,
    keep only the first of three ``parts``, measure that part in the line search of the meta-step,
    play five times the episodes after adaptation, and bootstrap returns beyond the horizon by
    further steps.

    How to choose lambda: relative ones do not depend on the scale of rewards. Take the largest of
    3, 1, 0.3, 0.1, 0.03 at which adaptation leaves about half of the samples their weight
    (``train/effective_sample_size`` near 0.5; below 0.1 a few samples decide), then compare
    neighbours on validation tasks. A larger ``eta`` keeps noisy samples from being fitted: with
    6,000 parameters and 2,000 steps of data ten times ``lam`` served best.
    This rule and the defaults that are not said to be of the scripts are ours.

    :param policy: "MlpPolicy", or "TabularPolicy" (a table of logits)
    :param env: id, env, vector env or VecEnv of a family that draws tasks
    :param algorithm: 1, 2, 3, or "forward_kl", "reverse_kl", "l2": the distance, KL(pi_phi || pi),
        KL(pi || pi_phi) or the squared distance of the parameters
    :param lam: lambda, the weight of the distance; a smaller one trusts Qhat more
    :param adapt_lam: lambda of ``adapt``; None takes ``lam``
    :param lam_relative: whether both, and ``eta``, are multiples of a unit instead of returns: the
        deviation of Qhat within a task, mean over the tasks of the first meta-iteration. That unit
        is then kept, as the hypergradient holds lambda fixed; an agent that has not learned yet
        takes the deviation in each task. Rescaling all rewards then changes nothing
    :param eta: weight of the proximal term, in the unit of ``lam``, without which the implicit
        system of a KL distance is singular (those scripts: 0)
    :param squash: whether g is `2 sigmoid(2 rho - 2)` (those scripts), or rho itself
    :param discounted_states: whether step t counts gamma^t in the lower level, as the occupancy of
        the theory does; otherwise all steps count alike (those scripts)
    :param n_lower_steps: gradient steps of the lower level (those scripts: 50)
    :param lower_lr: of these steps (those scripts: 1e-3)
    :param lower_optimizer: "adam" (those scripts) or "sgd"
    :param max_distance: D^2 that no step may exceed (3.0: those scripts, which then stop)
    :param polish_steps: Newton steps of the lower level after those (those scripts: 0)
    :param tolerance: largest residual, relative to that at phi, at which it counts as solved
    :param strict: refuse hypergradients of lower levels that are not solved, instead of a warning
    :param mode: "implicit", or "first_order": the derivative of the adaptation is taken to be the
        identity
    :param parts: of "distance", "action_values" and "occupancy", what the lower level depends on
        phi through; the scripts keep ("distance",)
    :param n_implicit_iterations: conjugate gradients of the implicit system (10: those scripts)
    :param outer: "trpo", a natural-gradient step within a trust region around the meta-policy
        (those scripts; Schulman et al. 2015), or "adam"
    :param max_kl: the divergence that a "trpo" step may cause (0.03: those scripts)
    :param n_cg_iterations: conjugate gradients of a "trpo" step (10: those scripts)
    :param cg_damping: added to its curvature, which is singular in directions that no visited state
        feels (those scripts: 0)
    :param max_backtracks: how often it is shortened before it is given up (10: those scripts)
    :param backtrack_ratio: factor that shortens it (those scripts: 0.5)
    :param meta_batch_size: M, tasks per meta-iteration
    :param n_episodes_per_task: E, episodes per task before adaptation
    :param n_episodes_after_factor: how many times as many are played after adaptation (those
        scripts: 5)
    :param learning_rate: of "adam"; a number, or "lin_1e-3" for one that falls to 0
    :param gamma: discount (0.995: those scripts)
    :param gae_lambda: lambda of generalised advantages (Schulman et al. 2016)
    :param baseline: what Qhat is the return less of: "none" for the mean of the batch alone (those
        scripts), or "linear", "time" or "value", which :class:`.GradientMeta` explains
    :param bootstrap_truncated: whether the value of the last observation continues episodes that a
        time limit cut
    :param policy_kwargs: ``net_arch`` ([64, 64]), ``activation_fn`` ("tanh" or "relu") and
        ``log_std_init`` (0.0)
    :param n_workers: threads that share the tasks; results do not depend on it
    :param n_envs: sub-environments to make of an id: M k plays all tasks at once with k
        sub-environments each (k divides E), M / r in r rounds
    """

    def __init__(
        self,
        policy: str | type[BasePolicy],
        env: Any,
        *,
        algorithm: int | str = 2,
        lam: float = 0.3,
        adapt_lam: float | None = None,
        lam_relative: bool = True,
        eta: float = 0.1,
        squash: bool = True,
        discounted_states: bool = False,
        n_lower_steps: int = 20,
        lower_lr: float = 1e-2,
        lower_optimizer: Optimizer = "adam",
        max_distance: float = 3.0,
        polish_steps: int = 5,
        tolerance: float = 1e-3,
        strict: bool = False,
        mode: str = "implicit",
        parts: Sequence[str] = PARTS,
        n_implicit_iterations: int = 10,
        outer: str = "trpo",
        max_kl: float = 0.03,
        n_cg_iterations: int = 10,
        cg_damping: float = 1e-2,
        max_backtracks: int = 10,
        backtrack_ratio: float = 0.8,
        meta_batch_size: int = 20,
        n_episodes_per_task: int = 20,
        n_episodes_after_factor: int = 1,
        learning_rate: float | str = 1e-3,
        gamma: float = 0.995,
        gae_lambda: float = 1.0,
        baseline: str = "linear",
        bootstrap_truncated: bool = False,
        policy_kwargs: Mapping[str, Any] | None = None,
        n_workers: int = 1,
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
        self.lam_relative, self.eta, self.squash = lam_relative, eta, squash
        self.discounted_states, self.n_lower_steps = discounted_states, n_lower_steps
        self.lower_lr, self.lower_optimizer = lower_lr, lower_optimizer
        self.max_distance, self.polish_steps = max_distance, polish_steps
        self.tolerance, self.strict, self.mode, self.parts = tolerance, strict, mode, parts
        self.n_implicit_iterations, self.outer = n_implicit_iterations, outer
        self.max_kl, self.n_cg_iterations, self.cg_damping = max_kl, n_cg_iterations, cg_damping
        self.max_backtracks, self.backtrack_ratio = max_backtracks, backtrack_ratio
        self.n_episodes_after_factor = n_episodes_after_factor
        super().__init__(
            policy,
            env,
            meta_batch_size=meta_batch_size,
            n_episodes_per_task=n_episodes_per_task,
            learning_rate=learning_rate,
            gamma=gamma,
            gae_lambda=gae_lambda,
            baseline=baseline,
            bootstrap_truncated=bootstrap_truncated,
            policy_kwargs=policy_kwargs,
            n_workers=n_workers,
            n_envs=n_envs,
            env_kwargs=env_kwargs,
            stats_window_size=stats_window_size,
            tensorboard_log=tensorboard_log,
            verbose=verbose,
            seed=seed,
            device=device,
            _init_setup_model=_init_setup_model,
        )

    def _check_arguments(self) -> None:
        super()._check_arguments()
        check_network_bilevel_arguments(self)

    def _initial_extras(self) -> Groups:
        return {"lower_level": {"lam_unit": th.zeros((), dtype=th.float64, device=self.device)}}

    # Adapting.

    def _adapted_params(
        self,
        policies: Sequence[FunctionalPolicy],
        batches: Sequence[EpisodeBatch],
        *,
        is_training: bool,
    ) -> list[Params]:
        """The solutions of the lower levels of M tasks, each at the policy that played."""
        lam = self.lam if self.adapt_lam is None else self.adapt_lam
        known = self._known_unit()

        def adapted(task: int) -> Params:
            values = self._values(batches[task])
            unit = value_unit(values) if known is None else known
            return self._solution(self._problem(policies[task].params, values, lam, unit)).params

        return run_on_threads(adapted, range(len(batches)), n_workers=self.n_workers)

    def _values(self, episodes: EpisodeBatch) -> WeightedEpisodes:
        """The episodes of one task with Qhat as advantages."""
        return centred_values(self._weighted(episodes, normalize=None))

    def _known_unit(self) -> float | None:
        """What lambda counts in; None where it is relative and nothing was learned yet."""
        if not self.lam_relative:
            return 1.0
        return float(self._groups["lower_level"]["lam_unit"]) or None

    def _problem(
        self, phi: Params, values: WeightedEpisodes, lam: float, unit: float
    ) -> NetworkProblem:
        return network_problem(
            self.network,
            phi,
            values,
            distance=distance_of(self.algorithm).name,
            lam=lam * unit,
            eta=self.eta * unit,
            squash=self.squash,
            discount=self.gamma if self.discounted_states else 1.0,
        )

    def _solution(self, problem: NetworkProblem) -> NetworkSolution:
        return solve_lower_level(
            problem,
            n_steps=self.n_lower_steps,
            learning_rate=self.lower_lr,
            optimizer=self.lower_optimizer,
            max_distance=self.max_distance,
            polish_steps=self.polish_steps,
            tolerance=self.tolerance,
        )

    # Meta-training.

    def collect(self, callback: BaseCallback) -> BilevelEpisodes | None:
        """Plays in new tasks, adapts once, and plays again; None where a callback asked to stop.

        :param callback: of `learn`
        """
        assert self.env is not None
        rng = np.random.default_rng(self._begin_collect())
        tasks = sample_tasks(self.env, self.meta_batch_size, seed=draw_seed(rng))
        policies = self._first_policies(len(tasks), child_generator(rng))
        n_episodes, seed = self.n_episodes_per_task, draw_seed(rng)
        before = self._played(policies, n_episodes, tasks=tasks, seed=seed, callback=callback)
        if before is None:
            return None
        problems = self._problems(before)
        solutions = run_on_threads(self._solution, problems, n_workers=self.n_workers)
        policies = FunctionalPolicy.stack(
            [self._policy(one.params, child_generator(rng), 1) for one in solutions]
        )
        n_episodes, seed = n_episodes * self.n_episodes_after_factor, draw_seed(rng)
        after = self._played(policies, n_episodes, tasks=tasks, seed=seed, callback=callback)
        if after is None:
            return None
        return BilevelEpisodes(before, after, problems, solutions, draw_seed(rng))

    def train(self, data: BilevelEpisodes) -> dict[str, float]:
        """One meta-update along the mean hypergradient.

        :param data: what `collect` returned
        """
        logs = {
            "pre_update_return": float(data.before.returns.mean()),
            "post_update_return": float(data.after.returns.mean()),
            "lam": data.problems[0].lam,
        }
        found = self._hypergradients(data)
        logs |= logged_numbers(found) | self._ascend(found, data)
        if self.lam_relative:
            self._groups["lower_level"] = {
                "lam_unit": th.tensor(data.problems[0].lam / self.lam, dtype=th.float64).to(
                    self.device
                )
            }
        phases = (data.before, data.after)
        logs |= learn_from(self._baseline, phases, gamma=self.gamma, seed=data.seed)
        return {**logs, "skipped_updates": float(self._n_skipped_updates)}

    def _problems(self, episodes: EpisodeBatch) -> list[NetworkProblem]:
        """The lower levels of M tasks at the meta-policy, all with the same lambda."""
        theta, batches = self._theta(), [batch.trimmed() for batch in episodes.tasks()]
        values = run_on_threads(self._values, batches, n_workers=self.n_workers)
        unit = self._known_unit() or fmean(value_unit(one) for one in values)
        return [self._problem(theta, one, self.lam, unit) for one in values]

    def _hypergradients(self, data: BilevelEpisodes) -> list[TaskHypergradient]:
        choice = HypergradientChoice(
            self.mode, tuple(self.parts), self.n_implicit_iterations, self.gamma
        )
        afterwards = list(data.after.tasks())

        def of_task(task: int) -> TaskHypergradient:
            after = self._values(afterwards[task].trimmed())
            return task_hypergradient(
                data.problems[task], data.solutions[task], after, choice, tolerance=self.tolerance
            )

        n_tasks = len(afterwards)
        found = run_on_threads(of_task, range(n_tasks), n_workers=self.n_workers)
        is_first = self._n_updates == 0
        check_validity(found, tolerance=self.tolerance, strict=self.strict, warn=is_first)
        if is_first:
            warn_of_network_regime(found)
        return found

    def _ascend(
        self, found: Sequence[TaskHypergradient], data: BilevelEpisodes
    ) -> dict[str, float]:
        """One step along the mean of the tasks' gradients; what to log."""
        ascent = {
            name: th.stack([one.gradient[name] for one in found]).mean(0)
            for name in found[0].gradient
        }
        norm = float(flatten(ascent).norm())
        if not isfinite(norm**2):
            self._skip_update("raise lam, or lower max_distance")
            return {}
        if self.outer == "adam":
            descent = {name: -part for name, part in ascent.items()}
            self._learned.descend(descent, self._learning_rate())
            return {"grad_norm": norm}
        step = meta_policy_step(
            self.network,
            self._theta(),
            ascent,
            [problem.episodes for problem in data.problems],
            max_kl=self.max_kl,
            n_cg_iterations=self.n_cg_iterations,
            damping=self.cg_damping,
            max_backtracks=self.max_backtracks,
            backtrack_ratio=self.backtrack_ratio,
            n_workers=self.n_workers,
        )
        self._learned.set_outer(step.params)
        return {"grad_norm": norm, "kl": step.kl, "step_fraction": step.step_fraction}
