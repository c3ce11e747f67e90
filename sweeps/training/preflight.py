"""Checks the plans of trials before the first trial runs, in a separate process.

The checks build the models, for which they need TensorFlow.
"""

from __future__ import annotations

import json
import traceback
from collections.abc import Callable, Mapping, Sequence
from dataclasses import fields
from functools import lru_cache
from typing import TYPE_CHECKING, Any, Self, TypeVar

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.common.child import Child, ChildDied
from masksweep.sweeps.components import plugins
from masksweep.sweeps.components.models import MODELS
from masksweep.sweeps.components.plugin_files import Plugin
from masksweep.sweeps.config.trial import Trial, parse, recorded_config
from masksweep.sweeps.results import PreflightAnswer
from masksweep.sweeps.training.model_summary import ModelSummary, summaries

if TYPE_CHECKING:
    from masksweep.sweeps.components.datasets.arrays import Arrays
    from masksweep.sweeps.components.initializers import Network

T = TypeVar("T")
AskPreflight = Callable[[Sequence[Trial]], Sequence[PreflightAnswer]]
"""The function `check_plans`, run in a process that has loaded TensorFlow."""


def check(trials: Sequence[Trial], ask: AskPreflight) -> dict[str, PreflightAnswer]:
    """Checks the plans of trials: whether their strategies refuse them, what they cut off, and what
    the strategies choose for them.

    Trials that can only have the same answer are checked once.

    Args:
        trials: The trials.
        ask: Checks trials, such as `Preflight.ask`.

    Returns:
        Answers by trial id; a trial has none if its answer would be empty.

    Raises:
        Invalid: A plan cannot be made.
    """
    shapes = {trial.id: _shape(trial) for trial in trials}
    distinct: dict[str, Trial] = {}
    for trial in trials:
        distinct.setdefault(shapes[trial.id], trial)
    by_shape = dict(zip(distinct, ask(list(distinct.values())), strict=True))
    return {
        trial_id: answer for trial_id, shape in shapes.items() if any(answer := by_shape[shape])
    }


class Preflight:
    """A context manager for a child process that loads TensorFlow and checks trials.

    With the child process, this process stays small and takes no GPU. The child loads TensorFlow in
    the background.
    """

    def __enter__(self) -> Self:
        self._child = Child(_load)
        return self

    def __exit__(self, *_: Any) -> None:
        self._child.end()

    def ask(self, trials: Sequence[Trial]) -> Sequence[PreflightAnswer]:
        """Runs `check_plans` in the child process.

        Raises:
            Invalid: A plan cannot be made, or the child process died.
        """
        return self._run(check_plans, trials)

    def describe(self, trials: Sequence[Trial]) -> Sequence[ModelSummary]:
        """Runs `model_summary.summaries` in the child process. Raises as `ask` does."""
        return self._run(summaries, trials)

    def _run(self, function: Callable[[Sequence[Trial]], T], trials: Sequence[Trial]) -> T:
        configs = [recorded_config(trial) for trial in trials]
        try:
            return self._child.submit(_run, function, plugins.loaded(), configs).result()
        except ChildDied:
            raise Invalid("model", "", "ended the process that built it; too large?") from None


def _load() -> None:
    from masksweep.sweeps.training.process import prepare_process

    prepare_process(threads=1)


def _run(
    function: Callable[[Sequence[Trial]], T],
    needed_plugins: Sequence[Plugin],
    configs: Sequence[Mapping[str, Any]],
) -> T:
    """Calls a function with the trials of these configs."""
    try:
        for plugin in needed_plugins:
            plugins.load(plugin)
        return function([parse(config) for config in configs])
    except Invalid:
        raise
    except Exception:  # some exceptions cannot be pickled and sent to the parent process
        raise RuntimeError(traceback.format_exc()) from None


def _shape(trial: Trial) -> str:
    config = trial.canonical()
    relevant = {k: v for k, v in config.items() if k not in ("optimizer", "audit", "jit")}
    train = trial.train
    relevant["train"] = [train.batch_size, train.switch_at, train.resume_at, train.class_weight]
    relevant["train"] += [train.early_stopping is not None, train.mixed_precision]
    relevant["train"] += [train.match_flops]
    if trial.moves_masks or trial.optimizer.schedule or train.resume_at:
        relevant["length"] = train.steps, train.epochs
    if trial.optimizer.schedule:
        relevant["learning_rate"] = config["optimizer"]["schedule"]
    relevant["on_gpu"] = trial.resources.num_gpus > 0
    return json.dumps(relevant, sort_keys=True)


def _load_data(trial: Trial) -> Arrays:
    """Returns the trial's data.

    Raises:
        Invalid: They cannot be loaded, or are not as they must be.
    """
    try:
        return trial.data.load()
    except Invalid:
        raise
    except Exception as error:  # a plugin's data set may raise anything
        reason = plugins.describe(error, plugins.loaded())
        raise Invalid("data", trial.data.name, f"cannot be loaded: {reason}") from None


