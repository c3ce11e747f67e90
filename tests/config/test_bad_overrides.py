"""Tests of invalid overrides: the message for each, in one process that imports nothing heavy."""

from __future__ import annotations

import os
import pickle
from collections.abc import Iterator
from importlib.util import find_spec
from pathlib import Path

import pytest

from masksweep.strategies.errors import Invalid
from masksweep.sweeps.config.validation import MultipleInvalid, single_faults
from tests.support.light_process import Light, light

SAID: dict[str, str] = {
    "strateg=dense": "strateg=dense: unknown key; one of targets, ",
    "strategy.frm=where": "strategy.frm=where: unknown key; one of form",
    "strategy=dense strategy.form=where":
        "strategy.form=where: unknown key; it has no settings (of strategy=dense)",
    "strategy=dense,weight_mask strategy.form=where":
        "strategy.form=where: not a key of every strategy in this sweep (dense); give each its own",
    "optimizer=sgd optimizer.beta=1":
        "optimizer.beta=1: unknown key; one of learning_rate, momentum, nesterov, ",
    "data=explicit data.z=1": "data.z=1: unknown key; one of validation, x, y (of data=explicit)",
    "pattern=magnitude pattern.sparsity=.9":
        "pattern.sparsity=.9: unknown key; one of round, rounds, found_with (of pattern=magnitude)",
    "pattern={sparsity:.5,x:1}":
        "pattern={sparsity:.5,x:1}: has an unknown key; known: name, sparsity, distribution, min",
    "sweep.claims={a:1}": "sweep.claims={a:1}: has an unknown key; known: none; +sweep.claims.KEY",
    "sweep=x": "sweep=x: must be keys and values",
    "pattern.sparsity=": "pattern.sparsity=: must be a number",
    "held=3": "held=3: must be one of constant, ",
    "seed=1 strategy=dense,null": "strategy=dense,null: must be one of dense, ",
    "train.jit=AUTO": "train.jit=AUTO: must be auto, true or false",
    "pattern.sparsity=null": "pattern.sparsity=null: input should be a valid number",
    "pattern.sparsity=[.5]": "pattern.sparsity=[0.5]: input should be a valid number",
    "pattern.sparsity='0.5'": "pattern.sparsity=0.5: must be a number",
    "pattern.sparsity=true": "pattern.sparsity=True: must be a number",
    "pattern.sparsity=nan": "pattern.sparsity=nan: must be a number in [0, 1)",
    "pattern.sparsity=interval(0,1)":
        "pattern.sparsity=interval(0,1): a comma list, choice() or range()",
    "pattern.sparsity=range(0,1,0)": "pattern.sparsity=range(0,1,0): range() ",
    "pattern=n_m pattern.n=1.5": "pattern.n=1.5: must be a whole number",
    "pattern=block pattern.block=[4]": "pattern.block=[4]: must have more values",
    "pattern=block pattern.block=4": "pattern.block=4: must be a list, as [1,2]",
    "held.value=3": "held.value=3: unknown key; it has no settings",
    "held=constant held.value=x": "held.value=x: must be a number",
    "model.hidden=8": "model.hidden=8: must be a list, as [1,2]",
    "model.hidden=[8,true]": "model.hidden=True: must be a whole number",
    "model.hidden=['8']": "model.hidden=8: must be a whole number",
    "data.seed=1.5": "data.seed=1.5: must be a whole number",
    "optimizer.use_ema=1": "optimizer.use_ema=1: must be true or false",
    "optimizer.learning_rate=-0.0": "optimizer.learning_rate=-0.0: must be 0 or above, and finite",
    "optimizer=ftrl optimizer.learning_rate=0":
        "optimizer.learning_rate=0.0: must be above 0 for ftrl",
    "train.epochs=0 objective=train/loss":
        "objective=train/loss: needs train.epochs > 0; test/loss does not",
    "train.epochs=0 compare=projection": "compare=projection: not with train.epochs=0",
    "start.path=none.keras": "start.path=none.keras: no such file",
    "start.path=net.h5": "start.path=net.h5: must be a .keras file",
    "start.path=": "start.path=: must not be empty",
    "start.run=5": "start.run=5: must be the id of a run, which is 32 hex digits",
    "start.run=net.keras": "start.run=net.keras: must be the id of a run, which is 32 hex digits",
    f"start.run={32 * 'a'} start.path=a.keras":
        f"start.run={32 * 'a'}: must be null with start.path=a.keras",
    "start.new=[output/*]": "start.new=['output/*']: needs start.path or start.run",
    "start.new=output/*": "start.new=output/*: must be a list",
    "start.epochs=-1": "start.epochs=-1: input should be greater than or equal to 0",
    "start.learning_rate=.1": "start.learning_rate=0.1: needs start.epochs",
    "start.epochs=1 start.learning_rate=0":
        "start.learning_rate=0: input should be greater than 0",
    "start.epochs=1 optimizer.learning_rate=0":
        "start.learning_rate=null: needed, as optimizer.learning_rate is 0",
    "model.weights=net.keras":
        "model.weights=net.keras: unknown key; one of hidden, activation, output_activation, "
        "dropout, batch_norm, residual, l2, constraint, init; start.path and start.run name "
        "trained weights",
    "train.epochs=true": "train.epochs=True: must be a whole number",
    "train.epochs=1e3": "train.epochs=1000.0: must be a whole number",
    "train.epochs=2.0": "train.epochs=2.0: must be a whole number",
    "train.epochs='2'": "train.epochs=2: must be a whole number",
    "train.shuffle=1": "train.shuffle=1: must be true or false",
    "optimizer.schedule=cosin":
        "optimizer.schedule=cosin: must have the name of a schedule: constant, cosine, ",
    "optimizer.schedule={alpha:1}":
        "optimizer.schedule={'alpha': 1}: must have the name of a schedule: constant, ",
    "optimizer.schedule={name:cosine,alpha:2}":
        "optimizer.schedule.alpha=2.0: must be in [0, 1]",
    "optimizer.schedule={name:cosine,alpha:a}": "optimizer.schedule.alpha=a: must be a number",
    "optimizer.schedule={name:cosine,boundaries:[1]}":
        "optimizer.schedule.boundaries=[1]: unknown key; cosine has warmup_steps, decay_steps, ",
    "optimizer.schedule=step": "optimizer.schedule.boundaries=[]: must be rising numbers of steps",
    "optimizer.schedule={name:step,boundaries:[9,3]}":
        "optimizer.schedule.boundaries=[9, 3]: must be rising numbers of steps above 0",
    "optimizer.schedule={name:step,boundaries:9}":
        "optimizer.schedule.boundaries=9: must be a list, as [1,2]",
    "optimizer.schedule={name:exponential,decay_rate:0}":
        "optimizer.schedule.decay_rate=0.0: must be above 0, and finite",
    "optimizer.schedule={name:constant,warmup_steps:-1}":
        "optimizer.schedule.warmup_steps=-1: must be 0 or above",
    "train.loss=hubber": "train.loss=hubber: must be null or one of binary_crossentropy, ",
    "train.loss=poisson": "train.loss=poisson: must be null or one of binary_crossentropy, ",
    "train.loss=hinge data=diabetes":
        "train.loss=hinge: must be null or one of cosine_similarity, huber, log_cosh, ",
    "train.loss={name:huber,beta:2}":
        "train.loss.beta=2: unknown setting; keras.losses.Huber has delta",
    "train.loss={name:huber,delta:[1]}": "train.loss.delta=[1]: must be a finite number, true or",
    "train.loss={name:huber,delta:true}": "train.loss.delta=True: must be a number above 0",
    "train.loss={name:huber,delta:-1}": "train.loss.delta=-1: must be a number above 0",
    "train.loss='huber(delta=1e999)'": "train.loss.delta=inf: must be a finite number",
    "train.loss='huber(delta=1)(delta=2)'": "train.loss=huber(delta=1)(delta=2): must be a name",
    "train.loss={name:hubber,delta:2}": "train.loss=hubber(delta=2): must be null or one of",
    "train.loss={name:hinge,delta:2}":
        "train.loss.delta=2: unknown setting; keras.losses.Hinge has no settings",
    "train.loss='huber(open(1))'":
        "train.loss=huber(open(1)): must be a name, or with settings {name: huber, delta: 2}",
    "train.loss=7": "train.loss=7: must be a name, null, or {output: name} for several outputs",
    "train.loss_weights=2": "train.loss_weights=2: must be null, or {output: number} for several",
    "train.metrics=[3]": "train.metrics=3: must be a name",
    "train.loss_weights={size:0.5}":
        "train.loss_weights=size: must not be given by output: mnist1d has one output",
    "train.loss=''": "train.loss=: must be a name, null, or {output: name} for several outputs",
    "train.metrics=auc": "train.metrics=auc: must be a list, as [a,b]",
    "train.metrics=[auc,aucc]": "train.metrics=aucc: must be of auc, binary_crossentropy, ",
    "train.metrics=[auc] data=diabetes": "train.metrics=auc: must be of cosine_similarity, ",
    "train.metrics=[auc,auc]": "train.metrics=['auc', 'auc']: must have each name once",
    "train.class_weight=even":
        "train.class_weight=even: must be a list, as [1,2.5], balanced or null",
    "train.class_weight=[1,-1]":
        "train.class_weight=[1, -1]: must have a number for each class, 0 or above",
    "train.class_weight=[0,0]": "train.class_weight=[0, 0]: must have a number above 0",
    "train.class_weight=balanced data=diabetes":
        "train.class_weight=balanced: must be null; diabetes is regression",
    "train.early_stopping=0":
        "train.early_stopping.patience=0: input should be greater than or equal to 1",
    "train.early_stopping=soon": "train.early_stopping=soon: must be keys and values",
    "train.early_stopping={monitor:validation/loss}":
        "train.early_stopping.patience=: missing",
    "train.early_stopping={patience:2,monitor:test/loss}":
        "train.early_stopping.monitor=test/loss: must be one of validation/loss, validation/acc",
    "train.early_stopping={patience:2,monitor:validation/mse}":
        "train.early_stopping.monitor=validation/mse: must be one of validation/loss, ",
    "train.early_stopping={patience:2,delta:1}": "train.early_stopping.delta=1: unknown key",
    "train.early_stopping=2 data.validation=0":
        "train.early_stopping={'patience': 2, 'monitor': 'validation/loss'}: must be null; data.",
    "train.early_stopping=2 compare=projection":
        "train.early_stopping={'patience': 2, 'monitor': 'validation/loss'}: must be null with com",
    "train.early_stopping=2 train.switch_at=9":
        "train.early_stopping={'patience': 2, 'monitor': 'validation/loss'}: must be null with tra",
    "train.early_stopping=2 train.resume_at=9":
        "train.early_stopping={'patience': 2, 'monitor': 'validation/loss'}: must be null with tra",
    "train.early_stopping=2 optimizer.use_ema=true":
        "train.early_stopping={'patience': 2, 'monitor': 'validation/loss'}: must be null with opt",
    "train.mixed_precision=float16":
        "train.mixed_precision=float16: input should be 'mixed_float16' or 'mixed_bfloat16'",
    "train=fast": "train=fast: unknown; one of default",
    "checkpoint.every_s=true": "checkpoint.every_s=True: must be a number",
    "seed=null": "seed=null: input should be a valid integer",
    "seed=[1,2]": "seed=[1, 2]: input should be a valid integer",
    "targets=output/*": "targets=output/*: must be a list, as [a,b], or inner",
    "targets={a:1}": "targets={'a': 1}: must be a list, as [a,b], or inner",
    "targets=[[a]]": "targets=[['a']]: must have at least one glob, and nothing else",
    "targets=inner,outer": "targets=outer: must be a list, as [a,b], or inner",
    "pattern=rows pattern.by=l3": "pattern.by=l3: input should be 'random', 'l1' or 'l2'",
    "pattern=columns pattern.by=l1 pattern.indices=[0]":
        "pattern.by=l1: must be random if indices is given",
    "pattern=smallest pattern.path=none.npz": "pattern.path=none.npz: no such file",
    "pattern=edges": "pattern.path=None: must be given, or else pairs",
    "pattern=edges pattern.path=none.csv": "pattern.path=none.csv: no such file",
    "pattern=edges pattern.inputs=genes.txt": "pattern.inputs=genes.txt: ",
    "pattern=by_weight": "pattern.of=None: must be patterns by glob on weight names",
    "pattern=by_weight pattern.of={*:{name:file,path:a.npz}}":
        "pattern.path=a.npz: no such file",
    "targets=[1]": "targets=1: must be a text",
    "outputs_held=[true]": "outputs_held=True: must be a whole number",
    "resources.memory=4GB": "resources.memory=4GB: must be a whole number",
    "tracking.experiment=": "tracking.experiment=: must not be empty",
    "tracking.uri=": "tracking.uri=: must not be empty",
    "checkpoint.path=": "checkpoint.path=: must not be empty",
    "launch.address=": "launch.address=: must not be empty",
    "sweep.name=": "sweep.name=: must not be empty",
    "sweep.name=7": "sweep.name=7: must be a text",
    "sweep.name=a,b": "sweep.name=a,b: must be one for the whole sweep",
    "launch.max_retries=1,2": "launch.max_retries=1,2: must be one for the whole sweep",
    "launch.max_retries=1,0": "launch.max_retries=1,0: must be one for the whole sweep",
    "sweep.question=[a]": "sweep.question=['a']: input should be a valid string",
    "seed=é": "seed=é: not an override that Hydra reads: quote it, as seed='\"...\"'",
    'seed="1': "seed=\"1: not an override that Hydra reads: quote it",
    "seed": "arguments=seed: must be KEY=VALUE",
    "seed:1": "arguments=seed:1: must be KEY=VALUE",
    "=1": "arguments==1: must be KEY=VALUE",
    "--nope": "arguments=--nope: unrecognized arguments: --nope; see masksweep --help",
}  # fmt: skip
"""Start of the message by the arguments."""


