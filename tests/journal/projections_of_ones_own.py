"""Projections as a user writes them, of what the package exports alone."""

from msgspec.structs import replace

import recovery_journal as rj


class StepCountRow(rj.StreamRow, frozen=True, kw_only=True):
    event_count: int


class StepCounts(rj.Projection[StepCountRow]):
    """Stream-keyed: how many events an attempt has."""

    name = "step_counts"
    row_type = StepCountRow
    key_fields = ("attempt_id",)

    def fold(self, row: StepCountRow | None, record: rj.Record) -> StepCountRow:
        event = record.event
        return StepCountRow(
            attempt_id=event.originator_id,
            version=event.originator_version,
            event_count=1 + (row.event_count if row else 0),
        )


class TenantRow(rj.PositionRow, frozen=True, kw_only=True):
    tenant: str
    lost_count: int = 0


class Tenants(rj.Projection[TenantRow]):
    """Cross-stream: how many leases each tenant lost."""

    name = "tenants"
    row_type = TenantRow
    key_fields = ("tenant",)
    events = (rj.events.LeaseExpired,)
    indexes = (rj.Index("lost", ("lost_count",), descending=("lost_count",)),)

    def key(self, event: rj.events.AnyEvent) -> str | None:
        return event.tenant if isinstance(event, rj.events.LeaseExpired) else None

    def fold(self, row: TenantRow | None, record: rj.Record) -> TenantRow:
        row = row or TenantRow(tenant=str(self.key(record.event)), position=0)
        return replace(row, position=record.position, lost_count=row.lost_count + 1)


class TenantsOfOld(Tenants):
    """An earlier fold of the same name."""

    def fold(self, row: TenantRow | None, record: rj.Record) -> TenantRow:
        return replace(super().fold(row, record), lost_count=0)


class WideTenantRow(TenantRow, frozen=True, kw_only=True):
    last_attempt_id: str


class WideTenants(rj.Projection[WideTenantRow]):
    """A later fold of that name, with a column more."""

    name = "tenants"
    version = 2
    row_type = WideTenantRow
    key_fields = ("tenant",)

    def key(self, event: rj.events.AnyEvent) -> str | None:
        return event.tenant if isinstance(event, rj.events.LeaseExpired) else None

    def fold(self, row: WideTenantRow | None, record: rj.Record) -> WideTenantRow:
        return WideTenantRow(
            tenant=str(self.key(record.event)),
            position=record.position,
            lost_count=1 + (row.lost_count if row else 0),
            last_attempt_id=record.event.originator_id,
        )


APP = rj.App(projections=(StepCounts(), Tenants()))
APP_OF_OLD = rj.App(projections=(StepCounts(), TenantsOfOld()))


def app() -> rj.App:
    return APP
