from __future__ import annotations

import json
import re
from pathlib import Path
from typing import Any

import pytest

from rillcast import cli, settings
from rillcast.errors import SettingsError
from rillcast.settings import Settings, setting_paths


def effective(capsys: pytest.CaptureFixture[str], *flags: str) -> dict[str, Any]:
    assert cli.main(["config", "--json", *flags]) == 0
    loaded: dict[str, Any] = json.loads(capsys.readouterr().out)
    return loaded


def test_flags_beat_environment_beats_file_beats_defaults(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    assert effective(capsys)["kafka"]["group_id"] == "rillcast"
    (clean / "rillcast.toml").write_text('[kafka]\ngroup_id = "file"\nbootstrap_servers = "file:1"\nclient = "auto"\n')
    assert effective(capsys)["kafka"]["group_id"] == "file"
    monkeypatch.setenv("RILLCAST_KAFKA__GROUP_ID", "environment")
    assert effective(capsys)["kafka"]["group_id"] == "environment"
    merged = effective(capsys, "--kafka.group-id", "flag")["kafka"]
    assert merged["group_id"] == "flag"
    assert merged["bootstrap_servers"] == "file:1", "a flag must not hide the rest of the section"


def test_a_named_file_replaces_the_default_one(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    (clean / "rillcast.toml").write_text("threads = 2\n")
    (clean / "other.toml").write_text("threads = 3\n")
    assert effective(capsys, "--config", "other.toml")["threads"] == 3


@pytest.mark.parametrize(
    ("text", "key"),
    [
        ("thread = 2", "thread"),
        ('[kafka]\nbootstrap_server = "x"', "kafka.bootstrap_server"),
        ("[kafk]\n", "kafk"),
        ("threads = 0", "threads"),
        ('device = "tpu"', "device"),
        ("[worker]\ncommit_interval_s = -1", "worker.commit_interval_s"),
    ],
)
def test_unknown_key_or_wrong_value_in_the_file_is_an_error(clean: Path, text: str, key: str) -> None:
    (clean / "rillcast.toml").write_text(text)
    with pytest.raises(SettingsError, match=key):
        settings.load()


@pytest.mark.parametrize("name", ["RILLCAST_KAFKA__BOOTSTRAP_SERVER", "RILLCAST_THREAD", "RILLCAST_KAFKA_CLIENT"])
def test_unknown_variable_in_the_environment_is_an_error(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv(name, "x")
    with pytest.raises(SettingsError):
        settings.load()


def test_text_that_is_no_toml_is_an_error(clean: Path) -> None:
    (clean / "rillcast.toml").write_text("this is not toml")
    with pytest.raises(SettingsError, match=r"rillcast\.toml"):
        settings.load()


def test_absent_named_file_is_an_error(capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--config", "absent.toml"]) == 2
    assert "absent.toml" in capsys.readouterr().err


def test_unknown_flag_ends_with_2(capsys: pytest.CaptureFixture[str]) -> None:
    with pytest.raises(SystemExit) as ended:
        cli.main(["config", "--kafka.grup-id", "x"])
    assert ended.value.code == 2


def test_secrets_are_never_printed(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> None:
    monkeypatch.setenv("RILLCAST_KAFKA__SASL_PASSWORD", "hunter2")
    loaded = settings.load()
    assert loaded.kafka.sasl_password is not None
    assert loaded.kafka.sasl_password.get_secret_value() == "hunter2"
    for flags in ([], ["--json"]):
        assert cli.main(["config", *flags]) == 0
    printed = capsys.readouterr().out + repr(loaded) + loaded.model_dump_json()
    assert "hunter2" not in printed
    assert "**********" in printed


def test_equal_topics_are_an_error(clean: Path) -> None:
    (clean / "rillcast.toml").write_text('[output]\ntopic = "observations"\n')
    with pytest.raises(SettingsError, match="must differ"):
        settings.load()


def test_printed_toml_reads_back_to_the_same_settings(clean: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert cli.main(["config", "--worker.batch-rows", "64", "--log.format", "json"]) == 0
    (clean / "printed.toml").write_text(capsys.readouterr().out)
    assert settings.load(Path("printed.toml")).worker.batch_rows == 64


def test_every_setting_says_what_it_is() -> None:
    for path in setting_paths(Settings):
        model: type = Settings
        *sections, name = path.split(".")
        for section in sections:
            model = model.model_fields[section].annotation  # type: ignore[attr-defined]
        assert model.model_fields[name].description, path  # type: ignore[attr-defined]


SECRETS = {
    "kafka.sasl_password": "hunter-two",
    "kafka.ssl_key_password": "hunter-three",
    "kafka.oauth_client_secret": "hunter-four",
    "registry.password": "hunter-five",
    "registry.token": "hunter-six",
    "http.token": "hunter-seven",
}


def test_every_secret_is_known_to_these_tests() -> None:
    secret = [path for path in setting_paths(Settings) if re.search("password|secret$|token$", path)]
    assert sorted(secret) == sorted(SECRETS)


@pytest.mark.parametrize("separator", [".", "__"])
def test_secrets_come_from_files_and_are_printed_nowhere(
    clean: Path, capsys: pytest.CaptureFixture[str], separator: str
) -> None:
    folder = clean / "secrets"
    folder.mkdir()
    for path, secret in SECRETS.items():
        (folder / path.replace(".", separator)).write_text(secret + "\n")
    (folder / "..data").mkdir()  # Kubernetes' own
    (folder / ".hidden").write_text("not a setting")
    (clean / "rillcast.toml").write_text(f'secrets_dir = "{folder}"\n[kafka]\nsasl_password = "from-toml"\n')

    loaded = settings.load()
    found = {
        "kafka.sasl_password": loaded.kafka.sasl_password,
        "kafka.ssl_key_password": loaded.kafka.ssl_key_password,
        "kafka.oauth_client_secret": loaded.kafka.oauth_client_secret,
        "registry.password": loaded.registry.password,
        "registry.token": loaded.registry.token,
        "http.token": loaded.http.token,
    }
    assert {path: secret.get_secret_value() for path, secret in found.items() if secret is not None} == SECRETS

    for form in ([], ["--json"]):
        assert cli.main(["config", *form]) == 0
    printed = capsys.readouterr().out + repr(loaded) + str(loaded) + loaded.model_dump_json()
    assert "hunter" not in printed
    assert "from-toml" not in printed


def test_environment_and_flags_beat_a_secret_file(
    clean: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    (clean / "kafka.group_id").write_text("file")
    (clean / "kafka.client").write_text("kafka-python")
    monkeypatch.setenv("RILLCAST_SECRETS_DIR", str(clean))
    assert effective(capsys)["kafka"]["group_id"] == "file"
    monkeypatch.setenv("RILLCAST_KAFKA__GROUP_ID", "environment")
    merged = effective(capsys, "--kafka.bootstrap-servers", "flag:1")["kafka"]
    assert (merged["group_id"], merged["client"], merged["bootstrap_servers"]) == (
        "environment",
        "kafka-python",
        "flag:1",
    )


@pytest.mark.parametrize(
    ("name", "content", "what"),
    [
        ("kafka.sasl_pasword", b"x", "has the name of no setting"),
        ("kafka.sasl_password", b"\xff", "secrets_dir"),
        ("kafka.sasl_password", b"x" * 70_000, "65536 bytes"),
    ],
)
def test_a_secret_file_that_cannot_be_used_is_an_error(clean: Path, name: str, content: bytes, what: str) -> None:
    folder = clean / "secrets"
    folder.mkdir()
    (folder / name).write_bytes(content)
    (clean / "rillcast.toml").write_text(f'secrets_dir = "{folder}"\n')
    with pytest.raises(SettingsError, match=what):
        settings.load()


def test_a_secrets_directory_that_is_not_there_is_an_error(clean: Path) -> None:
    (clean / "rillcast.toml").write_text('secrets_dir = "absent"\n')
    with pytest.raises(SettingsError, match="absent"):
        settings.load()


def test_a_wrong_value_is_not_printed_with_its_secret(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("RILLCAST_KAFKA__SASL_PASSWORD", "hunter-two")
    monkeypatch.setenv("RILLCAST_KAFKA__CLIENT", "unknown")
    with pytest.raises(SettingsError) as refused:
        settings.load()
    assert "hunter" not in str(refused.value)


@pytest.mark.parametrize(
    ("text", "what"),
    [
        ('[input]\nformat = "csv"', "input.path is not set"),
        ('[input]\nformat = "msgpack"\npath = "a.jsonl"', "a format of topics"),
        ('[input]\nformat = "avro"', r"registry\.url"),
        ('[input]\nduplicates = "last_wins"', r"input\.allowed_lateness_periods is 0"),
        ('[input.fields]\nunique_id = "$ce.subject"', "input.envelope"),
        ('[registry]\nurl = "https://me:pass@registry"', r"registry\.username"),
        ('[registry]\nurl = "https://one,https://:me:pass@two"', r"registry\.username"),
        ('[kafka]\noauth_token_url = "https://me:pass@idp/token"', r"kafka\.oauth_client_id"),
        (
            '[publish]\ntrace_context = true\notlp_endpoint = "http://me:pass@collector:4318/v1/traces"',
            "OTEL_EXPORTER_OTLP_HEADERS",
        ),
        ('model = "s3://me:pass@bucket/models@live"', "AWS_ACCESS_KEY_ID"),
        ('[kafka]\nsecurity_protocol = "SASL_SSL"', r"kafka\.sasl_username, kafka\.sasl_password"),
        ('[kafka]\nsecurity_protocol = "SASL_SSL"\nsasl_mechanism = "OAUTHBEARER"', r"kafka\.oauth_token_url"),
        ('[kafka]\noauth_token_url = "http://idp.example/token"', "https"),
        ('[output]\nshape = "rows"\ncodec = "msgpack"', "json or avro"),
        ('[output]\nenvelope = "connect"', "output.shape 'rows'"),
        ('[output]\nshape = "rows"\nenvelope = "connect"\npath = "f.jsonl"', "not a topic"),
        ('[publish]\nlevels = "0.1;0.9"', r"publish\.levels"),
        ('[publish]\nlevels = "0.1,0.1"', r"publish\.levels"),
        ('[publish]\nlevels = "0.1,1"', r"publish\.levels"),
        ('[publish]\nhorizons = "0-3"', r"publish\.horizons"),
        ('[publish]\nhorizons = "3-1"', r"publish\.horizons"),
        ('[publish]\nhorizons = "1,x"', r"publish\.horizons"),
    ],
)
def test_settings_that_cannot_work_together_are_refused(clean: Path, text: str, what: str) -> None:
    (clean / "rillcast.toml").write_text(text)
    with pytest.raises(SettingsError, match=what) as refused:
        settings.load()
    assert "me:pass" not in str(refused.value)


def texts() -> list[tuple[str, Any, str]]:
    """Path, default and type of every setting that takes a text or a path."""
    found = []
    for path in setting_paths(Settings):
        *sections, name = path.split(".")
        model: Any = Settings
        for section in sections:
            model = model.model_fields[section].annotation
        field = model.model_fields[name]
        if re.search(r"\bstr\b|Path|Secret", str(field.annotation)) or field.annotation in (str, Path):
            found.append((path, field.default, str(field.annotation)))
    return found


# Here an empty text has a meaning.
MEANT = {"input.fields.unique_id", "input.fields.x", "registry.logical_cluster"}
# Has a check of its own: a blank is a character.
OWN = {"input.separator"}


def test_an_empty_text_of_a_setting_is_unset_or_refused(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    assert {"http.host", "kafka.group_id", "input.topic", "model", "state.path"} <= {path for path, *_ in texts()}
    (clean / "empty.toml").write_text("")
    for path, default, kind in texts():
        if path in OWN:
            continue
        for empty in ("", "  "):
            section, _, name = path.rpartition(".")
            (clean / "rillcast.toml").write_text((f"[{section}]\n" if section else "") + f'{name} = "{empty}"\n')
            monkeypatch.setenv("RILLCAST_" + path.upper().replace(".", "__"), empty)
            for file in (None, clean / "empty.toml"):  # both sources, and the environment alone
                if (default is not None and path not in MEANT) or "Secret" in kind:
                    with pytest.raises(SettingsError, match=f"{path}: Value error, is empty; remove it"):
                        settings.load(file)
                    continue
                found: Any = settings.load(file)
                for step in path.split("."):
                    found = getattr(found, step)
                assert found == (empty if path in MEANT else None)
        monkeypatch.delenv("RILLCAST_" + path.upper().replace(".", "__"))


def test_a_tilde_is_the_home_directory_in_every_path(clean: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", "/home/somebody")
    paths = [path for path, *_ in texts() if re.search(r"(path|_file|_dir|_cache|_descriptors|^model|shadow)$", path)]
    assert len(paths) == 19
    for path in paths:
        section, _, name = path.rpartition(".")
        model: Any = Settings.model_fields[section].annotation if section else Settings
        assert str(getattr(model(**{name: "~/x.jsonl"}), name)) == "/home/somebody/x.jsonl", path


IDLE = ["--input.aggregate", "sum", "--input.close", "partition", "--input.idle-s", "9"]


@pytest.mark.parametrize(
    ("flags", "named"),
    [
        (["--input.grace-s", "60"], "input.aggregate"),
        (["--input.aggregate", "sum", "--input.grace-s", "60"], "input.close = 'partition'"),
        (["--input.idle-s", "60"], "input.close = 'partition'"),
        ([*IDLE, "--state.store", "none"], "state.store"),
        ([*IDLE, "--input.path", "x.csv"], "input.path"),
        ([*IDLE, "--state.store", "local", "--worker.delivery", "exactly_once"], "state.store = 'kafka'"),
        (["--input.aggregate", "median"], "input.aggregate"),
        (["--input.aggregate", "sum", "--input.silent-after", "0"], "input.silent_after"),
    ],
)
def test_an_aggregation_that_is_impossible_is_refused(
    flags: list[str], named: str, clean: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    assert cli.main(["config", *flags]) == 2
    assert named in capsys.readouterr().err