@pytest.fixture(scope="module")
def command() -> Iterator[Light]:
    with light() as started:
        yield started


def told(command: Light, folder: Path, *arguments: str) -> list[str]:
    """Returns the lines with which the arguments are refused; checks that no file was written."""
    done = command(folder, "run", *arguments)
    assert not [*folder.iterdir()]
    return done.complaints


@pytest.mark.parametrize(("arguments", "said"), SAID.items(), ids=SAID)
def test_what_is_wrong_is_told(arguments: str, said: str, command: Light, tmp_path: Path) -> None:
    (line,) = told(command, tmp_path, *arguments.split(" "))
    assert line.startswith(said)


def test_all_that_is_wrong_is_told(command: Light, tmp_path: Path) -> None:
    wrong = "pattern.sparsity=1.5 train.epochs=-1 train.steps=x seed=x optimizer.learning_rate=-1"
    assert sorted(told(command, tmp_path, *wrong.split(" "))) == [
        "optimizer.learning_rate=-1.0: must be 0 or above, and finite",
        "pattern.sparsity=1.5: must be a number in [0, 1)",
        "seed=x: must be a whole number",
        "train.epochs=-1: input should be greater than or equal to 0",
        "train.steps=x: must be a whole number",
    ]


def test_what_is_wrong_with_several_trials_is_told_once(command: Light, tmp_path: Path) -> None:
    lines = told(command, tmp_path, "pattern.sparsity=.5,2,3", "seed=0,1,2", "audit.every=0")
    assert sorted(lines) == [
        "audit.every=0: input should be greater than or equal to 1",
        "pattern.sparsity=2.0: must be a number in [0, 1)",
        "pattern.sparsity=3.0: must be a number in [0, 1)",
    ]


