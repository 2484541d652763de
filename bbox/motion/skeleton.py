"""Which joints a skeleton has and which bones join them."""

from __future__ import annotations

from dataclasses import asdict, dataclass
from typing import Any, Self

from bbox.errors import UsageError

__all__ = ["Skeleton"]


@dataclass(frozen=True)
class Skeleton:
    """The bone graph of one body: a tree (or several) over its joints.

    Attributes:
        name: for example ``ntu25``; a file's own skeleton has the file's name.
        joints: name of each joint.
        parents: the joint that each one hangs on, -1 for a root.
        sides: pairs (left, right) of joints that a mirror exchanges; empty where they are not known.
        axes: channels, from the first, that are coordinates; the others (a detector's confidence) are never changed.

    Raises:
        UsageError: no joints, a parent that is no joint, or a ring of bones.

    Example:
        >>> Skeleton("arm", ("shoulder", "elbow", "wrist"), (-1, 0, 1)).bones
        ((1, 0), (2, 1))
    """

    name: str
    joints: tuple[str, ...]
    parents: tuple[int, ...]
    sides: tuple[tuple[int, int], ...] = ()
    axes: int = 3

    def __post_init__(self) -> None:
        count = len(self.joints)
        if count == 0 or len(self.parents) != count:
            raise UsageError(f"skeleton {self.name}: {count} joints and {len(self.parents)} parents, expected as many")
        for joint, parent in enumerate(self.parents):
            if not -1 <= parent < count:
                raise UsageError(f"skeleton {self.name}: joint {joint} hangs on joint {parent}, it has {count} joints")
            seen = {joint}
            while parent != -1:
                if parent in seen:
                    raise UsageError(f"skeleton {self.name}: the bones from joint {joint} run in a ring")
                seen.add(parent)
                parent = self.parents[parent]
        if not 1 <= self.axes <= 3:
            raise UsageError(f"skeleton {self.name}: axes is {self.axes}, expected 1 to 3 channels of coordinates")
        if any(not 0 <= joint < count for pair in self.sides for joint in pair):
            raise UsageError(f"skeleton {self.name}: sides name a joint that it does not have")

    def __len__(self) -> int:
        return len(self.joints)

    def to_json(self) -> dict[str, Any]:
        """As it stands in files."""
        return {**asdict(self), "sides": [list(pair) for pair in self.sides]}

    @classmethod
    def from_json(cls, described: dict[str, Any]) -> Self:
        """Read back what ``to_json`` gave."""
        sides = tuple((int(left), int(right)) for left, right in described["sides"])
        joints, parents = tuple(described["joints"]), tuple(described["parents"])
        return cls(described["name"], joints, parents, sides, int(described.get("axes", 3)))

    @property
    def bones(self) -> tuple[tuple[int, int], ...]:
        """(joint, parent) of each bone, in the order of the joints."""
        return tuple((joint, parent) for joint, parent in enumerate(self.parents) if parent != -1)

    @property
    def hinges(self) -> tuple[tuple[int, int, int], ...]:
        """(parent's parent, parent, joint): every place where two bones meet, whose angle the motion changes."""
        return tuple((self.parents[p], p, j) for j, p in self.bones if self.parents[p] != -1)
