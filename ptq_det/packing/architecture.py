"""What network a packed file is for."""

from dataclasses import dataclass

__all__ = ["Architecture"]


@dataclass(frozen=True)
class Architecture:
    """A Detectron2 model, which the file's config describes, a network of torchvision, or a module
    that its owner alone can build: by a lazy config, or by code of their own.

    Attributes:
        library: "detectron2", "torchvision" or "module".
        name: torchvision's name of the network, else empty.
        classes: number of classes of a torchvision network, else 0.
    """

    library: str = "detectron2"
    name: str = ""
    classes: int = 0

    @property
    def is_detector(self) -> bool:
        """Whether it takes pictures as models of Detectron2 do, or may."""
        return self.library != "torchvision"

    @property
    def has_config(self) -> bool:
        """Whether the file's config builds it."""
        return self.library == "detectron2"

    @property
    def is_given(self) -> bool:
        """Whether the reader has to give the model."""
        return self.library == "module"

    def to_json(self) -> list:
        """As the header of a file has it."""
        if self.library == "torchvision":
            return [self.library, self.name, self.classes]
        return [self.library]

    @classmethod
    def from_json(cls, value) -> "Architecture":
        """The reverse of :meth:`to_json`.

        Raises:
            ValueError: it is none of those that are known.
        """
        match value:
            case ["detectron2" | "module" as library]:
                return cls(library)
            case ["torchvision", str(name), int(classes)]:
                return cls("torchvision", name, classes)
        raise ValueError(f"its architecture {value!r} is not known")

    def __str__(self):
        return f"{self.library} {self.name}".rstrip()