def test_no_more_is_told_than_can_be_read(command: Light, tmp_path: Path) -> None:
    assert len(told(command, tmp_path, "seed=range(-1000,-1)")) == 20


def test_what_this_machine_lacks_is_told_before_anything_starts(
    command: Light, tmp_path: Path
) -> None:
    arguments = ("checkpoint.path=nope://me:pass@x", "resources.num_cpus=9999")
    place, cpus, memory = told(command, tmp_path, *arguments, f"resources.memory={2**60}")
    assert place == (
        "checkpoint.path=nope://x: unknown scheme; a folder, or an fsspec URI as s3://bucket/folder"
    )
    most = f"must be at most {os.cpu_count()}, what this machine has"
    assert cpus == f"resources.num_cpus=9999.0: {most}"
    assert memory.startswith(f"resources.memory={2**60}: must be at most ")


@pytest.mark.parametrize("place", ["/proc/x", "{absent}://bucket/x"])
def test_a_place_for_checkpoints_is_tried_before_anything_starts(
    command: Light, place: str, tmp_path: Path
) -> None:
    packages = {"gs": "gcsfs", "abfs": "adlfs", "oss": "ossfs"}
    place = place.format(absent=next(p for p, name in packages.items() if not find_spec(name)))
    (line,) = told(command, tmp_path, f"checkpoint.path={place}")
    assert line.startswith(f"checkpoint.path={place}: ")


