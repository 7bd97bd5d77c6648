"""Suites: the lists of protocols that one command evaluates.

A module of protocols has two tuples, ``FLORENCE`` (the paper's) and ``EMBEDDED`` (every kind on the embedded data), of
:class:`~florence_mm.protocols.base.Entry`, or of protocols that evaluate the two towers.
"""
