"""The protocol of DMC-VB (Ortiz et al. 2024, arXiv 2409.18330): what distractors cost a representation and a policy.

The way of the data: levels -> plan -> study (parts) -> results -> table, picture.
"""
