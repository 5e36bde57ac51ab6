"""Settings by purpose: `dev` (embedded, no server), `prod` (PostgreSQL and Redis), `test`."""
