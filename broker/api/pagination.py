"""Cursor pages: stable while new rows arrive."""

from __future__ import annotations

from typing import Any

from django.core.exceptions import ValidationError
from rest_framework.exceptions import NotFound
from rest_framework.pagination import CursorPagination
from rest_framework.request import Request

from federation.errors import BadInput, FieldProblem


class Pages(CursorPagination):
    """Refuses a size or a cursor that is none: the first page is not what was asked for."""

    page_size = 50
    page_size_query_param = "limit"
    max_page_size = 500

    def get_page_size(self, request: Request) -> int | None:
        text = request.query_params.get("limit")
        if text is None:
            return self.page_size
        if not (text.isascii() and text.isdigit() and len(text) < 10 and int(text) > 0):
            raise BadInput(FieldProblem("limit", "a whole number from 1 is expected"))
        return min(int(text), self.max_page_size)

    def paginate_queryset(
        self, queryset: Any, request: Request, view: Any = None
    ) -> list[Any] | None:
        try:
            return super().paginate_queryset(queryset, request, view)
        except (NotFound, ValidationError, ValueError):
            raise BadInput(
                FieldProblem("cursor", "take it from a page's next or previous, as it is")
            ) from None

    def get_paginated_response_schema(self, schema: dict[str, Any]) -> dict[str, Any]:
        link = {"type": ["string", "null"], "format": "uri"}
        return {
            "type": "object",
            "required": ["next", "previous", "results"],
            "properties": {"next": link, "previous": link, "results": schema},
        }


class NewestFirst(Pages):
    ordering = ("-created_at", "-id")


class ByName(Pages):
    page_size = 100
    ordering = ("name",)


class NewestRoundFirst(Pages):
    ordering = ("-created_at", "-number")
