# %% [markdown]
# # Forecast in a notebook
#
# A bundle that the package ships needs no training. Each event advances its stream by one step and returns a forecast.
# Needs `pip install rillcast`, and no broker.

# %%
import math

from rillcast import Bundle, EventBatch, StepEngine, choose_device

START_MS, HOUR_MS = 1_714_521_600_000, 3_600_000  # 2024-05-01T00:00:00Z

bundle = Bundle.load("universal:1h")  # or the path of a bundle that `rillcast train` wrote
engine = StepEngine(bundle, choose_device("cpu"))

# %% [markdown]
# ## Step events
#
# Two streams, one event an hour each. `NaN` is a missing observation.

# %%
for hour in range(72):
    wave = math.sin(hour / 24 * math.tau)
    events = EventBatch.of(["shop", "depot"], [START_MS + hour * HOUR_MS] * 2, [20 + 5 * wave, 200 - 50 * wave])
    result = engine.step(events)

# %% [markdown]
# ## Read forecasts
#
# `result.forecast` has one row for each event: periods ahead by quantiles, in the stream's own unit.

# %%
low, median, high = (bundle.metadata.quantiles.index(level) for level in (0.1, 0.5, 0.9))
for unique_id, forecast in zip(events.unique_ids, result.forecast, strict=True):
    print(f"{unique_id} in 6 hours: {forecast[5, median]:.1f} ({forecast[5, low]:.1f} to {forecast[5, high]:.1f})")
