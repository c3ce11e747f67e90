"""Configs of an attacker who knows Hydra, YAML and NumPy well, and how each is refused."""

from __future__ import annotations

from masksweep.sweeps.composing import untrusted

THEIRS = "experiment/theirs.yaml"
GLOBAL = "# @package _global_\n"
RUNS = "{_target_: shutil.copyfile, src: secret, dst: stolen}"
LOGS = "{version: 1, handlers: {x: {'()': shutil.copyfile, src: secret, dst: stolen}}}"
CALLBACKS = f"hydra: {{callbacks: {{x: {RUNS}}}}}"
BOMB = "a0: &a0 [x]\n" + "".join(f"a{i}: &a{i} [*a{i - 1}, *a{i - 1}]\n" for i in range(1, 60))
CLAIM = "sweep: {claims: {a: {says: x, metric: test/loss, equals: 1, trials: {seed: %s}}}}"

CONTENTS: dict[str, dict[str, str]] = {
    "Hydra's own config is fixed here": {
        "callbacks": CALLBACKS,
        "a key of callbacks": f"hydra.callbacks.x: {RUNS}",
        "a key spelt otherwise": f'"h\\x79dra": {{callbacks: {{x: {RUNS}}}}}',
        "a tagged key": f"? !!str hydra\n: {{callbacks: {{x: {RUNS}}}}}",
        "a binary key": f"? !!binary aHlkcmE=\n: {{callbacks: {{x: {RUNS}}}}}",
        "a merged key": f"x: &x {{hydra: {{callbacks: {{x: {RUNS}}}}}}}\n<<: *x",
        "logging": f"hydra: {{job_logging: {LOGS}}}",
        "hydra's logging": f"hydra: {{hydra_logging: {LOGS}}}",
        "sweeper": f"hydra: {{sweeper: {RUNS}}}",
        "launcher": f"hydra: {{launcher: {RUNS}}}",
        "search path of a package": "hydra: {searchpath: [pkg://os]}",
        "search path of files": "hydra: {searchpath: [file:///]}",
        "where a sweep writes": "hydra: {sweep: {dir: stolen}}",
        "where a run writes": "hydra: {run: {dir: stolen}, output_subdir: stolen}",
        "a folder to change to": "hydra: {job: {chdir: true}}",
        "an environment": "hydra: {job: {env_set: {LD_PRELOAD: theirs.so}}}",
        "an environment to copy": "hydra: {job: {env_copy: [HOME]}}",
        "a mode": "hydra: {mode: RUN}",
        "launcher by default": "defaults: [{override /hydra/launcher: basic}]",
        "sweeper by default": "defaults: [{override /hydra/sweeper: basic}]",
        "logging by default": "defaults: [{override /hydra/job_logging: default}]",
        "callbacks by default": "defaults: [{optional /hydra/callbacks: theirs}]",
        "package of a default": f"defaults: [/data/digits@hydra.callbacks.x]\nx: {RUNS}",
        "a part that sets it": "sweep: {parts: {a: {+hydra.callbacks.x: 1}}}",
        "a part that drops it": "sweep: {parts: {a: {~hydra: null}}}",
        "a part that chooses a launcher": "sweep: {parts: {a: {hydra/launcher: basic}}}",
        "a part that packs a group there": "sweep: {parts: {a: {+data@hydra.x: digits}}}",
    },
    "defaults are names of configs": {
        "a parent folder": "defaults: [../../elsewhere/runs]",
        "a parent folder of the root": "defaults: [/../elsewhere/runs]",
        "a parent folder on the way": "defaults: [/data/../../elsewhere/runs]",
        "a parent folder of a group": "defaults: [{/data: ../../elsewhere/runs}]",
        "a parent folder among others": "defaults: [{/data: [digits, ../../elsewhere/runs]}]",
        "a parent folder, if there": "defaults: [optional ../../elsewhere/runs]",
        "an absolute path": "defaults: [//etc/passwd]",
        "a package": "defaults: [/data/digits@tracking]",
        "a package of a group": "defaults: [{/data@_global_: digits}]",
        "a variable": "defaults: [{/data: '${oc.env:HOME}'}]",
        "a choice": "defaults: [{/data: '${data}'}]",
        "a scheme": "defaults: [file://etc/passwd]",
        "other separators": "defaults: ['..\\..\\elsewhere\\runs']",
    },
    "no key that says what to call": {
        "a target": RUNS,
        "a model": f"model: {RUNS}",
        "a model with a name": "model: {name: mlp, _target_: os.system, _args_: [touch ran]}",
        "deep in a claim": CLAIM % RUNS,
        "in a part": f"sweep: {{parts: {{a: {{seed: [{RUNS}]}}}}}}",
        "partial": "optimizer: {_partial_: true}",
        "recursive": "optimizer: {_recursive_: true}",
        "arguments": "data: {_args_: [touch ran]}",
        "converted": "data: {_convert_: all}",
        "a layer": "model: {layers: [{_target_: keras.layers.Lambda}]}",
    },
    "no resolvers or other references": {
        "the environment": "sweep: {question: '${oc.env:HOME}'}",
        "the environment, else": "sweep: {question: '${oc.env:NOTHING,${oc.env:HOME}}'}",
        "decoded": "seed: ${oc.decode:'1'}",
        "created": "sweep: ${oc.create:{page:leaks}}",
        "selected": "seed: ${oc.select:seed}",
        "of Hydra's": "sweep: {question: '${hydra:runtime.cwd}'}",
        "of Hydra's config": "sweep: {question: '${hydra.runtime.cwd}'}",
        "time": "sweep: {name: '${now:%Y}'}",
        "one that is named elsewhere": "sweep: {name: oc.env, question: '${${sweep.name}:HOME}'}",
        "one that is half named": "sweep: {name: env, question: '${oc.${sweep.name}:HOME}'}",
        "with spaces": "sweep: {question: '${ oc.env : HOME }'}",
        "over lines": 'sweep: {question: "${oc.env\\n:HOME}"}',
        "as a key": "sweep: {claims: {'${oc.env:HOME}': 1}}",
        "escaped in a part": r"sweep: {parts: {a: {sweep.page: '$\{oc.env\:HOME\}'}}}",
        "escaped for one more": r"sweep: {question: '\${oc.env:HOME}'}",
        "in a part's key": "sweep: {parts: {a: {'sweep.page=${oc.env:HOME}': 1}}}",
        "as bytes": "sweep: {question: !!binary JHtvYy5lbnY6SE9NRX0=}",
        "a password of the command line": "sweep: {question: '${tracking.uri}'}",
        "ever longer ones": "".join(f"a{i}: '${{a{i + 1}}}${{a{i + 1}}}'\n" for i in range(60)),
    },
    "not readable as YAML": {
        "python": "seed: !!python/object/apply:shutil.copyfile [secret, stolen]",
        "python's name": "model: !!python/name:os.system ''",
        "python's new": "seed: !!python/object/new:os.system [touch ran]",
        "a tag that Hydra takes": "seed: !!python/object/apply:pathlib.Path [/etc/passwd]",
        "another tag": "seed: !run touch ran",
        "a tag without a value": 'seed: !!int ""',
        "no date": "seed: 2001-99-99",
        "too long a number": "seed: " + 10_000 * "9",
        "one that is not written out": "seed: 0x" + 10_000 * "F",
        "two documents": "seed: 1\n---\nseed: 2",
        "too deep": "a: " + 3000 * "[" + 3000 * "]",
        "too deep in lines": 3000 * "- " + "x",
        "aliases of aliases": BOMB,
        "an alias that holds itself": "a: &a [*a]",
        "many aliases of much": f"a: &a {'x' * 1000}\nb: [{500 * '*a, '}]",
        "no YAML": "seed: [1",
    },
    "has 262167 bytes, more than 262144 bytes": {
        "too large": f"x: {'x' * (untrusted.MAX_CONFIG_BYTES)}",
    },
    "has more than 5,000 values": {
        "a long list": f"targets: [{'a,' * 100_000}]",
        "a long list of lists": f"targets: [{'[],' * 50_000}]",
    },
    "must be keys and values": {"a list": "- seed", "a word": "seed"},
    "no control characters": {
        "a terminal's": 'sweep: {question: "\\e]52;c;eA==\\a"}',
        "no character": 'pattern: {name: file, path: "a\\0b"}',
    },
}
"""Contents of the file `THEIRS` after its package line, by the reason why they are refused."""
FOLDERS: dict[str, tuple[dict[str, str | bytes], str]] = {
    "a package": (
        {"experiment/theirs.yaml": f"# @package hydra.callbacks.x\n{RUNS}"},
        "--config-dir=configs/experiment/theirs.yaml: Hydra's own config",
    ),
    "a package within another": (
        {"experiment/theirs.yaml": f"# @package x_global__hydra.callbacks.x\n{RUNS}"},
        "--config-dir=configs/experiment/theirs.yaml: Hydra's own config",
    ),
    "a package after a line that only Hydra sees": (
        {"experiment/theirs.yaml": f"# @a b\u2028# @package hydra.callbacks.x\n{RUNS}"},
        "--config-dir=configs/experiment/theirs.yaml: Hydra's own config",
    ),
    "a package after another such line": (
        {"experiment/theirs.yaml": f"# @a b\x85# @package hydra.callbacks.x\n{RUNS}"},
        "--config-dir=configs/experiment/theirs.yaml: Hydra's own config",
    ),
    "a package's name is missing": (
        {"experiment/theirs.yaml": "# @package\nseed: 1"},
        "config=: Expected header format",
    ),
    "a folder of Hydra's": (
        {"hydra/job_logging/none.yaml": "version: 1", "experiment/theirs.yaml": GLOBAL},
        "--config-dir=configs/hydra/job_logging/none.yaml: Hydra's own config",
    ),
    "a folder whose package is Hydra's": (
        {"x_global__hydra/callbacks/theirs.yaml": RUNS, "experiment/theirs.yaml": GLOBAL},
        "--config-dir=configs/x_global__hydra/callbacks/theirs.yaml: Hydra's own config",
    ),
    "a folder of Hydra's where case does not count": (
        {"Hydra/launcher/masksweep.yaml": RUNS, "experiment/theirs.yaml": GLOBAL},
        "--config-dir=configs/Hydra/launcher/masksweep.yaml: Hydra's own config",
    ),
    "a file that is not chosen": (
        {"model/z.yaml": CALLBACKS, "experiment/theirs.yaml": GLOBAL},
        "--config-dir=configs/model/z.yaml: Hydra's own config",
    ),
    "another ending": (
        {"experiment/theirs.yaml": GLOBAL, "experiment/other.YML": GLOBAL + CALLBACKS},
        "--config-dir=configs/experiment/other.YML: Hydra's own config",
    ),
    "an odd name": (
        {"experiment/theirs.yaml": GLOBAL, "experiment/a\x1b[2J\n@$ é'\".yaml": CALLBACKS},
        "--config-dir=configs/experiment/a [2J @$ é'\".yaml: Hydra's own config",
    ),
    "no text": (
        {"experiment/theirs.yaml": GLOBAL.encode() + b"seed: \xff"},
        "--config-dir=configs/experiment/theirs.yaml: not readable as YAML: 'utf-8'",
    ),
    "text of another kind": (
        {"experiment/theirs.yaml": (GLOBAL + CALLBACKS).encode("utf-16")},
        "--config-dir=configs/experiment/theirs.yaml: not readable as YAML: 'utf-8'",
    ),
    "a key twice": (
        {"experiment/theirs.yaml": f"{GLOBAL}seed: 1\nseed: 2"},
        "config=: while constructing a mapping",
    ),
    "a shadow of the default config": (
        {"config.yaml": "seed: 7", "experiment/theirs.yaml": GLOBAL},
        "--config-dir=configs/config.yaml: Masksweep has a config of this name",
    ),
    "a shadow of a strategy": (
        {"strategy/weight_mask.yaml": "name: dense", "experiment/theirs.yaml": GLOBAL},
        "--config-dir=configs/strategy/weight_mask.yaml: Masksweep has a config of this name",
    ),
    "a shadow of the store": (
        {"tracking/default.yaml": "uri: http://127.0.0.1:1", "experiment/theirs.yaml": GLOBAL},
        "--config-dir=configs/tracking/default.yaml: Masksweep has a config of this name",
    ),
}
"""Contents of files by their path in the config folder, and how the error message begins."""
LEADS: dict[str, dict[str, str]] = {
    "to themselves": {"theirs.yaml": "defaults: [/experiment/theirs]"},
    "back": {
        "theirs.yaml": "defaults: [{other: [a]}]",
        "other/a.yaml": "defaults: [optional b]",
        "other/b.yaml": "defaults: [{/experiment: theirs}]",
    },
    "too far": {f"{i or 'theirs'}.yaml": f"defaults: [{i + 1}]" for i in range(2000)},
    "too often": {
        f"{i or 'theirs'}.yaml": f"defaults: [{i + 1}, {{/experiment: {i + 1}.yaml}}]"
        for i in range(60)
    },
}
"""Experiments whose defaults lists never end, or grow too large, by the files' names."""
SENT = "must be on the command line, with --config-dir"
OVERRIDDEN = "defaults: [{override /pattern: %s}]\n"
DATA = "defaults: [{override /data: %s}]\n"
READ = "must be in configs, or on the command line, with --config-dir"
SETTINGS: dict[str, tuple[str, str]] = {
    "a store": (
        "tracking: {uri: 'http://me:pass@127.0.0.1:1'}", f"tracking.uri=http://127.0.0.1:1: {SENT}"
    ),
    "a store in a file": (
        "tracking: {uri: 'sqlite:////tmp/x.db'}", f"tracking.uri=sqlite:////tmp/x.db: {SENT}"
    ),
    "no store": ("tracking: {uri: ''}", f"tracking.uri=: {SENT}"),
    "a cluster": ("launch: {address: 'ray://127.0.0.1:1'}", "launch.address=ray://127.0.0.1:1: "),
    "the cluster here": ("launch: {address: auto}", f"launch.address=auto: {SENT}"),
    "a place for checkpoints": ("checkpoint: {path: /tmp}", f"checkpoint.path=/tmp: {SENT}"),
    "a bucket": ("checkpoint: {path: 's3://theirs/x'}", f"checkpoint.path=s3://theirs/x: {SENT}"),
    "a store by a part": (
        "sweep: {parts: {a: {tracking.uri: 'http://x'}}}", f"tracking.uri=http://x: {SENT}"
    ),
    "a store by a part's mapping": (
        "sweep: {parts: {a: {tracking: '{uri: there}'}}}", f"tracking.uri=there: {SENT}"
    ),
    "a store by a part that insists": (
        "sweep: {parts: {a: {++tracking.uri: 'http://x'}}}", f"tracking.uri=http://x: {SENT}"
    ),
    "a group that is a store": ("defaults: [{override /tracking: them}]", "tracking.uri=there: "),
    "a group that is put into a store": (
        "sweep: {parts: {a: {+mine@tracking: them}}}", f"tracking.uri=there: {SENT}"
    ),
    "an absolute path": ("pattern: /etc/passwd", f"pattern.path=/etc/passwd: {READ}"),
    "a parent's path": ("pattern: configs/../mine.npz", "pattern.path=configs/../mine.npz: "),
    "a file of your own": ("pattern: mine.npz", f"pattern.path=mine.npz: {READ}"),
    "a home": ("pattern: ~/mine.npz", f"pattern.path=~/mine.npz: {READ}"),
    "an address": ("pattern: http://127.0.0.1/a.npz", "pattern.path=http://127.0.0.1/a.npz: must"),
    "a device": ("pattern: /dev/zero", f"pattern.path=/dev/zero: {READ}"),
    "a link to a file": ("pattern: configs/link.npz", f"pattern.path=configs/link.npz: {READ}"),
    "a link to itself": ("pattern: configs/loop.npz", "pattern.path=configs/loop.npz: "),
    "too long a path": (f"pattern: configs/{'a' * 300}", f"pattern.path=configs/{'a' * 192}"),
    "a list for a path": ("pattern: [configs/masks.npz]", "pattern.path=['configs/masks.npz']: "),
    "a model elsewhere": (
        "model: {name: keras_file, path: mine.keras}",
        f"model.path=mine.keras: {READ}",
    ),
    "a pipe for a model": (
        "defaults: [{override /model: keras_file}]\nmodel: {path: configs/pipe.keras}",
        "model.path=configs/pipe.keras: no such file",
    ),
    "a model of holes": (
        "defaults: [{override /model: keras_file}]\nmodel: {path: configs/holes.keras}",
        "model.path=configs/holes.keras: more than 2",
    ),
    "a model with code": (
        "defaults: [{override /model: keras_file}]\nmodel: {path: configs/lambda.keras}",
        "model.path=configs/lambda.keras: has a Lambda, which may bring code",
    ),
    "a start elsewhere": ("start: {path: mine.keras}", f"start.path=mine.keras: {READ}"),
    "a start with code": (
        "start: {path: configs/lambda.keras}", "start.path=configs/lambda.keras: has a Lambda, whi"
    ),
    "a start of holes": ("start: {path: configs/holes.keras}", "start.path=configs/holes.keras: "),
    "a pipe for a start": ("start: {path: configs/pipe.keras}", "start.path=configs/pipe.keras: "),
    "a start from a run": (f"start: {{run: {32 * 'a'}}}", f"start.run={32 * 'a'}: {SENT}"),
    "a start from a run by a part": (
        f"sweep: {{parts: {{a: {{start.run: {32 * 'a'}}}}}}}", f"start.run={32 * 'a'}: {SENT}"
    ),
    "a start from what is no run": ("start: {run: configs}", f"start.run=configs: {SENT}"),
    "masks of a schedule elsewhere": (
        "schedule: {name: given, path: mine.npz}", f"schedule.path=mine.npz: {READ}"
    ),
    "held values elsewhere": ("held: {name: file, path: mine.npz}", f"held.path=mine.npz: {READ}"),
    "data elsewhere": (
        "data: {name: npz, path: mine.npz}", f"data.path=mine.npz: {READ}"
    ),
    "rows elsewhere": (
        "data: {name: csv, path: /etc/passwd, target: root}", f"data.path=/etc/passwd: {READ}"
    ),
    "images elsewhere": (
        "data: {name: keras, path: /usr/share}", f"data.path=/usr/share: {READ}"
    ),
    "pictures elsewhere": (
        DATA % "image_folder" + "data: {path: /usr/share}", f"data.path=/usr/share: {READ}"
    ),
    "links to pictures": (
        DATA % "image_folder" + "data: {path: configs/images}",
        "data.path=configs/images: train/a/link.png must be a picture",
    ),
    "rows of an address": (
        "data: {name: csv, path: 'http://127.0.0.1/a.csv', target: a}", "data.path=http://127.0.0.1"
    ),
    "pickled data": (
        DATA % "npz" + "data: {path: configs/pickled.npz}", "data.path=configs/pickled.npz: holds p"
    ),
    "far more data": (
        DATA % "npz" + "data: {path: configs/bomb.npz}", "data.path=configs/bomb.npz: more than 2"
    ),
    "a pipe for data": (
        DATA % "csv" + "data: {path: configs/pipe.npz, target: a}", "data.path=configs/pipe.npz: no"
    ),
    "a path by a part": (
        "sweep: {parts: {a: {pattern: file, pattern.path: mine.npz}}}",
        f"pattern.path=mine.npz: {READ}",
    ),
    "weights elsewhere": (
        OVERRIDDEN % "smallest" + "pattern: {path: mine.npz}", f"pattern.path=mine.npz: {READ}"
    ),
    "edges elsewhere": (
        OVERRIDDEN % "edges" + "pattern: {path: /etc/a.csv}", f"pattern.path=/etc/a.csv: {READ}"
    ),
    "masks in a pattern's part": (
        OVERRIDDEN % "union" + "pattern: {of: [random, {name: file, path: mine.npz}]}",
        f"pattern.of.1.path=mine.npz: {READ}",
    ),
    "masks by weight": (
        OVERRIDDEN % "by_weight" + "pattern: {of: {a/*: {name: file, path: mine.npz}}}",
        f"pattern.of.a/*.path=mine.npz: {READ}",
    ),
    "masks by globs with dots, so that two have one key": (
        OVERRIDDEN % "by_weight"
        + "pattern: {of: {h*.of: {name: file, path: configs/masks.npz},"
        + " h*: {name: complement, of: {name: file, path: mine.npz}}}}",
        f"pattern.of.h*.of.path=mine.npz: {READ}",
    ),
    "masks by pairs": (
        OVERRIDDEN % "by_weight" + "pattern: {of: [[name, {name: file, path: mine.npz}]]}",
        f"pattern.of.0.1.path=mine.npz: {READ}",
    ),
    "masks in a part of a part": (
        OVERRIDDEN % "complement"
        + "pattern: {of: {name: complement, of: {name: file, path: /etc/a.npz}}}",
        f"pattern.of.of.path=/etc/a.npz: {READ}",
    ),
    "a list for the path of a part": (
        OVERRIDDEN % "complement" + "pattern: {of: {name: file, path: [mine.npz]}}",
        "pattern.of.path=['mine.npz']: ",
    ),
    "data of earlier rounds": (
        "defaults: [{override /pattern: magnitude}]\n"
        "pattern: {rounds: 2, round: 0, found_with: {data: {name: csv, path: a.csv, target: b}}}",
        "pattern.found_with.data.path=a.csv: must be left out",
    ),
    "a folder for masks": ("pattern: configs/experiment", "pattern.path=configs/experiment: no s"),
    "a pipe for masks": ("pattern: configs/pipe.npz", "pattern.path=configs/pipe.npz: no such"),
    "pickled masks": ("pattern: configs/pickled.npz", "pattern.path=configs/pickled.npz: holds p"),
    "a pickle for masks": ("pattern: configs/pickle.npz", "pattern.path=configs/pickle.npz: not"),
    "code for masks": ("pattern: configs/code.npz", "pattern.path=configs/code.npz: not a reada"),
    "far more masks": ("pattern: configs/bomb.npz", "pattern.path=configs/bomb.npz: more than 2"),
    "a file of holes": ("pattern: configs/holes.npz", "pattern.path=configs/holes.npz: more than"),
    "masks of any shape": ("pattern: configs/shape.npz", "pattern.path=configs/shape.npz: not a"),
    "a part's path to a config": (
        "sweep: {parts: {a: {data: ../../elsewhere/runs}}}", "data=../../elsewhere/runs: a config"
    ),
    "a part's quoted path": (
        "sweep: {parts: {a: {data: \"'../../elsewhere/runs'\"}}}", "data=../../elsewhere/runs: a c"
    ),
    "a part's group by path": (
        "sweep: {parts: {a: {+experiment: [../../elsewhere/runs]}}}", "experiment=../../elsewhere"
    ),
    "more trials than there can be": (
        "sweep: {parts: {a: {seed: 'range(0, 1000000000000)'}}}", "seed=range(0, 1000000000000): "
    ),
    "as many, shuffled": (
        "sweep: {parts: {a: {seed: 'shuffle(range(-1e5, 1e15, 0.001))'}}}", "seed=shuffle(range("
    ),
    "as many, by lists": (
        f"sweep: {{parts: {{a: {{{', '.join(f'k{i}: [1, 2]' for i in range(99))}}}}}}}", "sweep=a: "
    ),
    "a callable's name": ("model: {name: os.system}", "model.name=os.system: unknown; one of"),
    "a kind of layer": ("model: {name: Lambda}", "model.name=Lambda: unknown; one of"),
    "a model in a file": ("model: {name: mlp, config: x.keras}", "model.config=x.keras: unknown"),
    "a strategy by path": ("strategy: {name: ../../x}", "strategy.name=../../x: unknown; one of"),
    "a module of a strategy": ("strategy: {name: strategies.dense}", "strategy.name=strategies.d"),
    "an optimizer by module": ("optimizer: {name: keras.optimizers.Adam}", "optimizer.name=keras"),
    "an unknown optimizer": ("optimizer: {name: theirs}", "optimizer.name=theirs: unknown; one of"),
    "an activation by module": ("model: {activation: os.system}", "model.activation=os.system: "),
    "an initializer by module": ("model: {init: os.system}", "model.init=os.system: "),
    "a constraint by module": ("model: {constraint: os.system}", "model.constraint=os.system: "),
    "data by path": ("data: {name: /etc/passwd}", "data.name=/etc/passwd: unknown; one of"),
    "a page by path": ("sweep: {page: /etc/passwd}", "sweep.page=/etc/passwd: input should be"),
    "a metric by module": ("objective: os.system", "objective=os.system: must be one of"),
    "a section of your own": ("plugins: [os]", "plugins=['os']: unknown key"),
    "code for a number": ("seed: __import__('os').system('touch ran')", "seed=__import__('os')"),
    "bytes for a number": ("seed: !!binary aGk=", "seed=b'hi': input should be"),
    "a section in rounds before": (
        "defaults: [{override /pattern: magnitude}]\n"
        "pattern: {rounds: 2, round: 0, found_with: {tracking: {uri: there}}}",
        "pattern.found_with.tracking=",
    ),
}  # fmt: skip
"""Contents of the file `THEIRS` after its package line, and how the error message begins."""
HARMLESS: dict[str, str] = {
    "a name that is a path": "sweep: {name: ../../../stolen}",
    "a name that is markup": "sweep: {name: <script>alert(1)</script>}",
    "a claim about a file": CLAIM.replace("seed: %s", "pattern.path: [/etc/passwd]"),
    "a question with a resolver's words": "sweep: {question: 'oc.env:HOME, $HOME, ~, `id`, $(id)'}",
    "globs that take long": f"targets: ['{5000 * '*a'}']",
    "a function in a part": "sweep: {parts: {a: {seed: 'int(\"7\")'}}}",
}
"""Contents of the file `THEIRS` after its package line that are allowed: they do no harm."""
