"""Every error that the journal raises on purpose, for programs that catch one by its class. The
tree at the top of `recovery_journal.domain.errors` shows the reaction to each."""

from recovery_journal.domain.errors import *  # noqa: F403 - this module is their public name
from recovery_journal.domain.errors import __all__ as __all__  # noqa: PLC0414 - re-exported
