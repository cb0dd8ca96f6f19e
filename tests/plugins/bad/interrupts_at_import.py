"""Raises what is no Exception, and cannot even be shown."""


class Unshowable(BaseException):
    """Neither str() nor repr() of it returns."""

    def __str__(self) -> str:
        raise KeyboardInterrupt

    __repr__ = __str__


raise Unshowable
