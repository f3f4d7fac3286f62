"""Whether a run that was begun is the one that goes on: two fingerprints, compared field by field."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from unet_dask.config import SegmentConfig
from unet_dask.errors import MismatchError
from unet_dask.io.remote import redact_url
from unet_dask.setting import settings_of

if TYPE_CHECKING:
    from collections.abc import Mapping

#: Fields of a fingerprint by their beginnings, causes first: a change of one of them changes later ones too.
_CAUSES = (
    *("source.", "model.", "setting.", "software."),
    *("plan.roi", "plan.products", "plan.device", "plan.precision", "plan.region", "plan.tile"),
)


def compare(
    stored: Mapping[str, str],
    current: Mapping[str, str],
    sink: str,
    *,
    source_fixed: bool = False,
    otherwise: str = "start over with --overwrite",
) -> None:
    """Raise unless two fingerprints are the same, but for what a user vouches to have repaired.

    Parameters
    ----------
    stored, current : fingerprints of the run that was begun and of this one
    sink : of the run
    source_fixed : whether the user vouches for fields that may be mended
    otherwise : what to do who does not want to go on with the same

    Raises
    ------
    MismatchError
        Naming the first field that differs, the most likely cause, and both values.
    """
    # What a failed region may make a user change before she resumes; the regions that are done do not see it.
    mendable = {"source.content"} | {each.values for each in settings_of(SegmentConfig) if each.mendable}
    for name in sorted({*stored, *current}, key=_cause):
        before, now = stored.get(name), current.get(name)
        if before == now or (source_fixed and name in mendable):
            continue
        hint = ", add --source-fixed if it was changed only where regions failed" if name in mendable else ""
        raise MismatchError(
            f"{redact_url(sink)} was begun with another {name}: {_short(before)} then, {_short(now)} now. Resume "
            f"with the same{hint}, or {otherwise}."
        )


def _cause(name: str) -> tuple[int, str]:
    """Sort what a user may have changed before what the plan derived from it."""
    rank = [place for place, prefix in enumerate(_CAUSES) if name.startswith(prefix)]
    return (rank[0] if rank else len(_CAUSES), name)


def _short(value: Any) -> str:  # a stored value of any kind
    text = "nothing" if value is None else str(value)
    return text if len(text) <= 60 else f"{text[:57]}..."
