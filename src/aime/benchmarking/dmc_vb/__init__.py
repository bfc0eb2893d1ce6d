"""The DMC-VB protocol (Ortiz et al. 2024, arXiv 2409.18330): representations and policies under visual distractors.

Order of the modules: levels -> plan -> study (measurements) -> results -> table, picture.
"""
