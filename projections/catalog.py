"""The projections that every journal has."""

from typing import Any

from projections.dispatch_ready import DISPATCH_READY
from projections.moments import MOMENTS
from projections.projection import Projection
from projections.recovery_contexts import RECOVERY_CONTEXTS
from projections.workers import WORKERS

BUILT_IN: tuple[Projection[Any], ...] = (DISPATCH_READY, RECOVERY_CONTEXTS, WORKERS, MOMENTS)
