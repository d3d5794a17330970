"""What a checkpoint says of itself: digests of its arrays, the position of the data, and which parameters are frozen.

It is kept as JSON beside the arrays, with a sha256 of each part, so that damage of it is found too.
"""

import hashlib
import json
from collections.abc import Mapping
from typing import Any, NamedTuple

from imagen_jax.errors import InputError
from imagen_jax.training.digest import DIGEST_VERSION, differing, digest
from imagen_jax.training.state import Frozen
from imagen_jax.types import Params


class FrozenReference(NamedTuple):
    """The frozen parameters that go with a checkpoint, which doesn't hold them.

    Attributes:
      origin: the folder that they were read from.
      digests: of each array, by its path; see `digest`.
      digest_version: by which version they are.
    """

    origin: str
    digests: Mapping[str, int]
    digest_version: int = DIGEST_VERSION

    @classmethod
    def of(cls, frozen: Frozen) -> "FrozenReference | None":
        """Returns the reference to frozen parameters; None where there are none."""
        return cls(frozen.origin, digest(frozen.params)) if frozen.params else None

    def check(self, params: Params) -> None:
        """Checks that these are the parameters.

        Raises:
          InputError: they differ; the message names one that does.
        """
        if changed := differing(params, self.digests, version=self.digest_version):
            raise InputError(
                f'the frozen parameters of the run are those that "{self.origin}" held when it was started, and '
                f"{len(changed)} of {len(self.digests)} arrays are others now, among them {changed[0]}; give "
                "--init_from a folder that holds them"
            )


class Meta(NamedTuple):
    """What a checkpoint says of itself.

    Attributes:
      digests: of each array of the state, by its path; see `digest`.
      position: of the data.
      frozen: which parameters are frozen; None: none are.
      digest_version: by which version `digests` are.
    """

    digests: Mapping[str, int]
    position: dict[str, Any]
    frozen: FrozenReference | None = None
    digest_version: int = DIGEST_VERSION

    def to_json(self) -> dict[str, Any]:
        """Returns what `from_json` reads."""
        parts: dict[str, Any] = {"position": self.position}
        if self.frozen:
            parts["frozen"] = self.frozen._asdict()
        hashes = {f"{name}_sha256": _sha256(part) for name, part in parts.items()}
        digests = {
            "digests": self.digests,
            "digest_version": self.digest_version,
            "digests_sha256": _sha256([self.digest_version, self.digests]),
        }
        return digests | parts | hashes

    @classmethod
    def from_json(cls, value: Any) -> "Meta":
        """Reads what this and earlier versions have written.

        Raises:
          ValueError: it is damaged.
          InputError: it is of a later version of this code.
        """
        # Both are written since there have been several versions.
        version, frozen = value.get("digest_version", 1), value.get("frozen")
        if version != 1 and _sha256([version, value["digests"]]) != value["digests_sha256"]:
            raise ValueError("the digests have changed since they were saved")
        if _sha256(value["position"]) != value["position_sha256"]:
            raise ValueError("the position of the data has changed since it was saved")
        if frozen is not None and _sha256(frozen) != value["frozen_sha256"]:
            raise ValueError("what it says of the frozen parameters has changed since it was saved")
        for known in (version, frozen["digest_version"] if frozen else version):
            if known not in (1, DIGEST_VERSION):
                raise InputError(
                    f"the digests of a checkpoint are of version {known}, which this code doesn't know; update it"
                )
        reference = FrozenReference(*(frozen[name] for name in FrozenReference._fields)) if frozen else None
        return cls(value["digests"], value["position"], reference, version)

    def what_changed(self, tree: Any, *, prefix: str = "") -> str:
        """Says in words which arrays of `tree` are no more what was saved, or returns "".

        Args:
          tree: a state, or a part of it.
          prefix: of the paths of that part.
        """
        expected = {path: number for path, number in self.digests.items() if path.startswith(prefix)}
        changed = differing(tree, expected, version=self.digest_version)
        return f"{len(changed)} arrays have changed since they were saved, among them {changed[0]}" if changed else ""


def _sha256(value: Any) -> str:
    return hashlib.sha256(json.dumps(value, sort_keys=True).encode()).hexdigest()
