"""The map of the package (README, "The map") holds: who imports whom, and which library stays in which file."""

import ast
import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

REPO = Path(__file__).parents[1]
PACKAGE = REPO / "imagen_jax"
FILES = sorted(PACKAGE.rglob("*.py"))
CONFIGS = sorted((REPO / "configs").glob("*.py"))
LAUNCH = sorted((REPO / "launch").glob("*.py"))

BASE = {"types", "errors", "registry", "files", "storage", "fields", "terminal", "hosts", "resize", "json_values"}
PARTS = {"diffusion", "models", "text", "data"}
RUNS = {"training", "sampling"}
# What each folder or file of the package may import from the package, besides itself. What isn't listed is a main.
ALLOWED = {
    "__init__": set(),
    **dict.fromkeys(
        BASE | PARTS | {"__main__", "resolve", "config", "shared_flags", "jax_settings", "foreign_flags"}, BASE
    ),
    "conditions": BASE | {"diffusion"},
    "clip": BASE | {"text"},
    **dict.fromkeys(RUNS, BASE | PARTS | {"conditions", "clip"}),
    "planning": BASE | PARTS | {"training"},
    **dict.fromkeys(
        ("evaluation", "interop"), BASE | PARTS | {"conditions", "clip"} | RUNS | {"evaluation", "interop"}
    ),
}
ALLOWED["config_fields"] = BASE | {"resolve", "models", "sampling"}
ALLOWED["config"] = BASE | {"resolve", "config_fields", "sampling"}
ALLOWED["build"] = set(ALLOWED) - {
    "__init__",
    "shared_flags",
    "config",
    "config_fields",
    "jax_settings",
    "foreign_flags",
    "evaluation",
}
# The command line: cli runs a main, and each of the others is one of its concerns.
ALLOWED["config_flag"] = BASE
ALLOWED["flag_help"] = BASE | {"shared_flags"}
ALLOWED["flag_parsing"] = BASE | {"config_flag", "flag_help", "foreign_flags"}
ALLOWED["cli"] = BASE | {"flag_parsing", "jax_settings"}
ALLOWED["evaluators"] = ALLOWED["build"] | {"build", "evaluation"}
ALLOWED["trained"] = ALLOWED["build"] | {"build", "workdir"}
ALLOWED["sampling_flags"] = BASE | {"shared_flags", "sampling"}
ALLOWED["workdir"] = BASE | {"config", "sampling", "text"}
FOR_MAINS = set(ALLOWED) - {"__init__"}

# A library -> the folders and files of the package that may import it.
CONFINED = {
    "orbax": {"training/checkpoint.py"},
    "sentencepiece": {"text/tokenizer.py"},
    "tokenizers": {"text/tokenizer.py", "clip/tokenizer.py"},
    "transformers": set(),
    "ml_collections": {"config.py", "config_flag.py", "flag_help.py", "flag_parsing.py"},
    "tensorflow": set(),
    "torch": set(),
}


def imports(path: Path) -> Iterator[str]:
    """Every module that a file imports, at any depth: "a.b" for `import a.b`, "a.b.c" for `from a.b import c`."""
    for node in ast.walk(ast.parse(path.read_text("utf-8"))):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom):
            assert node.level == 0, f"{path}: relative import"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def part(path: Path) -> str:
    """ "diffusion" for imagen_jax/diffusion/samplers.py, "errors" for imagen_jax/errors.py."""
    return path.relative_to(PACKAGE).with_suffix("").parts[0]


def is_main(path: Path) -> bool:
    return path.parent == PACKAGE and path.stem not in ALLOWED


def name_of(path: Path) -> str:
    return path.relative_to(REPO).as_posix()


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_a_file_imports_only_from_below(path: Path):
    allowed = FOR_MAINS if is_main(path) else ALLOWED[part(path)] | {part(path)}
    # The second part of "imagen_jax.data.pipeline"; a bare "imagen_jax" has none, and no file needs it.
    own = {name.split(".")[1] for name in imports(path) if name.startswith("imagen_jax.")}
    assert own <= allowed, f"imports {sorted(own - allowed)}"


@pytest.mark.parametrize("path", CONFIGS, ids=name_of)
def test_a_config_file_needs_no_command_line(path: Path):
    assert not any(name.startswith("imagen_jax.cli") for name in imports(path))


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_libraries_stay_where_they_belong(path: Path):
    libraries = {name.split(".")[0] for name in imports(path)}
    place = path.relative_to(PACKAGE).as_posix()
    for library, places in CONFINED.items():
        allowed = place in places or (library == "ml_collections" and is_main(path))
        assert library not in libraries or allowed, f"imports {library}"
    if part(path) == "diffusion":
        assert libraries <= {"jax", "numpy", "imagen_jax", *sys.stdlib_module_names}


@pytest.mark.parametrize("path", [p for p in FILES if is_main(p)], ids=name_of)
def test_every_other_module_at_the_top_is_a_main(path: Path):
    assert "cli.run(main)" in path.read_text("utf-8")


@pytest.mark.parametrize("path", FILES, ids=name_of)
def test_the_package_knows_nothing_of_how_it_is_launched(path: Path):
    assert not any(name.split(".")[0] == "launch" for name in imports(path))


@pytest.mark.parametrize("path", LAUNCH, ids=name_of)
def test_launching_needs_the_command_line_and_the_configs_only(path: Path):
    own = {name.split(".")[1] for name in imports(path) if name.startswith("imagen_jax.")}
    assert own <= {"build", "cli", "config", "errors", "evaluators", "files", "registry", "shared_flags"}
    if path.stem in ("answers", "gcloud", "pod", "states"):  # pure
        assert {name.split(".")[0] for name in imports(path)} <= {
            *("collections", "dataclasses", "enum", "json", "re", "shlex", "typing", "imagen_jax", "launch")
        }


@pytest.mark.parametrize("path", [*FILES, *CONFIGS, *LAUNCH, *sorted((REPO / "tests").rglob("*.py"))], ids=name_of)
def test_files_stay_small_and_finished(path: Path):
    text = path.read_text("utf-8")
    assert len(text.splitlines()) < 400
    marker = "TO" + "DO"
    assert marker not in text


# Imports each module it is given and prints which libraries that loaded. The mains define flags of the same names, so
# each one's are forgotten before the next.
IMPORT_ALL = """
import importlib, sys
from absl import flags

for module in sys.argv[1:]:
    before = set(flags.FLAGS)
    importlib.import_module(module)
    if module.count(".") == 1:
        for name in set(flags.FLAGS) - before:
            delattr(flags.FLAGS, name)
print(*sorted({"tensorflow", "torch"} & set(sys.modules)))
"""


def test_importing_everything_loads_neither_tensorflow_nor_torch(tmp_path: Path):
    # Empty stand-ins, found before an installed one: without them a tried import of a missing library leaves no trace.
    (tmp_path / "tensorflow.py").touch()
    modules = [".".join(path.relative_to(REPO).with_suffix("").parts).removesuffix(".__init__") for path in FILES]
    done = subprocess.run(
        [sys.executable, "-c", IMPORT_ALL, *modules],
        cwd=REPO,
        env=os.environ | {"PYTHONPATH": os.pathsep.join([str(tmp_path), str(REPO)])},
        capture_output=True,
        text=True,
        check=False,
        timeout=120,
    )
    assert done.returncode == 0, done.stderr
    assert done.stdout.split() == []
