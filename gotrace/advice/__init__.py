"""Advice from what was seen: a rule a module, each a pure function from facts to findings.

A rule is a module of ``coldstart/`` or ``gc/`` with ``find(seen)``, which yields findings: a cause is named only by
evidence that excludes the others. Its docstring says what it needs, when it speaks, and what the gain is;
docs/advice.md is made of these. Rules are found by walking the folders.
"""
