"""Files that a command line names with `--plugin`: what is loaded, and what is refused."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
import zipfile
from hashlib import sha256
from pathlib import Path

import pytest

from masksweep.sweeps.components import plugin_files
from tests.support.command import complaint, masksweep
from tests.support.plugin import (
    MODEL,
    PAGE,
    WIDE,
    install,
    my_ends,
    my_net,
    my_training,
    split_my_net,
)
from tests.support.sweep_process import ran

REGISTERED = MODEL.replace("@dataclass", "@register\n@dataclass").replace(
    "\n\n\n", "\nfrom masksweep.strategies import register\n\n\n", 1
)
MINE = ("--plugin", "my_net.py", "model=my_net", "data=my_data")


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """A folder with nothing but `my_net.py`."""
    (tmp_path / "here").mkdir()
    (tmp_path / "here/my_net.py").write_text(my_net())
    return tmp_path / "here"


def ids(folder: Path, *arguments: str) -> list[str]:
    """The ids of the planned trials. Fails if the command has loaded TensorFlow."""
    process = masksweep("plan", "--json", *arguments, cwd=folder, light=True)
    assert process.returncode == 0, process.stderr
    return [trial["id"] for trial in json.loads(process.stdout)["trials"]]


def test_its_components_are_listed_with_its_digest_and_planned(folder: Path) -> None:
    digest = sha256((folder / "my_net.py").read_bytes()).hexdigest()
    listed = masksweep("list", "--plugin", "my_net.py", cwd=folder, light=True).stdout
    assert f"  my_net          One hidden layer. [my_net.py sha256:{digest}]" in listed
    assert f"  my_data         Points of two classes. [my_net.py sha256:{digest}]" in listed
    assert listed.count("[my_net.py ") == 2
    assert len(set(ids(folder, *MINE, "model.units=8,16"))) == 2
    process = masksweep("plan", "model=my_net", cwd=folder, light=True)
    assert complaint(process).startswith("model=my_net: unknown; one of ")


def test_several_inputs_and_outputs_by_the_command_of_the_page(folder: Path) -> None:
    (folder / "my_ends.py").write_text(my_ends())
    lines = re.findall(r"^masksweep run (--plugin my_ends.*?)\n```", PAGE.read_text(), re.M | re.S)
    (command,) = lines
    arguments = shlex.split(command.replace("\\\n", " "))
    assert len(set(ids(folder, *arguments))) == 2
    other = [*arguments[:-1], "train.metrics=[auc]"]
    assert set(ids(folder, *other)).isdisjoint(ids(folder, *arguments))


OWN = ("--plugin", "my_training.py", "data=digits", "model=logistic", "targets=['*/kernel']",
    "train.steps=8", "train.loss=quartic", "train.metrics=[largest]", "speed.rounds=0",
    "train.jit=false", "optimizer.schedule={name:inverse,steps:5}", "train.batch_size=200",
    "train.early_stopping={patience:3,monitor:validation/largest}")  # fmt: skip


def test_a_loss_a_metric_and_a_schedule_of_ones_own(folder: Path) -> None:
    (folder / "my_training.py").write_text(my_training())
    listed = masksweep("list", "--plugin", "my_training.py", cwd=folder, light=True).stdout
    for line in ("inverse", "largest", "quartic"):
        assert re.search(rf"^  {line} +\w.*\[my_training\.py sha256:", listed, re.MULTILINE), line
    (first,) = ids(folder, *OWN)
    process = masksweep("plan", "train.loss=quartic", cwd=folder, light=True)
    assert complaint(process).startswith("train.loss=quartic: must be null or one of")
    (folder / "my_training.py").write_text(f"{my_training()}\n")
    assert ids(folder, *OWN) != [first]
    (folder / "my_training.py").write_text(my_training().replace('"quartic"', '"huber"'))
    said = "masksweep.losses=huber: the name of a loss of Keras; choose another"
    assert complaint(masksweep("plan", *OWN[:3], cwd=folder, light=True)) == said


@pytest.mark.slow  # loads TensorFlow
def test_a_model_that_cannot_be_loaded_is_refused_before_it_trains(folder: Path) -> None:
    layer = "keras.layers.Lambda(lambda x: x)"
    text = my_net().replace("[keras.Input(inputs), ", f"[keras.Input(inputs), {layer}, ", 1)
    assert layer in text
    (folder / "my_net.py").write_text(text)
    said = complaint(masksweep("run", *MINE, cwd=folder))
    assert said.startswith("model=my_net: cannot be loaded once saved: ValueError: Requested the ")
    assert not (folder / "mlflow.db").exists()


@pytest.mark.slow
def test_a_loss_a_metric_and_a_schedule_of_ones_own_train(folder: Path) -> None:
    from masksweep.sweeps.tracking import frames

    (folder / "my_training.py").write_text(my_training())
    uri = f"sqlite:///{folder}/here.db"
    process = masksweep("run", *OWN, f"tracking.uri={uri}", "sweep.name=own", cwd=folder)
    assert process.returncode == 0, process.stderr
    (row,) = frames.load("own", uri).trials.to_dict("records")
    assert row["test/largest"] > 0
    assert row["early_stopping/step"] == 8
    assert row["integrity/ok"] == 1


def test_several_are_loaded(folder: Path) -> None:
    (folder / "wide.py").write_text(REGISTERED)
    assert len(ids(folder, *MINE[:2], "--plugin=wide.py", "model=my_net,wide", "data=my_data")) == 2
    assert ids(folder, *MINE, "--plugin", str(folder / "my_net.py"))  # the same again


def test_its_content_is_part_of_the_identity_and_its_place_is_not(folder: Path) -> None:
    first = ids(folder, *MINE)
    other = folder / "other"
    other.mkdir()
    (folder / "my_net.py").rename(other / "my_net.py")
    moved = ("--plugin", "other/my_net.py", *MINE[2:])
    assert ids(folder, *moved) == first
    (other / "my_net.py").write_text(f"{my_net()}\n")
    assert ids(folder, *moved) != first
    (other / "my_net.py").write_text(my_net())
    (other / "my_net.py").rename(other / "renamed.py")
    assert ids(folder, "--plugin", "other/renamed.py", *MINE[2:]) != first


def test_a_file_beside_it_that_it_imports_is_part_of_it(folder: Path) -> None:
    plugin = split_my_net(folder)
    first = ids(folder, *MINE)
    (folder / "unused.py").write_text("raise SystemExit")
    assert ids(folder, *MINE) == first
    (folder / "parts/layers.py").write_text((folder / "parts/layers.py").read_text() + "\n")
    assert ids(folder, *MINE) != first
    read = plugin_files.read(plugin, lambda name: name not in ("parts", "unused"))
    assert [name for name, _ in read.files] == ["my_net.py", "parts/layers.py"]


def test_it_shadows_nothing_and_nothing_else_of_its_folder_is_imported(folder: Path) -> None:
    """Files beside it have the names of the standard library, libraries, and missing packages."""
    names = ("json", "numpy", "keras", "pandas", "masksweep", "sitecustomize", "torch_xla")
    for name in names:
        (folder / f"{name}.py").write_text(f"open({name!r}, 'w').close()")
    (folder / "json.py").write_text(my_net())
    before = set(folder.iterdir())
    # not `python -m`, which itself imports from the current folder
    program = (str(Path(sys.executable).parent / "masksweep"),)
    # with --check, another process builds the model
    arguments = ("--check", "--plugin", "json.py", *MINE[2:])
    driver = ran(folder, *arguments, command=("plan",), program=program)
    assert driver.code == 0, driver.stderr
    assert set(folder.iterdir()) - before == {folder / "stdout", folder / "stderr"}


@pytest.mark.parametrize(
    ("arguments", "text", "said"),
    [
        (["--plugin", "none.py"], "", "--plugin=none.py: no such file"),
        (["--plugin=."], "", "--plugin=.: must be a file of Python, as my_net.py"),
        (["--plugin", "x.txt"], "", "--plugin=x.txt: must be a file of Python, as my_net.py"),
        (["--plugin"], "", "--plugin=: must be followed by a file of Python, as my_net.py"),
        (["--plugin="], "", "--plugin=: must be followed by a file of Python, as my_net.py"),
        (
            ["--plugin", "x.py"],
            "import os\nimport nothing_of_this_name",
            "--plugin=x.py: does not import: ModuleNotFoundError: "
            "No module named 'nothing_of_this_name' (x.py, line 2)",
        ),
        (
            ["--plugin", "x.py"],
            "\n\ndef f(:",
            "--plugin=x.py: does not import: SyntaxError: invalid syntax (x.py, line 3)",
        ),
        (
            ["--plugin", "x.py"],
            "import json\njson.loads('no')",
            "--plugin=x.py: does not import: JSONDecodeError: "
            "Expecting value: line 1 column 1 (char 0) (x.py, line 2)",
        ),
        (
            ["--plugin", "x.py"],
            "raise SystemExit(0)",
            "--plugin=x.py: does not import: SystemExit: 0 (x.py, line 1)",
        ),
        (
            ["--plugin", "x.py"],
            "import beside",
            "--plugin=x.py: does not import: NameError: "
            "name 'nothing' is not defined (beside.py, line 1)",
        ),
        (
            ["--plugin", "x.py"],
            "x = 1",
            "--plugin=x.py: registers no component; see masksweep.strategies.register",
        ),
        (
            ["--plugin", "x.py"],
            "x = '" + "x" * plugin_files.MAX_PLUGIN_BYTES + "'",
            "--plugin=x.py: must have at most 1048576 bytes, with the files beside it that it "
            "imports",
        ),
        (
            ["--plugin", "x.py"],
            REGISTERED.replace("frozen=True", ""),
            "--plugin=x.py: does not import: TypeError: Wide must be a frozen dataclass (x.py, ",
        ),
        (
            ["--plugin", "x.py"],
            REGISTERED.replace('"wide"', '"mlp"'),
            "--plugin=x.py: masksweep.models=mlp: the name of two components: "
            "masksweep.sweeps.components.models.mlp.MLP and x.Wide",
        ),
        (
            ["--plugin", "x.py", "--plugin", "my_net.py"],
            my_net(),
            "--plugin=my_net.py: masksweep.models=my_net: the name of two components: ",
        ),
        (
            ["--plugin", "my_net.py", "--plugin", "other/my_net.py"],
            "",
            "--plugin=other/my_net.py: my_net.py: another plugin has another file of this name",
        ),
    ],
    ids=[
        *("no file", "a folder", "no Python", "no path", "an empty path", "a missing import"),
        *("a syntax error", "an error in a library", "an exit", "an error beside it", "nothing"),
        *("too large", "no component", "a name of ours", "a name of another", "the same name"),
    ],
)
def test_what_is_wrong_with_one_is_one_line(
    folder: Path, arguments: list[str], text: str, said: str
) -> None:
    (folder / "x.py").write_text(text)
    (folder / "beside.py").write_text("nothing")
    (folder / "other").mkdir()
    (folder / "other/my_net.py").write_text(REGISTERED)
    (folder / "x.txt").touch()
    before = set(folder.rglob("*"))
    for command in ("run", "list", "submit"):
        process = masksweep(command, *arguments, cwd=folder, light=True)
        assert complaint(process).startswith(said)
        assert len(process.stderr.splitlines()) == 1
    assert set(folder.rglob("*")) == before


def test_a_name_of_an_installed_distribution_is_refused(folder: Path, tmp_path: Path) -> None:
    path = str(install(tmp_path / "path", WIDE, {"their_models.py": MODEL}))
    (folder / "x.py").write_text(REGISTERED)
    process = masksweep("list", "--plugin", "x.py", cwd=folder, light=True, PYTHONPATH=path)
    said = "--plugin=x.py: masksweep.models=wide: the name of two components: their_models.Wide"
    assert complaint(process).startswith(said)


def test_what_it_prints_is_not_mixed_with_the_output(folder: Path) -> None:
    (folder / "my_net.py").write_text(f"{my_net()}\nprint('hello')\n")
    assert len(ids(folder, *MINE)) == 1


EVIL = "open('ran', 'w').close()\n"
ATTEMPTS = {
    "a key": "plugin: evil.py",
    "a flag as a key": "--plugin: evil.py",
    "a list": "plugins: [evil.py]",
    "a default": "defaults: [--plugin=evil.py]",
    "of Hydra": "hydra: {plugin: evil.py}",
    "a search path of Hydra": "hydra: {searchpath: [file://.], job: {name: --plugin=evil.py}}",
    "a part": "sweep: {parts: {a: {--plugin: evil.py}}}",
    "an added key of a part": "sweep: {parts: {a: {+plugin: [evil.py]}}}",
    "an origin": "components: {model: evil.py}\nmodel: {name: evil}",
    "a command": "sweep: {name: x, command: masksweep run --plugin=evil.py}",
    "a question": "sweep: {name: --plugin=evil.py, question: --plugin evil.py}",
}


@pytest.mark.parametrize("text", ATTEMPTS.values(), ids=list(ATTEMPTS))
def test_no_config_can_name_one(folder: Path, text: str) -> None:
    (folder / "evil.py").write_text(EVIL)
    path = folder / "configs/experiment/theirs.yaml"
    path.parent.mkdir(parents=True)
    path.write_text(f"# @package _global_\n{text}\n")
    (path.parents[1] / "evil.py").write_text(EVIL)
    arguments = ("plan", "--config-dir", "configs", "+experiment=theirs")
    env = {"MASKSWEEP_PLUGIN": "evil.py", "PLUGIN": "evil.py"}
    process = masksweep(*arguments, cwd=folder, light=True, **env)
    assert not (folder / "ran").exists()
    assert not (folder / "configs/ran").exists()
    if text != ATTEMPTS["a question"]:  # which is only a text
        complaint(process)


@pytest.mark.parametrize("named", ["+plugin=evil.py", "hydra.plugin=evil.py", "a=--plugin=evil.py"])
def test_no_override_can_name_one(folder: Path, named: str) -> None:
    (folder / "evil.py").write_text(EVIL)
    complaint(masksweep("plan", named, cwd=folder, light=True))
    assert not (folder / "ran").exists()


def test_no_recorded_config_can_name_one(folder: Path) -> None:
    """`reproduce` names the file and the flag, and imports nothing."""
    (folder / "evil.py").write_text(EVIL)
    (folder / "my_net.py").write_text(EVIL)
    origin = f"my_net.py sha256:{'0' * 64}"
    config = f"model: {{name: my_net}}\ncomponents: {{model: '{origin}'}}\nplugin: evil.py\n"
    (folder / "config.yaml").write_text(config)
    said = f"components.model={origin}: is of a file that was not named; add --plugin my_net.py"
    assert complaint(masksweep("reproduce", "config.yaml", cwd=folder)) == said
    (folder / "config.yaml").write_text(config.replace("my_net.py", "../x; rm -rf.py"))
    process = masksweep("reproduce", "config.yaml", cwd=folder)
    assert process.returncode == 2
    assert "--plugin" not in process.stderr
    assert not (folder / "ran").exists()


@pytest.mark.parametrize(
    ("key", "section"),
    [
        ("loss", "train: {loss: quartic}"),
        ("metric.largest", "train: {metrics: [largest]}"),
        ("schedule", "optimizer: {name: sgd, schedule: {name: inverse}}"),
    ],
)
def test_a_recorded_part_of_a_plugin_says_which_file_is_missing(
    key: str, section: str, folder: Path
) -> None:
    origin = f"my_training.py sha256:{'0' * 64}"
    (folder / "config.yaml").write_text(f"{section}\ncomponents: {{{key}: '{origin}'}}\n")
    said = (
        f"components.{key}={origin}: is of a file that was not named; add --plugin my_training.py"
    )
    assert complaint(masksweep("reproduce", "config.yaml", cwd=folder)) == said


@pytest.mark.parametrize("command", ["audit", "bench", "sync", "ui", "status"])
def test_a_command_that_builds_no_trials_does_not_take_one(folder: Path, command: str) -> None:
    (folder / "my_net.py").write_text(EVIL)
    complaint(masksweep(command, "--plugin", "my_net.py", cwd=folder))
    assert not (folder / "ran").exists()


@pytest.mark.parametrize("command", ["run", "reproduce", "report", "verify", "doctor", "submit"])
def test_the_help_describes_it(folder: Path, command: str) -> None:
    text = " ".join(masksweep(command, "--help", cwd=folder).stdout.split())
    assert "--plugin FILE.py" in text
    assert "ata files are not sent" in text or "data files are not. May" in text


def test_a_node_on_which_another_module_has_the_name_of_a_file_refuses_it() -> None:
    """The node would import other code than the driver."""
    code = (
        "from masksweep.sweeps.components import plugins\n"
        "from masksweep.sweeps.components.plugin_files import Plugin\n"
        "plugins.load(Plugin('/nowhere', (('x.py', b'import json'), ('json.py', b''))))"
    )
    process = subprocess.run([sys.executable, "-P", "-c", code], capture_output=True, text=True)
    last = process.stderr.splitlines()[-1]
    assert last.endswith("--plugin=x.py: json.py: a module of this name is installed here")


LAYER = """
import keras

