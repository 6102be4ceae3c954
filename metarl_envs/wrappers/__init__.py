"""Gymnasium wrappers for task environments: what a task, a trial and an observation are.

The order for learners that infer the task from experience is
``ObserveTransition(ResampleTask(Trial(TimeLimit(env))))``, which :func:`belief_mdp` applies. Every
wrapper forwards ``task_distribution``, ``sample_tasks``, ``set_task`` and ``get_task``, survives
``pickle`` and records its arguments, so that ``env.spec.to_json()`` works.
"""

from metarl_envs.wrappers.belief import belief_mdp
from metarl_envs.wrappers.observing import ObserveTask, ObserveTransition
from metarl_envs.wrappers.resampling import ResampleTask
from metarl_envs.wrappers.trial import Trial

__all__ = ["ObserveTask", "ObserveTransition", "ResampleTask", "Trial", "belief_mdp"]
