"""Pretraining of the networks that ship on top of the experts: real series, sets made of them, and the training."""
