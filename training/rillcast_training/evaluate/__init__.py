"""How good a bundle is: back-tests through the serving engine, scores, baselines, the report.

Rule: what is scored is the exported file, run by the engine that production runs.
"""
