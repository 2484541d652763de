"""Taking back the renames that a success does not need."""

from __future__ import annotations

from bbox.attacks.alert.space import Choice, Search, Space, changed

__all__ = ["prune"]


def prune(space: Space, found: Choice) -> Search[Choice]:
    """Give identifiers their old names back while the program stays adversarial, until each rename left is needed.

    Groups are tried first and halved where they are needed in part (delta debugging; Zeller, Hildebrandt, "Simplifying
    and Isolating Failure-Inducing Input", TSE 2002), identifiers with most tokens first, since they save most. A final
    pass takes renames back one by one as long as one can be: the result is 1-minimal.

    Queries: about 2 log2 n for each of the renames that stay, out of n, and one more for each in the final pass.
    """
    order = sorted(changed(found), key=lambda slot: -len(space.slots[slot].occurrences))
    groups = [order[: len(order) // 2], order[len(order) // 2 :]] if len(order) > 2 else [[slot] for slot in order]
    if len(order) < 2:
        return found  # the original is no success, so a single rename is needed
    while groups:
        group = groups.pop(0)
        if not group or len(changed(found)) == len(group):
            halves = [] if len(group) < 2 else [group[: len(group) // 2], group[len(group) // 2 :]]
            groups = halves + groups
            continue
        row = _without(found, group)
        if (yield [row])[0].adversarial:
            found = row
        elif len(group) > 1:
            groups = [group[: len(group) // 2], group[len(group) // 2 :], *groups]
    progress = True
    while progress and len(changed(found)) > 1:
        progress = False
        for slot in [slot for slot in order if found[slot]]:
            if len(changed(found)) > 1 and (yield [_without(found, [slot])])[0].adversarial:
                found, progress = _without(found, [slot]), True
    return found


def _without(choice: Choice, slots: list[int]) -> Choice:
    return tuple(0 if slot in slots else gene for slot, gene in enumerate(choice))