def test_a_card_that_is_not_there_is_missed_before_anything_starts(tmp_path: Path) -> None:
    from masksweep.sweeps.config import feasible

    assert feasible._gpu_count(tmp_path) == 0
    for name in ("nvidia0", "nvidia1", "nvidiactl", "nvidia-uvm"):
        (tmp_path / name).touch()
    assert feasible._gpu_count(tmp_path) == 2
    (tmp_path / "kfd").touch()
    assert feasible._gpu_count(tmp_path) is None
    assert feasible._gpu_count(tmp_path / "none") is None


def test_a_cluster_may_have_more_than_this_machine() -> None:
    from masksweep.sweeps.config import feasible
    from tests.support.trials import trial

    config = {"launch": {"address": "auto"}, "resources": {"num_cpus": 9999, "num_gpus": 8}}
    feasible.check([trial(**config)])
    with pytest.raises(Invalid, match=r"resources\.num_cpus=9999"):
        feasible.check([trial(**config | {"launch": {}})])


def test_several_faults_travel_between_processes() -> None:
    inner = MultipleInvalid([Invalid("c", 2, "d"), Invalid("a", 1, "b")])
    error = MultipleInvalid([Invalid("a", 1, "b"), inner])
    copy = pickle.loads(pickle.dumps(error))
    assert [str(fault) for fault in single_faults(copy)] == ["a=1: b", "c=2: d"]
