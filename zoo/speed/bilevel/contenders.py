"""Contenders in tabular BO-MRL: exact evaluation, and the parts of meta-iterations.

Shapes: M tasks, S states, A actions.
"""

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import torch as th

from metarl_agents.bilevel.exact import evaluate
from metarl_agents.bilevel.hypergradient import task_hypergradients
from metarl_agents.bilevel.lower_level import distance_of
from metarl_agents.bilevel.settings import HypergradientSettings
from metarl_agents.bilevel.task_models import task_models
from zoo.speed.bilevel.problem import (
    GAMMA,
    LAMS,
    as_arrays,
    check_agreement,
    lakes,
    looped,
    meta_logits,
    one_by_one,
    ours,
    stacked,
    trained_agent,
)
from zoo.speed.timing import Contender

SIZES = 5, 20, 400
"""M: a mini-batch of publicly available experiment scripts, and two sets of training tasks."""
ALGORITHM_NUMBERS = 1, 2, 3
_JUDGED, _LARGEST = 20, 400
_PER_SECOND = "tasks/s"
_LEAST_OF_LOOP = 5.0
_MOST_MILLISECONDS = 20.0
# So many calls that a run takes at least some ten milliseconds, more than clocks are off by.
_EVALUATIONS, _UPDATES, _EPISODES = 4000, 400, 60


