"""Accuracy of a bundle: back-tests through the serving engine, scores, baselines, the report.

Rule: the exported file is scored, run by the engine that production runs.
"""
