"""The settings as a whole: every section, and the checks that compare one section with another.

Owns: the settings that stand in no section, the cross checks, and the printed form with secrets redacted.
Does not know: where the values come from (`sources`), or who reads them.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import Annotated, Any, Final, Literal

from pydantic import Field, ValidationError, ValidationInfo, field_validator, model_validator
from pydantic_settings import BaseSettings, InitSettingsSource, PydanticBaseSettingsSource, SettingsConfigDict

from rillcast.errors import SettingsError
from rillcast.settings import deprecated
from rillcast.settings.alarms import AlarmSettings
from rillcast.settings.anomalies import AnomalySettings
from rillcast.settings.dead_letters import DeadLetterSettings
from rillcast.settings.http import HttpSettings
from rillcast.settings.input import FILE_FORMATS, REGISTRY_FORMATS, TOPIC_FORMATS, InputSettings
from rillcast.settings.kafka import KafkaSettings
from rillcast.settings.log import LogSettings
from rillcast.settings.models import ModelTable, ModelText
from rillcast.settings.output import OutputSettings
from rillcast.settings.publish import PublishSettings
from rillcast.settings.registry import RegistrySettings
from rillcast.settings.rollout import RolloutSettings
from rillcast.settings.section import FilePath, named
from rillcast.settings.state import StateSettings
from rillcast.settings.worker import WorkerSettings

ENV_PREFIX: Final = "RILLCAST_"
MOST_MODELS: Final = 32


class Settings(BaseSettings):
    """All settings of `rillcast run`."""

    model_config = SettingsConfigDict(
        env_prefix=ENV_PREFIX,
        env_nested_delimiter="__",
        extra="forbid",
        frozen=True,
        nested_model_default_partial_update=True,
        use_attribute_docstrings=True,
    )

    model: ModelText = "universal:1h"
    """Bundle to serve. One of: a file; a shipped bundle by its frequency (`universal:1h`), which forecasts streams that
    it was not trained on; an alias or a model id of a registry (`s3://bucket/models@live`,
    `mlflow://host:5000/load@live`). The service follows an alias without a restart, see [rollout.md](rollout.md)."""
    models: tuple[ModelTable, ...] = ()
    """Several models in one service, in place of `model`: tables `[[models]]` in the settings file, a JSON list
    elsewhere. An event belongs to the first table that takes it. See [several-models.md](how-to/several-models.md)."""
    model_cache: FilePath = Path("~/.cache/rillcast/models")
    """Directory of bundles from a registry, named by the SHA-256 of their bytes. It may be emptied at any time."""
    device: Literal["auto", "cuda", "cpu"] = "auto"
    """Device of state and model; `auto` takes CUDA where it works, else the CPU."""
    threads: Annotated[int, Field(ge=1)] = 1
    """Threads of ONNX Runtime in one call."""
    cuda_graphs: bool | Literal["auto"] = "auto"
    """Captures each batch size of the step as a CUDA graph and replays it, which saves the launch of single kernels.
    `auto` = on CUDA, unless the model cannot be captured, which a log line says. `true` is an error where the device is
    not CUDA, and with an ONNX Runtime before 1.31. It has not been measured on a GPU yet."""
    tf32: bool = False
    """Lets CUDA round the factors of float32 products to TensorFloat-32 (10 bits of mantissa for 23), which may be
    faster on wide models and moves some forecasts by more than an export's tolerance. The CPU ignores it. Neither has
    been measured on a GPU yet."""
    calibration: Literal["on", "off"] = "on"
    """Corrects the forecasts of each stream by its past errors. The correction is learnt with `off` too."""
    secrets_dir: FilePath | None = None
    """Directory of files that each hold one setting and have its name (`kafka.sasl_password`), as Kubernetes and Docker
    mount secrets. They override the settings file; environment and flags override them."""
    input: InputSettings = InputSettings()
    registry: RegistrySettings = RegistrySettings()
    output: OutputSettings = OutputSettings()
    publish: PublishSettings = PublishSettings()
    dead_letters: DeadLetterSettings = DeadLetterSettings()
    anomalies: AnomalySettings = AnomalySettings()
    alarms: AlarmSettings = AlarmSettings()
    kafka: KafkaSettings = KafkaSettings()
    worker: WorkerSettings = WorkerSettings()
    state: StateSettings = StateSettings()
    rollout: RolloutSettings = RolloutSettings()
    http: HttpSettings = HttpSettings()
    log: LogSettings = LogSettings()

    @field_validator("*", mode="before")
    @classmethod
    def _named(cls, value: Any, info: ValidationInfo) -> Any:
        return named(cls, str(info.field_name), value)

    @classmethod
    def settings_customise_sources(
        cls,
        settings_cls: type[BaseSettings],
        init_settings: PydanticBaseSettingsSource,
        env_settings: PydanticBaseSettingsSource,
        dotenv_settings: PydanticBaseSettingsSource,  # noqa: ARG003  the signature is pydantic-settings'
        file_secret_settings: PydanticBaseSettingsSource,  # noqa: ARG003
    ) -> tuple[PydanticBaseSettingsSource, ...]:
        """Read the environment, in which settings may still have their old names."""
        environment = deprecated.translate(env_settings(), "the environment")
        return init_settings, InitSettingsSource(settings_cls, environment)

    @model_validator(mode="after")
    def _outputs_differ(self) -> Settings:
        if self.output.path == self.dead_letters.path:
            raise ValueError(f"output.path and dead_letters.path are both {self.output.path!r}")
        if self.output.codec == "avro" and self.registry.url is None:
            raise ValueError("output.codec is 'avro', which needs registry.url")
        if self.output.path is not None and self.output.codec != "json":
            raise ValueError(f"output.codec is {self.output.codec!r}, but output.path is a file, which takes json only")
        if self.output.shape == "rows" and self.output.codec not in ("json", "avro"):
            raise ValueError(f"output.shape is 'rows', which takes output.codec json or avro, not {self.output.codec}")
        if self.output.envelope == "connect" and (self.output.shape, self.output.codec) != ("rows", "json"):
            raise ValueError("output.envelope is 'connect', which needs output.shape 'rows' and output.codec 'json'")
        if self.output.envelope == "connect" and self.output.path is not None:
            raise ValueError("output.envelope is 'connect', but output.path is a file, not a topic of Kafka Connect")
        if self.input.path is None and self.output.path is None:
            topics = [self.input.topic, self.output.topic, self.dead_letters.topic]
            if len(set(topics)) != len(topics):
                raise ValueError(f"input.topic, output.topic and dead_letters.topic must differ, got {topics}")
            for name, topic in (("anomalies", self.anomalies.topic), ("alarms", self.alarms.topic)):
                if topic in topics:
                    raise ValueError(f"{name}.topic is {topic!r}, which is one of {topics}")
                if topic is not None:
                    topics.append(topic)
        return self

    @model_validator(mode="after")
    def _anomalies_and_alarms_go_where_the_forecasts_go(self) -> Settings:
        to_file = self.output.path is not None
        taken = [self.output.path, self.dead_letters.path]
        for name, section in (("anomalies", self.anomalies), ("alarms", self.alarms)):
            if to_file and section.topic is not None:
                raise ValueError(f"{name}.topic is set, but output.path is a file; use {name}.path")
            if not to_file and section.path is not None:
                raise ValueError(f"{name}.path is set, but forecasts go to a topic; use {name}.topic")
            if to_file and section.path is not None:
                if section.path in taken:
                    raise ValueError(f"{name}.path is {section.path!r}, as is the path of another output")
                taken.append(section.path)
        return self

    @model_validator(mode="after")
    def _revocation_ends_in_time(self) -> Settings:
        if self.worker.revoke_timeout_s > self.kafka.max_poll_interval_s / 2:
            raise ValueError(
                f"worker.revoke_timeout_s is {self.worker.revoke_timeout_s:g}, more than half of "
                f"kafka.max_poll_interval_s, {self.kafka.max_poll_interval_s:g}: the group would remove this member "
                f"while it commits; lower the first or raise the second"
            )
        return self

    @field_validator("models", mode="before")
    @classmethod
    def _models_of_text(cls, value: Any) -> Any:
        return json.loads(value) if isinstance(value, str) else value

    @model_validator(mode="after")
    def _models_are_several(self) -> Settings:
        if not self.models:
            return self
        names = [table.name for table in self.models]
        if twice := sorted({name for name in names if names.count(name) > 1}):
            raise ValueError(f"models: the name {twice[0]!r} stands twice; each table needs its own")
        if len(names) > MOST_MODELS:
            raise ValueError(f"models has {len(names)} tables, expected at most {MOST_MODELS}")
        if self.model != Settings.model_fields["model"].default:
            raise ValueError(f"model is {self.model!r} and models has tables; set one of them")
        for table in self.models:
            try:
                self.of_table(table)
            except ValidationError as error:
                raise ValueError(f"models.{table.name}: {error.errors(include_url=False)[0]['msg']}") from error
        if self.rollout.shadow is not None:
            raise ValueError("rollout.shadow is set and models has tables; set shadow in the table that it is for")
        return self

    @model_validator(mode="after")
    def _duplicates_need_allowed_lateness(self) -> Settings:
        if self.input.duplicates == "last_wins" and not self.input.allowed_lateness_periods:
            raise ValueError(
                "input.duplicates is 'last_wins', but input.allowed_lateness_periods is 0; "
                "set it to the periods by which a correction may be late, at least 1"
            )
        return self

    @model_validator(mode="after")
    def _silence_is_written_down(self) -> Settings:
        to_file = self.output.path is not None and self.state.store == "auto"
        if self.input.idle_s and (to_file or self.state.store == "none"):
            raise ValueError(
                "input.idle_s is set, but no state is stored: a restart could not close periods at the same point; set "
                "state.store to kafka or local"
            )
        if self.input.idle_s and self.worker.delivery == "exactly_once" and self.state.store == "local":
            raise ValueError(
                "input.idle_s and worker.delivery = 'exactly_once' need state.store = 'kafka': in a directory the "
                "decision to close a silent partition's periods is not in the transaction of their forecasts"
            )
        return self

    @model_validator(mode="after")
    def _input_can_be_read(self) -> Settings:
        given = self.input
        if given.path is None and given.format in FILE_FORMATS:
            raise ValueError(f"input.format is {given.format!r}, a format of files, but input.path is not set")
        if given.path is not None and given.format in TOPIC_FORMATS:
            raise ValueError(f"input.format is {given.format!r}, a format of topics, but input.path is {given.path!r}")
        if given.format in REGISTRY_FORMATS and self.registry.url is None:
            raise ValueError(f"input.format is {given.format!r}, which needs registry.url")
        if given.envelope == "none" and "$ce." in f"{given.fields.unique_id} {given.fields.ds}":
            raise ValueError("input.fields names a CloudEvents attribute ($ce), but input.envelope is 'none'")
        return self

    @property
    def served(self) -> tuple[ModelTable, ...]:
        """The tables of models; of a service with one model, a table without a name that takes every event."""
        if self.models:
            return self.models
        return (ModelTable.model_construct(name="", model=self.model, shadow=self.rollout.shadow, aggregate=None),)

    @property
    def one_model(self) -> str:
        """The model of a service that has one.

        Raises:
            SettingsError: There are tables of models.
        """
        if self.models:
            names = ", ".join(table.name for table in self.models)
            raise SettingsError(
                f"the settings have tables of models ({names}), but this command looks after one model; give it "
                f"settings without [[models]], and a model"
            )
        return self.model

    def with_models(self, models: Mapping[str, str]) -> Settings:
        """Return the settings with other models, by the name of their table; the only one has the empty name."""
        tables = tuple(
            each.model_copy(update={"model": models[each.name]}) if each.name in models else each
            for each in self.models
        )
        return self.model_copy(update={"model": models.get("", self.model), "models": tables})

    def of_table(self, table: ModelTable) -> Settings:
        """Return the settings of one table's model, as those of a service with that model alone."""
        given = self.input
        if table.aggregate is not None:
            given = InputSettings.model_validate({**given.model_dump(), "aggregate": table.aggregate})
        return self.model_copy(update={"model": table.model, "models": (), "input": given})

    @property
    def counts(self) -> bool:
        """Whether every model's events are counted, so that they need no `y`."""
        return all((table.aggregate or self.input.aggregate) == "count" for table in self.served)

    @property
    def state_topic(self) -> str:
        """The topic of the Kafka state store."""
        return self.state.topic or f"{self.kafka.group_id}-state"

    def redacted(self) -> dict[str, Any]:
        """Return the effective settings as plain JSON values, secrets as asterisks."""
        return self.model_dump(mode="json")
