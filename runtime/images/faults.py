"""What can go wrong with images, beside `ImageFault` (a hostile or damaged image)."""

from __future__ import annotations

from runtime.errors import RuntimeFault


class NoSuchImage(RuntimeFault):
    """No image of this host has that name or id."""


class ImageInUse(RuntimeFault):
    """A container needs the image, or it has several names."""


class RegistryFault(RuntimeFault):
    """A registry could not be reached or refuses; `status` is its HTTP status, 0 when there was no answer."""

    def __init__(self, message: str, hint: str = "", *, status: int = 0) -> None:
        super().__init__(message, hint)
        self.status = status