def evaluation(n_tasks: int) -> dict[str, Contender]:
    """V, Q, nu and J of a policy in M tasks: ours, and three other ways.

    :param n_tasks: M
    """
    tasks, title = lakes(n_tasks), f"evaluation, {n_tasks} tasks"
    given, policy = as_arrays(tasks), meta_logits(tasks).softmax(-1)
    singles = [tasks.subset([task]) for task in range(n_tasks)]
    array = policy.numpy()
    expected = looped(given, array)
    check_agreement(ours(tasks, policy), expected, f"{title}: ours")
    check_agreement(stacked(given, array), expected, f"{title}: NumPy, all tasks at once")
    loop = f"{title}: loop, numpy.linalg.solve"
    bar = _LEAST_OF_LOOP if n_tasks == _LARGEST else None
    ways: dict[str, Callable[[], Any]] = {
        loop: partial(looped, given, array),
        f"{title}: NumPy, all tasks at once": partial(stacked, given, array),
        f"{title}: ours, in a loop": lambda: [evaluate(single, policy) for single in singles],
        f"{title}: ours": partial(evaluate, tasks, policy),
    }
    n_calls = max(1, _EVALUATIONS // n_tasks)
    found = {name: _rated(run, n_tasks, n_calls) for name, run in ways.items()}
    own = f"{title}: ours"
    others = tuple((name, None) for name in ways if name not in (own, loop))
    found[own] = found[own]._replace(against=((loop, bar), *others))
    return found


def updates() -> dict[str, Contender]:
    """Meta-updates from the models of M tasks, as the agent's `train` does them.

    Each is the evaluation, the lower level, the hypergradient, a step of Adam and the diagnostics.
    """
    found: dict[str, Contender] = {}
    for algorithm in ALGORITHM_NUMBERS:
        check_hypergradients(algorithm)
        name = f"update, Alg {algorithm}, {{}} tasks"
        for n_tasks in SIZES:
            n_calls = max(1, _UPDATES // n_tasks)
            run = repeated_updates(algorithm, n_tasks, n_calls)
            found |= _both(name.format(n_tasks), run, n_tasks, n_calls)
        # No more than linear: per second at least as many tasks of many as of few.
        largest, judged = name.format(_LARGEST), name.format(_JUDGED)
        found[largest] = found[largest]._replace(against=((judged, 1.0),))
    return found


def alternatives(n_tasks: int = _JUDGED) -> dict[str, Contender]:
    """Hypergradients of M tasks at once, one task after the other, and by conjugate gradients.

    :param n_tasks: M
    """
    found: dict[str, Contender] = {}
    tasks = lakes(n_tasks)
    logits, singles = meta_logits(tasks), [tasks.subset([task]) for task in range(n_tasks)]
    n_calls = max(1, _UPDATES // (4 * n_tasks))
    for algorithm in ALGORITHM_NUMBERS:
        distance, lam = distance_of(algorithm), LAMS[algorithm]
        title = f"hypergradients, Alg {algorithm}, {n_tasks} tasks"
        at_once = partial(task_hypergradients, tasks, logits, distance=distance, lam=lam)
        ways: dict[str, Callable[[], Any]] = {
            f"{title}: one task after the other": partial(
                one_by_one, singles, logits, distance, lam
            ),
            f"{title}: conjugate gradients": partial(at_once, settings=_IMPLICIT),
            f"{title}: ours": at_once,
        }
        own = f"{title}: ours"
        others = tuple((name, None) for name in ways if name != own)
        found |= {name: _rated(run, n_tasks, n_calls) for name, run in ways.items()}
        found[own] = found[own]._replace(against=others)
    return found


def collecting() -> dict[str, Contender]:
    """What a meta-iteration does before the update, by parts, and all of it, of Alg 2.

    Nearly all of that is the episode that callbacks see, on which no update depends.
    """
    found: dict[str, Contender] = {}
    for n_tasks in SIZES:
        agent, callback = trained_agent(2, n_tasks)
        n_calls = max(1, _EPISODES // n_tasks)
        tasks, rng = agent._drawn_tasks(np.random.default_rng(0)), np.random.default_rng(0)
        logits = agent._meta.logits.expand(n_tasks, -1, -1)
        models = partial(
            task_models, agent.env, tasks, gamma=GAMMA, table=agent.network, device=agent.device
        )
        play = partial(agent._played, logits, tasks, rng, callback)
        draw = partial(agent._drawn_tasks, rng)
        state = {name: tensor.clone() for name, tensor in agent._learned_state().items()}
        for part, run in {
            "tasks drawn": _repeated(draw, n_calls),
            "models": _repeated(models, n_calls),
            "an episode in each task": _repeated(play, n_calls),
        }.items():
            found[f"iteration, {n_tasks} tasks: {part}"] = Contender(
                run, n_calls * n_tasks, _PER_SECOND
            )
        whole = partial(_iterations, agent, callback, state, n_calls)
        found |= _both(f"iteration, {n_tasks} tasks: all", whole, n_tasks, n_calls)
    largest, judged = (f"iteration, {n_tasks} tasks: all" for n_tasks in (_LARGEST, _JUDGED))
    found[largest] = found[largest]._replace(against=((judged, 1.0),))
    return found


def on_cuda() -> dict[str, Contender]:
    """Evaluation and meta-updates on the GPU beside those on the processor, 20 and 400 tasks."""
    found: dict[str, Contender] = {}
    for n_tasks in (_JUDGED, _LARGEST):
        n_calls = max(1, _UPDATES // n_tasks)
        for device in ("cpu", "cuda"):
            tasks = lakes(n_tasks, device)
            run = partial(evaluate, tasks, meta_logits(tasks).softmax(-1))
            name = f"evaluation, {n_tasks} tasks, on {device}"
            found[name] = _rated(_waiting(run, device), n_tasks, n_calls)
            for algorithm in ALGORITHM_NUMBERS:
                update = repeated_updates(algorithm, n_tasks, n_calls, device)
                name = f"update, Alg {algorithm}, {n_tasks} tasks, on {device}"
                found[name] = Contender(_waiting(update, device), n_calls * n_tasks, _PER_SECOND)
    for name in list(found):
        if name.endswith("cuda"):
            reference = f"{name.removesuffix('cuda')}cpu"
            found[name] = found[name]._replace(against=((reference, None),))
    return found


def check_hypergradients(algorithm: int, n_tasks: int = 5) -> None:
    """`RuntimeError` unless three ways to the mean hypergradient agree.

    :param algorithm: 1, 2 or 3
    :param n_tasks: M
    """
    tasks, distance, lam = lakes(n_tasks), distance_of(algorithm), LAMS[algorithm]
    logits, singles = meta_logits(tasks), [tasks.subset([task]) for task in range(n_tasks)]
    found = task_hypergradients(tasks, logits, distance=distance, lam=lam)
    own = found.gradients.mean(0).numpy()
    implicit = task_hypergradients(tasks, logits, distance=distance, lam=lam, settings=_IMPLICIT)
    by_tasks = one_by_one(singles, logits, distance, lam)
    for other in (implicit.gradients.mean(0), by_tasks):
        check_agreement([own], [other.numpy()], f"the hypergradient of Alg {algorithm}")


def repeated_updates(
    algorithm: int, n_tasks: int, n_calls: int, device: str = "cpu"
) -> Callable[[], None]:
    """A run of meta-updates on one meta-batch, always from the same meta-policy.

    :param algorithm: 1, 2 or 3
    :param n_tasks: M
    :param n_calls: how many updates
    :param device: where the agent learns
    """
    agent, callback = trained_agent(algorithm, n_tasks, device=device)
    state = {name: tensor.clone() for name, tensor in agent._learned_state().items()}
    data = agent.collect(callback)

    def run() -> None:
        # As the policy grows greedy, Newton and scalar roots take other numbers of steps.
        agent._restore_learned_state(state)
        for _ in range(n_calls):
            agent.train(data)

    return run


_IMPLICIT = HypergradientSettings(method="implicit")


def _iterations(agent: Any, callback: Any, state: dict[str, th.Tensor], n_calls: int) -> None:
    agent._restore_learned_state(state)
    for _ in range(n_calls):
        agent.train(agent.collect(callback))


def _repeated(run: Callable[[], Any], n_calls: int) -> Callable[[], None]:
    def repeated() -> None:
        for _ in range(n_calls):
            run()

    return repeated


def _rated(run: Callable[[], Any], n_tasks: int, n_calls: int) -> Contender:
    return Contender(_repeated(run, n_calls), n_calls * n_tasks, _PER_SECOND)


def _both(name: str, run: Callable[[], None], n_tasks: int, n_calls: int) -> dict[str, Contender]:
    """A rate, and of the size that has a longest duration, that one, too."""
    rated = Contender(run, n_calls * n_tasks, _PER_SECOND)
    if n_tasks != _JUDGED:
        return {name: rated}
    timed = rated._replace(most_milliseconds=_MOST_MILLISECONDS, n_calls=n_calls)
    return {name: rated, f"{name}, each": timed}


def _waiting(run: Callable[[], Any], device: str) -> Callable[[], None]:
    def waited() -> None:
        run()
        if device == "cuda":
            th.cuda.synchronize()

    return waited
