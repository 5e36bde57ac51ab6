"""Storage. No rule of business lives here: services write, selectors read."""

from federation.models.events import Event, Pulse
from federation.models.jobs import IdempotencyKey, Job
from federation.models.leases import Assignment, Contract, Lease
from federation.models.ledger import Account, Entry, EntryGroup
from federation.models.members import Member, Tenant, User
from federation.models.offers import JobClass, MeasuredAffinity, Offer, OfferAffinity, OfferPool
from federation.models.reports import LogChunk, Report
from federation.models.rounds import PoolPrice, Round, RoundOffer, Snapshot
from federation.models.sites import AgentCredential, JoinToken, Pool, Site
from federation.models.studies import Study
from federation.models.venues import Venue

__all__ = [
    "Account",
    "AgentCredential",
    "Assignment",
    "Contract",
    "Entry",
    "EntryGroup",
    "Event",
    "IdempotencyKey",
    "Job",
    "JobClass",
    "JoinToken",
    "Lease",
    "LogChunk",
    "MeasuredAffinity",
    "Member",
    "Offer",
    "OfferAffinity",
    "OfferPool",
    "Pool",
    "PoolPrice",
    "Pulse",
    "Report",
    "Round",
    "RoundOffer",
    "Site",
    "Snapshot",
    "Study",
    "Tenant",
    "User",
    "Venue",
]
