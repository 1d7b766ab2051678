"""The projections that every journal has."""

from typing import Any

from recovery_journal.projections.dispatch_ready import DISPATCH_READY
from recovery_journal.projections.moments import MOMENTS
from recovery_journal.projections.projection import Projection
from recovery_journal.projections.recovery_contexts import RECOVERY_CONTEXTS
from recovery_journal.projections.workers import WORKERS

BUILT_IN: tuple[Projection[Any], ...] = (DISPATCH_READY, RECOVERY_CONTEXTS, WORKERS, MOMENTS)
