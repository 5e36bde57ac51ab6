"""Curves of a cleared round as data: merit orders, supply and demand, intervals of prices."""

from economics.curves.cleared import Cleared, cleared_of, read_cleared
from economics.curves.document import CURVES_FORMAT, curves
from economics.curves.public import public_curves, without_merit

__all__ = [
    "CURVES_FORMAT",
    "Cleared",
    "cleared_of",
    "curves",
    "public_curves",
    "read_cleared",
    "without_merit",
]
