"""Names that programs of any kind and language have."""

from __future__ import annotations

__all__ = ["COMMON"]

# Names that say little of what a program is about, and that programs of any kind have.
_COMMON = """
    value values data item items result results index count size length name names key keys text line lines path
    start stop begin end first last left right low high total number position offset step width height depth
    source destination target input output buffer block chunk part parts piece group entry entries record row rows
    column columns cell table node nodes parent child children root leaf edge edges tree graph level order rank
    current previous following old fresh initial final original copy base extra other another temp spare
    flag flags mode kind state status code label labels tag tags field fields option options setting settings
    config context message note reason error limit bound minimum maximum lower upper scale factor ratio rate weight
    score point points shape vector matrix batch sample samples token tokens word words letter pattern prefix suffix
    handle reference pointer address place slot unit bucket pool stack heap store cache memo pair pairs mapping
    sequence series window cursor counter flagged found seen known missing valid ready done enabled needed wanted
    i j k m n p q r s t u v w x y z a b c d e f g h idx num val ptr buf tmp res ret cur nxt prv src dst cnt
"""
COMMON = tuple(_COMMON.split())