@keras.saving.register_keras_serializable("mine")
class Scale(keras.layers.Layer):
    def build(self, shape):
        self.scale = self.add_weight(shape=(shape[-1],), name="scale")

    def call(self, x):
        return x * self.scale
"""


@pytest.mark.slow  # two processes that load TensorFlow
def test_a_layer_alone_is_enough_and_belongs_to_the_identity(folder: Path) -> None:
    """A file with a layer that only a saved model needs."""
    layer = {"module": None, "class_name": "Scale", "config": {}, "registered_name": "mine>Scale"}
    with zipfile.ZipFile(folder / "net.keras", "w") as archive:
        archive.writestr("config.json", json.dumps(layer))
    chosen = ("model=keras_file", "model.path=net.keras")
    (folder / "layer.py").write_text(LAYER)
    found = set(ids(folder, *chosen))
    for text in (LAYER, LAYER.replace("x * self", "2 * x * self")):
        (folder / "layer.py").write_text(text)
        process = masksweep("plan", "--json", "--plugin", "layer.py", *chosen, cwd=folder)
        # Keras loads TensorFlow, which writes to stderr
        assert (process.returncode, process.stderr) == (0, "")
        found |= {trial["id"] for trial in json.loads(process.stdout)["trials"]}
    assert len(found) == 3
