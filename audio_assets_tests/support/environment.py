"""The environment that tests work in: none of the settings, AWS variables and files of whoever runs them."""

import os
from typing import TYPE_CHECKING

from audio_assets.settings import SETTINGS

# Benchmarks start the services in this environment too, and have no pytest.
if TYPE_CHECKING:
    import pytest

_SETTINGS = frozenset(setting.name for setting in SETTINGS)

NO_AWS_FILES = {
    # Nothing can lie below a device.
    "AWS_CONFIG_FILE": f"{os.devnull}/config",
    "AWS_SHARED_CREDENTIALS_FILE": f"{os.devnull}/credentials",
    # Outside of AWS, asking for the account of the machine takes seconds.
    "AWS_EC2_METADATA_DISABLED": "true",
}
"""What keeps AWS clients from `~/.aws` and from the machine's own account."""


def is_setting(name: str) -> bool:
    """Whether a variable changes what the project does, or how S3 is reached."""
    return name in _SETTINGS or name.startswith("AWS_")


def clear_settings(monkeypatch: "pytest.MonkeyPatch") -> None:
    """Unset the project's own settings, so that it has its defaults."""
    for name in _SETTINGS:
        monkeypatch.delenv(name, raising=False)


def clear_aws(monkeypatch: "pytest.MonkeyPatch") -> None:
    """Leave AWS clients without account, region or endpoint."""
    for name in [name for name in os.environ if name.startswith("AWS_")]:
        monkeypatch.delenv(name)
    for name, value in NO_AWS_FILES.items():
        monkeypatch.setenv(name, value)
