"""Pages of a list whose length is never fully counted."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from django.core.paginator import Paginator
from django.utils.functional import cached_property

#: Rows that a list counts, and shows on numbered pages. More are found by filters and search.
CAP = 10_000


if TYPE_CHECKING:
    _Paginator = Paginator[Any]
else:
    _Paginator = Paginator


class BoundedPaginator(_Paginator):
    """Counts ``limit`` rows at most, so that a list of millions costs what a list of thousands does.

    Pages end there too, which bounds the OFFSET. ``capped`` tells whether there is more.
    """

    limit = CAP

    @cached_property
    def _counted(self) -> int:
        rows: Any = self.object_list
        return int(rows.order_by().values("pk")[: self.limit + 1].count())

    @cached_property
    def count(self) -> int:
        return min(self._counted, self.limit)

    @property
    def capped(self) -> bool:
        return self._counted > self.limit
