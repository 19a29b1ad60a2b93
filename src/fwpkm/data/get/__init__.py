"""Free texts brought through the package managers that are on the machine."""

from fwpkm.data.get.catalogue import COLLECTIONS
from fwpkm.data.get.clients import NotAvailableError
from fwpkm.data.get.fetch import get_collection

__all__ = ["COLLECTIONS", "NotAvailableError", "get_collection"]
