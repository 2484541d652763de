"""Targets behind HTTP: the Open Inference Protocol (``oip``) and any other JSON API (``mapping``).

``link`` keeps the event loop in a thread of its own, ``client`` sends one request until it is answered (with ``retry``
and ``pace``), ``base`` cuts rows into requests and puts the answers together.
"""
