"""What a command works with: the settings, the definitions that Dagster's services load, the instance."""

import contextlib
import dataclasses
import importlib
import pathlib
import tomllib
from collections.abc import Iterator
from typing import Any

import dagster as dg

from audio_assets import settings
from audio_assets.defs.resources import Bucket
from audio_assets.errors import ArgumentError


@dataclasses.dataclass(frozen=True)
class Project:
    """A project that is open.

    Attributes:
        instance: Dagster's.
        definitions: what the project defines.
        location: the name of its code location.
        resources: by name, as assets get them.
    """

    instance: dg.DagsterInstance
    definitions: dg.Definitions
    location: str
    resources: Any

    @property
    def bucket(self) -> Bucket:
        return self.resources.bucket


@contextlib.contextmanager
def open_project(definitions: dg.Definitions | None = None) -> Iterator[Project]:
    """Open the instance of DAGSTER_HOME and the project that pyproject.toml names.

    Args:
        definitions: in place of those that pyproject.toml names.

    Raises:
        ArgumentError: a setting is wrong.
    """
    about = _about(settings.PROJECT / "pyproject.toml")
    settings.open_dagster_home()
    definitions = definitions or _definitions(about["code_location_target_module"])
    by_name = definitions.get_repository_def().get_top_level_resources()
    with (
        dg.DagsterInstance.get() as instance,
        dg.build_resources(by_name, instance) as resources,
    ):
        yield Project(instance, definitions, about["code_location_name"], resources)


def _about(pyproject: pathlib.Path) -> dict[str, str]:
    """What `dg` goes by. An installed package has no pyproject.toml, and needs none."""
    default = {
        "code_location_name": "audio_assets",
        "code_location_target_module": "audio_assets.definitions",
    }
    if not pyproject.is_file():
        return default
    return default | tomllib.loads(pyproject.read_text())["tool"]["dg"]["project"]


def _definitions(module: str) -> dg.Definitions:
    """The definitions of a module, which has them under the name `defs`."""
    try:
        found = importlib.import_module(module).defs
        return found if isinstance(found, dg.Definitions) else found()
    except Exception as e:
        # Dagster wraps what the settings raise.
        wrong = next((cause for cause in _causes(e) if isinstance(cause, ArgumentError)), None)
        if wrong is None:
            raise
        raise wrong from None


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__
