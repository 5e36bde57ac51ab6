"""Storage. No rule of business lives here: services write, selectors read."""

from federation.models.disputes import Count, Dispute, Evidence
from federation.models.events import Event, Pulse
from federation.models.forgetting import Forgotten
from federation.models.jobs import IdempotencyKey, Job
from federation.models.leases import Assignment, Contract, Lease
from federation.models.ledger import Account, ChainHead, Entry, EntryGroup, Link
from federation.models.members import Member, Tenant, User
from federation.models.offers import JobClass, MeasuredAffinity, Offer, OfferAffinity, OfferPool
from federation.models.priors import PriorAffinity, PriorStudy
from federation.models.records import Alarm, SiteRecord
from federation.models.refusals import SiteRefusal
from federation.models.reports import LogChunk, Report
from federation.models.rounds import PoolPrice, Round, RoundOffer, Snapshot
from federation.models.rules import Consent, Epoch, Rules
from federation.models.samples import (
    ForecastAffinity,
    QuarantinedSample,
    StoredModel,
    ThroughputSample,
)
from federation.models.sites import AgentCredential, JoinToken, Pool, Site
from federation.models.studies import Study
from federation.models.venues import Venue

__all__ = [
    "Account",
    "AgentCredential",
    "Alarm",
    "Assignment",
    "ChainHead",
    "Consent",
    "Contract",
    "Count",
    "Dispute",
    "Entry",
    "EntryGroup",
    "Epoch",
    "Event",
    "Evidence",
    "ForecastAffinity",
    "Forgotten",
    "IdempotencyKey",
    "Job",
    "JobClass",
    "JoinToken",
    "Lease",
    "Link",
    "LogChunk",
    "MeasuredAffinity",
    "Member",
    "Offer",
    "OfferAffinity",
    "OfferPool",
    "Pool",
    "PoolPrice",
    "PriorAffinity",
    "PriorStudy",
    "Pulse",
    "QuarantinedSample",
    "Report",
    "Round",
    "RoundOffer",
    "Rules",
    "Site",
    "SiteRecord",
    "SiteRefusal",
    "Snapshot",
    "StoredModel",
    "Study",
    "Tenant",
    "ThroughputSample",
    "User",
    "Venue",
]
