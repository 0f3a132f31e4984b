"""What network a packed file is for."""

from dataclasses import dataclass

__all__ = ["Architecture"]


@dataclass(frozen=True)
class Architecture:
    """A Detectron2 model, which the file's config describes, or a network of torchvision.

    Attributes:
        library: "detectron2" or "torchvision".
        name: torchvision's name of the network, else empty.
        classes: number of classes of a torchvision network, else 0.
    """

    library: str = "detectron2"
    name: str = ""
    classes: int = 0

    @property
    def is_detector(self) -> bool:
        """Whether it is a model of Detectron2."""
        return self.library == "detectron2"

    def to_json(self) -> list:
        """As the header of a file has it."""
        return [self.library] if self.is_detector else [self.library, self.name, self.classes]

    @classmethod
    def from_json(cls, value) -> "Architecture":
        """The reverse of :meth:`to_json`.

        Raises:
            ValueError: it is none of those that are known.
        """
        match value:
            case ["detectron2"]:
                return cls()
            case ["torchvision", str(name), int(classes)]:
                return cls("torchvision", name, classes)
        raise ValueError(f"its architecture {value!r} is not known")

    def __str__(self):
        return self.library if self.is_detector else f"{self.library} {self.name}"
