"""Experts that learn on the stream: a forecaster of constant cost per event that needs no training.

Rule: no parameters. Everything is learnt inside the step, from the stream's own values, each after its period has come.
Does not know: networks, files, data sets.
"""
