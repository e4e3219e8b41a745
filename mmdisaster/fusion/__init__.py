"""Ranking, weighted label powerset and recursive elimination (§III-C)."""
