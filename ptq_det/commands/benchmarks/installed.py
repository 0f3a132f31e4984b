"""What has to be installed for a package to run, and how large it is."""

from collections.abc import Iterable
from importlib.metadata import Distribution, PackageNotFoundError, distribution

from packaging.requirements import Requirement

from ...files import MIB

__all__ = ["installed_mib", "with_requirements"]


def with_requirements(names: Iterable[str]) -> dict[str, Distribution]:
    """Installed distributions, with those that they require, by name; no extras.

    Raises:
        PackageNotFoundError: one that is named, not merely required, is not installed.
    """
    found = {name: distribution(name) for name in names}
    left = list(found.values())
    while left:
        for text in left.pop().requires or ():
            wanted = Requirement(text)
            if wanted.name in found or (
                wanted.marker and not wanted.marker.evaluate({"extra": ""})
            ):
                continue
            try:
                found[wanted.name] = distribution(wanted.name)
            except PackageNotFoundError:  # it runs without
                continue
            left.append(found[wanted.name])
    return found


def installed_mib(names: Iterable[str]) -> float:
    """MiB of the files of distributions and of all that they require."""
    files = {
        path
        for each in with_requirements(names).values()
        for file in each.files or ()
        if (path := file.locate()).is_file()
    }
    return sum(path.stat().st_size for path in files) / MIB
