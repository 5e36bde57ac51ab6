"""Who may call: join tokens, agents' credentials, tenants' API tokens. Secrets are kept hashed."""

from __future__ import annotations

import hashlib
import secrets
from dataclasses import dataclass
from datetime import datetime, timedelta
from uuid import UUID

from django.db import transaction
from django.db.models import Q
from knox.models import get_token_model

from federation.errors import NotAllowed, NotFound
from federation.machines.site import SiteState
from federation.models import AgentCredential, JoinToken, Member, Site, Tenant, User
from federation.services.story import tell

JOIN_PREFIX = "hsj_"
AGENT_PREFIX = "hsa_"
ROTATION_OVERLAP = timedelta(minutes=5)


@dataclass(frozen=True, slots=True)
class Enrolled:
    """A site's agent has its credential. `secret` is shown once."""

    site_id: UUID
    site: str
    secret: str


def digest(secret: str) -> str:
    """What is kept of a secret of 256 random bits: its SHA-256 (no salt is needed for those)."""
    return hashlib.sha256(secret.encode()).hexdigest()


def join_token_issue(*, site: Site, actor: str, ttl_s: float, now: datetime) -> str:
    """A one-time token with which a site's agent enrols; earlier unused ones stop working."""
    secret = JOIN_PREFIX + secrets.token_urlsafe(32)
    with transaction.atomic():
        JoinToken.objects.filter(site=site, used_at__isnull=True).delete()
        JoinToken.objects.create(
            site=site,
            digest=digest(secret),
            expires_at=now + timedelta(seconds=ttl_s),
            created_at=now,
        )
        tell("site", site.pk, "join_token", now=now, actor=actor, why="a join token was issued")
    return secret


def agent_join(*, token: str, now: datetime) -> Enrolled:
    """Turn a join token into the agent's own credential. Raises NotAllowed; a token works once."""
    with transaction.atomic():
        found = JoinToken.objects.select_related("site").filter(digest=digest(token)).first()
        if found is None:
            raise NotAllowed("This join token is not known.", code="join_token_unknown")
        used = JoinToken.objects.filter(pk=found.pk, used_at__isnull=True).update(used_at=now)
        if not used:
            raise NotAllowed(
                "This join token was used already; ask an operator for a new one.",
                code="join_token_used",
            )
        if found.expires_at <= now or found.site.state == SiteState.RETIRED:
            raise NotAllowed(
                "This join token has expired; ask an operator for a new one.",
                code="join_token_expired",
            )
        AgentCredential.objects.filter(site=found.site, revoked_at__isnull=True).update(
            revoked_at=now
        )
        secret = _credential(found.site, now)
        tell("site", found.site_id, "join", now=now, actor=f"agent:{found.site.name}")
    return Enrolled(site_id=found.site_id, site=found.site.name, secret=secret)


def _credential(site: Site, now: datetime) -> str:
    secret = AGENT_PREFIX + secrets.token_urlsafe(32)
    AgentCredential.objects.create(
        site=site, digest=digest(secret), hint=secret[:10], created_at=now
    )
    return secret


def agent_authenticate(*, secret: str, now: datetime) -> Site:
    """The site whose agent holds this credential. Raises NotAllowed."""
    found = (
        AgentCredential.objects.select_related("site__venue", "site__member")
        .filter(digest=digest(secret), revoked_at__isnull=True)
        .filter(Q(valid_until__isnull=True) | Q(valid_until__gt=now))
        .first()
    )
    if found is None or found.site.state == SiteState.RETIRED:
        raise NotAllowed(
            "This agent credential is not valid: unknown, revoked or expired.",
            code="credential_invalid",
        )
    if found.last_used_at is None or now - found.last_used_at > timedelta(minutes=1):
        AgentCredential.objects.filter(pk=found.pk).update(last_used_at=now)
    return found.site


def credential_rotate(*, site: Site, now: datetime) -> str:
    """A new credential for the agent; the old one works for five minutes more."""
    with transaction.atomic():
        AgentCredential.objects.filter(site=site, revoked_at__isnull=True).filter(
            Q(valid_until__isnull=True) | Q(valid_until__gt=now + ROTATION_OVERLAP)
        ).update(valid_until=now + ROTATION_OVERLAP)
        secret = _credential(site, now)
        tell("site", site.pk, "rotate", now=now, actor=f"agent:{site.name}")
    return secret


def credentials_revoke(*, site: Site, actor: str, now: datetime) -> int:
    """Take every credential of a site back, at once. Returns how many there were."""
    with transaction.atomic():
        count = AgentCredential.objects.filter(site=site, revoked_at__isnull=True).update(
            revoked_at=now
        )
        tell("site", site.pk, "revoke_credentials", now=now, actor=actor)
    return count


def tenant_tokens_revoke(*, tenant: Tenant, actor: str, now: datetime) -> int:
    """Take every API token of a tenant back, at once. Returns how many there were."""
    with transaction.atomic():
        count, _ = get_token_model().objects.filter(user__tenant=tenant).delete()
        tell("tenant", tenant.pk, "revoke_tokens", now=now, actor=actor, why=f"{count} tokens")
    return int(count)


def operator_password_reset(*, user: User, actor: str, now: datetime) -> str:
    """A new random password for an operator who lost the old one. Shown once."""
    password = secrets.token_urlsafe(15)
    with transaction.atomic():
        user.set_password(password)
        user.save(update_fields=["password"])
        tell("user", user.pk, "password", now=now, actor=actor, why="reset")
    return password


def operator_token_issue(*, user: User, actor: str, days: int, now: datetime) -> str:
    """An API token for an operator's own programmes. Raises NotAllowed for anybody else."""
    if not (user.is_staff and user.is_active):
        raise NotAllowed("Only an operator has operators' tokens.", code="not_an_operator")
    _, secret = get_token_model().objects.create(user, expiry=timedelta(days=days))
    tell("user", user.pk, "token", now=now, actor=actor, why=f"valid {days} days")
    return str(secret)


def member_token_issue(*, member: Member, actor: str, days: int, now: datetime) -> str:
    """An API token that acts for a member: its sites' contracts, its statements, its consent."""
    user, _ = User.objects.get_or_create(
        username=f"member-{member.name}", defaults={"member": member}
    )
    if user.member_id != member.pk or user.tenant_id is not None:
        raise NotFound("There is no such member.")
    _, secret = get_token_model().objects.create(user, expiry=timedelta(days=days))
    tell("member", member.pk, "token", now=now, actor=actor, why=f"valid {days} days")
    return str(secret)


def tenant_token_issue(*, tenant: Tenant, actor: str, days: int, now: datetime) -> str:
    """An API token that acts for a tenant until it expires. Shown once, kept hashed by knox."""
    user, _ = User.objects.get_or_create(
        username=f"tenant-{tenant.name}", defaults={"tenant": tenant, "member": tenant.member}
    )
    if user.tenant_id != tenant.pk:
        raise NotFound("There is no such tenant.")
    _, secret = get_token_model().objects.create(user, expiry=timedelta(days=days))
    tell("tenant", tenant.pk, "token", now=now, actor=actor, why=f"valid {days} days")
    return str(secret)
