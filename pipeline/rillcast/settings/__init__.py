"""The settings of the service: a module per section, their sources, and their former names.

Rule: a setting has a type, limits, a default and a docstring, and `docs/settings.md` is made of them. A docstring says
what the setting does, then unit and meaning of zero, then when to change it. No source accepts an unknown name.
Does not know: who reads a setting.
"""

from rillcast.settings.anomalies import AnomalySettings
from rillcast.settings.dead_letters import DeadLetterSettings
from rillcast.settings.http import HttpSettings
from rillcast.settings.input import FieldSettings, InputSettings
from rillcast.settings.kafka import KafkaSettings
from rillcast.settings.log import LogSettings
from rillcast.settings.models import ModelTable
from rillcast.settings.output import OutputSettings
from rillcast.settings.publish import PublishSettings
from rillcast.settings.registry import RegistrySettings
from rillcast.settings.rollout import RolloutSettings
from rillcast.settings.root import ENV_PREFIX, Settings
from rillcast.settings.section import setting_paths
from rillcast.settings.sources import DEFAULT_FILE, load
from rillcast.settings.state import StateSettings
from rillcast.settings.worker import WorkerSettings

__all__ = [
    "DEFAULT_FILE",
    "ENV_PREFIX",
    "AnomalySettings",
    "DeadLetterSettings",
    "FieldSettings",
    "HttpSettings",
    "InputSettings",
    "KafkaSettings",
    "LogSettings",
    "ModelTable",
    "OutputSettings",
    "PublishSettings",
    "RegistrySettings",
    "RolloutSettings",
    "Settings",
    "StateSettings",
    "WorkerSettings",
    "load",
    "setting_paths",
]
