"""From a bundle back to the module that it was exported from.

Owns: the metadata entry in which a bundle carries its module's configuration and weights, next to the graph that is
served; and which of them a forecaster with a shorter horizon takes over. Does not know: training, files other than
bundles.

The graph alone is not enough: its exporter folds, transposes and merges weights for serving, and may do so differently
in the next release. So fine-tuning, explanations and a new export of an old model read this entry. Serving ignores it,
and it is no part of the model's identity. It holds plain arrays: nothing in it is executed.
"""

from __future__ import annotations

import base64
import dataclasses
import io
import json
import zipfile
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Final

import numpy as np
import onnx
import torch
from torch import Tensor, nn

from rillcast.bundle.bundle import Bundle
from rillcast.bundle.covariates import Covariate
from rillcast.errors import DataError
from rillcast_training.model.forecaster import Forecaster, ForecasterConfig

MODULE_KEY: Final = "rillcast.module"


def attach(model: onnx.ModelProto, config: Mapping[str, Any], module: nn.Module) -> None:
    """Write a module's configuration and weights into the metadata of its graph.

    Args:
        model: The graph.
        config: The forecaster's configuration; empty where the metadata of the bundle has it.
        module: The module with the weights.
    """
    buffer = io.BytesIO()
    np.savez(buffer, **{name: tensor.detach().cpu().numpy() for name, tensor in module.state_dict().items()})
    document = {
        **({"forecaster": dict(config)} if config else {}),
        "weights": base64.b64encode(buffer.getvalue()).decode("ascii"),
    }
    model.metadata_props.add(key=MODULE_KEY, value=json.dumps(document))


def restore(source: str | Path | Bundle) -> Forecaster:
    """Return the forecaster that a bundle was exported from, in evaluation mode.

    Args:
        source: Bundle or its file.

    Raises:
        BundleError: it is no bundle.
        DataError: it carries no module, or one that this version cannot build.
    """
    bundle = source if isinstance(source, Bundle) else Bundle.load(source)
    name = f"bundle {bundle.metadata.name}@{bundle.metadata.model_id}"
    document = _document(bundle)
    try:
        config = _config(document["forecaster"])
        forecaster = Forecaster(config)
        forecaster.load_state_dict(_weights(document["weights"]))
    except (KeyError, TypeError, ValueError, RuntimeError, zipfile.BadZipFile) as error:
        reason = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise DataError(f"{name}: this version cannot build its module: {reason}") from error
    return forecaster.eval()


def attached_weights(bundle: Bundle) -> dict[str, Tensor]:
    """Return the weights that a bundle carries.

    Raises:
        DataError: it carries none.
    """
    found = _found(bundle)
    if found is None:
        raise DataError(f"bundle {bundle.metadata.name}@{bundle.metadata.model_id}: carries no weights")
    return _weights(json.loads(found)["weights"])


def shorten(forecaster: Forecaster, horizon: int) -> Forecaster:
    """Return a forecaster with the same weights that forecasts the first `horizon` periods of the given one.

    Raises:
        DataError: the given one forecasts fewer periods.
    """
    longer = forecaster.config.horizon
    if horizon > longer:
        raise DataError(f"horizon is {horizon}, expected at most {longer}, which the forecaster to start from has")
    if horizon == longer:
        return forecaster
    shorter = Forecaster(dataclasses.replace(forecaster.config, horizon=horizon))
    wanted = shorter.state_dict()
    given = forecaster.state_dict()
    given["head.trunk.weight"] = _of_fewer_periods_ahead(forecaster, horizon)
    weights = {name: _first_periods(tensor, wanted[name], longer) for name, tensor in given.items()}
    shorter.load_state_dict(weights)
    return shorter.train(forecaster.training)


def _first_periods(tensor: Tensor, like: Tensor, horizon: int) -> Tensor:
    """Cut a tensor whose leading dimension is [groups * horizon] down to the shape of `like`."""
    if tensor.shape == like.shape:
        return tensor
    grouped = tensor.reshape(-1, horizon, *tensor.shape[1:])
    return grouped[:, : like.shape[0] // grouped.shape[0]].reshape(like.shape)


def _of_fewer_periods_ahead(forecaster: Forecaster, horizon: int) -> Tensor:
    """Return the head's first weights without the columns of covariates more than `horizon` periods ahead."""
    weight = forecaster.head.trunk.weight
    if forecaster.covariates is None or not (columns := forecaster.covariates.num_ahead):
        return weight
    others, ahead = weight[:, :-columns], weight[:, -columns:]
    kept = ahead.reshape(len(weight), -1, forecaster.config.horizon)[..., :horizon]
    return torch.cat([others, kept.flatten(1)], dim=1)


def require_module(bundle: Bundle) -> None:
    """Refuse a bundle that carries no module.

    Raises:
        DataError: it carries none; the error says what to do.
    """
    _entry(bundle)


def is_on_experts(bundle: Bundle) -> bool:
    """Return whether a bundle is a network on top of experts."""
    return bool(bundle.metadata.training.get("experts", {}).get("network"))


def _document(bundle: Bundle) -> dict[str, Any]:
    document: dict[str, Any] = json.loads(_entry(bundle))
    return document


def _entry(bundle: Bundle) -> str:
    metadata = bundle.metadata
    name = f"bundle {metadata.name}@{metadata.model_id}"
    if is_on_experts(bundle):
        raise DataError(
            f"{name}: is a network on top of experts, and here one alone is needed: `rillcast train --no-experts`"
        )
    if (found := _found(bundle)) is not None:
        return found
    if "experts" in metadata.training:
        raise DataError(
            f"{name}: is a mixture of experts, without weights: it learns on each stream by itself, and cannot be "
            "trained further. `rillcast train DATA` without --init trains a network on top of such a mixture; for one "
            "without data to start from: "
            f"`rillcast train --synthetic --freq {metadata.freq} --horizon {metadata.horizon} --out start.onnx`"
        )
    raise DataError(
        f"{name}: has no module (metadata entry {MODULE_KEY!r}); it can be served, but neither trained further "
        "nor explained. Use a bundle that `rillcast train` made"
    )


def _found(bundle: Bundle) -> str | None:
    model = onnx.load_model_from_string(bundle.model)
    entries = [entry.value for entry in model.metadata_props if entry.key == MODULE_KEY]
    return entries[0] if len(entries) == 1 else None


def _config(values: dict[str, Any]) -> ForecasterConfig:
    """Build a configuration. JSON has turned its tuples into lists."""
    fields: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in values.items()}
    fields["covariates"] = tuple(
        Covariate(**(one | {"categories": tuple(one["categories"])})) for one in fields.get("covariates", ())
    )
    return ForecasterConfig(**fields)


def _weights(encoded: str) -> dict[str, Tensor]:
    with np.load(io.BytesIO(base64.b64decode(encoded, validate=True)), allow_pickle=False) as arrays:
        return {name: torch.from_numpy(arrays[name]) for name in arrays.files}
