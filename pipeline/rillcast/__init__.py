"""Rillcast serving: one recurrent step per event, state kept on the device. Never imports torch or `training`."""