def _network(trial: Trial, data: Arrays) -> Network:
    """Returns `setup.network`.

    Raises:
        Invalid: The network cannot be built or saved and loaded, or does not fit the data.
    """
    from masksweep.sweeps.training import setup

    try:
        net = setup.network(trial, data)
        is_own = bool(MODELS.origin(trial.model.name))
        if is_own and (problem := saving_problem(net.model)):
            raise Invalid("model", trial.model.name, f"cannot be loaded once saved: {problem}")
        return net
    except Invalid as error:
        if error.key == "inputs":  # the shape of a sample
            allowed = f"inputs={error.value} of data={data.name} {error.allowed}"
            raise Invalid("model", trial.model.name, allowed) from error
        own_keys = [field.name for field in fields(trial.model)]  # type: ignore[arg-type]
        key = f"model.{error.key}" if error.key in own_keys else error.key
        raise Invalid(key, error.value, error.allowed) from error
    except Exception as error:  # Keras raises errors of many types
        reason = plugins.describe(error, plugins.loaded())
        raise Invalid("model", trial.model.name, f"cannot be built: {reason}") from None


@lru_cache(maxsize=16)  # trials share models
def saving_problem(model: Any) -> str:
    """Returns why Keras cannot load a model once it is saved, as the audit does; else nothing."""
    import keras

    from masksweep.strategies.core.keras_internals import without_values

    try:
        form = json.loads(json.dumps(keras.saving.serialize_keras_object(model)))
        with without_values():
            keras.saving.deserialize_keras_object(form, safe_mode=True)
    except Exception as error:  # Keras raises errors of many types, with the whole form in the text
        first: BaseException = error
        while first.__context__ is not None:
            first = first.__context__
        return plugins.describe(first, plugins.loaded())
    return ""


def check_plans(trials: Sequence[Trial]) -> list[PreflightAnswer]:
    """Checks the plan of each trial, in this process. Each distinct model is built once.

    Call `process.prepare_process` once before, in the same process.

    Returns:
        The answer for each trial, in order.

    Raises:
        Invalid: A plan cannot be made.
    """
    from masksweep.strategies.core.connections import cut_off
    from masksweep.strategies.core.moving_statistics import frozen_statistics
    from masksweep.strategies.core.selection import match_each
    from masksweep.strategies.plan import Array
    from masksweep.strategies.schedules.base import Course
    from masksweep.sweeps.training import mask_course, matched_flops
    from masksweep.sweeps.training.setup import class_weights, plan_for, refusal
    from masksweep.sweeps.training.start_weights import from_file
    from masksweep.sweeps.training.step_counts import step_counts

    initials: dict[tuple[Network, str], dict[str, Array]] = {}
    results = []
    for trial in trials:
        data = _load_data(trial)
        epoch, steps = step_counts(trial, data.samples)
        trial.optimizer.for_steps(steps)
        class_weights(trial, data)
        if trial.train.early_stopping and data.validation is None:
            allowed = f"must be null; {data.name} has no validation samples"
            raise Invalid("train.early_stopping", trial.train.early_stopping, allowed)
        net = _network(trial, data)
        # seed 0 for all trials: whether a plan can be made does not depend on the seed
        key = net, trial.start.model_dump_json()
        if key not in initials:
            initials[key] = from_file(trial.start, net, net.initial(0))[0]
        initial = initials[key]
        match_each("trainable", [w.name for w in net.weights], trial.trainable)
        frozen_statistics(net.model, trial.trainable, trial.statistics)
        plan = plan_for(trial, net.weights, initial, data.outputs)
        masks_known = _are_masks_known(trial)
        kernels = [
            str(kernel)
            for kernel in cut_off(plan)
            if masks_known and (kernel.units or kernel.inputs)
        ]
        reason = refusal(trial, plan) or ""
        choices = (
            trial.running_strategy.choices(plan, trial.resources.num_gpus > 0)
            if masks_known
            else {}
        )
        chosen = "" if reason else "; ".join(f"{key}: {text}" for key, text in choices.items())
        results.append(PreflightAnswer(reason, "; ".join(kernels), chosen))
        if not reason and plan.weights:
            mask_course.check(trial, net.weights, plan, initial, data.samples)
        matched_flops.scaled(trial, net.model, plan, Course(steps, epoch))
    return results


def _are_masks_known(trial: Trial) -> bool:
    """Whether the masks of a trial can be made without a training or the model's gradients."""
    from masksweep.strategies.patterns import Pattern, Scored

    pattern = trial.pattern
    if trial.start.epochs and type(pattern).from_weights is not Pattern.from_weights:
        return False
    return not isinstance(pattern, Scored) and not pattern.needs_model
